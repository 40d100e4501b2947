//! What is durable but not yet in the views, found by a small index into the log's own segments.
//!
//! Divided by lane, each behind its own lock; within a lane by segment, so that forgetting a segment is dropping one part.
//! What a conversation's event says is read from its segment when asked for: the index holds places only.
//!
//! A reader asks here first and the views afterwards. What has left this index by the time of its question is in the views,
//! and what it found here it can read however long it takes: it holds the segments.

mod part;
mod read;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use rialto_protocol::{
    event,
    ids::{ClientId, ConversationId, DeviceId, Epoch, LaneId, Ordinal, Position, Seq, UserId},
    record::{Record, Records, Table},
};

use self::{
    part::Part,
    read::{Located, read_all, read_one},
};
use super::log::{Segment, locked};
use crate::views::{Order, Range, Scan, Sent, SentEvent, ViewsError};

/// The index of all lanes.
pub(crate) struct TailIndex {
    /// Of each lane the parts, oldest segment first.
    lanes: Box<[Mutex<VecDeque<Part>>]>,
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
    fn see(&mut self, record: &Record) {
        match record {
            Record::Outbox { .. } => self.outbox = true,
            Record::OutboxDone { through } => {
                self.outbox_done = self.outbox_done.max(Some(*through));
            }
            Record::Event { .. } | Record::Row { .. } => {}
        }
    }
}

/// What an entry says about its lane's outbox, where nothing has to be indexed.
pub(super) fn outbox_of(records: Bytes) -> OutboxSeen {
    let mut seen = OutboxSeen::default();
    Records::new(records)
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
    /// [`ViewsError::Io`] when a segment cannot be read.
    pub(crate) fn read(&self) -> Result<Vec<Bytes>, ViewsError> {
        read_all(&self.located)
    }
}

impl TailIndex {
    /// An empty index for so many lanes.
    pub(super) fn new(lanes: u16) -> Self {
        Self {
            lanes: (0..lanes.max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    fn lane(&self, conversation: &ConversationId) -> &Mutex<VecDeque<Part>> {
        let lanes = u16::try_from(self.lanes.len()).unwrap_or(u16::MAX);
        &self.lanes[usize::from(LaneId::of(conversation, lanes).0)]
    }

    /// Indexes an entry that has just become durable; entries of a lane come in order.
    pub(super) fn add(&self, segment: &Arc<Segment>, at: &EntryAt, records: Bytes) -> OutboxSeen {
        let mut seen = OutboxSeen::default();
        let Some(lane) = self.lanes.get(usize::from(at.lane.0)) else {
            return seen;
        };
        let mut parts = locked(lane);
        if parts
            .back()
            .is_none_or(|part| part.segment().number() != segment.number())
        {
            parts.push_back(Part::new(Arc::clone(segment)));
        }
        let Some(part) = parts.back_mut() else {
            return seen;
        };
        let length = records.len();
        let mut records = Records::new(records);
        while let Some(record) = records.next() {
            match record {
                // Both end where the record ends.
                Ok(record) => {
                    let end = at.offset + part::u32_of(length - records.remaining());
                    seen.see(&record);
                    part.add(&record, end);
                }
                Err(error) => {
                    tracing::error!(lane = %at.lane, %error, "an entry's records cannot be read");
                }
            }
        }
        seen
    }

    /// Drops what lives in segments up to this one: the views hold it.
    pub(super) fn forget(&self, segment: u64) {
        for lane in &self.lanes {
            let mut forgotten = Vec::new();
            let mut parts = locked(lane);
            while let Some(part) = parts.pop_front_if(|part| part.segment().number() <= segment) {
                forgotten.push(part);
            }
            // Freed without the lock.
            drop(parts);
        }
    }

    /// The end of a conversation's log; `None`: the tail has no event of it.
    pub(crate) fn head(&self, conversation: &ConversationId) -> Option<TailHead> {
        let parts = locked(self.lane(conversation));
        let mut runs = parts.iter().filter_map(|part| part.run(conversation));
        let oldest = runs.next()?;
        let newest = runs.next_back().unwrap_or(oldest);
        let (epoch, ordinal, time_ms) = (newest.epoch, newest.ordinal, newest.time_ms);
        Some(TailHead {
            first: oldest.first,
            seq: newest.last(),
            epoch,
            ordinal,
            time_ms,
        })
    }

    /// Finds the events of a range, up to `bytes_max` (never fewer than one) from the end that `order` names.
    pub(crate) fn events(&self, range: &Range) -> TailEvents {
        let parts = locked(self.lane(&range.conversation));
        let runs: Vec<_> = parts
            .iter()
            .filter_map(|part| Some((part, part.run(&range.conversation)?)))
            .collect();
        let first = runs.first().map(|(_, run)| run.first);
        let within = runs.iter().flat_map(|(part, run)| {
            let events = run.range(range.from, range.to);
            events.map(|(seq, event)| (seq, part.located(event)))
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
            first,
            located: located.into_iter().map(|(_, located)| located).collect(),
            from,
        }
    }

    /// The newest value of a row: `None` when the tail knows nothing of it, `Some(None)` when it was deleted in the tail.
    ///
    /// # Errors
    /// [`ViewsError::Io`] when a segment cannot be read.
    pub(crate) fn row(
        &self,
        conversation: &ConversationId,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Option<Bytes>>, ViewsError> {
        let parts = locked(self.lane(conversation));
        let found = parts
            .iter()
            .rev()
            .find_map(|part| part.row(conversation, table, key));
        drop(parts);
        found
            .map(|value| value.map(|value| read_one(&value)).transpose())
            .transpose()
    }

    /// Rows as [`Scan`] asks for them, in key order, deleted ones as `None`. Ends after `limit` rows that are not deleted: a
    /// reader that merges the views' rows in never needs one behind them.
    ///
    /// # Errors
    /// [`ViewsError::Io`] when a segment cannot be read.
    pub(crate) fn scan_rows(&self, scan: &Scan) -> Result<Vec<(Bytes, Option<Bytes>)>, ViewsError> {
        let parts = locked(self.lane(&scan.conversation));
        // Newest first: of equal keys the first one found counts.
        let mut rows: Vec<_> = parts
            .iter()
            .rev()
            .map(|part| part.rows(scan).peekable())
            .collect();
        let mut keys = Vec::new();
        let mut values = Vec::new();
        let mut alive = 0;
        while alive < scan.limit {
            let Some(key) = rows
                .iter_mut()
                .filter_map(|rows| rows.peek().map(|(key, _)| *key))
                .min()
            else {
                break;
            };
            let mut newest = None;
            for rows in &mut rows {
                if let Some((_, value)) = rows.next_if(|(found, _)| *found == key) {
                    newest.get_or_insert(value);
                }
            }
            let value = newest.flatten();
            alive += usize::from(value.is_some());
            keys.push((Bytes::copy_from_slice(key), value.is_some()));
            values.extend(value);
        }
        drop(rows);
        drop(parts);
        let mut values = values.iter().map(read_one);
        let rows = keys.into_iter().map(|(key, alive)| {
            Ok((
                key,
                if alive {
                    values.next().transpose()?
                } else {
                    None
                },
            ))
        });
        rows.collect()
    }

    /// For each of the user's devices with an event of the conversation in the tail: its greatest `client_id` there and its
    /// last event.
    ///
    /// # Errors
    /// [`ViewsError`] when an event cannot be read.
    pub(crate) fn sent(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Vec<Sent>, ViewsError> {
        let parts = locked(self.lane(conversation));
        let mut devices: Vec<(DeviceId, ClientId, Located)> = Vec::new();
        for part in parts.iter().rev() {
            for (sender, last) in part.senders(conversation, user) {
                match devices
                    .iter_mut()
                    .find(|(device, ..)| *device == sender.device)
                {
                    Some((_, newest, _)) => *newest = sender.newest.max(*newest),
                    None => devices.push((sender.device, sender.newest, last)),
                }
            }
        }
        drop(parts);
        let sent = devices.into_iter().map(|(device, newest, last)| {
            let head = peek(&read_one(&last)?)?;
            Ok(Sent {
                device,
                newest,
                seq: head.seq,
                ordinal: head.ordinal,
            })
        });
        sent.collect()
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
        let parts = locked(self.lane(conversation));
        let candidates: Vec<Located> = parts
            .iter()
            .rev()
            .flat_map(|part| part.sent_as(conversation, user, device, client_id))
            .collect();
        drop(parts);
        // Fingerprints find more than they should once in four billion.
        for candidate in &candidates {
            let head = peek(&read_one(candidate)?)?;
            if (head.sender, head.device, head.client_id) == (*user, *device, *client_id) {
                return Ok(Some(SentEvent {
                    epoch: head.epoch,
                    seq: head.seq,
                    time_ms: head.time_ms,
                }));
            }
        }
        Ok(None)
    }
}

fn peek(bytes: &[u8]) -> Result<event::EventHead, ViewsError> {
    event::peek(bytes).map_err(|error| {
        ViewsError::Damaged(format!("an event in the journal cannot be read: {error}"))
    })
}
