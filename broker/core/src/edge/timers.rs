//! Deadlines of connections: one entry each in a heap. A frame that moves a deadline back touches nothing here; the entry
//! is judged, and pushed again, when it comes up.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::io::ConnId;

/// Entries by time, monotonic microseconds. Those of connections that are gone, or have an earlier one, are passed over.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, ConnId)>>,
}

impl Timers {
    /// Adds an entry.
    pub(super) fn push(&mut self, at_us: u64, conn: ConnId) {
        self.heap.push(Reverse((at_us, conn)));
    }

    /// When the first comes up.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_us, _))| *at_us)
    }

    /// Takes one that has come up.
    pub(super) fn pop_due(&mut self, now_us: u64) -> Option<(u64, ConnId)> {
        self.next_us().filter(|at_us| *at_us <= now_us)?;
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Entries in memory.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}
