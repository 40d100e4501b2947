//! What quinn runs on: tokio, where an endpoint takes in what has arrived before others have their turn, and connections are driven
//! by whoever accepted them.
//!
//! quinn lets an endpoint receive for 50 µs and has it polled again. On a busy shard that is once in a round of some 1 ms: what
//! arrives faster waits in the socket, everybody's behind that of one, until the kernel drops it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

/// How often an endpoint that has more to receive is polled before others have their turn, and how long.
const POLLS_MAX: usize = 8;
const POLLED_MAX: Duration = Duration::from_micros(400);

pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Of one endpoint.
#[derive(Default)]
pub(super) struct OfEndpoint {
    /// The endpoint's own driver was spawned: what follows are those of its connections.
    has_endpoint: AtomicBool,
    /// That of the connection that was accepted last.
    accepted: Mutex<Option<Driver>>,
}

impl OfEndpoint {
    /// What drives the connection that was just accepted.
    pub(super) fn take_driver(&self) -> Option<Driver> {
        self.accepted().take()
    }

    fn accepted(&self) -> MutexGuard<'_, Option<Driver>> {
        // Nothing panics while it is held.
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for OfEndpoint {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("OfEndpoint").finish_non_exhaustive()
    }
}

impl Runtime for OfEndpoint {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, driver: Driver) {
        if self.has_endpoint.swap(true, Ordering::Relaxed) {
            let untaken = self.accepted().replace(driver);
            debug_assert!(untaken.is_none(), "nobody drives a connection");
        } else {
            TokioRuntime.spawn(Box::pin(Eager(driver)));
        }
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }
}

/// Polled again at once when it asks for that, a few times.
struct Eager(Driver);

impl Future for Eager {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let again = Arc::new(Again {
            asked: AtomicBool::new(false),
            task: cx.waker().clone(),
        });
        let waker = Waker::from(Arc::clone(&again));
        let begun = Instant::now();
        for _ in 0..POLLS_MAX {
            again.asked.store(false, Ordering::Relaxed);
            if self
                .0
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
            {
                return Poll::Ready(());
            }
            if !again.asked.load(Ordering::Relaxed) || begun.elapsed() > POLLED_MAX {
                break;
            }
        }
        Poll::Pending
    }
}

/// Notes that it was woken, and wakes the task.
struct Again {
    asked: AtomicBool,
    task: Waker,
}

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.asked.store(true, Ordering::Relaxed);
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize};

    use super::*;

    /// Counts how often the task is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often a driver is polled that asks for it so many times, until it lets others have their turn; whether it is polled again
    /// after that.
    fn polls(asks: usize) -> (usize, bool) {
        let (polled, woken) = (Arc::new(AtomicUsize::new(0)), Arc::new(Woken::default()));
        let counted = Arc::clone(&polled);
        let mut driver = Eager(Box::pin(poll_fn(move |cx| {
            if counted.fetch_add(1, Ordering::Relaxed) < asks {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })));
        let waker = Waker::from(Arc::clone(&woken));
        let poll = Pin::new(&mut driver).poll(&mut Context::from_waker(&waker));
        assert!(poll.is_pending());
        (
            polled.load(Ordering::Relaxed),
            woken.0.load(Ordering::Relaxed) > 0,
        )
    }

    #[test]
    fn an_endpoint_with_more_to_receive_is_polled_again_but_not_for_ever() {
        assert_eq!(polls(0), (1, false));
        let (count, again) = polls(1_000);
        assert!((1..=POLLS_MAX).contains(&count) && again, "{count}");
    }

    #[test]
    fn an_endpoint_that_is_woken_later_is_polled() {
        let woken = Arc::new(Woken::default());
        let kept = Arc::new(Mutex::new(None));
        let keeper = Arc::clone(&kept);
        let mut driver = Eager(Box::pin(poll_fn(move |cx| {
            *keeper.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        })));
        let waker = Waker::from(Arc::clone(&woken));
        let poll = Pin::new(&mut driver).poll(&mut Context::from_waker(&waker));
        assert!(poll.is_pending() && woken.0.load(Ordering::Relaxed) == 0);
        kept.lock().unwrap().take().unwrap().wake();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }
}
