//! What happened in a stretch of time: counts and latencies. Threads fill the current one, the coordinator takes it away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::latency::Latencies;

/// Counts and latencies of a stretch of time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Interval {
    /// Messages that were acknowledged.
    pub(crate) published: u64,
    /// Message events that readers got, all together.
    pub(crate) delivered: u64,
    /// Messages that were refused for now, and sent again.
    pub(crate) refused: u64,
    /// Messages that were refused for good, or never answered, and connections that were lost for good.
    pub(crate) failed: u64,
    /// Connections that were lost and came back.
    pub(crate) reconnects: u64,
    /// Connections that were opened.
    pub(crate) connected: u64,
    /// From when a message was due to its acknowledgement.
    pub(crate) acks: Latencies,
    /// From when a message was due to a reader.
    pub(crate) deliveries: Latencies,
}

impl Interval {
    /// Adds what happened elsewhere, or later.
    pub(crate) fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.delivered += other.delivered;
        self.refused += other.refused;
        self.failed += other.failed;
        self.reconnects += other.reconnects;
        self.connected += other.connected;
        self.acks.add(&other.acks);
        self.deliveries.add(&other.deliveries);
    }
}

/// The current interval of a thread. Its lock is taken once for a batch, and by somebody else once a second.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(Arc<Mutex<Interval>>);

impl Tally {
    /// The interval, to be filled.
    #[inline]
    pub(super) fn current(&self) -> MutexGuard<'_, Interval> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the interval away and begins another.
    pub(super) fn take(&self) -> Interval {
        std::mem::take(&mut *self.current())
    }
}
