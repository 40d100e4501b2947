//! Bytes of the views' keys and values. Frozen: part of format 1 (see `format`).
//!
//! | keyspace | key | value |
//! | --- | --- | --- |
//! | `events-W` | conversation (16) · first seq | a run: consecutive events, each after its length (u32) |
//! | `windows` | conversation (16) · window (u32) | first seq in that window |
//! | `heads` | conversation (16) | seq · epoch · ordinal · time_ms of the last event |
//! | `rows` | conversation (16) · table (1) · key | position · value |
//! | `devices` | conversation (16) · user (16) · device (16) | newest client id (16) · seq · ordinal |
//! | `sent-W` | conversation (16) · user (16) · device (16) · newest client id of the list (16) | list of client id (16) · epoch · seq · time_ms, by client id |
//! | `seen` | user (16) | time_ms |
//!
//! Numbers are u64 unless said otherwise: big endian in keys, so that they sort, little endian in values.

use bytes::Bytes;
use rialto_protocol::{
    ids::{ClientId, ConversationId, DeviceId, Epoch, Ordinal, Position, Seq, UserId},
    record::Table,
};

use crate::views::SentEvent;

/// Runs are cut at this size; a longer event is a run of its own.
pub(super) const RUN_BYTES_MAX: usize = 16 << 10;
/// Bytes before each event of a run.
pub(super) const LENGTH_BYTES: usize = 4;
/// Bytes of one element of a list of sent ids.
pub(super) const SENT_BYTES: usize = 40;

/// Key of the run that begins with this event.
pub(super) fn run_key(conversation: ConversationId, first: Seq) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(conversation.as_bytes());
    key[16..].copy_from_slice(&first.0.to_be_bytes());
    key
}

/// First seq of a run, from its key.
pub(super) fn run_first(key: &[u8]) -> Option<Seq> {
    Some(Seq(u64::from_be_bytes(key.get(16..24)?.try_into().ok()?)))
}

/// Key of a conversation's window.
pub(super) fn window_key(conversation: ConversationId, window: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(conversation.as_bytes());
    key[16..].copy_from_slice(&window.to_be_bytes());
    key
}

/// The window, from its key.
pub(super) fn window_of(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(16..20)?.try_into().ok()?))
}

/// Key of a row; with an empty key, what all rows of the table begin with.
pub(super) fn row_key(conversation: ConversationId, table: Table, key: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(17 + key.len());
    whole.extend_from_slice(conversation.as_bytes());
    whole.push(table as u8);
    whole.extend_from_slice(key);
    whole
}

/// Key of a device of a user in a conversation.
pub(super) fn device_key(conversation: ConversationId, user: UserId, device: DeviceId) -> [u8; 48] {
    let mut key = [0; 48];
    key[..16].copy_from_slice(conversation.as_bytes());
    key[16..32].copy_from_slice(user.as_bytes());
    key[32..].copy_from_slice(device.as_bytes());
    key
}

/// Key of a list of sent ids, the newest of which is this one.
pub(super) fn sent_key(device: &[u8; 48], newest: ClientId) -> [u8; 64] {
    let mut key = [0; 64];
    key[..48].copy_from_slice(device);
    key[48..].copy_from_slice(newest.as_bytes());
    key
}

/// The `index`th u64 of a value.
pub(super) fn number(value: &[u8], index: usize) -> Option<u64> {
    let at = index * 8;
    Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?))
}

/// A value of numbers alone.
pub(super) fn numbers<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

/// The end of a conversation's log, as far as the views have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadValue {
    pub(super) seq: Seq,
    pub(super) epoch: Epoch,
    pub(super) ordinal: Ordinal,
    pub(super) time_ms: u64,
}

impl HeadValue {
    pub(super) fn encode(&self) -> Vec<u8> {
        numbers([self.seq.0, self.epoch.0, self.ordinal.0, self.time_ms])
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        Some(Self {
            seq: Seq(number(value, 0)?),
            epoch: Epoch(number(value, 1)?),
            ordinal: Ordinal(number(value, 2)?),
            time_ms: number(value, 3)?,
        })
    }
}

/// What a device last appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceValue {
    pub(super) newest: ClientId,
    pub(super) seq: Seq,
    pub(super) ordinal: Ordinal,
}

impl DeviceValue {
    pub(super) fn encode(&self) -> [u8; 32] {
        let mut value = [0; 32];
        value[..16].copy_from_slice(self.newest.as_bytes());
        value[16..24].copy_from_slice(&self.seq.0.to_le_bytes());
        value[24..].copy_from_slice(&self.ordinal.0.to_le_bytes());
        value
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        Some(Self {
            newest: ClientId::from_slice(value.get(..16)?).ok()?,
            seq: Seq(number(value, 2)?),
            ordinal: Ordinal(number(value, 3)?),
        })
    }

    /// The newer of both in each respect: the same whichever comes first, and however often.
    pub(super) fn merge(self, other: Self) -> Self {
        let last = if other.seq > self.seq { other } else { self };
        Self {
            newest: self.newest.max(other.newest),
            ..last
        }
    }
}

/// Appends an element to a list of sent ids.
pub(super) fn put_sent(list: &mut Vec<u8>, client_id: ClientId, event: &SentEvent) {
    list.extend_from_slice(client_id.as_bytes());
    for number in [event.epoch.0, event.seq.0, event.time_ms] {
        list.extend_from_slice(&number.to_le_bytes());
    }
}

/// Looks an id up in a list; the lists are sorted by id.
pub(super) fn find_in_list(list: &[u8], client_id: ClientId) -> Option<SentEvent> {
    let (elements, _) = list.as_chunks::<SENT_BYTES>();
    let first = elements.partition_point(|element| element[..16] < client_id.as_bytes()[..]);
    let element = elements
        .get(first)
        .filter(|element| element[..16] == client_id.as_bytes()[..])?;
    let number = |index| number(&element[16..], index);
    Some(SentEvent {
        epoch: Epoch(number(0)?),
        seq: Seq(number(1)?),
        time_ms: number(2)?,
    })
}

/// A row with the position that wrote it.
pub(super) fn row_value(position: Position, value: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(8 + value.len());
    whole.extend_from_slice(&position.0.to_le_bytes());
    whole.extend_from_slice(value);
    whole
}

/// Position and value of a row.
pub(super) fn parse_row(whole: &[u8]) -> Option<(Position, Bytes)> {
    let position = Position(number(whole, 0)?);
    Some((position, Bytes::copy_from_slice(&whole[8..])))
}

/// The events of a run, in order; `None` in the middle: the run is damaged.
pub(super) struct Run<'a> {
    pub(super) seq: Seq,
    rest: &'a [u8],
}

impl<'a> Run<'a> {
    pub(super) fn new(first: Seq, value: &'a [u8]) -> Self {
        Self {
            seq: first,
            rest: value,
        }
    }
}

impl<'a> Iterator for Run<'a> {
    type Item = Option<(Seq, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (length, rest) = self
            .rest
            .split_first_chunk::<LENGTH_BYTES>()
            .map_or((None, self.rest), |(length, rest)| {
                (usize::try_from(u32::from_le_bytes(*length)).ok(), rest)
            });
        let Some((event, rest)) = length.and_then(|length| rest.split_at_checked(length)) else {
            self.rest = &[];
            return Some(None);
        };
        let seq = self.seq;
        self.rest = rest;
        self.seq = seq.next();
        Some(Some((seq, event)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_in_a_list_wherever_it_stands() {
        let id = |byte| ClientId::from_bytes([byte; 16]);
        let event = |seq| SentEvent {
            epoch: Epoch(2),
            seq: Seq(seq),
            time_ms: 9,
        };
        let mut list = Vec::new();
        for byte in [1, 3, 5] {
            put_sent(&mut list, id(byte), &event(u64::from(byte)));
        }
        for byte in 0..7 {
            let expected = (byte % 2 == 1).then(|| event(u64::from(byte)));
            assert_eq!(find_in_list(&list, id(byte)), expected);
        }
    }

    #[test]
    fn a_run_cut_anywhere_is_damaged_or_shorter_and_never_a_panic() {
        let mut run = Vec::new();
        for event in [&b"one"[..], b"", b"three"] {
            run.extend_from_slice(&u32::try_from(event.len()).unwrap().to_le_bytes());
            run.extend_from_slice(event);
        }
        let whole: Vec<_> = Run::new(Seq(7), &run).collect();
        assert_eq!(
            whole,
            [
                Some((Seq(7), &b"one"[..])),
                Some((Seq(8), b"")),
                Some((Seq(9), b"three"))
            ]
        );
        for cut in 0..run.len() {
            let found: Vec<_> = Run::new(Seq(7), &run[..cut]).collect();
            assert_eq!(
                found.contains(&None),
                ![0, 7, 11].contains(&cut),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn merging_devices_does_not_depend_on_order() {
        let older = DeviceValue {
            newest: ClientId::from_bytes([9; 16]),
            seq: Seq(1),
            ordinal: Ordinal(1),
        };
        let newer = DeviceValue {
            newest: ClientId::from_bytes([2; 16]),
            seq: Seq(5),
            ordinal: Ordinal(4),
        };
        let both = DeviceValue {
            newest: older.newest,
            ..newer
        };
        assert_eq!((older.merge(newer), newer.merge(older)), (both, both));
        assert_eq!(DeviceValue::decode(&both.encode()), Some(both));
    }
}
