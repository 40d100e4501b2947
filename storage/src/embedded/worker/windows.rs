//! Windows that are not kept any more: when they go, and how much of them at once.

use std::time::{Duration, Instant};

use super::{
    super::views::{Fault, Leave, checkpoint::Checkpoint},
    RETRY, ROOM_SEGMENTS, Turns, Work,
};

/// Between looks whether what is on its way out is left alone by now.
const LEAVES: Duration = Duration::from_millis(100);

/// How it went on with what is on its way out.
pub(super) enum Left {
    /// Nothing is.
    Nothing,
    /// Not before so much time has passed.
    Later(Duration),
    /// The disk has got so many bytes back, and is left to others for so long.
    Step(u64, Duration),
}

impl Left {
    /// When it goes on; `None`: nothing is on its way out.
    pub(super) fn rest(&self) -> Option<Duration> {
        match self {
            Self::Nothing => None,
            Self::Later(rest) | Self::Step(_, rest) => Some(*rest),
        }
    }
}

impl Work {
    /// Raises the first window of events that is kept, once the checkpoint has said so, where events have become too old by journal
    /// time.
    pub(super) fn keep(&self, checkpoint: &mut Checkpoint) -> Result<(), Fault> {
        let first = self.views.first_kept(self.options.retention_ms);
        if first > self.views.events_from() {
            checkpoint.events_from = first;
            self.store(checkpoint)?;
            self.views.keep_from(first);
        }
        Ok(())
    }

    /// Has windows leave that are too old by now, whether or not a segment comes in. What fails is tried again with the next one.
    pub(super) fn expire(&self, checkpoint: &mut Checkpoint) {
        match self.keep(checkpoint) {
            Ok(()) => self.views.drop_windows(checkpoint.newest_time_ms),
            Err(fault) => tracing::error!(%fault, "events that are too old could not be dropped"),
        }
    }

    /// Goes on with what is on its way out, by one step.
    pub(super) fn leave(&self, turns: &mut Turns) -> Left {
        let begun = Instant::now();
        if let Some(until) = turns.leaves_not_before.filter(|until| *until > begun) {
            return Left::Later(until - begun);
        }
        match self.views.leave() {
            Ok(Leave::Nothing) => Left::Nothing,
            Ok(Leave::Later) => Left::Later(LEAVES),
            Ok(Leave::Step(bytes)) => Left::Step(bytes, self.disk_rest(begun.elapsed())),
            Err(fault) => {
                tracing::error!(%fault, "a window that was dropped could not be removed; it is tried again");
                turns.leaves_not_before = Some(begun + RETRY);
                Left::Later(RETRY)
            }
        }
    }

    /// Has as much leave as a segment of so many bytes may have brought. Segments take what time there is until the next one: in what
    /// is left of it windows would leave more slowly than others come, and the disk would fill up.
    pub(super) fn leave_as_much(&self, bytes: u32, turns: &mut Turns) {
        let mut owed = ROOM_SEGMENTS * u64::from(bytes);
        while owed > 0 && !self.lock().stopping {
            let Left::Step(left, rest) = self.leave(turns) else {
                return;
            };
            owed = owed.saturating_sub(left);
            if !rest.is_zero() && !self.hurry() {
                self.rest_unless(rest, |_| false);
            }
        }
    }
}
