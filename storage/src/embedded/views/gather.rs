//! A segment's entries, taken apart and sorted the way that views are: by conversation, then by number.

use bytes::Bytes;
use rialto_protocol::{
    event,
    ids::{ConversationId, Position, Seq},
    record::{Record, Records, Table},
};

use super::{Fault, Pace};
use crate::journal::{Entry, JournalError};

/// An event and what its entry says about it.
pub(super) struct EventRef {
    pub(super) conversation: ConversationId,
    pub(super) seq: Seq,
    /// Journal time of the entry: what windows go by.
    pub(super) time_ms: u64,
    pub(super) event: Bytes,
}

/// A row's new value, the last of the segment.
pub(super) struct RowRef {
    pub(super) conversation: ConversationId,
    pub(super) table: Table,
    pub(super) key: Bytes,
    pub(super) position: Position,
    pub(super) value: Bytes,
}

/// All that a segment brings.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) events: Vec<EventRef>,
    pub(super) rows: Vec<RowRef>,
    pub(super) newest_time_ms: u64,
}

impl Gathered {
    /// Takes in all entries of a segment, in the order of the journal, and sorts them.
    pub(super) fn from_entries(
        entries: impl Iterator<Item = Result<Entry, JournalError>>,
        pace: &mut dyn Pace,
    ) -> Result<Self, Fault> {
        let mut gathered = Self::default();
        for entry in entries {
            let entry = entry.map_err(|error| Fault::Damaged(error.to_string()))?;
            gathered.add(&entry).map_err(|cause| {
                Fault::Damaged(format!(
                    "entry {} of lane {} cannot be read: {cause}",
                    entry.position, entry.lane
                ))
            })?;
            pace.breathe();
        }
        gathered.sort();
        Ok(gathered)
    }

    fn add(&mut self, entry: &Entry) -> Result<(), String> {
        self.newest_time_ms = self.newest_time_ms.max(entry.time_ms);
        for record in Records::new(entry.records.clone()) {
            match record.map_err(|error| error.to_string())? {
                Record::Event {
                    conversation,
                    event,
                } => {
                    let seq = event::peek(&event).map_err(|error| error.to_string())?.seq;
                    self.events.push(EventRef {
                        conversation,
                        seq,
                        time_ms: entry.time_ms,
                        event,
                    });
                }
                Record::Row {
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
                Record::Outbox { .. } | Record::OutboxDone { .. } => {}
            }
        }
        Ok(())
    }

    fn sort(&mut self) {
        self.events.sort_unstable_by_key(|event| {
            (
                u128::from_be_bytes(*event.conversation.as_bytes()),
                event.seq,
            )
        });
        self.events
            .dedup_by_key(|event| (event.conversation, event.seq));
        // Stable: a conversation's rows stand in the order of their lane.
        self.rows.sort_by(|a, b| {
            (a.conversation, a.table as u8, &a.key).cmp(&(b.conversation, b.table as u8, &b.key))
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
