//! Owners that write, and the stages at which they are asked about it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use rialto_protocol::{
    event::{EventHead, encode_into},
    ids::{ClientId, ConversationId, DeviceId, Epoch, LaneId, Ordinal, Position, Seq, UserId},
    record::{Table, put_event, put_outbox, put_outbox_done, put_row},
    v1,
};

use super::{Ending, Harness};
use crate::{
    journal::{AppendError, Claim, Entry, Journal},
    promise::wait,
};

/// Journal time at which the tests begin, milliseconds since 1970.
pub(super) const START_MS: u64 = 1_750_000_000_000;
pub(super) const DAY_MS: u64 = 24 * 3600 * 1000;

pub(super) fn conversation(number: u8) -> ConversationId {
    // Neighbours, so that a bound that is off by one meets another conversation.
    let mut bytes = [0x77; 16];
    bytes[15] = number;
    ConversationId::from_bytes(bytes)
}

pub(super) fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

pub(super) fn device(number: u8) -> DeviceId {
    DeviceId::from_bytes([0xd0 | number; 16])
}

pub(super) fn client_id(number: u64) -> ClientId {
    let mut bytes = [0x70; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    ClientId::from_bytes(bytes)
}

/// An event as the tests write it: everything about it follows from its number and its writer.
pub(super) fn head(seq: u64, epoch: Epoch, time_ms: u64) -> EventHead {
    EventHead {
        seq: Seq(seq),
        epoch,
        time_ms,
        ordinal: Ordinal(seq / 2),
        sender: user(1),
        device: device(1),
        client_id: client_id(seq),
    }
}

/// The bytes of an event with a text of this length.
pub(super) fn event(head: &EventHead, text_bytes: usize) -> Bytes {
    let body = vec![b'a' + u8::try_from(head.seq.0 % 26).unwrap_or(0); text_bytes];
    let message = v1::Message {
        body: body.into(),
        ..v1::Message::default()
    };
    let mut buf = BytesMut::new();
    encode_into(&mut buf, head, &v1::event::Content::Message(message));
    buf.freeze()
}

/// The records of one entry.
#[derive(Default)]
pub(super) struct Batch(BytesMut);

impl Batch {
    pub(super) fn records(self) -> Bytes {
        self.0.freeze()
    }

    pub(super) fn event(mut self, conversation: ConversationId, event: &[u8]) -> Self {
        put_event(&mut self.0, &conversation, |buf| {
            buf.extend_from_slice(event);
        });
        self
    }

    pub(super) fn row(
        mut self,
        conversation: ConversationId,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Self {
        put_row(&mut self.0, &conversation, table, key, value);
        self
    }

    pub(super) fn outbox(mut self, user: UserId, notice: &[u8]) -> Self {
        put_outbox(&mut self.0, &user, notice);
        self
    }

    pub(super) fn outbox_done(mut self, through: Position) -> Self {
        put_outbox_done(&mut self.0, through);
        self
    }
}

/// The owner of all lanes.
pub(super) struct Owner<'s, S> {
    pub(super) store: &'s S,
    lanes: BTreeMap<LaneId, Claim>,
}

impl<'s, S: Journal> Owner<'s, S> {
    /// Claims all lanes.
    pub(super) fn of(store: &'s S) -> Self {
        let lanes: Vec<LaneId> = (0..store.lanes()).map(LaneId).collect();
        let claims = wait(store.claim(lanes.clone())).expect("lanes are claimed");
        assert!(
            claims.iter().map(|claim| claim.lane).eq(lanes),
            "claims come in the order asked"
        );
        Self {
            store,
            lanes: claims
                .into_iter()
                .map(|claim| (claim.lane, claim))
                .collect(),
        }
    }

    pub(super) fn lane_of(&self, conversation: ConversationId) -> LaneId {
        LaneId::of(&conversation, self.store.lanes())
    }

    pub(super) fn claim(&self, lane: LaneId) -> &Claim {
        &self.lanes[&lane]
    }

    pub(super) fn epoch(&self, conversation: ConversationId) -> Epoch {
        self.lanes[&self.lane_of(conversation)].epoch
    }

    /// The next entry of a lane, not yet appended. Its time is `time_ms`, or the lane's when that is later.
    pub(super) fn entry(&mut self, lane: LaneId, time_ms: u64, batch: Batch) -> Entry {
        let claim = self.lanes.get_mut(&lane).expect("the lane exists");
        claim.tail = claim.tail.next();
        claim.time_ms = claim.time_ms.max(time_ms);
        Entry {
            lane,
            epoch: claim.epoch,
            position: claim.tail,
            time_ms: claim.time_ms,
            records: batch.records(),
        }
    }

    /// Appends an entry of this conversation's lane, and waits until it is durable. Returns its position.
    pub(super) fn append(
        &mut self,
        conversation: ConversationId,
        time_ms: u64,
        batch: Batch,
    ) -> Position {
        let entry = self.entry(self.lane_of(conversation), time_ms, batch);
        let position = entry.position;
        wait(self.store.append(vec![entry])).expect("the entry is appended");
        position
    }
}

/// Appends entries as they are.
pub(super) fn append(store: &impl Journal, entries: Vec<Entry>) -> Result<(), AppendError> {
    wait(store.append(entries))
}

/// Has `write` write its halves 0 and 1, and `check` look at the outcome at every stage; it is told which.
pub(super) fn at_every_stage<H: Harness>(
    harness: &H,
    write: impl Fn(&mut Owner<'_, H::Store>, usize),
    check: impl Fn(&H::Store, &str),
) {
    let settle = |store: &H::Store| wait(store.settle()).expect("the views are settled");

    let store = harness.open();
    let mut owner = Owner::of(&store);
    write(&mut owner, 0);
    write(&mut owner, 1);
    check(&store, "in the journal alone");
    let store = harness.reopen(store, Ending::Crash);
    check(&store, "after a crash");
    settle(&store);
    check(&store, "settled after a crash");
    drop(harness.reopen(store, Ending::Clean));

    let store = harness.open();
    write(&mut Owner::of(&store), 0);
    settle(&store);
    write(&mut Owner::of(&store), 1);
    check(&store, "half in the views");
    let store = harness.reopen(store, Ending::Crash);
    check(&store, "half in the views, after a crash");
    let store = harness.reopen(store, Ending::Clean);
    check(&store, "after a clean end");
    settle(&store);
    check(&store, "in the views");
    let store = harness.reopen(store, Ending::Clean);
    check(&store, "in the views, opened again");
}
