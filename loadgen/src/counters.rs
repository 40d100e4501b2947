//! What a run has done so far: written by every task, read by the progress display and by whoever waits for a standstill.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often it is looked whether anything has moved.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Counts of a run. Each only rises.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages that were acknowledged.
    pub published: AtomicU64,
    /// Message events that readers got.
    pub delivered: AtomicU64,
    /// Connections that were opened.
    pub connections: AtomicU64,
    /// Connections that were lost and came back.
    pub reconnects: AtomicU64,
    /// Publishes that were refused and sent again.
    pub refused: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// See [`Counters::published`].
    pub published: u64,
    /// See [`Counters::delivered`].
    pub delivered: u64,
    /// See [`Counters::connections`].
    pub connections: u64,
    /// See [`Counters::reconnects`].
    pub reconnects: u64,
    /// See [`Counters::refused`].
    pub refused: u64,
}

impl Counters {
    /// One more of a count, or several.
    pub fn add(count: &AtomicU64, more: u64) {
        count.fetch_add(more, Ordering::Relaxed);
    }

    /// Ends when none of them has moved for so long.
    pub async fn standstill(&self, patience: Duration) {
        let mut before = self.now();
        let mut since = Instant::now();
        while since.elapsed() < patience {
            tokio::time::sleep(LOOK_EVERY.min(patience)).await;
            let now = self.now();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
    }

    /// All of them now.
    #[must_use]
    pub fn now(&self) -> Counted {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counted {
            published: read(&self.published),
            delivered: read(&self.delivered),
            connections: read(&self.connections),
            reconnects: read(&self.reconnects),
            refused: read(&self.refused),
        }
    }
}
