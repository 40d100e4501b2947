//! A store of maps.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use rialto_protocol::{
    event,
    ids::{ConversationId, Cursor, Epoch, LaneId, Position, Seq, UserId},
    record::{Record, Records, Table},
};

use crate::io::{
    Answer, Entry, LaneClaim, OutboxItem, Query, SentEvent, StoredConversation, StoredSent,
};

type RowKey = (ConversationId, Table, Bytes);

#[derive(Default)]
pub(super) struct MapStore {
    entries: Vec<Entry>,
    events: HashMap<ConversationId, Vec<Bytes>>,
    rows: BTreeMap<RowKey, Bytes>,
    /// Events below this one have been dropped.
    pub(super) oldest: Seq,
    /// Ids of more than 7 days before have been forgotten.
    pub(super) sent_as_of_ms: u64,
}

impl MapStore {
    /// Puts something in the place of a conversation's profile; gives what was there.
    pub(super) fn replace_profile(&mut self, conversation: ConversationId, row: Bytes) -> Bytes {
        let key = (conversation, Table::Profile, Bytes::new());
        self.rows.insert(key, row).expect("it has a profile")
    }

    pub(super) fn keep(&mut self, entry: Entry) {
        for record in Records::new(entry.records.clone()) {
            match record.unwrap() {
                Record::Event {
                    conversation,
                    event,
                } => {
                    let log = self.events.entry(conversation).or_default();
                    assert_eq!(
                        event::peek(&event).unwrap().seq.0,
                        log.len() as u64 + 1,
                        "no gap, no repeat"
                    );
                    log.push(event);
                }
                Record::Row {
                    conversation,
                    table,
                    key,
                    value,
                } => {
                    self.rows.insert((conversation, table, key), value);
                }
                Record::Outbox { .. } | Record::OutboxDone { .. } => {}
            }
        }
        self.entries.push(entry);
    }

    pub(super) fn claims(&self, lanes: u16) -> Vec<LaneClaim> {
        (0..lanes)
            .map(LaneId)
            .map(|lane| self.claim(lane))
            .collect()
    }

    fn claim(&self, lane: LaneId) -> LaneClaim {
        let own: Vec<&Entry> = self
            .entries
            .iter()
            .filter(|entry| entry.lane == lane)
            .collect();
        let last = own.last();
        let mut outbox = Vec::new();
        let mut done = Position(0);
        for entry in &own {
            let mut index = 0;
            for record in Records::new(entry.records.clone()) {
                match record.unwrap() {
                    Record::Outbox { user, notice } => {
                        let (position, time_ms) = (entry.position, entry.time_ms);
                        outbox.push(OutboxItem {
                            position,
                            index,
                            time_ms,
                            user,
                            notice,
                        });
                        index += 1;
                    }
                    Record::OutboxDone { through } => done = through,
                    _ => {}
                }
            }
        }
        outbox.retain(|item| item.position > done);
        LaneClaim {
            lane,
            epoch: last.map_or(Epoch(1), |entry| entry.epoch.next()),
            tail: last.map_or(Position(0), |entry| entry.position),
            time_ms: last.map_or(0, |entry| entry.time_ms),
            outbox,
        }
    }

    pub(super) fn read(&self, query: &Query) -> Answer {
        match query {
            Query::Conversation { conversation } => {
                Answer::Conversation(self.conversation(*conversation))
            }
            Query::Member { conversation, user } => Answer::Member {
                row: self.row(*conversation, Table::Member, user.to_proto()),
                sent: self.sent(*conversation, *user),
                more_devices: false,
            },
            Query::FindSent {
                conversation,
                user,
                device,
                client_id,
            } => {
                let found = self
                    .log(*conversation)
                    .iter()
                    .filter_map(|event| event::peek(event).ok())
                    .find(|head| {
                        head.sender == *user
                            && head.device == *device
                            && head.client_id == *client_id
                    });
                let event = found.map(|head| SentEvent {
                    epoch: head.epoch,
                    seq: head.seq,
                    time_ms: head.time_ms,
                });
                let as_of_ms = self.sent_as_of_ms;
                Answer::Sent { event, as_of_ms }
            }
            Query::Events {
                conversation,
                from,
                to,
                ..
            } => {
                let log = self.log(*conversation);
                let first = self.oldest.max(*from);
                let asked =
                    |event: &&Bytes| (first..=*to).contains(&event::peek(event).unwrap().seq);
                Answer::Events {
                    events: log.iter().filter(asked).cloned().collect(),
                    tombstones: self.tombstones(*conversation),
                }
            }
            Query::Scan {
                conversation,
                table,
                after,
                limit,
            } => {
                let rows = self.rows.iter().filter(|((id, of, key), value)| {
                    id == conversation && of == table && key > after && !value.is_empty()
                });
                Answer::Scan(
                    rows.take(*limit)
                        .map(|((_, _, key), value)| (key.clone(), value.clone()))
                        .collect(),
                )
            }
            Query::Rows {
                conversation,
                table,
                keys,
            } => Answer::Rows(
                keys.iter()
                    .map(|key| self.row(*conversation, *table, key.clone()))
                    .collect(),
            ),
            Query::LastSeen { users } => Answer::LastSeen(vec![None; users.len()]),
        }
    }

    fn log(&self, conversation: ConversationId) -> &[Bytes] {
        self.events.get(&conversation).map_or(&[], Vec::as_slice)
    }

    fn row(&self, conversation: ConversationId, table: Table, key: Bytes) -> Option<Bytes> {
        self.rows
            .get(&(conversation, table, key))
            .filter(|value| !value.is_empty())
            .cloned()
    }

    fn conversation(&self, conversation: ConversationId) -> Option<StoredConversation> {
        let head = event::peek(self.log(conversation).last()?).unwrap();
        Some(StoredConversation {
            head: Cursor {
                epoch: head.epoch,
                seq: head.seq,
            },
            ordinal: head.ordinal,
            time_ms: head.time_ms,
            oldest: self.oldest.max(Seq(1)),
            profile: self.row(conversation, Table::Profile, Bytes::new())?,
        })
    }

    fn sent(&self, conversation: ConversationId, user: UserId) -> Vec<StoredSent> {
        let mut devices: BTreeMap<_, StoredSent> = BTreeMap::new();
        for head in self
            .log(conversation)
            .iter()
            .filter_map(|event| event::peek(event).ok())
        {
            if head.sender == user {
                let newest = devices
                    .get(&head.device)
                    .map_or(head.client_id, |sent| sent.newest.max(head.client_id));
                let (device, seq, ordinal) = (head.device, head.seq, head.ordinal);
                devices.insert(
                    device,
                    StoredSent {
                        device,
                        newest,
                        seq,
                        ordinal,
                    },
                );
            }
        }
        devices.into_values().collect()
    }

    fn tombstones(&self, conversation: ConversationId) -> Vec<(Seq, Seq)> {
        let number = |bytes: &Bytes| Seq(u64::from_be_bytes(bytes[..].try_into().unwrap()));
        let rows = self
            .rows
            .iter()
            .filter(|((id, table, _), _)| *id == conversation && *table == Table::Tombstone);
        rows.map(|((_, _, key), value)| (number(key), number(value)))
            .collect()
    }
}
