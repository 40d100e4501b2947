//! A real log, and a model of it that keeps everything.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    path::PathBuf,
    sync::mpsc,
};

use bytes::BytesMut;
use proptest::prelude::*;
use rialto_protocol::{
    event::{EventHead, encode_into},
    record::{put_event, put_row},
    v1,
};

use super::super::*;
use crate::{
    embedded::log::{Log, LogOptions, ViewCheckpoint},
    journal::Entry,
    views::Sent,
};

pub(super) const LANES: u16 = 3;

/// One change of a conversation: an event, or a row set or deleted.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Event {
        user: u8,
        device: u8,
        client_id: u8,
        bytes: usize,
    },
    Row {
        table: u8,
        key: u8,
        bytes: usize,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// One entry for each lane that is concerned.
    Append(Vec<(u8, Change)>),
    Seal,
    /// The oldest sealed segment goes into the views.
    View,
    Reopen,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..3_u8, 0..3_u8, 0..20_u8, 0..300_usize).prop_map(|(user, device, client_id, bytes)| {
            Change::Event {
                user,
                device,
                client_id,
                bytes,
            }
        }),
        (1..3_u8, 0..6_u8, 0..40_usize).prop_map(|(table, key, bytes)| Change::Row {
            table,
            key,
            bytes: bytes.saturating_sub(10)
        }),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec((0..4_u8, change()), 1..8).prop_map(Step::Append),
        2 => Just(Step::Seal),
        2 => Just(Step::View),
        1 => Just(Step::Reopen),
    ]
}

pub(super) fn conversation(number: u8) -> ConversationId {
    ConversationId::from_bytes([number; 16])
}

pub(super) fn user(number: u8) -> UserId {
    UserId::from_bytes([number + 1; 16])
}

pub(super) fn device(number: u8) -> DeviceId {
    DeviceId::from_bytes([number; 16])
}

pub(super) fn client_id(number: u8) -> ClientId {
    ClientId::from_bytes([number; 16])
}

/// What one segment holds.
#[derive(Clone, Default)]
pub(super) struct Kept {
    pub(super) events: HashMap<u8, Vec<(EventHead, Bytes)>>,
    pub(super) rows: BTreeMap<(u8, Table, Bytes), Option<Bytes>>,
}

pub(super) struct World {
    directory: tempfile::TempDir,
    log: Option<Log>,
    checkpoint: ViewCheckpoint,
    /// Sealed segments that the views do not hold, then what is in the active one.
    pub(super) kept: Vec<Kept>,
    pub(super) tails: Vec<(Epoch, Position)>,
    heads: [(u64, u64); 4],
    /// Its segments are damaged: look-ups may fail, which is counted.
    pub(super) damaged: bool,
    pub(super) refused: Cell<usize>,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            directory: tempfile::tempdir().unwrap(),
            log: None,
            checkpoint: ViewCheckpoint::default(),
            kept: vec![Kept::default()],
            tails: Vec::new(),
            heads: [(0, 0); 4],
            damaged: false,
            refused: Cell::default(),
        };
        world.open();
        world
    }

    /// Opening seals what there is.
    fn open(&mut self) {
        self.log = None;
        let options = LogOptions {
            segment_bytes: 128 << 10,
            ..LogOptions::new(7, LANES)
        };
        let (log, _) = Log::open(self.directory.path(), options, &self.checkpoint).unwrap();
        let (sender, receiver) = mpsc::channel();
        log.claim((0..LANES).map(LaneId).collect(), move |claims| {
            sender.send(claims).unwrap();
        });
        let claims = receiver.recv().unwrap().unwrap();
        self.tails = claims
            .iter()
            .map(|claim| (claim.epoch, claim.tail))
            .collect();
        self.log = Some(log);
        self.started();
    }

    /// A segment has ended, if it held anything.
    fn started(&mut self) {
        if self
            .kept
            .last()
            .is_none_or(|kept| !kept.events.is_empty() || !kept.rows.is_empty())
        {
            self.kept.push(Kept::default());
        }
    }

    pub(super) fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    pub(super) fn run(&mut self, step: Step) {
        match step {
            Step::Append(changes) => self.append(&changes),
            Step::Seal => {
                let (sender, receiver) = mpsc::channel();
                self.log().seal(move |sealed| sender.send(sealed).unwrap());
                receiver.recv().unwrap().unwrap();
                self.started();
            }
            Step::View => {
                if let Some(segment) = self.log().sealed_unviewed() {
                    self.checkpoint = segment.checkpoint();
                    self.log().viewed(segment.number());
                    self.kept.remove(0);
                }
            }
            Step::Reopen => self.open(),
        }
    }

    fn append(&mut self, changes: &[(u8, Change)]) {
        let mut records: BTreeMap<LaneId, BytesMut> = BTreeMap::new();
        let kept = self.kept.last_mut().unwrap();
        for (number, change) in changes {
            let id = conversation(*number);
            let lane = LaneId::of(&id, LANES);
            let buf = records.entry(lane).or_default();
            match change {
                Change::Event {
                    user: of,
                    device: on,
                    client_id: name,
                    bytes,
                } => {
                    let (seq, ordinal) = &mut self.heads[usize::from(*number)];
                    (*seq, *ordinal) = (*seq + 1, *ordinal + *bytes as u64 % 2);
                    let head = EventHead {
                        seq: Seq(*seq),
                        epoch: self.tails[usize::from(lane.0)].0,
                        time_ms: *seq * 10,
                        ordinal: Ordinal(*ordinal),
                        sender: user(*of),
                        device: device(*on),
                        client_id: client_id(*name),
                    };
                    let message = v1::Message {
                        body: vec![*name; *bytes].into(),
                        ..v1::Message::default()
                    };
                    let range = put_event(buf, &id, |buf| {
                        encode_into(buf, &head, &v1::event::Content::Message(message));
                    });
                    let event = Bytes::copy_from_slice(&buf[range]);
                    kept.events.entry(*number).or_default().push((head, event));
                }
                Change::Row { table, key, bytes } => {
                    let table = Table::from_number(*table).unwrap();
                    let value = vec![*key; *bytes];
                    put_row(buf, &id, table, &[*key], &value);
                    let value = (!value.is_empty()).then(|| Bytes::from(value));
                    kept.rows
                        .insert((*number, table, Bytes::copy_from_slice(&[*key])), value);
                }
            }
        }
        let entries = records.into_iter().map(|(lane, records)| {
            let (epoch, position) = &mut self.tails[usize::from(lane.0)];
            *position = position.next();
            Entry {
                lane,
                epoch: *epoch,
                position: *position,
                time_ms: position.0,
                records: records.freeze(),
            }
        });
        let entries = entries.collect();
        let (sender, receiver) = mpsc::channel();
        self.log()
            .append(entries, move |result| sender.send(result).unwrap());
        receiver.recv().unwrap().unwrap();
    }

    /// The file of the segment that is being written.
    pub(super) fn segment(&self) -> PathBuf {
        self.directory.path().join("journal/0000000001.seg")
    }

    /// Of damaged segments either the answer is right or there is none.
    fn agree<T: PartialEq + Debug>(
        &self,
        found: Result<T, ViewsError>,
        expected: &T,
        what: &dyn Debug,
    ) {
        match found {
            Err(ViewsError::Damaged(_)) if self.damaged => {
                self.refused.set(self.refused.get() + 1);
            }
            found => assert_eq!(found.unwrap(), *expected, "{what:?}"),
        }
    }

    pub(super) fn check(&self) {
        for number in 0..4 {
            let events: Vec<_> = self
                .kept
                .iter()
                .filter_map(|kept| kept.events.get(&number))
                .flatten()
                .collect();
            self.check_head(number, &events);
            for (from, to, bytes_max) in [
                (1, u64::MAX, 1 << 20),
                (2, 5, 1 << 20),
                (3, u64::MAX, 400),
                (1, 4, 0),
            ] {
                for order in [Order::Forward, Order::Backward] {
                    self.check_range(number, &events, (from, to), bytes_max, order);
                }
            }
            self.check_sent(number, &events);
            self.check_rows(number);
        }
    }

    fn check_head(&self, number: u8, events: &[&(EventHead, Bytes)]) {
        let expected = events.last().map(|(last, _)| TailHead {
            first: events[0].0.seq,
            seq: last.seq,
            epoch: last.epoch,
            ordinal: last.ordinal,
            time_ms: last.time_ms,
        });
        let found = self.log().tail().head(&conversation(number));
        self.agree(found, &expected, &"head");
    }

    fn check_range(
        &self,
        number: u8,
        events: &[&(EventHead, Bytes)],
        (from, to): (u64, u64),
        bytes_max: usize,
        order: Order,
    ) {
        let conversation = conversation(number);
        let range = Range {
            conversation,
            from: Seq(from),
            to: Seq(to),
            bytes_max,
            order,
        };
        let found = self.log().tail().events(&range);
        assert_eq!(found.first, events.first().map(|(head, _)| head.seq));
        let mut within: Vec<_> = events
            .iter()
            .filter(|(head, _)| (from..=to).contains(&head.seq.0))
            .collect();
        if order == Order::Backward {
            within.reverse();
        }
        let mut bytes = 0;
        let fitting = within.iter().position(|(_, event)| {
            let first = bytes == 0;
            bytes += event.len();
            !first && bytes > bytes_max
        });
        within.truncate(fitting.unwrap_or(within.len()));
        if order == Order::Backward {
            within.reverse();
        }
        assert_eq!(found.from(), within.first().map(|(head, _)| head.seq));
        let expected: Vec<_> = within.into_iter().map(|(_, event)| event.clone()).collect();
        self.agree(found.read(), &expected, &range);
    }

    fn check_sent(&self, number: u8, events: &[&(EventHead, Bytes)]) {
        let tail = self.log().tail();
        for of in 0..3 {
            let own: Vec<_> = events
                .iter()
                .map(|(head, _)| head)
                .filter(|head| head.sender == user(of))
                .collect();
            let sent = tail.sent(&conversation(number), &user(of));
            let devices = (0..3).map(device).filter_map(|device| {
                let own = own.iter().filter(|head| head.device == device);
                let newest = own.clone().map(|head| head.client_id).max()?;
                let last = own.max_by_key(|head| head.seq)?;
                Some(Sent {
                    device,
                    newest,
                    seq: last.seq,
                    ordinal: last.ordinal,
                })
            });
            let mut expected = SentDevices::default();
            devices.for_each(|sent| expected.offer(sent));
            expected.cut();
            self.agree(sent, &expected, &"sent");
            for (on, name) in [(0, 3), (1, 7), (2, 12)] {
                let found = tail.find_sent(
                    &conversation(number),
                    &user(of),
                    &device(on),
                    &client_id(name),
                );
                let of_id = own
                    .iter()
                    .filter(|head| (head.device, head.client_id) == (device(on), client_id(name)));
                let expected = of_id.max_by_key(|head| head.seq);
                let sent = |head: &&&EventHead| SentEvent {
                    epoch: head.epoch,
                    seq: head.seq,
                    time_ms: head.time_ms,
                };
                self.agree(found, &expected.as_ref().map(sent), &"find_sent");
            }
        }
    }

    fn check_rows(&self, number: u8) {
        let tail = self.log().tail();
        let conversation = conversation(number);
        for table in [Table::Profile, Table::Member] {
            let mut rows = BTreeMap::new();
            for kept in &self.kept {
                let of_table = kept
                    .rows
                    .iter()
                    .filter(|((of, within, _), _)| (*of, *within) == (number, table));
                rows.extend(of_table.map(|((.., key), value)| (key.clone(), value.clone())));
            }
            for key in 0..6 {
                let found = tail.row(&conversation, table, &[key]);
                self.agree(found, &rows.get(&[key][..]).cloned(), &key);
            }
            let bound = |key: &'static [u8]| Bytes::from_static(key);
            for (after, through, limit) in [
                (&b""[..], &b""[..], 9),
                (&[1], &[4], 9),
                (b"", &[3], 2),
                (&[5], &[2], 9),
            ] {
                let (after, through) = (bound(after), bound(through));
                let scan = Scan {
                    conversation,
                    table,
                    after: after.clone(),
                    through: through.clone(),
                    limit,
                };
                let inside = |key: &Bytes| *key > after && (through.is_empty() || *key <= through);
                let mut alive = 0;
                let mut expected: Vec<_> = rows
                    .clone()
                    .into_iter()
                    .filter(|(key, _)| inside(key))
                    .collect();
                expected.retain(|(_, value)| {
                    let wanted = alive < limit;
                    alive += usize::from(value.is_some());
                    wanted
                });
                self.agree(tail.scan_rows(&scan), &expected, &scan);
            }
        }
    }
}
