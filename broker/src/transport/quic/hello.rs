//! Connections whose clients have not said their ClientHello to its end. The end of it leads to a key exchange and a signature,
//! 0.3 ms and more, and quinn does that in the connection's own task, as soon as it comes: a client is accepted at the beginning, and
//! thousands may hold the end back and say it at once.

use std::{
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::sync::oneshot;

use super::runtime::Driver;
use crate::shard::engine::Engine;

/// Held for as long as the end of a ClientHello is waited for.
pub(super) struct Unheard {
    _until: oneshot::Sender<Infallible>,
}

/// Drives a connection that was just accepted: once, and from then on in turns, one a round for all of them together, until the
/// ClientHello is there.
pub(super) fn drive(engine: &Rc<Engine>, driver: Driver) -> Unheard {
    let (until, heard) = oneshot::channel();
    let begun = Begun {
        heard,
        turn: Some(Box::pin(std::future::ready(()))),
        engine: Rc::clone(engine),
    };
    tokio::task::spawn_local(Driven {
        driver,
        begun: Some(Box::new(begun)),
    });
    Unheard { _until: until }
}

/// See [`drive`].
struct Driven {
    driver: Driver,
    /// Until the ClientHello is there.
    begun: Option<Box<Begun>>,
}

struct Begun {
    /// Resolves when it is.
    heard: oneshot::Receiver<Infallible>,
    /// That was asked for and not had.
    turn: Option<Pin<Box<dyn Future<Output = ()>>>>,
    engine: Rc<Engine>,
}

impl Begun {
    /// Ready when the connection has a turn, or needs none any more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        if Pin::new(&mut self.heard).poll(cx).is_ready() {
            return Poll::Ready(Turn::NotNeeded);
        }
        let turn = self.turn.get_or_insert_with(|| {
            let engine = Rc::clone(&self.engine);
            Box::pin(async move { engine.hello_turn().await })
        });
        ready!(turn.as_mut().poll(cx));
        self.turn = None;
        Poll::Ready(Turn::Had)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Had,
    NotNeeded,
}

impl Future for Driven {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(begun) = &mut self.begun
            && ready!(begun.poll(cx)) == Turn::NotNeeded
        {
            self.begun = None;
        }
        self.driver.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
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
        fn driver(self: Arc<Self>) -> Driver {
            Box::pin(poll_fn(move |cx| {
                self.driven.fetch_add(1, Relaxed);
                *self.waker.lock().unwrap() = Some(cx.waker().clone());
                Poll::Pending
            }))
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
    async fn what_may_be_the_end_of_a_hello_waits_for_a_round_with_time_for_it() {
        LocalSet::new()
            .run_until(async {
                let engine = engine();
                while engine.turns().hello().now_or_never().is_some() {}
                let [one, other] = [(); 2].map(|()| Arc::new(Connection::default()));
                let unheard = drive(&engine, Arc::clone(&one).driver());
                let _unheard = drive(&engine, Arc::clone(&other).driver());
                assert_eq!((one.driven().await, other.driven().await), (1, 1));
                assert_eq!((one.hear().await, other.hear().await), (1, 1));
                engine.turns().call();
                assert_eq!((one.driven().await, other.driven().await), (2, 1));
                assert_eq!(one.hear().await, 2);
                drop(unheard);
                assert_eq!(one.driven().await, 3, "it waited for its hello only");
                assert_eq!(one.hear().await, 4);
                engine.turns().call();
                assert_eq!(other.driven().await, 2);
            })
            .await;
    }
}
