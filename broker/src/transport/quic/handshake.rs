//! Connections in the middle of their handshakes. quinn deals with what comes for a connection in a task of its own, as soon as it
//! comes, and here it may lead to a key exchange and a signature, 0.3 ms and more: a client is accepted at its first packet, and
//! thousands may hold the others back and send them at once.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use super::runtime::Driver;
use crate::shard::{bell::Bell, engine::Engine};

/// Handshakes of a shard that may wait for their turn. What comes for them meanwhile lies with quinn, which does not count it; that
/// of so many takes a few hundred rounds.
const WAITING_MAX: usize = 512;

/// Drives a connection that was just accepted: once, and then in turns, until its handshake is over.
pub(super) fn drive(engine: &Rc<Engine>, driver: Driver) -> UnderWay {
    let handshake = Rc::new(Handshake::default());
    tokio::task::spawn_local(Driven {
        driver,
        handshake: Some(Box::new(Turns {
            handshake: Rc::clone(&handshake),
            next: Next::First,
            engine: Rc::clone(engine),
        })),
    });
    UnderWay(handshake)
}

/// A handshake, until this is dropped.
pub(super) struct UnderWay(Rc<Handshake>);

impl UnderWay {
    /// Resolves when too many others wait.
    pub(super) async fn given_up(&self) {
        poll_fn(|cx| {
            self.0.waiting.listen(cx);
            if self.0.is_given_up.get() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.is_over.set(true);
        self.0.driven.ring();
    }
}

/// What those who wait for a handshake and the task of its connection tell each other.
#[derive(Default)]
struct Handshake {
    is_over: Cell<bool>,
    is_given_up: Cell<bool>,
    /// Has the connection driven.
    driven: Bell,
    /// Wakes those who wait.
    waiting: Bell,
}

/// See [`drive`].
struct Driven {
    driver: Driver,
    /// Until it is over.
    handshake: Option<Box<Turns>>,
}

/// The turns of one connection.
struct Turns {
    handshake: Rc<Handshake>,
    next: Next,
    engine: Rc<Engine>,
}

/// The next one.
enum Next {
    /// It has had it when it was accepted.
    First,
    NotAsked,
    Asked(Pin<Box<dyn Future<Output = ()>>>),
}

/// Why a connection is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    First,
    /// It was asked for.
    Had,
    /// None is needed any more.
    Over,
}

impl Turns {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        self.handshake.driven.listen(cx);
        if self.handshake.is_over.get() {
            return Poll::Ready(Turn::Over);
        }
        if self.handshake.is_given_up.get() {
            return Poll::Pending;
        }
        if let Next::Asked(turn) = &mut self.next {
            ready!(turn.as_mut().poll(cx));
            self.next = Next::NotAsked;
            return Poll::Ready(Turn::Had);
        }
        if let Next::First = std::mem::replace(&mut self.next, Next::NotAsked) {
            return Poll::Ready(Turn::First);
        }
        let engine = Rc::clone(&self.engine);
        let mut turn = Box::pin(async move { engine.quic_handshake_turn().await });
        if turn.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Turn::Had);
        }
        if self.engine.turns().quic_handshakes().waiting() <= WAITING_MAX {
            self.next = Next::Asked(turn);
        } else {
            // It is not driven any more before it is closed, and then without a key exchange.
            self.handshake.is_given_up.set(true);
            self.handshake.waiting.ring();
        }
        Poll::Pending
    }
}

impl Future for Driven {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { driver, handshake } = &mut *self;
        if let Some(turns) = handshake {
            match ready!(turns.poll(cx)) {
                Turn::First => {}
                Turn::Had => {
                    let _working = turns.engine.turns().quic_handshakes().working();
                    return driver.as_mut().poll(cx);
                }
                Turn::Over => *handshake = None,
            }
        }
        driver.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::Waker,
    };

    use futures_util::FutureExt as _;
    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::shard::engine::tests::engine;

    /// How often a connection was driven, and how to have it driven again.
    #[derive(Default)]
    struct Connection {
        driven: AtomicUsize,
        waker: Mutex<Option<Waker>>,
    }

    impl Connection {
        fn begin(engine: &Rc<Engine>) -> (Arc<Self>, UnderWay) {
            let connection = Arc::new(Self::default());
            let this = Arc::clone(&connection);
            let driver = Box::pin(poll_fn(move |cx| {
                this.driven.fetch_add(1, Relaxed);
                *this.waker.lock().unwrap() = Some(cx.waker().clone());
                Poll::Pending
            }));
            (connection, drive(engine, driver))
        }

        /// Has something come for it; how often it was driven by then.
        async fn hear(&self) -> usize {
            let waker = self.waker.lock().unwrap().clone();
            waker.unwrap().wake();
            self.driven().await
        }

        async fn driven(&self) -> usize {
            for _ in 0..10 {
                yield_now().await;
            }
            self.driven.load(Relaxed)
        }
    }

    #[tokio::test]
    async fn what_comes_in_the_middle_of_a_handshake_waits_for_time() {
        LocalSet::new()
            .run_until(async {
                let engine = engine();
                engine.turns().quic_handshakes().use_up();
                let (one, under_way) = Connection::begin(&engine);
                let (other, _under_way) = Connection::begin(&engine);
                assert_eq!((one.driven().await, other.driven().await), (1, 1));
                assert_eq!((one.hear().await, other.hear().await), (1, 1));
                engine.turns().call();
                assert_eq!((one.driven().await, other.driven().await), (2, 2));
                engine.turns().quic_handshakes().use_up();
                assert_eq!((one.hear().await, other.hear().await), (2, 2));
                drop(under_way);
                assert_eq!(one.driven().await, 3, "its handshake is over");
                assert_eq!((one.hear().await, other.hear().await), (4, 2));
            })
            .await;
    }

    #[tokio::test]
    async fn a_handshake_behind_too_many_is_given_up_and_driven_again_once_that_is_known() {
        LocalSet::new()
            .run_until(async {
                let engine = engine();
                engine.turns().quic_handshakes().use_up();
                let mut waiting = Vec::new();
                for _ in 0..WAITING_MAX {
                    let (connection, under_way) = Connection::begin(&engine);
                    connection.driven().await;
                    connection.hear().await;
                    assert!(under_way.given_up().now_or_never().is_none());
                    waiting.push((connection, under_way));
                }
                let (late, under_way) = Connection::begin(&engine);
                late.driven().await;
                assert_eq!(late.hear().await, 1);
                assert!(under_way.given_up().now_or_never().is_some());
                engine.turns().call();
                assert_eq!(waiting[0].0.driven().await, 2);
                assert_eq!(late.hear().await, 1, "it makes no key exchange");
                drop(under_way);
                assert_eq!(late.driven().await, 2);
            })
            .await;
    }
}
