//! Connections that ask for too much, or for what nobody may have, again and again: they are not read for a while. What they
//! send stays with them, and refusing it takes little from those who ask for what they may have. A request that the edge refuses
//! as a whole counts, be it for its form or for its rate; of drafts, and of what owners refuse, only what is too much.

use rialto_protocol::error::ErrorCode;

use super::Edge;
use crate::{
    effects::Effects,
    io::{ConnId, Now},
};

/// Refusals after which a connection rests.
const REFUSALS_MAX: u8 = 64;
/// How long, microseconds: some of the usual waits for the next message.
const REST_US: u64 = 100_000;

impl Edge {
    /// So many messages or requests of a connection were refused, as far as it was because they were too much.
    pub(super) fn note_refusals(&mut self, conn: ConnId, code: ErrorCode, count: usize) {
        let too_much = matches!(
            code,
            ErrorCode::RateLimited | ErrorCode::Overloaded | ErrorCode::SubscriptionLimit
        );
        if too_much && count > 0 {
            self.conns.note_refusals(conn, count);
        }
    }

    /// Whether the connection was refused too often, and rests from now on.
    pub(super) fn rests(&mut self, now: Now, conn: ConnId) -> bool {
        let rests = self.conns.rests_after(conn, REFUSALS_MAX);
        if rests {
            self.resting.push_back((now.mono_us + REST_US, conn));
        }
        rests
    }

    /// Reads those again whose time is over.
    pub(super) fn end_rests(&mut self, now: Now, fx: &mut Effects) {
        while let Some((_, conn)) = self
            .resting
            .pop_front_if(|(until_us, _)| *until_us <= now.mono_us)
        {
            self.conns.end_rest(conn);
            self.resume(conn, fx);
        }
    }
}
