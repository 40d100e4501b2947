//! Readers who fell behind together, because events were left out on their way: thousands at once where very many follow. They
//! read on some at a time, so that nobody waits while all of them ask storage.

use ahash::RandomState;
use hashlink::LinkedHashSet;

use super::Edge;
use crate::{
    effects::Effects,
    io::{ConnId, Now},
};

/// Connections that read on at once.
const AT_ONCE: usize = 128;
/// How long the next ones wait behind them, for each, microseconds: some four times as long as asking for a read and taking it in
/// takes, so that the others have the most of a shard's time.
const EACH_US: u64 = 40;

/// Connections with subscriptions that fell behind, and have not been let read on since.
#[derive(Debug)]
pub(super) struct Lagging {
    /// Those that fell behind first first.
    waiting: LinkedHashSet<ConnId, RandomState>,
    /// Until then the shard is taken to be busy with those that read on, monotonic microseconds.
    busy_until_us: u64,
}

impl Lagging {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            waiting: LinkedHashSet::with_hasher(hasher),
            busy_until_us: 0,
        }
    }

    /// Lets a connection read on once it is its turn.
    pub(super) fn add(&mut self, conn: ConnId) {
        if !self.waiting.contains(&conn) {
            self.waiting.insert(conn);
        }
    }

    /// When [`Edge::read_on`] has something to do, monotonic microseconds.
    pub(super) fn due_us(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then_some(self.busy_until_us)
    }

    /// The next that reads on now; `None`: there is none, or no time.
    fn next(&mut self, now: Now) -> Option<ConnId> {
        if self.busy_until_us >= now.mono_us + AT_ONCE as u64 * EACH_US {
            return None;
        }
        let conn = self.waiting.pop_front()?;
        self.busy_until_us = self.busy_until_us.max(now.mono_us) + EACH_US;
        if self.waiting.is_empty() {
            // The memory of a time in which very many waited.
            self.waiting.shrink_to_fit();
        }
        Some(conn)
    }
}

impl Edge {
    /// Lets the next ones read on, as many as there is time for.
    pub(super) fn read_on(&mut self, now: Now, fx: &mut Effects) {
        while let Some(conn) = self.lagging.next(now) {
            self.pump(conn, fx);
        }
    }
}
