//! Places of a lane's records in one segment, in sorted arrays: 24 bytes an event, 12 a device, 24 a row. What a place holds
//! is read from the segment when it is asked for, and has to have the checksum that stands in the place.

use std::ops::Range;

use rialto_protocol::{ids::Seq, record::Table};

use crate::journal::ENTRY_BYTES_MAX;

/// Bits of an event's length; the others are a fingerprint.
const LENGTH_BITS: u32 = 21;
const LENGTH_MASK: u32 = (1 << LENGTH_BITS) - 1;
/// Bits of an event's checksum; half of them stand below the conversation's hash, half below the seq.
pub(super) const CHECK_BITS: u32 = CONVERSATION_CHECK_BITS + SEQ_CHECK_BITS;
/// Of 64 bits the others are the conversation's hash.
const CONVERSATION_CHECK_BITS: u32 = 8;
/// Of 64 bits the others are the seq: so many events take nine years at a million a second.
const SEQ_CHECK_BITS: u32 = 16;
/// Bits of a key's length.
const KEY_BITS: u32 = 7;

// A record's own header is longer than nothing.
const _: () = assert!(ENTRY_BYTES_MAX <= 1 << LENGTH_BITS);
const _: () = assert!(rialto_protocol::record::ROW_KEY_BYTES_MAX < 1 << KEY_BITS);

/// What a conversation is found by, from its hash: two of a lane share it less often than a disk returns another's sector.
pub(super) fn conversation_of(hash: u64) -> u64 {
    hash >> CONVERSATION_CHECK_BITS
}

/// Where an event stands.
#[derive(Clone, Copy)]
pub(super) struct EventPlace {
    /// The conversation, and below it the upper bits of the checksum.
    conversation: u64,
    /// Seq, and below it the lower bits of the checksum.
    seq: u64,
    pub(super) offset: u32,
    /// Length, and above it a fingerprint of sender, device and client id.
    packed: u32,
}

impl EventPlace {
    pub(super) fn new(
        conversation: u64,
        seq: Seq,
        offset: u32,
        bytes: u32,
        sent: u32,
        check: u32,
    ) -> Self {
        let check = u64::from(check);
        Self {
            conversation: conversation << CONVERSATION_CHECK_BITS | check >> SEQ_CHECK_BITS,
            seq: seq.0 << SEQ_CHECK_BITS | check & ((1 << SEQ_CHECK_BITS) - 1),
            offset,
            packed: bytes & LENGTH_MASK | sent << LENGTH_BITS,
        }
    }

    pub(super) fn conversation(&self) -> u64 {
        self.conversation >> CONVERSATION_CHECK_BITS
    }

    pub(super) fn seq(&self) -> Seq {
        Seq(self.seq >> SEQ_CHECK_BITS)
    }

    /// Checksum of the event.
    pub(super) fn check(&self) -> u32 {
        let upper = self.conversation & ((1 << CONVERSATION_CHECK_BITS) - 1);
        let lower = self.seq & ((1 << SEQ_CHECK_BITS) - 1);
        // Its bits are fewer than 32.
        #[allow(clippy::cast_possible_truncation)]
        let check = (upper << SEQ_CHECK_BITS | lower) as u32;
        check
    }

    pub(super) fn bytes(&self) -> u32 {
        self.packed & LENGTH_MASK
    }

    /// Whether it may be the event of this fingerprint.
    pub(super) fn may_be(&self, sent: u32) -> bool {
        self.packed >> LENGTH_BITS == sent << LENGTH_BITS >> LENGTH_BITS
    }
}

/// What a device appended to a conversation: numbers of events of the chunk.
#[derive(Clone, Copy)]
pub(super) struct SenderPlace {
    /// Hash of conversation and user.
    pub(super) user: u32,
    /// Hash of conversation, user and device.
    pub(super) device: u32,
    /// Its last event.
    pub(super) last: u16,
    /// The event with its greatest client id.
    pub(super) newest: u16,
}

/// Where a row stands; without a value it was deleted.
#[derive(Clone, Copy)]
pub(super) struct RowPlace {
    /// Hash of the conversation.
    conversation: u64,
    /// Of its key, which its value follows.
    pub(super) offset: u32,
    /// Length of the value, of the key, and the table.
    packed: u32,
    /// Checksum of key and value.
    pub(super) check: u32,
}

impl RowPlace {
    pub(super) fn new(
        conversation: u64,
        table: Table,
        offset: u32,
        key_bytes: u32,
        value_bytes: u32,
        check: u32,
    ) -> Self {
        let table = u32::from(table as u8);
        Self {
            conversation,
            offset,
            packed: value_bytes & LENGTH_MASK
                | key_bytes << LENGTH_BITS
                | table << (LENGTH_BITS + KEY_BITS),
            check,
        }
    }

    pub(super) fn value_bytes(&self) -> u32 {
        self.packed & LENGTH_MASK
    }

    pub(super) fn key_bytes(&self) -> u32 {
        self.packed >> LENGTH_BITS & ((1 << KEY_BITS) - 1)
    }

    /// Conversation and table: rows of one are neighbours.
    pub(super) fn group(&self) -> (u64, u8) {
        // What is left of 32 bits.
        #[allow(clippy::cast_possible_truncation)]
        let table = (self.packed >> (LENGTH_BITS + KEY_BITS)) as u8;
        (self.conversation, table)
    }
}

/// A part of a segment's index; nothing in it changes any more.
pub(super) struct Chunk {
    /// By conversation and seq.
    pub(super) events: Box<[EventPlace]>,
    /// By user.
    pub(super) senders: Box<[SenderPlace]>,
    /// By conversation, table and key; each key once.
    pub(super) rows: Box<[RowPlace]>,
}

/// The elements whose key is this one, in an array that rises by it.
fn equal<T, K: Ord>(all: &[T], wanted: &K, key: impl Fn(&T) -> K) -> Range<usize> {
    // Of a busy conversation whole chunks are.
    if let [first, .., last] = all
        && key(first) == *wanted
        && key(last) == *wanted
    {
        return 0..all.len();
    }
    let start = all.partition_point(|element| key(element) < *wanted);
    let count = all[start..].partition_point(|element| key(element) == *wanted);
    start..start + count
}

impl Chunk {
    pub(super) fn events_of(&self, conversation: u64) -> Range<usize> {
        equal(&self.events, &conversation, EventPlace::conversation)
    }

    /// Devices of the user, and now and then of another one.
    pub(super) fn senders_of(&self, user: u32) -> Range<usize> {
        equal(&self.senders, &user, |sender| sender.user)
    }

    pub(super) fn rows_of(&self, conversation: u64, table: Table) -> Range<usize> {
        equal(&self.rows, &(conversation, table as u8), RowPlace::group)
    }
}
