//! Numbers of the domain: no bare integer crosses a crate.

use std::fmt;

use crate::v1;

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($integer:ty))+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $integer);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, out)
            }
        }
    )+};
}

numbers! {
    /// Number of an event in its conversation: 1, 2, 3, …; 0 stands before the first.
    Seq(u64)
    /// Raised each time a lane changes its owner.
    Epoch(u64)
    /// How many countable messages a log holds up to and including an event.
    Ordinal(u64)
    /// Number of an entry in its lane's journal.
    Position(u64)
    /// One of the fixed number of journals.
    LaneId(u16)
    /// Names a conversation on one connection.
    Handle(u32)
    /// Names a request among those of its connection that are in flight; 0: a push.
    RequestId(u32)
}

macro_rules! successors {
    ($($name:ident)+) => {$(
        impl $name {
            /// The one after it. The last of all is its own successor.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }
    )+};
}

successors! { Seq Epoch Position }

impl RequestId {
    /// Of frames that answer no request.
    pub const PUSH: Self = Self(0);
}

/// The last event that a reader has processed. Ordered by epoch, then seq, which is the order of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// Epoch of that event.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
}

impl From<v1::Cursor> for Cursor {
    fn from(cursor: v1::Cursor) -> Self {
        Self {
            epoch: Epoch(cursor.epoch),
            seq: Seq(cursor.seq),
        }
    }
}

impl From<Cursor> for v1::Cursor {
    fn from(cursor: Cursor) -> Self {
        Self {
            epoch: cursor.epoch.0,
            seq: cursor.seq.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_number_has_a_successor_too() {
        assert_eq!(Seq(4).next(), Seq(5));
        assert_eq!(Seq(u64::MAX).next(), Seq(u64::MAX));
    }

    #[test]
    fn cursors_survive_the_wire_and_keep_the_order_of_the_log() {
        let cursor = Cursor {
            epoch: Epoch(3),
            seq: Seq(9),
        };
        assert_eq!(Cursor::from(v1::Cursor::from(cursor)), cursor);
        assert!(
            cursor
                < Cursor {
                    epoch: Epoch(4),
                    seq: Seq(1)
                }
        );
    }
}
