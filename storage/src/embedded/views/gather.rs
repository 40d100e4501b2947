//! A segment's entries, taken apart and brought into the order of views: by conversation, then by number.

use std::{collections::HashMap, ops::Range};

use ahash::RandomState;
use rialto_protocol::{
    ids::{ConversationId, Position},
    record::{RecordRef, RecordRefs, Table},
};

use super::{super::log::StoredEntry, Fault, Pace, codec::LENGTH_BYTES};
use crate::journal::JournalError;

/// An event that waits for its place.
struct Unsorted {
    /// Number of its conversation.
    conversation: u32,
    /// In the segment.
    offset: u32,
    bytes: u32,
    /// Journal time of its entry.
    time_ms: u64,
}

/// Events of one conversation.
#[derive(Clone)]
pub(super) struct Said {
    pub(super) conversation: ConversationId,
    /// In [`Gathered::times`].
    pub(super) events: Range<usize>,
    /// In [`Gathered::runs`].
    pub(super) bytes: Range<usize>,
}

/// A row's new value, the last of the segment.
pub(super) struct RowRef<'s> {
    pub(super) conversation: ConversationId,
    pub(super) table: Table,
    pub(super) key: &'s [u8],
    pub(super) position: Position,
    pub(super) value: &'s [u8],
}

/// What is gathered in, kept from one segment to the next.
#[derive(Default)]
pub(super) struct Scratch {
    numbers: HashMap<ConversationId, u32, RandomState>,
    /// By their numbers, with how many events they have and how many bytes these take.
    conversations: Vec<Said>,
    unsorted: Vec<Unsorted>,
    runs: Vec<u8>,
    times: Vec<u64>,
}

/// All that a segment brings.
pub(super) struct Gathered<'s> {
    /// In rising order of their ids.
    pub(super) conversations: Vec<Said>,
    /// Events as in a run: each after its length, those of each conversation together and in the order of the journal.
    pub(super) runs: &'s [u8],
    /// Journal time of each event's entry, in the same order: what windows go by.
    pub(super) times: &'s [u64],
    pub(super) rows: Vec<RowRef<'s>>,
    pub(super) newest_time_ms: u64,
}

impl<'s> Gathered<'s> {
    /// Takes in all entries of a segment, in the order of the journal.
    pub(super) fn from_entries(
        segment: &'s [u8],
        entries: impl Iterator<Item = Result<StoredEntry<'s>, JournalError>>,
        scratch: &'s mut Scratch,
        pace: &mut dyn Pace,
    ) -> Result<Self, Fault> {
        scratch.numbers.clear();
        scratch.conversations.clear();
        scratch.unsorted.clear();
        let mut gathered = Self {
            conversations: Vec::new(),
            runs: &[],
            times: &[],
            rows: Vec::new(),
            newest_time_ms: 0,
        };
        for entry in entries {
            let entry = entry.map_err(|error| Fault::Damaged(error.to_string()))?;
            gathered.add(&entry, scratch).map_err(|cause| {
                Fault::Damaged(format!(
                    "entry {} of lane {}, epoch {}, cannot be read: {cause}",
                    entry.position, entry.lane, entry.epoch
                ))
            })?;
            pace.worked(1);
        }
        gathered.conversations = scratch.sort(segment);
        (gathered.runs, gathered.times) = (&scratch.runs, &scratch.times);
        gathered.sort_rows();
        Ok(gathered)
    }

    fn add(&mut self, entry: &StoredEntry<'s>, scratch: &mut Scratch) -> Result<(), String> {
        self.newest_time_ms = self.newest_time_ms.max(entry.time_ms);
        let mut records = RecordRefs::new(entry.records);
        while let Some(record) = records.next() {
            match record.map_err(|error| error.to_string())? {
                RecordRef::Event {
                    conversation,
                    event,
                } => {
                    let end = entry.offset as usize + entry.records.len() - records.remaining();
                    // Below the length of a segment, which is below 4 GiB.
                    let within = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
                    let (offset, bytes) = (within(end - event.len()), within(event.len()));
                    scratch.add(conversation, offset, bytes, entry.time_ms);
                }
                RecordRef::Row {
                    conversation,
                    table,
                    key,
                    value,
                } => {
                    self.rows.push(RowRef {
                        conversation,
                        table,
                        key,
                        position: entry.position,
                        value,
                    });
                }
                // The journal itself finds these again.
                RecordRef::Outbox { .. } | RecordRef::OutboxDone { .. } => {}
            }
        }
        Ok(())
    }

    fn sort_rows(&mut self) {
        // Stable: a conversation's rows stand in the order of their lane.
        self.rows.sort_by(|a, b| {
            (a.conversation, a.table as u8, a.key).cmp(&(b.conversation, b.table as u8, b.key))
        });
        self.rows.dedup_by(|later, kept| {
            let same = later.conversation == kept.conversation
                && later.table == kept.table
                && later.key == kept.key;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
    }
}

impl Scratch {
    fn add(&mut self, conversation: ConversationId, offset: u32, bytes: u32, time_ms: u64) {
        let next = u32::try_from(self.conversations.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(conversation).or_insert(next);
        if number == next {
            self.conversations.push(Said {
                conversation,
                events: 0..0,
                bytes: 0..0,
            });
        }
        let said = &mut self.conversations[number as usize];
        said.events.end += 1;
        said.bytes.end += LENGTH_BYTES + bytes as usize;
        self.unsorted.push(Unsorted {
            conversation: number,
            offset,
            bytes,
            time_ms,
        });
    }

    /// Puts the events of each conversation behind one another. Conversations are sorted; events are only counted, and copied in
    /// the order in which they stand in the segment: reading on is what memory does well, and what is written may wait.
    fn sort(&mut self, segment: &[u8]) -> Vec<Said> {
        let mut sorted = std::mem::take(&mut self.conversations);
        let mut order: Vec<u32> = (0..).take(sorted.len()).collect();
        order.sort_unstable_by_key(|number| {
            u128::from_be_bytes(*sorted[*number as usize].conversation.as_bytes())
        });
        let (mut events, mut bytes) = (0, 0);
        for number in &order {
            let said = &mut sorted[*number as usize];
            // Ranges that are filled from their start on.
            let (count, length) = (said.events.end, said.bytes.end);
            (said.events, said.bytes) = (events..events, bytes..bytes);
            (events, bytes) = (events + count, bytes + length);
        }
        self.times.resize(events, 0);
        self.runs.resize(bytes, 0);
        for event in &self.unsorted {
            let said = &mut sorted[event.conversation as usize];
            self.times[said.events.end] = event.time_ms;
            said.events.end += 1;
            let from = &segment[event.offset as usize..][..event.bytes as usize];
            let to = &mut self.runs[said.bytes.end..][..LENGTH_BYTES + from.len()];
            to[..LENGTH_BYTES].copy_from_slice(&event.bytes.to_le_bytes());
            to[LENGTH_BYTES..].copy_from_slice(from);
            said.bytes.end += to.len();
        }
        let in_order = order.iter().map(|number| sorted[*number as usize].clone());
        let in_order = in_order.collect();
        sorted.clear();
        self.conversations = sorted;
        in_order
    }
}
