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
    /// The messages among these by the phases that they were due in.
    due: Vec<Due>,
}

/// Messages that were due in one phase, whenever they came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Due {
    /// Place of the phase.
    phase: usize,
    /// Messages that were acknowledged.
    pub(super) published: u64,
    /// Message events that readers got, all together.
    pub(super) delivered: u64,
    /// From when a message was due to its acknowledgement.
    pub(super) acks: Latencies,
    /// From when a message was due to a reader.
    pub(super) deliveries: Latencies,
}

impl Due {
    /// Adds those of another phase, or what came elsewhere.
    pub(super) fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.delivered += other.delivered;
        self.acks.add(&other.acks);
        self.deliveries.add(&other.deliveries);
    }
}

impl Interval {
    /// A message of this phase was acknowledged.
    #[inline]
    pub(super) fn acknowledge(&mut self, phase: usize, latency_us: u64) {
        self.published += 1;
        let due = self.of(phase);
        due.published += 1;
        due.acks.record_us(latency_us);
    }

    /// A reader got a message event of this phase; without a latency when it does not tell when it was due.
    #[inline]
    pub(super) fn deliver(&mut self, phase: usize, latency_us: Option<u64>) {
        self.delivered += 1;
        let due = self.of(phase);
        due.delivered += 1;
        if let Some(latency_us) = latency_us {
            due.deliveries.record_us(latency_us);
        }
    }

    /// The messages of a phase; most often there is one phase, and sometimes the end of another.
    #[inline]
    fn of(&mut self, phase: usize) -> &mut Due {
        let found = self.due.iter().position(|due| due.phase == phase);
        let place = found.unwrap_or_else(|| {
            self.due.push(Due {
                phase,
                ..Due::default()
            });
            self.due.len() - 1
        });
        &mut self.due[place]
    }

    /// Messages that were due in this phase.
    pub(super) fn due_in(&self, phase: usize) -> Due {
        let found = self.due.iter().find(|due| due.phase == phase);
        found.cloned().unwrap_or_default()
    }

    /// All of its messages, whatever phase they were due in.
    pub(super) fn messages(&self) -> Due {
        let mut all = Due::default();
        self.due.iter().for_each(|due| all.add(due));
        all
    }

    /// Adds what happened elsewhere, or later.
    pub(crate) fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.delivered += other.delivered;
        self.refused += other.refused;
        self.failed += other.failed;
        self.reconnects += other.reconnects;
        self.connected += other.connected;
        for due in &other.due {
            self.of(due.phase).add(due);
        }
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
