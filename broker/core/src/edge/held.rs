//! What all connections of a shard hold, and what each of them may have of the budget.
//!
//! A connection may hold much as long as few do. Of the shard's budget, half goes to whoever comes; past that each connection
//! has an equal part of an eighth, so that readers read from the log instead of from a queue, publishers are not read until
//! they are answered, and pages are short. With answers that are longer than such a part, the shares take a quarter at most;
//! the last quarter is for beginnings of frames, which the shell keeps.

/// What a connection may hold, queued or in flight, while the shard is over its budget: at least and at most. With so many
/// connections that the least is too much, they hold more than the budget by that.
pub(super) const SHARE_BYTES: (usize, usize) = (4 << 10, 64 << 10);
/// What of the shard's budget is for whoever comes, and what is shared out in equal parts past that.
const FREE_PART: usize = 2;
const SHARED_PART: usize = 8;
/// With so many parts of so many held there is room for no new requests: three quarters, the fourth is the shell's.
const FULL_PARTS: (usize, usize) = (3, 4);

/// Bytes that all connections hold together, queued and in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) bytes: usize,
    /// Of the shard's budget.
    pub(super) budget: usize,
}

impl Held {
    pub(super) fn is_crowded(self) -> bool {
        self.bytes > self.budget / FREE_PART
    }

    /// Whether so much is held that new requests are refused; messages are taken as far as each connection's share goes.
    pub(super) fn is_full(self) -> bool {
        self.bytes > self.budget / FULL_PARTS.1 * FULL_PARTS.0
    }

    /// Whether so much is held that it matters soon who does not read.
    pub(super) fn is_filling(self) -> bool {
        self.bytes > self.budget / FREE_PART / 2
    }

    /// What one of so many connections may have, of `each_max` when there is room.
    pub(super) fn share(self, each_max: usize, connections: usize) -> usize {
        if !self.is_crowded() {
            return each_max;
        }
        let part = self.budget / SHARED_PART / connections.max(1);
        each_max.min(part.clamp(SHARE_BYTES.0, SHARE_BYTES.1))
    }
}
