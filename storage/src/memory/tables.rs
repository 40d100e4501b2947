//! The views of the memory store: what durable entries say, kept in order.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use rialto_protocol::{
    event::{self, EventHead},
    ids::{ClientId, ConversationId, DeviceId, Ordinal, Seq, UserId},
    record::{Record, Records, Table},
};

use crate::{
    page::Page,
    views::{Head, Order, Range, Scan, Sent, SentDevices, SentEvent},
};

type Sender = (ConversationId, UserId, DeviceId);

#[derive(Clone, Debug)]
struct Device {
    newest: ClientId,
    seq: Seq,
    ordinal: Ordinal,
    by_id: BTreeMap<ClientId, SentEvent>,
}

/// Everything that reads are answered from.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    heads: BTreeMap<ConversationId, Head>,
    events: BTreeMap<(ConversationId, Seq), Bytes>,
    rows: BTreeMap<(ConversationId, Table, Bytes), Bytes>,
    devices: BTreeMap<Sender, Device>,
}

/// Reads an entry's records and its events' heads; `Err` says what is wrong with it.
pub(super) fn parse(records: &Bytes) -> Result<Vec<(Record, Option<EventHead>)>, String> {
    let mut parsed = Vec::new();
    for record in Records::new(records.clone()) {
        let record = record.map_err(|error| error.to_string())?;
        let head = match &record {
            Record::Event { event, .. } => {
                Some(event::peek(event).map_err(|error| error.to_string())?)
            }
            _ => None,
        };
        parsed.push((record, head));
    }
    Ok(parsed)
}

impl Tables {
    pub(super) fn add_event(
        &mut self,
        conversation: ConversationId,
        head: &EventHead,
        event: Bytes,
    ) {
        let oldest = self
            .heads
            .get(&conversation)
            .map_or(head.seq, |before| before.oldest);
        let (seq, epoch, ordinal, time_ms) = (head.seq, head.epoch, head.ordinal, head.time_ms);
        self.heads.insert(
            conversation,
            Head {
                seq,
                epoch,
                ordinal,
                time_ms,
                oldest,
            },
        );
        self.events.insert((conversation, seq), event);
        let device = self
            .devices
            .entry((conversation, head.sender, head.device))
            .or_insert_with(|| Device {
                newest: head.client_id,
                seq,
                ordinal,
                by_id: BTreeMap::new(),
            });
        device.newest = device.newest.max(head.client_id);
        device.seq = seq;
        device.ordinal = ordinal;
        device.by_id.entry(head.client_id).or_insert(SentEvent {
            epoch,
            seq,
            time_ms,
        });
    }

    pub(super) fn set_row(
        &mut self,
        conversation: ConversationId,
        table: Table,
        key: Bytes,
        value: Bytes,
    ) {
        if value.is_empty() {
            self.rows.remove(&(conversation, table, key));
        } else {
            self.rows.insert((conversation, table, key), value);
        }
    }

    pub(super) fn head(&self, conversation: ConversationId) -> Option<Head> {
        self.heads.get(&conversation).copied()
    }

    pub(super) fn events(&self, range: &Range) -> Vec<Bytes> {
        if range.from > range.to {
            return Vec::new();
        }
        let found = self
            .events
            .range((range.conversation, range.from)..=(range.conversation, range.to));
        let mut page = Page::new(range.bytes_max);
        let take = |(_, event): (&(ConversationId, Seq), &Bytes)| {
            page.takes(event.len()).then(|| event.clone())
        };
        match range.order {
            Order::Forward => found.map_while(take).collect(),
            Order::Backward => {
                let mut events: Vec<_> = found.rev().map_while(take).collect();
                events.reverse();
                events
            }
        }
    }

    pub(super) fn row(
        &self,
        conversation: ConversationId,
        table: Table,
        key: &Bytes,
    ) -> Option<Bytes> {
        self.rows.get(&(conversation, table, key.clone())).cloned()
    }

    pub(super) fn scan(&self, scan: &Scan) -> Vec<(Bytes, Bytes)> {
        if !scan.through.is_empty() && scan.after >= scan.through {
            return Vec::new();
        }
        let first = (scan.conversation, scan.table, scan.after.clone());
        // An empty `after` means from the start, and the empty key is a key as well.
        let first = if scan.after.is_empty() {
            Bound::Included(first)
        } else {
            Bound::Excluded(first)
        };
        self.rows
            .range((first, Bound::Unbounded))
            .take_while(|((conversation, table, key), _)| {
                *conversation == scan.conversation
                    && *table == scan.table
                    && (scan.through.is_empty() || *key <= scan.through)
            })
            .take(scan.limit)
            .map(|((_, _, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    pub(super) fn sent(&self, conversation: ConversationId, user: UserId) -> SentDevices {
        let first = (conversation, user, DeviceId::from_bytes([0; 16]));
        let last = (conversation, user, DeviceId::from_bytes([0xff; 16]));
        let mut sent = SentDevices::default();
        for ((_, _, device), found) in self.devices.range(first..=last) {
            sent.offer(Sent {
                device: *device,
                newest: found.newest,
                seq: found.seq,
                ordinal: found.ordinal,
            });
        }
        sent.cut();
        sent
    }

    pub(super) fn find_sent(
        &self,
        conversation: ConversationId,
        user: UserId,
        device: DeviceId,
        client_id: ClientId,
    ) -> Option<SentEvent> {
        self.devices
            .get(&(conversation, user, device))?
            .by_id
            .get(&client_id)
            .copied()
    }
}
