//! The index of one lane's records in one segment. Places are kept small: an event costs 12 bytes, and its sender 61 once a
//! conversation.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use ahash::RandomState;
use rialto_protocol::{
    event,
    ids::{ClientId, ConversationId, DeviceId, Epoch, Ordinal, Seq, UserId},
    record::{Record, Table},
};
use smallvec::SmallVec;

use super::read::Located;
use crate::{embedded::log::Segment, views::Scan};

/// The index.
pub(super) struct Part {
    segment: Arc<Segment>,
    hasher: RandomState,
    conversations: HashMap<ConversationId, u32, RandomState>,
    /// By the number in `conversations`.
    runs: Vec<Run>,
    senders: HashMap<(u32, UserId), Sender, RandomState>,
    /// Devices of a user beyond his first in a conversation.
    more_senders: Vec<Sender>,
    rows: BTreeMap<RowKey, Place>,
}

/// Consecutive events of a conversation.
pub(super) struct Run {
    pub(super) first: Seq,
    /// Of the last event.
    pub(super) epoch: Epoch,
    /// Of the last event.
    pub(super) ordinal: Ordinal,
    /// Of the last event.
    pub(super) time_ms: u64,
    events: Vec<EventPlace>,
}

/// Where an event stands.
#[derive(Clone, Copy)]
pub(super) struct EventPlace {
    offset: u32,
    bytes: u32,
    /// Fingerprint of sender, device and client id.
    sent: u32,
}

/// What a device appended to a conversation.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub(super) device: DeviceId,
    /// Its greatest client id.
    pub(super) newest: ClientId,
    /// Number of its last event in the run.
    last: u32,
    /// The user's next device: number in `more_senders` + 1; 0: none.
    next: u32,
}

/// Rows sort by conversation, table and key.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct RowKey {
    conversation: u32,
    table: Table,
    key: SmallVec<[u8; 16]>,
}

/// Where a row's value stands; no bytes: the row was deleted.
#[derive(Clone, Copy)]
struct Place {
    offset: u32,
    bytes: u32,
}

impl Run {
    /// The last event; a run has one at least.
    pub(super) fn last(&self) -> Seq {
        Seq(self.first.0 + self.events.len() as u64 - 1)
    }

    /// The events `from..=to` of it, with their numbers.
    pub(super) fn range(
        &self,
        from: Seq,
        to: Seq,
    ) -> impl DoubleEndedIterator<Item = (Seq, EventPlace)> {
        let count = self.events.len();
        let index = |seq: u64| {
            usize::try_from(seq.saturating_sub(self.first.0))
                .map_or(count, |index| index.min(count))
        };
        let start = index(from.0);
        let end = index(to.0.saturating_add(1)).max(start);
        let seqs = (start..end).map(|index| Seq(self.first.0 + index as u64));
        seqs.zip(self.events[start..end].iter().copied())
    }
}

impl Part {
    pub(super) fn new(segment: Arc<Segment>) -> Self {
        let hasher = RandomState::new();
        Self {
            segment,
            conversations: HashMap::with_hasher(hasher.clone()),
            runs: Vec::new(),
            senders: HashMap::with_hasher(hasher.clone()),
            more_senders: Vec::new(),
            rows: BTreeMap::new(),
            hasher,
        }
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Indexes a record whose payload ends at `end`, as every record's does.
    pub(super) fn add(&mut self, record: &Record, end: u32) {
        match record {
            Record::Event {
                conversation,
                event,
            } => match event::peek(event) {
                Ok(head) => self.add_event(conversation, &head, end, u32_of(event.len())),
                Err(error) => {
                    tracing::error!(%conversation, %error, "an event in the journal cannot be read");
                }
            },
            Record::Row {
                conversation,
                table,
                key,
                value,
            } => {
                let conversation = self.number(conversation);
                let bytes = u32_of(value.len());
                let key = RowKey {
                    conversation,
                    table: *table,
                    key: SmallVec::from_slice(key),
                };
                self.rows.insert(
                    key,
                    Place {
                        offset: end - bytes,
                        bytes,
                    },
                );
            }
            Record::Outbox { .. } | Record::OutboxDone { .. } => {}
        }
    }

    fn number(&mut self, conversation: &ConversationId) -> u32 {
        let next = u32_of(self.runs.len());
        let number = *self.conversations.entry(*conversation).or_insert(next);
        if number == next {
            let (epoch, ordinal) = (Epoch(0), Ordinal(0));
            self.runs.push(Run {
                first: Seq(0),
                epoch,
                ordinal,
                time_ms: 0,
                events: Vec::new(),
            });
        }
        number
    }

    fn add_event(
        &mut self,
        conversation: &ConversationId,
        head: &event::EventHead,
        end: u32,
        bytes: u32,
    ) {
        let sent = self.fingerprint(&head.sender, &head.device, &head.client_id);
        let number = self.number(conversation);
        let run = &mut self.runs[number as usize];
        if run.events.is_empty() {
            run.first = head.seq;
        } else if head.seq != run.last().next() {
            // The owner numbers events without gaps. Whatever this is, the newest has to be found.
            tracing::error!(%conversation, seq = head.seq.0, last = run.last().0, "an event is out of order");
            run.events.clear();
            run.first = head.seq;
            self.senders.retain(|(of, _), _| *of != number);
        }
        let index = u32_of(run.events.len());
        (run.epoch, run.ordinal, run.time_ms) = (head.epoch, head.ordinal, head.time_ms);
        run.events.push(EventPlace {
            offset: end - bytes,
            bytes,
            sent,
        });
        self.note_sender((number, head.sender), head.device, head.client_id, index);
    }

    fn note_sender(
        &mut self,
        key: (u32, UserId),
        device: DeviceId,
        client_id: ClientId,
        index: u32,
    ) {
        let new = Sender {
            device,
            newest: client_id,
            last: index,
            next: 0,
        };
        let mut sender = self.senders.entry(key).or_insert(new);
        let added = u32_of(self.more_senders.len()) + 1;
        if sender.device != device {
            let mut next = sender.next;
            let mut before = None;
            while next != 0 && self.more_senders[next as usize - 1].device != device {
                before = Some(next);
                next = self.more_senders[next as usize - 1].next;
            }
            if next == 0 {
                match before {
                    Some(before) => self.more_senders[before as usize - 1].next = added,
                    None => sender.next = added,
                }
                self.more_senders.push(new);
                next = added;
            }
            sender = &mut self.more_senders[next as usize - 1];
        }
        sender.newest = sender.newest.max(client_id);
        sender.last = index;
    }

    fn fingerprint(&self, user: &UserId, device: &DeviceId, client_id: &ClientId) -> u32 {
        let hash = self.hasher.hash_one((user, device, client_id));
        // Any half of a good hash is one.
        #[allow(clippy::cast_possible_truncation)]
        let half = hash as u32;
        half
    }

    /// The events of a conversation, if there are any.
    pub(super) fn run(&self, conversation: &ConversationId) -> Option<&Run> {
        let number = *self.conversations.get(conversation)?;
        Some(&self.runs[number as usize]).filter(|run| !run.events.is_empty())
    }

    pub(super) fn located(&self, event: EventPlace) -> Located {
        Located {
            segment: Arc::clone(&self.segment),
            offset: event.offset,
            bytes: event.bytes,
        }
    }

    /// The newest value here; `Some(None)`: deleted.
    pub(super) fn row(
        &self,
        conversation: &ConversationId,
        table: Table,
        key: &[u8],
    ) -> Option<Option<Located>> {
        let conversation = *self.conversations.get(conversation)?;
        let place = self.rows.get(&RowKey {
            conversation,
            table,
            key: SmallVec::from_slice(key),
        })?;
        Some(self.value(*place))
    }

    fn value(&self, place: Place) -> Option<Located> {
        let Place { offset, bytes } = place;
        (bytes > 0).then(|| Located {
            segment: Arc::clone(&self.segment),
            offset,
            bytes,
        })
    }

    /// Keys and values of a scan's rows; its limit is not regarded.
    pub(super) fn rows(&self, scan: &Scan) -> impl Iterator<Item = (&[u8], Option<Located>)> {
        let conversation = self.conversations.get(&scan.conversation).copied();
        // An upper end below the lower one would be a panic.
        let possible =
            conversation.filter(|_| scan.through.is_empty() || scan.through > scan.after);
        possible.into_iter().flat_map(move |conversation| {
            let key = |key: &[u8]| RowKey {
                conversation,
                table: scan.table,
                key: SmallVec::from_slice(key),
            };
            let from = match &scan.after[..] {
                [] => Bound::Included(key(&[])),
                after => Bound::Excluded(key(after)),
            };
            let to = match &scan.through[..] {
                [] => Bound::Unbounded,
                through => Bound::Included(key(through)),
            };
            let rows = self.rows.range((from, to));
            rows.take_while(move |(key, _)| {
                key.conversation == conversation && key.table == scan.table
            })
            .map(|(key, place)| (&key.key[..], self.value(*place)))
        })
    }

    /// The user's devices in the conversation, each with its last event.
    pub(super) fn senders(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> impl Iterator<Item = (Sender, Located)> {
        let number = self.conversations.get(conversation).copied();
        let first = number.and_then(|number| self.senders.get(&(number, *user)));
        let all = std::iter::successors(first, |sender| match sender.next {
            0 => None,
            next => self.more_senders.get(next as usize - 1),
        });
        let run = number.map(|number| &self.runs[number as usize]);
        all.filter_map(move |sender| {
            Some((
                *sender,
                self.located(*run?.events.get(sender.last as usize)?),
            ))
        })
    }

    /// Events that may have been appended under this client id, newest first.
    pub(super) fn sent_as(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        device: &DeviceId,
        client_id: &ClientId,
    ) -> impl Iterator<Item = Located> {
        let sent = self.fingerprint(user, device, client_id);
        let events = self
            .run(conversation)
            .map_or(&[][..], |run| &run.events[..]);
        events
            .iter()
            .rev()
            .filter(move |event| event.sent == sent)
            .map(|event| self.located(*event))
    }
}

/// What is inside a segment is below 4 GiB.
pub(super) fn u32_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
