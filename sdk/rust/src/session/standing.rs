//! What the server is told anew on each connection: whom the session watches, and how present it is.

use std::collections::BTreeSet;
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
    /// The place of that among the commands of the caller: answers may come in another order.
    order: u64,
    /// To be told then.
    due: Option<Instant>,
    /// The places of the caller's requests that are not answered, on whichever connection that will be: what they ask for holds,
    /// if any is taken.
    asked: BTreeSet<u64>,
    /// What the server said to it was thrown away.
    missed: bool,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self([FrameKind::Watch, FrameKind::SetPresence].map(|kind| Wish {
            kind,
            body: None,
            order: 0,
            due: None,
            asked: BTreeSet::new(),
            missed: false,
        }))
    }

    fn of(&mut self, kind: FrameKind) -> Option<&mut Wish> {
        self.0.iter_mut().find(|wish| wish.kind == kind)
    }

    /// The caller asks for one of these, if it is one: for the first time, or once more on another connection.
    pub(super) fn asked(&mut self, kind: FrameKind, order: u64) {
        if let Some(wish) = self.of(kind) {
            wish.asked.insert(order);
        }
    }

    /// The server has answered that, and taken `body`. What it refused changed nothing, and what was asked for before the one
    /// that holds does not hold any more.
    pub(super) fn answered(&mut self, kind: FrameKind, order: u64, body: Option<&Bytes>) {
        if let Some(wish) = self.of(kind) {
            wish.asked.remove(&order);
            if let Some(body) = body
                && order > wish.order
            {
                wish.body = Some(body.clone());
                wish.order = order;
                wish.due = None;
            }
        }
    }

    /// A new connection: all are to be told.
    pub(super) fn connected(&mut self, now: Instant) {
        for wish in &mut self.0 {
            wish.due = Some(now);
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
    /// When it is to be told: not while the caller asks for another one. A later one would be undone by that, and an earlier one,
    /// which is to be given once more, would undo it.
    fn due(&self) -> Option<Instant> {
        self.due
            .filter(|_| self.body.is_some() && self.asked.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCH: FrameKind = FrameKind::Watch;

    #[test]
    fn the_last_one_that_was_asked_for_holds_in_whatever_order_the_answers_come() {
        let (mut standing, now) = (Standing::new(), Instant::now());
        let bodies = [b"first", b"other"].map(|body| Bytes::from_static(body));
        for order in [3, 8] {
            standing.asked(WATCH, order);
        }
        standing.answered(WATCH, 8, Some(&bodies[1]));
        standing.answered(WATCH, 3, Some(&bodies[0]));
        assert_eq!(standing.due(), None, "the server took them in their order");
        standing.connected(now);
        assert_eq!(standing.take_due(now), Some((WATCH, bodies[1].clone())));
    }

    #[test]
    fn one_that_is_to_be_given_once_more_goes_ahead_of_a_later_one_that_was_taken() {
        let (mut standing, now) = (Standing::new(), Instant::now());
        let bodies = [b"first", b"other"].map(|body| Bytes::from_static(body));
        for order in [3, 8] {
            standing.asked(WATCH, order);
        }
        standing.answered(WATCH, 8, Some(&bodies[1]));
        standing.connected(now);
        assert_eq!(standing.take_due(now), None);
        standing.asked(WATCH, 3);
        standing.answered(WATCH, 3, Some(&bodies[0]));
        assert_eq!(standing.take_due(now), Some((WATCH, bodies[1].clone())));
    }
}
