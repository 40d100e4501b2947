//! What an entry of a lane holds, from the moment it is filled until it is durable.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use rialto_protocol::{
    error::ErrorCode,
    ids::{ConversationId, Cursor, Ordinal, Position, Seq, UserId},
};
use smallvec::SmallVec;

use super::subscribe::Joining;
use crate::{
    message::{Message, Receipted},
    topology::ShardId,
};

/// Lists that wait to be used again, and how long one may be for that.
const SPARE_LISTS_MAX: usize = 128;
const SPARE_LENGTH_MAX: usize = 64;

/// What an entry holds of one conversation.
#[derive(Debug)]
pub(super) struct Touched {
    /// Which.
    pub(super) conversation: ConversationId,
    /// Its first event in the entry.
    pub(super) first: Seq,
    /// The log's end after the entry.
    pub(super) end: LogEnd,
    /// Where its events stand in the records.
    pub(super) events: SmallVec<[Range<usize>; 1]>,
    /// Who may not read on, and from which event.
    pub(super) ended: SmallVec<[(UserId, Seq, ErrorCode); 1]>,
}

/// The end of a conversation's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogEnd {
    /// Last event.
    pub(super) cursor: Cursor,
    /// Countable messages so far.
    pub(super) ordinal: Ordinal,
    /// Journal time of the last event.
    pub(super) time_ms: u64,
}

/// An outbox record.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Number in its entry.
    pub(super) index: u16,
    /// Whose inbox.
    pub(super) user: UserId,
    /// Encoded `rialto.v1.Notice`.
    pub(super) notice: Bytes,
    /// On whose account.
    pub(super) account: UserId,
}

/// An entry that is closed.
#[derive(Debug)]
pub(super) struct Built {
    /// Its position.
    pub(super) position: Position,
    /// Its journal time.
    pub(super) time_ms: u64,
    /// Its records.
    pub(super) records: Bytes,
    /// What it holds, by conversation.
    pub(super) touched: Vec<Touched>,
    /// What is to be passed on.
    pub(super) outgoing: Vec<Outgoing>,
    /// Answers that rest on it.
    pub(super) receipts: Vec<(ShardId, Receipted)>,
}

/// Memory that the records of entries are taken from: one allocation serves many, whichever thread frees the last of them.
const RECORDS_BYTES: usize = 64 << 10;

/// What new entries are made with: emptied lists of entries that are durable, and memory for records.
#[derive(Debug, Default)]
pub(super) struct Spare {
    records: BytesMut,
    pub(super) touched: Vec<Vec<Touched>>,
    pub(super) receipts: Vec<Vec<(ShardId, Receipted)>>,
}

impl Spare {
    /// A copy of an entry's records.
    pub(super) fn records(&mut self, records: &[u8]) -> Bytes {
        if self.records.capacity() < records.len() {
            self.records = BytesMut::with_capacity(RECORDS_BYTES.max(records.len()));
        }
        self.records.extend_from_slice(records);
        self.records.split().freeze()
    }

    pub(super) fn take_back(&mut self, built: Built) {
        let Built {
            mut touched,
            mut receipts,
            ..
        } = built;
        if self.touched.len() < SPARE_LISTS_MAX && touched.capacity() <= SPARE_LENGTH_MAX {
            touched.clear();
            self.touched.push(touched);
        }
        if self.receipts.len() < SPARE_LISTS_MAX && receipts.capacity() <= SPARE_LENGTH_MAX {
            receipts.clear();
            self.receipts.push(receipts);
        }
    }
}

/// Something that may leave once a position is durable.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A message.
    Message(ShardId, Message),
    /// An answer to a message.
    Receipt(ShardId, Receipted),
    /// A subscription: how it stands is told as of the moment when it leaves.
    Subscribed(Joining),
}

impl Waiting {
    /// Bytes that it holds beside itself.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Message(_, message) => message.payload_bytes(),
            Self::Receipt(..) | Self::Subscribed(_) => 0,
        }
    }
}
