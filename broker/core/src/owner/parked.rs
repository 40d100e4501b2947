//! How much work may wait for a read, and how much of that may be notices.

use super::work::Work;
use crate::message::ToOwner;

/// What of the shard's budget may be work that waits, beside the limit on its pieces.
const BUDGET_PART: usize = 4;
/// Of that room, and of the limit, one part of so many is the most that notices may have: they come again until they are kept, and
/// however many they are, they keep nobody's requests out.
const NOTICES_PART: usize = 2;
/// What a piece takes beside itself: its place in a queue, the read, and the conversation that is being read.
const OVERHEAD_BYTES: usize = 1 << 10;

/// Pieces of work that wait.
#[derive(Debug)]
pub(super) struct Parked {
    all: Pile,
    notices: Pile,
    /// So many pieces are the most, and so many bytes.
    most: usize,
    pub(super) bytes_max: usize,
}

#[derive(Debug, Default)]
struct Pile {
    count: usize,
    bytes: usize,
}

impl Pile {
    const fn has_room(&self, bytes: usize, most: usize, bytes_max: usize) -> bool {
        self.count < most && self.bytes + bytes <= bytes_max
    }

    const fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }

    const fn remove(&mut self, bytes: usize) {
        self.count -= 1;
        self.bytes -= bytes;
    }
}

impl Parked {
    /// None yet, of a shard with such a budget.
    pub(super) fn new(most: usize, shard_bytes_max: usize) -> Self {
        Self {
            all: Pile::default(),
            notices: Pile::default(),
            most,
            bytes_max: shard_bytes_max / BUDGET_PART,
        }
    }

    /// How many wait.
    pub(super) const fn count(&self) -> usize {
        self.all.count
    }

    /// Counts one more, unless too much waits; says whether it did.
    pub(super) fn add(&mut self, work: &Work) -> bool {
        let (bytes, notice) = (weight(work), is_notice(work));
        let mut has_room = self.all.has_room(bytes, self.most, self.bytes_max);
        if notice {
            let (most, bytes_max) = (
                self.most.div_ceil(NOTICES_PART),
                self.bytes_max / NOTICES_PART,
            );
            has_room &= self.notices.has_room(bytes, most, bytes_max);
        }
        if has_room {
            self.all.add(bytes);
            if notice {
                self.notices.add(bytes);
            }
        }
        has_room
    }

    /// One that was counted waits no more.
    pub(super) fn remove(&mut self, work: &Work) {
        self.all.remove(weight(work));
        if is_notice(work) {
            self.notices.remove(weight(work));
        }
    }
}

fn weight(work: &Work) -> usize {
    work.bytes() + OVERHEAD_BYTES
}

const fn is_notice(work: &Work) -> bool {
    matches!(work.ask, ToOwner::Notify { .. })
}
