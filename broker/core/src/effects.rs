//! What the halves of a shard leave behind while they handle an input: outputs, messages, counts.

use std::collections::VecDeque;

use crate::{
    counters::Counters,
    io::Output,
    message::{Message, Plain, PlainBatch, Receipted},
    topology::ShardId,
};

/// Emptied batches that are kept.
const BATCHES_MAX: usize = 64;
/// Bytes that one of them may have room for.
const BATCH_BYTES_MAX: usize = 64 << 10;
/// Emptied lists of receipts that are kept.
const RECEIPT_LISTS_MAX: usize = 4;
/// Receipts that one of them may have room for: those of a large group of the journal.
const RECEIPTS_MAX: usize = 4_096;

/// Outputs and messages that room is kept for, however few there are.
const ROOM_MIN: usize = 4_096;
/// So many times what was used last is kept at most.
const ROOM_KEPT: usize = 8;

/// Entries that a list has room for, at most, once it is empty and so many were used last: what a moment took in which there was
/// very much to do is given back.
#[must_use]
pub fn room_kept(used: usize) -> usize {
    ROOM_MIN.max(used * ROOM_KEPT)
}

/// What the halves of a shard write to while they handle an input.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the shell.
    pub outputs: Vec<Output>,
    /// For any shard of the node, this one included; in order for each receiver.
    pub messages: VecDeque<(ShardId, Message)>,
    /// Counted along the way.
    pub counters: Counters,
    /// Batches that an owner is done with: their lists serve the next ones.
    batches: Vec<PlainBatch>,
    /// Lists of receipts that an edge is done with.
    receipts: Vec<Vec<Receipted>>,
}

impl Effects {
    /// Moves the outputs out, in order. What room a moment took in which there was very much to do is given back.
    pub fn take_outputs(&mut self, into: &mut Vec<Output>) {
        let room = room_kept(self.outputs.len());
        into.append(&mut self.outputs);
        if self.outputs.capacity() > room {
            self.outputs.shrink_to(room);
        }
        if self.messages.is_empty() && self.messages.capacity() > room {
            self.messages.shrink_to(room);
        }
    }

    /// Sends a message to a shard, be it this one.
    pub fn send(&mut self, shard: ShardId, message: Message) {
        self.messages.push_back((shard, message));
    }

    /// Keeps a batch's lists for the next one.
    pub fn take_back(&mut self, mut batch: PlainBatch) {
        let room = batch.bytes.capacity() + batch.drafts.capacity() * size_of::<Plain>();
        if self.batches.len() < BATCHES_MAX && room <= BATCH_BYTES_MAX {
            batch.drafts.clear();
            batch.bytes.clear();
            self.batches.push(batch);
        }
    }

    /// Keeps a list of receipts for the next ones.
    pub fn take_back_receipts(&mut self, mut receipts: Vec<Receipted>) {
        if self.receipts.len() < RECEIPT_LISTS_MAX && receipts.capacity() <= RECEIPTS_MAX {
            receipts.clear();
            self.receipts.push(receipts);
        }
    }

    /// An empty list for receipts.
    pub fn spare_receipts(&mut self) -> Vec<Receipted> {
        self.receipts.pop().unwrap_or_default()
    }

    /// An emptied batch, if one is there.
    pub fn spare_batch(&mut self) -> Option<PlainBatch> {
        self.batches.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::ConnId;

    #[test]
    fn room_that_a_busy_moment_took_is_given_back() {
        let output = |index| {
            let generation = 1;
            Output::Close {
                conn: ConnId { index, generation },
            }
        };
        let mut fx = Effects::default();
        let mut taken = Vec::new();
        fx.outputs.extend((0..100_000).map(output));
        fx.take_outputs(&mut taken);
        assert!(taken.len() == 100_000 && fx.outputs.capacity() >= 100_000);
        fx.outputs.extend((0..10).map(output));
        fx.take_outputs(&mut taken);
        assert_eq!(taken.len(), 100_010);
        let room = fx.outputs.capacity();
        assert!((ROOM_MIN..2 * ROOM_MIN).contains(&room), "{room}");
    }
}
