//! Clients that let much be queued and take nothing of it, as long as others have to do with less for it. Whoever only pings is
//! heard of, and is still no reader.

use std::collections::VecDeque;

use rialto_protocol::error::ErrorCode;

use super::{
    Edge,
    conns::UNREAD_LOOKS,
    timers::{ENDED_AT_ONCE, ENDED_US},
};
use crate::{
    effects::Effects,
    io::{ConnId, Now},
};

/// Who does not read, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// When it is looked next; `None`: so little is held that it does not matter.
    look_us: Option<u64>,
    /// Connections that are to be closed.
    found: VecDeque<ConnId>,
    /// When the next of them are, monotonic microseconds.
    close_us: u64,
}

impl Unread {
    /// When [`Edge::close_unread`] has something to do, monotonic microseconds.
    pub(super) fn due_us(&self) -> Option<u64> {
        let close_us = (!self.found.is_empty()).then_some(self.close_us);
        self.look_us.into_iter().chain(close_us).min()
    }
}

impl Edge {
    /// Sees to it that [`Edge::close_unread`] looks, from when on so much is held that it matters.
    pub(super) fn watch_unread(&mut self, now: Now) {
        if self.unread.look_us.is_none() && self.conns.are_filling() {
            self.unread.look_us = Some(self.next_look_us(now));
        }
    }

    fn next_look_us(&self, now: Now) -> u64 {
        let patience_us = u64::from(self.config.unread_timeout_ms) * 1_000;
        now.mono_us + patience_us / u64::from(UNREAD_LOOKS - 1)
    }

    /// Looks, if it is time, and closes those who have not read for too long, some at a time. What was queued for them they find in
    /// the log.
    pub(super) fn close_unread(&mut self, now: Now, fx: &mut Effects) {
        let is_due = |due_us: &mut u64| *due_us <= now.mono_us;
        if self.unread.look_us.take_if(is_due).is_some() {
            self.unread.found = self.conns.look_for_unread().into();
            self.watch_unread(now);
        }
        if self.unread.close_us > now.mono_us {
            return;
        }
        let count = self.unread.found.len().min(ENDED_AT_ONCE);
        for _ in 0..count {
            let Some(conn) = self.unread.found.pop_front() else {
                return;
            };
            // One that has left meanwhile, or reads after all, is passed over.
            if self.conns.is_unread(conn) {
                fx.counters.shed("queue", "unread");
                self.fail(now, conn, ErrorCode::TooManyConnections, fx);
            }
        }
        self.unread.close_us = now.mono_us + count as u64 * ENDED_US;
    }
}
