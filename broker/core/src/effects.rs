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
