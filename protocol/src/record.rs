//! Records: what an entry of a lane's journal is made of.
//!
//! The core writes them, storage keeps them and finds them again; neither needs to know the other. A record says what
//! was decided *and* the rows that follow from it, so that views are made from a journal without any rule of the domain.
//! The byte layout is frozen: `u8 kind | u32 length of the rest, little endian | rest`.
//!
//! | kind | rest |
//! | --- | --- |
//! | 1 event | conversation (16) · encoded `rialto.v1.Event` |
//! | 2 row | conversation (16) · table (1) · key length (u16) · key · value (empty: the row is deleted) |
//! | 3 outbox | user (16) · encoded `rialto.v1.Notice` |
//! | 4 outbox done | position (u64): every outbox record up to and including it has been passed on |

use bytes::{BufMut, Bytes, BytesMut};

use crate::ids::{ConversationId, ID_BYTES, Position, UserId};

const EVENT: u8 = 1;
const ROW: u8 = 2;
const OUTBOX: u8 = 3;
const OUTBOX_DONE: u8 = 4;

/// Bytes of a record before its rest.
pub const RECORD_HEADER_BYTES: usize = 5;
/// Longest key of a row.
pub const ROW_KEY_BYTES_MAX: usize = 64;

/// Tables of rows; each belongs to one conversation. The numbers are on disk: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// One row, empty key: what the conversation is and how it is set.
    Profile = 1,
    /// Key: user id. Membership, preferences, marker, unread mentions.
    Member = 2,
    /// Key: seq, big endian. The message with that seq was deleted; the value is the seq of the delete event.
    Tombstone = 3,
    /// In an inbox; key: conversation id. The user's list of conversations.
    Listing = 4,
}

impl Table {
    /// The table with this number on disk.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Profile),
            2 => Some(Self::Member),
            3 => Some(Self::Tombstone),
            4 => Some(Self::Listing),
            _ => None,
        }
    }
}

/// One record, its payload a slice of the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The next event of a conversation.
    Event {
        /// Whose log it belongs to.
        conversation: ConversationId,
        /// Encoded `rialto.v1.Event`.
        event: Bytes,
    },
    /// A row of a view: the newest one for its key holds.
    Row {
        /// Whose row it is.
        conversation: ConversationId,
        /// Which table.
        table: Table,
        /// At most [`ROW_KEY_BYTES_MAX`].
        key: Bytes,
        /// Empty: deleted.
        value: Bytes,
    },
    /// Something to be passed on to a user's inbox.
    Outbox {
        /// Whose inbox.
        user: UserId,
        /// Encoded `rialto.v1.Notice`.
        notice: Bytes,
    },
    /// Outbox records up to this position have arrived.
    OutboxDone {
        /// Inclusive.
        through: Position,
    },
}

/// One record, its payload borrowed from the entry: what is read and let go of costs no counting of references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordRef<'a> {
    /// See [`Record::Event`].
    Event {
        /// Whose log it belongs to.
        conversation: ConversationId,
        /// Encoded `rialto.v1.Event`.
        event: &'a [u8],
    },
    /// See [`Record::Row`].
    Row {
        /// Whose row it is.
        conversation: ConversationId,
        /// Which table.
        table: Table,
        /// At most [`ROW_KEY_BYTES_MAX`].
        key: &'a [u8],
        /// Empty: deleted.
        value: &'a [u8],
    },
    /// See [`Record::Outbox`].
    Outbox {
        /// Whose inbox.
        user: UserId,
        /// Encoded `rialto.v1.Notice`.
        notice: &'a [u8],
    },
    /// See [`Record::OutboxDone`].
    OutboxDone {
        /// Inclusive.
        through: Position,
    },
}

/// An entry's records cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A length reaches beyond the entry.
    #[error("a record is cut short")]
    Truncated,
    /// A number that this version does not know.
    #[error("unknown record kind or table {0}")]
    Unknown(u8),
    /// A key longer than [`ROW_KEY_BYTES_MAX`].
    #[error("a row's key has {0} bytes")]
    KeyTooLong(usize),
}

/// Appends an event record; `encode` writes the event. Returns the range of the event's bytes in `buf`.
pub fn put_event(
    buf: &mut BytesMut,
    conversation: &ConversationId,
    encode: impl FnOnce(&mut BytesMut),
) -> std::ops::Range<usize> {
    let start = begin(buf, EVENT);
    buf.put_slice(conversation.as_bytes());
    let event = buf.len();
    encode(buf);
    finish(buf, start);
    event..buf.len()
}

/// Appends a row record.
///
/// # Panics
/// When the key is longer than [`ROW_KEY_BYTES_MAX`]: keys are made by us, never by a peer.
pub fn put_row(
    buf: &mut BytesMut,
    conversation: &ConversationId,
    table: Table,
    key: &[u8],
    value: &[u8],
) {
    assert!(key.len() <= ROW_KEY_BYTES_MAX, "row keys are short");
    let start = begin(buf, ROW);
    buf.put_slice(conversation.as_bytes());
    buf.put_u8(table as u8);
    // At most ROW_KEY_BYTES_MAX.
    #[allow(clippy::cast_possible_truncation)]
    buf.put_u16_le(key.len() as u16);
    buf.put_slice(key);
    buf.put_slice(value);
    finish(buf, start);
}

/// Appends an outbox record.
pub fn put_outbox(buf: &mut BytesMut, user: &UserId, notice: &[u8]) {
    let start = begin(buf, OUTBOX);
    buf.put_slice(user.as_bytes());
    buf.put_slice(notice);
    finish(buf, start);
}

/// Appends an outbox-done record.
pub fn put_outbox_done(buf: &mut BytesMut, through: Position) {
    let start = begin(buf, OUTBOX_DONE);
    buf.put_u64_le(through.0);
    finish(buf, start);
}

fn begin(buf: &mut BytesMut, kind: u8) -> usize {
    let start = buf.len();
    buf.put_u8(kind);
    buf.put_u32_le(0);
    start
}

fn finish(buf: &mut BytesMut, start: usize) {
    let rest = buf.len() - start - RECORD_HEADER_BYTES;
    let rest = u32::try_from(rest).unwrap_or(u32::MAX);
    buf[start + 1..start + RECORD_HEADER_BYTES].copy_from_slice(&rest.to_le_bytes());
}

/// Reads an entry's records one after the other; stops at the first that is bad.
#[derive(Clone, Debug)]
pub struct Records {
    rest: Bytes,
}

impl Records {
    /// The records of one entry.
    #[must_use]
    pub fn new(entry: Bytes) -> Self {
        Self { rest: entry }
    }

    /// Bytes that have not been read yet; tells a reader where in the entry the next record begins.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn read(&mut self) -> Result<Record, RecordError> {
        let (record, rest) = split(&self.rest)?;
        let own = |slice: &[u8]| self.rest.slice_ref(slice);
        let record = match record {
            RecordRef::Event {
                conversation,
                event,
            } => Record::Event {
                conversation,
                event: own(event),
            },
            RecordRef::Row {
                conversation,
                table,
                key,
                value,
            } => Record::Row {
                conversation,
                table,
                key: own(key),
                value: own(value),
            },
            RecordRef::Outbox { user, notice } => Record::Outbox {
                user,
                notice: own(notice),
            },
            RecordRef::OutboxDone { through } => Record::OutboxDone { through },
        };
        self.rest = own(rest);
        Ok(record)
    }
}

/// As [`Records`], without taking hold of the entry.
#[derive(Clone, Copy, Debug)]
pub struct RecordRefs<'a> {
    rest: &'a [u8],
}

impl<'a> RecordRefs<'a> {
    /// The records of one entry.
    #[must_use]
    pub fn new(entry: &'a [u8]) -> Self {
        Self { rest: entry }
    }

    /// Bytes that have not been read yet; tells a reader where in the entry the next record begins.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for RecordRefs<'a> {
    type Item = Result<RecordRef<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match split(self.rest) {
            Ok((record, rest)) => {
                self.rest = rest;
                Some(Ok(record))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// The first record, and the bytes behind it.
fn split(bytes: &[u8]) -> Result<(RecordRef<'_>, &[u8]), RecordError> {
    let (header, rest) = bytes
        .split_first_chunk::<RECORD_HEADER_BYTES>()
        .ok_or(RecordError::Truncated)?;
    let [kind, length @ ..] = *header;
    let length = u32::from_le_bytes(length) as usize;
    let (rest, behind) = rest
        .split_at_checked(length)
        .ok_or(RecordError::Truncated)?;
    Ok((parse(kind, rest)?, behind))
}

fn parse(kind: u8, rest: &[u8]) -> Result<RecordRef<'_>, RecordError> {
    match kind {
        EVENT => {
            let (conversation, event) = id(rest)?;
            Ok(RecordRef::Event {
                conversation: ConversationId::from_bytes(conversation),
                event,
            })
        }
        ROW => {
            let (conversation, rest) = id(rest)?;
            let ([table, key_bytes @ ..], rest) = rest
                .split_first_chunk::<3>()
                .ok_or(RecordError::Truncated)?;
            let table = Table::from_number(*table).ok_or(RecordError::Unknown(*table))?;
            let key_bytes = usize::from(u16::from_le_bytes(*key_bytes));
            if key_bytes > ROW_KEY_BYTES_MAX {
                return Err(RecordError::KeyTooLong(key_bytes));
            }
            let (key, value) = rest
                .split_at_checked(key_bytes)
                .ok_or(RecordError::Truncated)?;
            Ok(RecordRef::Row {
                conversation: ConversationId::from_bytes(conversation),
                table,
                key,
                value,
            })
        }
        OUTBOX => {
            let (user, notice) = id(rest)?;
            Ok(RecordRef::Outbox {
                user: UserId::from_bytes(user),
                notice,
            })
        }
        OUTBOX_DONE => match rest.try_into() {
            Ok(position) => Ok(RecordRef::OutboxDone {
                through: Position(u64::from_le_bytes(position)),
            }),
            Err(_) => Err(RecordError::Truncated),
        },
        other => Err(RecordError::Unknown(other)),
    }
}

fn id(rest: &[u8]) -> Result<([u8; ID_BYTES], &[u8]), RecordError> {
    let (id, rest) = rest
        .split_first_chunk::<ID_BYTES>()
        .ok_or(RecordError::Truncated)?;
    Ok((*id, rest))
}

impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.rest.clear();
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BytesMut {
        let mut buf = BytesMut::new();
        let conversation = ConversationId::from_bytes([7; 16]);
        let range = put_event(&mut buf, &conversation, |buf| buf.put_slice(b"event"));
        assert_eq!(&buf[range], b"event");
        put_row(&mut buf, &conversation, Table::Member, b"key", b"value");
        put_outbox(&mut buf, &UserId::from_bytes([9; 16]), b"notice");
        put_outbox_done(&mut buf, Position(42));
        buf
    }

    #[test]
    fn records_come_back_as_they_were_put() {
        let records: Vec<_> = Records::new(sample().freeze())
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(records.len(), 4);
        assert!(
            matches!(&records[1], Record::Row { table: Table::Member, key, value, .. }
            if &key[..] == b"key" && &value[..] == b"value")
        );
        assert_eq!(
            records[3],
            Record::OutboxDone {
                through: Position(42)
            }
        );
    }

    #[test]
    fn a_record_cut_anywhere_is_an_error_and_never_a_panic() {
        let whole = sample().freeze();
        let ends: Vec<usize> = {
            let mut records = Records::new(whole.clone());
            let mut ends = vec![0];
            while records.next().is_some() {
                ends.push(whole.len() - records.remaining());
            }
            ends
        };
        for cut in 0..whole.len() {
            let result: Result<Vec<_>, _> = Records::new(whole.slice(..cut)).collect();
            assert_eq!(result.is_ok(), ends.contains(&cut), "cut at {cut}");
        }
    }
}
