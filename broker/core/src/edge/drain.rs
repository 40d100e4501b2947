//! Sending clients away: a few at a time, so that neither a shard has a frame for everybody to write at once, nor the
//! other brokers have everybody to greet.

use rialto_protocol::{
    frame::{self, FrameKind},
    ids::RequestId,
    v1,
};

use super::Edge;
use crate::{
    effects::Effects,
    io::{ConnId, Now},
};

/// From GoAway to the first reconnect: a restart takes about as long.
const RECONNECT_AFTER_MS: u32 = 500;
/// Time between two handfuls of clients.
const STEP_MS: u32 = 20;

/// Who is to be told yet.
#[derive(Debug)]
pub(super) struct Leaving {
    conns: Vec<ConnId>,
    at_once: usize,
    next_us: u64,
    go_away: v1::GoAway,
}

impl Edge {
    /// Takes no new sessions, and tells those that there are to go. They are told during the first half of the window, and
    /// each goes at a random moment of half a window.
    pub(super) fn drain(&mut self, now: Now, window_ms: u32, fx: &mut Effects) {
        self.draining = true;
        let open = |conn: &ConnId| self.conns.open(*conn).is_some();
        let conns = match self.leaving.take() {
            Some(leaving) => leaving.conns,
            None => self.conns.ids().into_iter().filter(open).collect(),
        };
        let steps = window_ms / 2 / STEP_MS;
        let half_ms = if steps > 1 { window_ms / 2 } else { window_ms };
        self.leaving = Some(Leaving {
            at_once: conns.len().div_ceil(steps.max(1) as usize),
            conns,
            next_us: now.mono_us,
            go_away: v1::GoAway {
                reason: v1::GoAwayReason::Shutdown as i32,
                reconnect_after_ms: RECONNECT_AFTER_MS,
                reconnect_window_ms: half_ms,
                endpoints: Vec::new(),
            },
        });
        self.send_away(now, fx);
    }

    /// When the next are to be told, monotonic microseconds.
    pub(super) fn next_leave_us(&self) -> Option<u64> {
        self.leaving.as_ref().map(|leaving| leaving.next_us)
    }

    /// Tells the next few, if it is time.
    pub(super) fn send_away(&mut self, now: Now, fx: &mut Effects) {
        let Some(mut leaving) = self
            .leaving
            .take_if(|leaving| leaving.next_us <= now.mono_us)
        else {
            return;
        };
        let frame = frame::encode(FrameKind::GoAway, RequestId::PUSH, &leaving.go_away);
        let first = leaving.conns.len().saturating_sub(leaving.at_once);
        for conn in leaving.conns.drain(first..) {
            if self.conns.open(conn).is_some() {
                self.send(conn, frame.clone(), fx);
            }
        }
        if !leaving.conns.is_empty() {
            leaving.next_us = now.mono_us + u64::from(STEP_MS) * 1_000;
            self.leaving = Some(leaving);
        }
    }
}
