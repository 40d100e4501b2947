//! The clock of a constant rate: a thread that says when each message is due, so that no timer of a runtime rounds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Options;

/// Shortest sleep between looks at the clock: what the kernel's timers resolve anyway.
const NAP_MIN: Duration = Duration::from_micros(50);
/// Longest, so that an end is noticed.
const NAP_MAX: Duration = Duration::from_millis(20);

/// Times when messages are due, one queue a publisher.
pub(super) type Due = UnboundedReceiver<Instant>;

/// A rate that is not running yet.
pub(super) struct Pacer {
    queues: Vec<UnboundedSender<Instant>>,
    interval: Duration,
}

/// A rate that runs until this is dropped.
pub(super) struct Pacing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// For the rate that was asked for, if any; the queues are for the publishers in their order.
    pub(super) fn new(options: &Options) -> (Option<Self>, Vec<Option<Due>>) {
        let Some(rate) = options.rate else {
            return (
                None,
                std::iter::repeat_with(|| None)
                    .take(options.publishers)
                    .collect(),
            );
        };
        let (queues, due): (Vec<_>, Vec<_>) = std::iter::repeat_with(unbounded_channel)
            .take(options.publishers)
            .unzip();
        let pacer = Self {
            queues,
            interval: Duration::from_secs_f64(1.0 / rate),
        };
        (Some(pacer), due.into_iter().map(Some).collect())
    }

    /// The first message is due now.
    pub(super) fn start(self) -> std::io::Result<Pacing> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name("pacer".into())
            .spawn(move || self.run(&stopped))?;
        Ok(Pacing {
            stop,
            thread: Some(thread),
        })
    }

    fn run(self, stop: &AtomicBool) {
        let mut due = Instant::now();
        let mut publishers = self.queues.iter().cycle();
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            while due <= now {
                // A publisher whose thread has failed takes nothing; the coordinator hears of it.
                let _ = publishers.next().map(|queue| queue.send(due));
                due += self.interval;
            }
            thread::sleep(
                due.saturating_duration_since(Instant::now())
                    .clamp(NAP_MIN, NAP_MAX),
            );
        }
    }
}

impl Drop for Pacing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
