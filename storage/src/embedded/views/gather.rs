//! A segment's entries, taken apart and brought into the order of views: by conversation, then by number.

use std::{collections::HashMap, ops::Range};

use ahash::RandomState;
use rialto_protocol::{
    ids::{ConversationId, Position},
    record::{RecordRef, RecordRefs, Table},
};

use super::{super::log::StoredEntry, Fault, Pace};
use crate::journal::JournalError;

/// Where an event stands in the segment.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    /// Number of its conversation.
    conversation: u32,
    offset: u32,
    bytes: u32,
    /// Journal time of its entry: what windows go by.
    pub(super) time_ms: u64,
}

impl Place {
    pub(super) fn range(&self) -> Range<usize> {
        let start = self.offset as usize;
        start..start + self.bytes as usize
    }
}

/// Events of one conversation.
#[derive(Clone)]
pub(super) struct Said {
    pub(super) conversation: ConversationId,
    /// In [`Gathered::events`].
    pub(super) events: Range<usize>,
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
    /// By their numbers, with how many events they have.
    conversations: Vec<Said>,
    /// In the order of the journal.
    found: Vec<Place>,
    sorted: Vec<Place>,
}

/// All that a segment brings.
pub(super) struct Gathered<'s> {
    /// Where the events stand.
    pub(super) segment: &'s [u8],
    /// In rising order of their ids.
    pub(super) conversations: Vec<Said>,
    /// Those of each conversation together and in the order of the journal.
    pub(super) events: &'s [Place],
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
        scratch.found.clear();
        let mut gathered = Self {
            segment,
            conversations: Vec::new(),
            events: &[],
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
        gathered.conversations = scratch.sort(pace);
        gathered.events = &scratch.sorted;
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
            });
        }
        self.conversations[number as usize].events.end += 1;
        self.found.push(Place {
            conversation: number,
            offset,
            bytes,
            time_ms,
        });
    }

    /// Puts the events of each conversation behind one another. Conversations are sorted; events are only counted.
    fn sort(&mut self, pace: &mut dyn Pace) -> Vec<Said> {
        let mut numbered = std::mem::take(&mut self.conversations);
        let mut order: Vec<u32> = (0..).take(numbered.len()).collect();
        order.sort_unstable_by_key(|number| {
            u128::from_be_bytes(*numbered[*number as usize].conversation.as_bytes())
        });
        let mut events = 0;
        for number in &order {
            let said = &mut numbered[*number as usize];
            // Ranges that are filled from their start on.
            let count = said.events.end;
            said.events = events..events;
            events += count;
        }
        self.sorted.resize(events, Place::default());
        for event in &self.found {
            let said = &mut numbered[event.conversation as usize];
            self.sorted[said.events.end] = *event;
            said.events.end += 1;
            pace.worked(1);
        }
        let in_order = order
            .iter()
            .map(|number| numbered[*number as usize].clone());
        let in_order = in_order.collect();
        numbered.clear();
        self.conversations = numbered;
        in_order
    }
}
