//! What a lane has appended last, in the order in which it came. Short enough to be searched from end to end, so that the
//! journal's thread has nothing to do for an event but to put it behind the others.

use std::{cmp::Reverse, ops::Range};

use bytes::Bytes;
use rialto_protocol::{
    ids::{ClientId, Seq},
    record::Table,
};

use super::chunk::{Chunk, EventPlace, RowPlace, SenderPlace};

/// Events or rows of a chunk. Freezing one takes the journal's thread some ten microseconds; with a segment those of all lanes
/// end at once, and an append waits for them.
#[cfg(not(test))]
const CHUNK_MAX: usize = 512;
#[cfg(test)]
const CHUNK_MAX: usize = 3;

// A chunk's places are numbered by 16 bits.
const _: () = assert!(CHUNK_MAX <= u16::MAX as usize);

/// The newest events and rows of a lane.
#[derive(Default)]
pub(super) struct Open {
    events: Vec<OpenEvent>,
    /// Conversations of the events: what is searched, in as few cache lines as can be.
    conversations: Vec<u64>,
    rows: Vec<OpenRow>,
    /// Keys of the rows, one behind the other.
    keys: Vec<u8>,
}

/// An event, with what is needed to find its sender.
pub(super) struct OpenEvent {
    pub(super) place: EventPlace,
    /// Hash of conversation, user and device.
    pub(super) sender: u64,
    /// Hash of conversation and user.
    pub(super) user: u32,
    pub(super) client_id: ClientId,
}

struct OpenRow {
    place: RowPlace,
    /// Where its key begins among the keys.
    key: u32,
}

/// A device's last event, and the one with its greatest client id.
pub(super) struct OpenSender {
    /// Hash of conversation, user and device.
    pub(super) device: u32,
    pub(super) last: EventPlace,
    pub(super) newest: EventPlace,
}

impl Open {
    pub(super) fn add_event(&mut self, event: OpenEvent) {
        self.conversations.push(event.place.conversation());
        self.events.push(event);
    }

    pub(super) fn add_row(&mut self, place: RowPlace, key: &[u8]) {
        let start = super::u32_of(self.keys.len());
        self.keys.extend_from_slice(key);
        self.rows.push(OpenRow { place, key: start });
    }

    pub(super) fn is_full(&self) -> bool {
        self.events.len().max(self.rows.len()) >= CHUNK_MAX
    }

    fn of(&self, conversation: u64) -> impl Iterator<Item = &OpenEvent> {
        let all = self.conversations.iter().zip(&self.events);
        all.filter(move |(of, _)| **of == conversation)
            .map(|(_, event)| event)
    }

    /// The conversation's events, in the order in which they came.
    pub(super) fn events_of(&self, conversation: u64) -> Vec<EventPlace> {
        self.of(conversation).map(|event| event.place).collect()
    }

    /// The user's devices.
    pub(super) fn senders(&self, conversation: u64, user: u32) -> Vec<OpenSender> {
        let of_user = self.of(conversation).filter(|event| event.user == user);
        let mut events: Vec<&OpenEvent> = of_user.collect();
        // Stable: what a device appended last stays last.
        events.sort_by_key(|event| event.sender);
        let senders = events.chunk_by(|a, b| a.sender == b.sender);
        let senders = senders.filter_map(|events| {
            let newest = events.iter().max_by_key(|event| event.client_id)?;
            events.last().map(|last| OpenSender {
                device: super::half(last.sender),
                last: last.place,
                newest: newest.place,
            })
        });
        senders.collect()
    }

    fn key(&self, row: &OpenRow) -> &[u8] {
        let start = row.key as usize;
        &self.keys[start..start + row.place.key_bytes() as usize]
    }

    /// The newest row with this key.
    pub(super) fn row(&self, conversation: u64, table: Table, key: &[u8]) -> Option<RowPlace> {
        let rows = self.rows.iter().rev();
        rows.filter(|row| row.place.group() == (conversation, table as u8))
            .find(|row| self.key(row) == key)
            .map(|row| row.place)
    }

    /// The newest row of each key that `wanted` takes, by key.
    pub(super) fn rows(
        &self,
        conversation: u64,
        table: Table,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Vec<(Bytes, RowPlace)> {
        let group = (conversation, table as u8);
        let rows = self.rows.iter().rev();
        let mut rows: Vec<_> = rows
            .filter(|row| row.place.group() == group && wanted(self.key(row)))
            .collect();
        rows.sort_by_key(|row| self.key(row));
        rows.dedup_by_key(|row| self.key(row));
        rows.into_iter()
            .map(|row| (Bytes::copy_from_slice(self.key(row)), row.place))
            .collect()
    }

    /// All of it in the order in which it is searched, leaving nothing behind; `None`: there is nothing.
    pub(super) fn freeze(&mut self) -> Option<Chunk> {
        if self.events.is_empty() && self.rows.is_empty() {
            return None;
        }
        let order = self.order_of_events();
        let chunk = Chunk {
            senders: self.frozen_senders(&order),
            events: order
                .iter()
                .map(|number| self.event(*number).place)
                .collect(),
            rows: self.frozen_rows(),
        };
        self.events.clear();
        self.conversations.clear();
        self.rows.clear();
        self.keys.clear();
        Some(chunk)
    }

    /// The event with this number.
    fn event(&self, number: u32) -> &OpenEvent {
        &self.events[number as usize]
    }

    /// Numbers of the events by conversation and seq. The owner numbers events without gaps; should one come twice, the later
    /// one is kept.
    fn order_of_events(&self) -> Vec<u32> {
        // What is compared stands in what is sorted: the events themselves fill more than the processor's nearest memory.
        let mut order: Vec<(u64, Seq, Reverse<u32>)> = self
            .events
            .iter()
            .zip(numbers(0..self.events.len()))
            .map(|(event, number)| {
                (
                    event.place.conversation(),
                    event.place.seq(),
                    Reverse(number),
                )
            })
            .collect();
        order.sort_unstable();
        order.dedup_by_key(|(conversation, seq, _)| (*conversation, *seq));
        order
            .into_iter()
            .map(|(.., Reverse(number))| number)
            .collect()
    }

    fn frozen_senders(&self, order: &[u32]) -> Box<[SenderPlace]> {
        let mut by_sender: Vec<(u64, u32)> = order
            .iter()
            .zip(numbers(0..order.len()))
            .map(|(number, place)| (self.event(*number).sender, place))
            .collect();
        by_sender.sort_unstable();
        let event_at = |place: u32| self.event(order[place as usize]);
        let mut senders: Vec<SenderPlace> = by_sender
            .chunk_by(|a, b| a.0 == b.0)
            .map(|places| {
                let places = places.iter().map(|(_, number)| *number);
                let newest = places
                    .clone()
                    .max_by_key(|number| event_at(*number).client_id);
                let last = places.max().unwrap_or(0);
                SenderPlace {
                    user: event_at(last).user,
                    device: super::half(event_at(last).sender),
                    last: place(last),
                    newest: place(newest.unwrap_or(last)),
                }
            })
            .collect();
        senders.sort_unstable_by_key(|sender| sender.user);
        senders.into()
    }

    fn frozen_rows(&self) -> Box<[RowPlace]> {
        let mut rows: Vec<&OpenRow> = self.rows.iter().rev().collect();
        // Stable, the newest first: of equal keys it is the one that is kept.
        rows.sort_by_key(|row| (row.place.group(), self.key(row)));
        rows.dedup_by_key(|row| (row.place.group(), self.key(row)));
        rows.into_iter().map(|row| row.place).collect()
    }
}

/// A place in a chunk.
fn place(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// So few that 32 bits hold them.
fn numbers(range: Range<usize>) -> Vec<u32> {
    range.map(super::u32_of).collect()
}
