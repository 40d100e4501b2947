//! Wakes the publishers of a thread when their next message is due. A runtime's own timers round to a millisecond, which
//! would be counted as the broker's latency.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::OwnedFd;
use std::task::Waker;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::clock::Clock;

/// Least time between two wake-ups: beyond 5,000 a second what is due leaves together, up to this much later, which counts as
/// latency. Each wake-up takes a processor away from somebody, a broker on the same machine included.
const GAP_US: u64 = 200;
/// Not set.
const NEVER: u64 = u64::MAX;

/// One timer for all publishers of a thread.
pub(super) struct Ticker {
    timer: AsyncFd<OwnedFd>,
    clock: Clock,
    armed_us: Cell<u64>,
    waiting: RefCell<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Who is to be woken when; an entry that a place has moved away from is passed over.
    queue: BinaryHeap<Reverse<(u64, usize)>>,
    places: Vec<(u64, Option<Waker>)>,
}

impl Ticker {
    /// With room for so many publishers; within a runtime.
    pub(super) fn new(clock: Clock, places: usize) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let waiting = Waiting {
            queue: BinaryHeap::new(),
            places: vec![(NEVER, None); places],
        };
        // Deprecated for what may change its descriptor under way; an OwnedFd never does.
        #[allow(deprecated)]
        let timer = AsyncFd::new(timer)?;
        Ok(Self {
            timer,
            clock,
            armed_us: Cell::new(NEVER),
            waiting: RefCell::new(waiting),
        })
    }

    /// Wakes this place at this time, and no more at an earlier one; in any case when all are woken.
    pub(super) fn wake(&self, place: usize, at_us: Option<u64>, waker: &Waker) -> io::Result<()> {
        let mut waiting = self.waiting.borrow_mut();
        let (planned_us, planned) = &mut waiting.places[place];
        if !planned
            .as_ref()
            .is_some_and(|planned| planned.will_wake(waker))
        {
            *planned = Some(waker.clone());
        }
        let Some(at_us) = at_us else { return Ok(()) };
        if std::mem::replace(planned_us, at_us) != at_us {
            waiting.queue.push(Reverse((at_us, place)));
        }
        if at_us < self.armed_us.get() {
            self.arm(at_us)?;
        }
        Ok(())
    }

    fn arm(&self, at_us: u64) -> io::Result<()> {
        let wait = self
            .clock
            .until(at_us)
            .max(std::time::Duration::from_micros(GAP_US));
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        self.armed_us.set(at_us);
        Ok(())
    }

    /// Wakes whose time has come, for as long as this is polled.
    pub(super) async fn run(&self) -> io::Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0; 8];
            let read = ready.try_io(|timer| {
                rustix::io::read(timer.get_ref(), &mut expirations).map_err(io::Error::from)
            });
            match read {
                Ok(read) => drop(read?),
                Err(_not_yet) => continue,
            }
            self.armed_us.set(NEVER);
            if let Some(next_us) = self.wake_due() {
                self.arm(next_us)?;
            }
        }
    }

    /// Wakes everybody who waits.
    pub(super) fn wake_all(&self) {
        let waiting = self.waiting.borrow();
        let wakers = waiting
            .places
            .iter()
            .filter_map(|(_, waker)| waker.as_ref());
        wakers.for_each(Waker::wake_by_ref);
    }

    /// Wakes everybody whose time has come; the time of the next one.
    fn wake_due(&self) -> Option<u64> {
        let now_us = self.clock.now_us();
        let mut waiting = self.waiting.borrow_mut();
        while let Some(Reverse((at_us, place))) = waiting.queue.peek().copied() {
            if at_us > now_us {
                return Some(at_us);
            }
            waiting.queue.pop();
            let (planned_us, waker) = &mut waiting.places[place];
            if *planned_us == at_us {
                *planned_us = NEVER;
                if let Some(waker) = waker {
                    waker.wake_by_ref();
                }
            }
        }
        None
    }
}
