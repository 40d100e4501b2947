//! What the server is told anew on each connection: whom the session watches, and how present it is.

use std::time::Duration;

use bytes::Bytes;
use rialto_protocol::frame::FrameKind;
use tokio::time::Instant;

/// Wait before one is told again that was refused, when the server gave no advice.
const AGAIN: Duration = Duration::from_secs(1);

/// The last Watch and the last SetPresence of the caller that the server took.
#[derive(Debug)]
pub(super) struct Standing([Wish; 2]);

#[derive(Debug)]
struct Wish {
    kind: FrameKind,
    body: Option<Bytes>,
    /// To be told then.
    due: Option<Instant>,
    /// Requests of the caller's that are not answered: what they ask for holds, if any is taken.
    asked: usize,
    /// What the server said to it was thrown away.
    missed: bool,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self([FrameKind::Watch, FrameKind::SetPresence].map(|kind| Wish {
            kind,
            body: None,
            due: None,
            asked: 0,
            missed: false,
        }))
    }

    fn of(&mut self, kind: FrameKind) -> Option<&mut Wish> {
        self.0.iter_mut().find(|wish| wish.kind == kind)
    }

    /// The caller asks for one of these, if it is one.
    pub(super) fn asked(&mut self, kind: FrameKind) {
        if let Some(wish) = self.of(kind) {
            wish.asked += 1;
        }
    }

    /// The server has answered that, and taken `body`. What it refused changed nothing.
    pub(super) fn answered(&mut self, kind: FrameKind, body: Option<&Bytes>) {
        if let Some(wish) = self.of(kind) {
            wish.asked = wish.asked.saturating_sub(1);
            if let Some(body) = body {
                wish.body = Some(body.clone());
                wish.due = None;
            }
        }
    }

    /// A new connection: all are to be told.
    pub(super) fn connected(&mut self, now: Instant) {
        for wish in &mut self.0 {
            wish.due = Some(now);
            wish.asked = 0;
            wish.missed = false;
        }
    }

    /// The server refused one for now.
    pub(super) fn refused(&mut self, kind: FrameKind, after: Option<Duration>, now: Instant) {
        if let Some(wish) = self.of(kind) {
            wish.due = Some(now + after.unwrap_or(AGAIN));
        }
    }

    /// There was no room for what the server said.
    pub(super) fn missed(&mut self, kind: FrameKind) {
        if let Some(wish) = self.of(kind) {
            wish.missed = true;
        }
    }

    /// There is room: what was missed is due.
    pub(super) fn has_room(&mut self, now: Instant) {
        for wish in &mut self.0 {
            if std::mem::take(&mut wish.missed) {
                wish.due = Some(now);
            }
        }
    }

    /// When [`Standing::take_due`] has something.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.iter().filter_map(Wish::due).min()
    }

    /// One that is to be told now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(FrameKind, Bytes)> {
        self.0.iter_mut().find_map(|wish| {
            wish.due().filter(|due| *due <= now)?;
            let body = wish.body.clone()?;
            wish.due = None;
            Some((wish.kind, body))
        })
    }
}

impl Wish {
    /// When it is to be told: not while the caller asks for another one, which would be undone by that.
    fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.body.is_some() && self.asked == 0)
    }
}
