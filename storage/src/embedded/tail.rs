//! What is durable but not yet in the views, found by a small index into the log's own segments.
//!
//! Divided by lane, each behind its own lock; within a lane by segment, so that forgetting a segment is dropping one part.
//! What a conversation's event says is read from its segment when asked for: the index holds places only, and hashes to find
//! them by. It is made on the journal's thread, so that an event costs it a few words written one behind the other.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `lane` | the index of one lane |
//! | `open` | what came last, in the order in which it came |
//! | `chunk` | what came before, in the order in which it is searched |
//! | `rows` | rows of chunks, whose keys stand in the segments |
//! | `senders` | which devices of a user appended last |
//! | `check` | checksums of what places lead to |
//! | `read` | reading what was found |
//!
//! A reader asks here first and the views afterwards. What has left this index by the time of its question is in the views,
//! and what it found here it can read however long it takes: it holds the segments.

mod check;
mod chunk;
mod lane;
mod open;
mod read;
mod rows;
mod senders;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use ahash::RandomState;
use bytes::Bytes;
use rialto_protocol::{
    event,
    ids::{
        ClientId, ConversationId, DeviceId, Epoch, ID_BYTES, LaneId, Ordinal, Position, Seq, UserId,
    },
    record::{RecordRef, RecordRefs, Table},
};

use self::{
    check::{Checksums, damaged},
    chunk::{EventPlace, RowPlace, conversation_of},
    lane::Lane,
    open::OpenEvent,
    read::{Located, read_all, read_one},
    rows::Cursor,
};
use super::log::{Segment, locked};
use crate::views::{Order, Range, Scan, SentDevices, SentEvent, ViewsError};

/// The index of all lanes.
pub(crate) struct TailIndex {
    lanes: Box<[Mutex<Lane>]>,
    hasher: RandomState,
}

/// Where an entry stands whose records are indexed.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryAt {
    pub(super) lane: LaneId,
    /// Of its records in the segment.
    pub(super) offset: u32,
}

/// What an entry says about its lane's outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OutboxSeen {
    /// It has outbox records.
    pub(super) outbox: bool,
    /// Outbox records up to this position have been passed on.
    pub(super) outbox_done: Option<Position>,
}

impl OutboxSeen {
    fn see(&mut self, record: &RecordRef<'_>) {
        match record {
            RecordRef::Outbox { .. } => self.outbox = true,
            RecordRef::OutboxDone { through } => {
                self.outbox_done = self.outbox_done.max(Some(*through));
            }
            RecordRef::Event { .. } | RecordRef::Row { .. } => {}
        }
    }
}

/// What an entry says about its lane's outbox, where nothing has to be indexed.
pub(super) fn outbox_of(records: &[u8]) -> OutboxSeen {
    let mut seen = OutboxSeen::default();
    RecordRefs::new(records)
        .map_while(Result::ok)
        .for_each(|record| seen.see(&record));
    seen
}

/// The end of a conversation's log, as far as it is in the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailHead {
    /// Oldest event in the tail.
    pub(crate) first: Seq,
    /// Of the last event.
    pub(crate) seq: Seq,
    /// Of the last event.
    pub(crate) epoch: Epoch,
    /// Countable messages up to the last event.
    pub(crate) ordinal: Ordinal,
    /// Of the last event, milliseconds since 1970.
    pub(crate) time_ms: u64,
}

/// The places of a range's events, to be read after whatever the views have below them.
pub(crate) struct TailEvents {
    /// Oldest event of the conversation in the tail; every event below it is in the views. `None`: none is in the tail.
    pub(crate) first: Option<Seq>,
    located: Vec<Located>,
    checksums: Checksums,
    from: Seq,
}

impl TailEvents {
    /// Seq of the first event that [`Self::read`] gives; `None`: it gives none.
    pub(crate) fn from(&self) -> Option<Seq> {
        (!self.located.is_empty()).then_some(self.from)
    }

    /// Reads the events, in rising order.
    ///
    /// # Errors
    /// [`ViewsError`] when a segment cannot be read, or not as it was written.
    pub(crate) fn read(&self) -> Result<Vec<Bytes>, ViewsError> {
        read_all(&self.located, self.checksums)
    }
}

impl TailIndex {
    /// An empty index for so many lanes.
    pub(super) fn new(lanes: u16) -> Self {
        Self {
            lanes: (0..lanes.max(1)).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    fn lane(&self, conversation: &ConversationId) -> &Mutex<Lane> {
        let lanes = u16::try_from(self.lanes.len()).unwrap_or(u16::MAX);
        &self.lanes[usize::from(LaneId::of(conversation, lanes).0)]
    }

    fn conversation(&self, conversation: &ConversationId) -> u64 {
        conversation_of(self.hasher.hash_one(conversation))
    }

    fn user(&self, conversation: u64, user: &UserId) -> u32 {
        half(self.hasher.hash_one((conversation, user)))
    }

    fn fingerprint(&self, sender: u64, client_id: &ClientId) -> u32 {
        half(self.hasher.hash_one((sender, client_id)))
    }

    fn sender(&self, conversation: u64, user: &UserId, device: &DeviceId) -> u64 {
        self.hasher.hash_one((conversation, user, device))
    }

    /// Indexes an entry that has just become durable; entries of a lane come in order.
    pub(super) fn add(&self, segment: &Arc<Segment>, at: &EntryAt, records: &[u8]) -> OutboxSeen {
        let mut seen = OutboxSeen::default();
        let Some(lane) = self.lanes.get(usize::from(at.lane.0)) else {
            return seen;
        };
        let mut lane = locked(lane);
        lane.begin(segment);
        let mut rest = RecordRefs::new(records);
        while let Some(record) = rest.next() {
            match record {
                Ok(record) => {
                    let upto = &records[..records.len() - rest.remaining()];
                    seen.see(&record);
                    self.add_record(&mut lane, &record, at.offset, upto);
                }
                Err(error) => {
                    tracing::error!(lane = %at.lane, %error, "an entry's records cannot be read");
                }
            }
        }
        seen
    }

    /// Indexes a record of an entry whose records begin at `offset`. They are given up to the end of this one, which is where
    /// the payload of every record ends.
    fn add_record(&self, lane: &mut Lane, record: &RecordRef<'_>, offset: u32, upto: &[u8]) {
        let end = offset + u32_of(upto.len());
        match record {
            RecordRef::Event {
                conversation,
                event,
            } => match event::peek(event) {
                Ok(head) => {
                    let bytes = u32_of(event.len());
                    // An event stands behind the id of its conversation.
                    let check =
                        check::of_event_with_id(&upto[upto.len() - event.len() - ID_BYTES..]);
                    let conversation = self.conversation(conversation);
                    let sender = self.sender(conversation, &head.sender, &head.device);
                    let sent = self.fingerprint(sender, &head.client_id);
                    lane.add_event(OpenEvent {
                        place: EventPlace::new(
                            conversation,
                            head.seq,
                            end - bytes,
                            bytes,
                            sent,
                            check,
                        ),
                        sender,
                        user: self.user(conversation, &head.sender),
                        client_id: head.client_id,
                    });
                }
                Err(error) => {
                    tracing::error!(%conversation, %error, "an event in the journal cannot be read");
                }
            },
            RecordRef::Row {
                conversation,
                table,
                key,
                value,
            } => {
                let check = Checksums::of(conversation).row(key, value);
                let conversation = self.conversation(conversation);
                let (key_bytes, value_bytes) = (u32_of(key.len()), u32_of(value.len()));
                let offset = end - value_bytes - key_bytes;
                lane.add_row(
                    RowPlace::new(conversation, *table, offset, key_bytes, value_bytes, check),
                    key,
                );
            }
            RecordRef::Outbox { .. } | RecordRef::OutboxDone { .. } => {}
        }
    }

    /// Drops what lives in segments up to this one: the views hold it.
    pub(super) fn forget(&self, segment: u64) {
        for lane in &self.lanes {
            let forgotten = locked(lane).forget(segment);
            // Freed without the lock.
            drop(forgotten);
        }
    }

    /// The end of a conversation's log; `None`: the tail has no event of it.
    ///
    /// # Errors
    /// [`ViewsError`] when its last event cannot be read.
    pub(crate) fn head(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<TailHead>, ViewsError> {
        let groups = locked(self.lane(conversation)).groups(self.conversation(conversation));
        let first = groups.first().and_then(|group| group.first());
        let last = groups
            .last()
            .and_then(|group| group.last().map(|last| (group.located(last), last.seq())));
        let Some((first, (located, seq))) = first.zip(last) else {
            return Ok(None);
        };
        let last = peek(&read_one(&located, Checksums::of(conversation))?)?;
        if last.seq != seq {
            return Err(damaged(&located.segment, located.offset));
        }
        let (epoch, ordinal, time_ms) = (last.epoch, last.ordinal, last.time_ms);
        Ok(Some(TailHead {
            first: first.seq(),
            seq,
            epoch,
            ordinal,
            time_ms,
        }))
    }

    /// Finds the events of a range, up to `bytes_max` (never fewer than one) from the end that `order` names.
    pub(crate) fn events(&self, range: &Range) -> TailEvents {
        let conversation = self.conversation(&range.conversation);
        let groups = locked(self.lane(&range.conversation)).groups(conversation);
        let first = groups.first().and_then(|group| group.first());
        let within = groups.iter().flat_map(|group| {
            let events = group.range(range.from, range.to).iter();
            events.map(|event| (event.seq(), group.located(event)))
        });
        let mut located = Vec::new();
        let mut bytes = 0;
        let mut fits = |(_, event): &(Seq, Located)| {
            let first = bytes == 0;
            bytes += event.bytes as usize;
            first || bytes <= range.bytes_max
        };
        match range.order {
            Order::Forward => located.extend(within.take_while(&mut fits)),
            Order::Backward => {
                located.extend(within.rev().take_while(&mut fits));
                located.reverse();
            }
        }
        let from = located.first().map_or(range.from, |(seq, _)| *seq);
        TailEvents {
            first: first.map(EventPlace::seq),
            located: located.into_iter().map(|(_, located)| located).collect(),
            checksums: Checksums::of(&range.conversation),
            from,
        }
    }

    /// The newest value of a row: `None` when the tail knows nothing of it, `Some(None)` when it was deleted in the tail.
    ///
    /// # Errors
    /// [`ViewsError`] when a segment cannot be read, or not as it was written.
    pub(crate) fn row(
        &self,
        conversation: &ConversationId,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Option<Bytes>>, ViewsError> {
        let number = self.conversation(conversation);
        let checksums = Checksums::of(conversation);
        let places = locked(self.lane(conversation)).row(number, table, key);
        for rows in &places {
            if let Some((_, value)) = rows::find(rows, key, checksums)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Rows as [`Scan`] asks for them, in key order, deleted ones as `None`. Ends after `limit` rows that are not deleted: a
    /// reader that merges the views' rows in never needs one behind them.
    ///
    /// # Errors
    /// [`ViewsError`] when a segment cannot be read, or not as it was written.
    pub(crate) fn scan_rows(&self, scan: &Scan) -> Result<Vec<(Bytes, Option<Bytes>)>, ViewsError> {
        let conversation = self.conversation(&scan.conversation);
        let wanted = |key: &[u8]| {
            (scan.after.is_empty() || key > &scan.after[..])
                && (scan.through.is_empty() || key <= &scan.through[..])
        };
        let places = locked(self.lane(&scan.conversation)).rows(conversation, scan.table, wanted);
        let checksums = Checksums::of(&scan.conversation);
        // Newest first: of equal keys the first one found counts.
        let cursors = places
            .into_iter()
            .map(|rows| Cursor::new(rows, &scan.after, &scan.through, checksums));
        let mut cursors = cursors.collect::<Result<Vec<_>, _>>()?;
        let mut rows = Vec::new();
        let mut alive = 0;
        while alive < scan.limit {
            let next = cursors.iter().filter_map(|cursor| cursor.row.as_ref());
            let Some(key) = next.map(|(key, _)| key.clone()).min() else {
                break;
            };
            let mut newest = None;
            for cursor in &mut cursors {
                if cursor.row.as_ref().is_some_and(|(found, _)| *found == key) {
                    newest = newest.or(cursor.advance()?);
                }
            }
            let value = newest.and_then(|(_, value)| value);
            alive += usize::from(value.is_some());
            rows.push((key, value));
        }
        Ok(rows)
    }

    /// Of the user's devices with an event of the conversation in the tail those with the newest ones: their greatest `client_id`
    /// there and their last event.
    ///
    /// # Errors
    /// [`ViewsError`] when an event cannot be read.
    pub(crate) fn sent(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<SentDevices, ViewsError> {
        let number = self.conversation(conversation);
        let senders = locked(self.lane(conversation)).senders(number, self.user(number, user));
        senders.read(number, user, Checksums::of(conversation))
    }

    /// The event in the tail that was appended under this `client_id`.
    ///
    /// # Errors
    /// [`ViewsError`] when an event cannot be read.
    pub(crate) fn find_sent(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        device: &DeviceId,
        client_id: &ClientId,
    ) -> Result<Option<SentEvent>, ViewsError> {
        let number = self.conversation(conversation);
        let checksums = Checksums::of(conversation);
        let sent = self.fingerprint(self.sender(number, user, device), client_id);
        let groups = locked(self.lane(conversation)).groups(number);
        for group in groups.iter().rev() {
            // Fingerprints find more than they should once in two thousand.
            for event in group.iter().rev().filter(|event| event.may_be(sent)) {
                let head = peek(&read_one(&group.located(event), checksums)?)?;
                if (head.sender, head.device, head.client_id) == (*user, *device, *client_id) {
                    return Ok(Some(SentEvent {
                        epoch: head.epoch,
                        seq: head.seq,
                        time_ms: head.time_ms,
                    }));
                }
            }
        }
        Ok(None)
    }
}

/// Any half of a good hash is one.
#[allow(clippy::cast_possible_truncation)]
fn half(hash: u64) -> u32 {
    hash as u32
}

/// What is inside a segment is below 4 GiB.
fn u32_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn peek(bytes: &[u8]) -> Result<event::EventHead, ViewsError> {
    event::peek(bytes).map_err(|error| {
        ViewsError::Damaged(format!("an event in the journal cannot be read: {error}"))
    })
}
