//! An owner of all lanes that writes small entries, for the tests of this crate.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use rialto_protocol::{
    event::{EventHead, encode_into, peek},
    ids::{ClientId, ConversationId, DeviceId, Epoch, LaneId, Ordinal, Seq, UserId},
    record::{Table, put_event, put_row},
    v1,
};
use rialto_storage::{
    Store,
    journal::{Claim, Entry, Journal},
    views::{Order, Range, Views},
    wait,
};

/// Journal time at which the tests begin, milliseconds since 1970.
pub(crate) const START_MS: u64 = 1_750_000_000_000;

pub(crate) fn conversation(number: u8) -> ConversationId {
    ConversationId::from_bytes([number; 16])
}

pub(crate) fn user() -> UserId {
    UserId::from_bytes([0x11; 16])
}

pub(crate) fn device() -> DeviceId {
    DeviceId::from_bytes([0x22; 16])
}

pub(crate) fn client_id(seq: u64) -> ClientId {
    ClientId::v7(START_MS + seq, [7; 10])
}

/// Appends to a store under its own claim.
pub(crate) struct Writer<'s, S> {
    store: &'s S,
    lanes: BTreeMap<LaneId, Claim>,
}

impl<'s, S: Journal> Writer<'s, S> {
    pub(crate) fn claim(store: &'s S) -> Self {
        let claims = wait(store.claim((0..store.lanes()).map(LaneId).collect())).unwrap();
        Self {
            store,
            lanes: claims
                .into_iter()
                .map(|claim| (claim.lane, claim))
                .collect(),
        }
    }

    /// The entry that says event `seq` of a conversation and sets its row `last` to that number.
    pub(crate) fn entry(
        &mut self,
        whose: ConversationId,
        seq: u64,
        time_ms: u64,
        text_bytes: usize,
    ) -> Entry {
        let claim = self
            .lanes
            .get_mut(&LaneId::of(&whose, self.store.lanes()))
            .unwrap();
        claim.tail = claim.tail.next();
        claim.time_ms = claim.time_ms.max(time_ms);
        let mut records = BytesMut::new();
        put_event(&mut records, &whose, |buf| {
            encode(buf, seq, claim.epoch, claim.time_ms, text_bytes);
        });
        put_row(
            &mut records,
            &whose,
            Table::Profile,
            b"last",
            &seq.to_le_bytes(),
        );
        Entry {
            lane: claim.lane,
            epoch: claim.epoch,
            position: claim.tail,
            time_ms: claim.time_ms,
            records: records.freeze(),
        }
    }

    /// Appends [`Writer::entry`] and waits until it is durable.
    pub(crate) fn say(&mut self, whose: ConversationId, seq: u64, time_ms: u64) {
        let entry = self.entry(whose, seq, time_ms, 100);
        wait(self.store.append(vec![entry])).unwrap();
    }
}

fn encode(buf: &mut BytesMut, seq: u64, epoch: Epoch, time_ms: u64, text_bytes: usize) {
    let head = EventHead {
        seq: Seq(seq),
        epoch,
        time_ms,
        ordinal: Ordinal(seq),
        sender: user(),
        device: device(),
        client_id: client_id(seq),
    };
    let message = v1::Message {
        body: Bytes::from(vec![b'x'; text_bytes]),
        ..v1::Message::default()
    };
    encode_into(buf, &head, &v1::event::Content::Message(message));
}

/// The numbers of all events that a conversation has.
pub(crate) fn numbers(store: &impl Views, whose: ConversationId) -> Vec<u64> {
    let range = Range {
        conversation: whose,
        from: Seq(1),
        to: Seq(u64::MAX),
        bytes_max: usize::MAX,
        order: Order::Forward,
    };
    wait(store.events(range))
        .unwrap()
        .iter()
        .map(|event| peek(event).unwrap().seq.0)
        .collect()
}

/// Checks that a conversation has exactly the events 1 to `last`, and everything that follows from them.
pub(crate) fn check(store: &impl Store, whose: ConversationId, last: u64, stage: &str) {
    assert_eq!(
        numbers(store, whose),
        (1..=last).collect::<Vec<_>>(),
        "{stage}"
    );
    let head = wait(store.head(whose)).unwrap().unwrap();
    assert_eq!(
        (head.seq, head.ordinal, head.oldest),
        (Seq(last), Ordinal(last), Seq(1)),
        "{stage}"
    );
    let rows = wait(store.rows(whose, Table::Profile, vec![Bytes::from_static(b"last")])).unwrap();
    assert_eq!(rows[0].as_deref(), Some(&last.to_le_bytes()[..]), "{stage}");
    let sent = wait(store.sent(whose, user())).unwrap().devices;
    assert_eq!(
        (sent.len(), sent[0].seq, sent[0].newest),
        (1, Seq(last), client_id(last)),
        "{stage}"
    );
    for seq in 1..=last {
        let found = wait(store.find_sent(whose, user(), device(), client_id(seq))).unwrap();
        assert_eq!(
            found.map(|sent| sent.seq),
            Some(Seq(seq)),
            "{stage}: id of event {seq}"
        );
    }
}
