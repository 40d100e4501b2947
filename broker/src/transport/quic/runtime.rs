//! What quinn runs on: tokio, where an endpoint takes in what has arrived before others have their turn, and connections are driven
//! by whoever accepted them.
//!
//! quinn lets an endpoint receive for 50 µs and has it polled again. On a busy shard that is once in a round of some 1 ms: what
//! arrives faster waits in the socket, everybody's behind that of one, until the kernel drops it.
//!
//! What connections tell their endpoint waits in a queue of quinn's without a bound, out of which tokio lets a task take 128 at a
//! time, and a datagram may hold seven hundred frames of two bytes that are told each (RETIRE_CONNECTION_ID). So an endpoint takes
//! in all that it was told before it receives more.

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::task::coop;

use super::udp::UdpSocket;

/// How often an endpoint that has more to receive is polled before others have their turn, and how long.
const POLLS_MAX: usize = 8;
const POLLED_MAX: Duration = Duration::from_micros(400);
/// First packets of clients that it receives in that time: each costs some 10 µs, for the keys that tell whether it is one.
pub(super) const FIRST_PACKETS_MAX: usize = 32;

pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Of one endpoint.
#[derive(Default)]
pub(super) struct OfEndpoint {
    /// The endpoint's own driver was spawned: what follows are those of its connections.
    has_endpoint: AtomicBool,
    /// That of the connection that was accepted last.
    accepted: Mutex<Option<Driver>>,
    intake: Arc<Intake>,
}

/// What an endpoint may receive now: its socket goes by it.
#[derive(Debug, Default)]
pub(super) struct Intake {
    is_open: AtomicBool,
    /// First packets that there is time for.
    first_packets: AtomicUsize,
}

impl Intake {
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Whether there is time for one more first packet.
    pub(super) fn take_first_packet(&self) -> bool {
        let left = self.first_packets.load(Ordering::Relaxed);
        self.first_packets
            .store(left.saturating_sub(1), Ordering::Relaxed);
        left > 0
    }

    /// Nothing is received.
    fn shut(&self) {
        self.is_open.store(false, Ordering::Relaxed);
    }

    /// As much is received as a round has time for.
    pub(super) fn open(&self) {
        self.first_packets
            .store(FIRST_PACKETS_MAX, Ordering::Relaxed);
        self.is_open.store(true, Ordering::Relaxed);
    }
}

impl OfEndpoint {
    pub(super) fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

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
            let intake = Arc::clone(&self.intake);
            TokioRuntime.spawn(Box::pin(Eager { driver, intake }));
        }
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(UdpSocket::new(socket)?))
    }
}

/// The endpoint, polled again at once when it asks for that, a few times; at first without receiving anything.
struct Eager {
    driver: Driver,
    intake: Arc<Intake>,
}

/// How the endpoint was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Ended,
    /// It has more to do.
    Asking,
    Done,
}

impl Eager {
    /// Polls it as long as it asks for that and there is time, so often at most.
    fn drive(&mut self, again: &Arc<Again>, until: Instant, polls_max: usize) -> Left {
        let waker = Waker::from(Arc::clone(again));
        for _ in 0..polls_max {
            again.asked.store(false, Ordering::Relaxed);
            // tokio would stop it in the middle, and it would not ask.
            let driver = pin!(coop::unconstrained(self.driver.as_mut()));
            if driver.poll(&mut Context::from_waker(&waker)).is_ready() {
                return Left::Ended;
            }
            if !again.asked.load(Ordering::Relaxed) {
                return Left::Done;
            }
            if Instant::now() > until {
                break;
            }
        }
        Left::Asking
    }
}

impl Future for Eager {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let again = Arc::new(Again {
            asked: AtomicBool::new(false),
            task: cx.waker().clone(),
        });
        let until = Instant::now() + POLLED_MAX;
        self.intake.shut();
        match self.drive(&again, until, usize::MAX) {
            Left::Ended => return Poll::Ready(()),
            Left::Asking => return Poll::Pending,
            Left::Done => self.intake.open(),
        }
        match self.drive(&again, until, POLLS_MAX) {
            Left::Ended => Poll::Ready(()),
            Left::Asking | Left::Done => Poll::Pending,
        }
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
    use std::future::poll_fn;

    use tokio::sync::mpsc;

    use super::*;

    /// Counts how often the task is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often a driver is polled that asks for it so many times while it may receive, until it lets others have their turn; whether
    /// it is polled again after that.
    fn polls(asks: usize) -> (usize, bool) {
        let (polled, woken) = (Arc::new(AtomicUsize::new(0)), Arc::new(Woken::default()));
        let (counted, intake) = (Arc::clone(&polled), Arc::new(Intake::default()));
        let its = Arc::clone(&intake);
        let driver = poll_fn(move |cx| {
            if its.is_open() && counted.fetch_add(1, Ordering::Relaxed) < asks {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        });
        let driver = Box::pin(driver);
        let mut driver = Eager { driver, intake };
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
        let driver = Box::pin(poll_fn(move |cx| {
            *keeper.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        }));
        let intake = Arc::default();
        let mut driver = Eager { driver, intake };
        let waker = Waker::from(Arc::clone(&woken));
        let poll = Pin::new(&mut driver).poll(&mut Context::from_waker(&waker));
        assert!(poll.is_pending() && woken.0.load(Ordering::Relaxed) == 0);
        kept.lock().unwrap().take().unwrap().wake();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn an_endpoint_takes_in_all_that_its_connections_tell_before_it_receives_more() {
        const TOLD: usize = 10_000;
        /// As quinn does in one poll.
        const TAKEN: usize = 160;
        let (teller, mut told) = mpsc::unbounded_channel();
        let (intake, received) = (
            Arc::new(Intake::default()),
            Arc::new(AtomicBool::new(false)),
        );
        let (its, has_received) = (Arc::clone(&intake), Arc::clone(&received));
        let driver = poll_fn(move |cx| {
            if its.is_open() {
                assert_eq!(told.len(), 0);
                has_received.store(true, Ordering::Relaxed);
            }
            for _ in 0..TAKEN {
                if told.poll_recv(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        let driver = Box::pin(driver);
        let mut driver = Eager { driver, intake };
        for _ in 0..2 {
            for _ in 0..TOLD {
                teller.send(()).unwrap();
            }
            poll_fn(|cx| {
                assert!(Pin::new(&mut driver).poll(cx).is_pending());
                if received.swap(false, Ordering::Relaxed) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
    }
}
