//! What the connections of a shard keep between their turns of what they have read: beginnings of frames, and whole frames
//! that wait for credit. Each has its own count, so that who waits for credit takes no room from who has not finished a frame.

use std::cell::Cell;

use crate::config::BEGUN_SHARE;

/// What frames that wait for credit may take of it before little is read of each connection at once.
const HELD_SHARE: usize = 8;
/// A beginning of a frame that any connection may keep.
pub(crate) const SMALL_BYTES: usize = 4 << 10;

/// What one connection keeps, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The beginning of a frame.
    Begun(usize),
    /// Frames of which the first is whole.
    Held(usize),
}

/// What all connections keep.
#[derive(Debug)]
pub(crate) struct KeptBytes {
    begun: Cell<usize>,
    held: Cell<usize>,
    /// Of the shard.
    budget: usize,
}

impl KeptBytes {
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            begun: Cell::new(0),
            held: Cell::new(0),
            budget,
        }
    }

    /// Takes in what a connection keeps now, and kept before.
    pub(crate) fn change(&self, before: Kept, now: Kept) {
        let (count, bytes) = self.count_of(before);
        count.set(count.get() - bytes);
        let (count, bytes) = self.count_of(now);
        count.set(count.get() + bytes);
    }

    fn count_of(&self, kept: Kept) -> (&Cell<usize>, usize) {
        match kept {
            Kept::Begun(bytes) => (&self.begun, bytes),
            Kept::Held(bytes) => (&self.held, bytes),
        }
    }

    /// Whether a connection may keep this: once beginnings of frames are over their share, none may be long.
    pub(crate) fn allow(&self, kept: Kept) -> bool {
        match kept {
            Kept::Begun(bytes) => {
                bytes <= SMALL_BYTES || self.begun.get() <= self.budget / BEGUN_SHARE
            }
            Kept::Held(_) => true,
        }
    }

    /// Whether so much waits for credit that little is to be read of each connection at once.
    pub(crate) fn is_much_held(&self) -> bool {
        self.held.get() > self.budget / HELD_SHARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Kept = Kept::Begun(0);

    #[test]
    fn past_their_share_beginnings_of_frames_stay_short() {
        let kept = KeptBytes::new(4 << 20);
        let large = Kept::Begun((1 << 20) + 1);
        kept.change(NOTHING, large);
        assert!(!kept.allow(large) && kept.allow(Kept::Begun(SMALL_BYTES)));
        kept.change(large, NOTHING);
        assert!(kept.allow(large));
    }

    #[test]
    fn what_waits_for_credit_takes_no_room_from_beginnings_of_frames() {
        let kept = KeptBytes::new(4 << 20);
        let (begun, held) = (Kept::Begun(3 << 20), Kept::Held(3 << 20));
        kept.change(NOTHING, begun);
        kept.change(begun, held);
        assert!(kept.allow(begun) && kept.is_much_held());
        kept.change(held, NOTHING);
        assert!(!kept.is_much_held());
        assert_eq!((kept.begun.get(), kept.held.get()), (0, 0));
    }
}
