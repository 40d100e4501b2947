//! Bytes of the views' keys and values. Frozen: part of format 1 (see `format`).
//!
//! | keyspace | key | value |
//! | --- | --- | --- |
//! | `events-W` | conversation (16) · first seq | a run: consecutive events, each after its length (u32) |
//! | `windows` | conversation (16) · window (u32) | empty: the conversation has events in that window |
//! | `heads` | conversation (16) | seq · epoch · ordinal · time_ms of the last event |
//! | `rows` | conversation (16) · table (1) · key | position · value |
//! | `devices` | conversation (16) · user (16) · device (16) | of the last segment with an event of it: newest client id (16) · last seq · ordinal |
//! | `sent-W` | conversation (16) · user (16) · device (16) · newest client id of the list (16) | list of sent ids, see below |
//! | `seen` | user (16) | time_ms |
//!
//! Numbers are u64 unless said otherwise: big endian in keys, so that they sort, little endian in values.
//!
//! A list of sent ids begins with the least epoch, seq and time_ms of its events, as varints. An element is a fingerprint of the
//! client id (8 bytes), then by how much the event's epoch, seq and time_ms are greater, as varints. A fingerprint keeps the 62
//! random bits of a UUIDv7 and is looked for among one device's ids of a week alone; what is found is compared with the event.

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

/// Writes a list of sent ids.
pub(super) fn put_sent(
    list: &mut Vec<u8>,
    events: impl Iterator<Item = (ClientId, SentEvent)> + Clone,
) {
    let numbers = |event: &SentEvent| [event.epoch.0, event.seq.0, event.time_ms];
    let least = events
        .clone()
        .map(|(_, event)| numbers(&event))
        .reduce(|a, b| [a[0].min(b[0]), a[1].min(b[1]), a[2].min(b[2])]);
    let Some(least) = least else { return };
    for number in least {
        put_varint(list, number);
    }
    for (client_id, event) in events {
        list.extend_from_slice(&fingerprint(client_id).to_le_bytes());
        for (number, least) in numbers(&event).into_iter().zip(least) {
            put_varint(list, number - least);
        }
    }
}

/// Looks an id up in a list: events that may have it, one as a rule. `None`: the list is damaged.
pub(super) fn find_in_list(mut list: &[u8], client_id: ClientId) -> Option<Vec<SentEvent>> {
    let mut events = Vec::new();
    let wanted = fingerprint(client_id).to_le_bytes();
    let least = take_numbers(&mut list)?;
    while !list.is_empty() {
        let (found, rest) = list.split_first_chunk::<8>()?;
        list = rest;
        let more = take_numbers(&mut list)?;
        if *found == wanted {
            events.push(SentEvent {
                epoch: Epoch(least[0].checked_add(more[0])?),
                seq: Seq(least[1].checked_add(more[1])?),
                time_ms: least[2].checked_add(more[2])?,
            });
        }
    }
    Some(events)
}

/// Half of the id's bits, its random ones among them.
fn fingerprint(client_id: ClientId) -> u64 {
    let whole = u128::from_be_bytes(*client_id.as_bytes());
    // The two halves.
    #[allow(clippy::cast_possible_truncation)]
    let (high, low) = ((whole >> 64) as u64, whole as u64);
    high.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ low
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn take_numbers(bytes: &mut &[u8]) -> Option<[u64; 3]> {
    Some([
        take_varint(bytes)?,
        take_varint(bytes)?,
        take_varint(bytes)?,
    ])
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        number |= (bits << shift >> shift == bits).then_some(bits << shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
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

/// Puts an event at the end of a run; events are shorter than a segment, and that is shorter than 4 GiB.
pub(super) fn put_event(run: &mut Vec<u8>, event: &[u8]) {
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    run.extend_from_slice(&length.to_le_bytes());
    run.extend_from_slice(event);
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
        let ids = [3_u8, 1, 200, 5];
        let events = ids
            .iter()
            .map(|byte| (id(*byte), event(u64::from(*byte) << 30)));
        put_sent(&mut list, events);
        for byte in 0..=255 {
            let expected = ids.contains(&byte).then(|| event(u64::from(byte) << 30));
            let found = find_in_list(&list, id(byte));
            assert_eq!(found, Some(Vec::from_iter(expected)), "{byte}");
        }
        for cut in 0..list.len() {
            // Damaged or shorter, and never a panic.
            let found = find_in_list(&list[..cut], id(5));
            assert!(found.is_none_or(|found| found.is_empty()), "cut at {cut}");
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
