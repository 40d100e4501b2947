//! Clients that let much be queued and take nothing of it, as long as others have to do with less for it. Whoever only pings is
//! heard of, and is still no reader.

use rialto_protocol::error::ErrorCode;

use super::{Edge, conns::UNREAD_LOOKS};
use crate::{effects::Effects, io::Now};

impl Edge {
    /// Sees to it that [`Edge::close_unread`] looks, from when on so much is held that it matters.
    pub(super) fn watch_unread(&mut self, now: Now) {
        if self.look_us.is_none() && self.conns.are_filling() {
            self.look_us = Some(self.next_look_us(now));
        }
    }

    fn next_look_us(&self, now: Now) -> u64 {
        let patience_us = u64::from(self.config.unread_timeout_ms) * 1_000;
        now.mono_us + patience_us / u64::from(UNREAD_LOOKS - 1)
    }

    /// Looks, if it is time, and closes those who have not read for too long. What was queued for them they find in the log.
    pub(super) fn close_unread(&mut self, now: Now, fx: &mut Effects) {
        if self
            .look_us
            .take_if(|due_us| *due_us <= now.mono_us)
            .is_none()
        {
            return;
        }
        for conn in self.conns.look_for_unread() {
            fx.counters.shed("queue", "unread");
            self.fail(now, conn, ErrorCode::TooManyConnections, fx);
        }
        self.watch_unread(now);
    }
}
