//! Deadlines of connections: one entry each in a heap. A frame that moves a deadline back touches nothing here; the entry
//! is judged, and pushed again, when it comes up.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::Edge;
use crate::{
    effects::Effects,
    io::{ConnId, Now},
};

/// Sessions that are ended at once: some 0.5 ms.
pub(super) const ENDED_AT_ONCE: usize = 128;
/// How long the next are away, for each of them, microseconds: as for signals to crowds, so that the others have the most of a
/// shard's time.
pub(super) const ENDED_US: u64 = 20;
/// Entries that are looked at for one session that is ended, and take as long.
const LOOKS_PER_END: usize = 16;

/// Entries by time, monotonic microseconds. Those of connections that are gone, or have an earlier one, are passed over.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, ConnId)>>,
    /// Not before that: others were ended just now.
    not_before_us: u64,
}

impl Timers {
    /// Adds an entry.
    pub(super) fn push(&mut self, at_us: u64, conn: ConnId) {
        self.heap.push(Reverse((at_us, conn)));
    }

    /// When the first comes up.
    pub(super) fn next_us(&self) -> Option<u64> {
        let Reverse((at_us, _)) = self.heap.peek()?;
        Some(self.not_before_us.max(*at_us))
    }

    /// Takes one that has come up.
    fn pop_due(&mut self, now_us: u64) -> Option<(u64, ConnId)> {
        self.next_us().filter(|at_us| *at_us <= now_us)?;
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Entries in memory.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}

impl Edge {
    /// Ends the sessions whose time is over, so many at a time: tokens of thousands may end in the same second.
    pub(super) fn end_overdue(&mut self, now: Now, fx: &mut Effects) {
        let (mut ended, mut looks) = (0, 0);
        while ended + looks / LOOKS_PER_END < ENDED_AT_ONCE {
            let Some((at_us, conn)) = self.timers.pop_due(now.mono_us) else {
                return;
            };
            if self.timed(now, at_us, conn, fx) {
                ended += 1;
            } else {
                looks += 1;
            }
        }
        self.timers.not_before_us = now.mono_us + ENDED_AT_ONCE as u64 * ENDED_US;
    }
}
