//! Who sent what under which id.

use std::{cmp::Reverse, collections::BTreeMap};

use rialto_protocol::{
    event::EventHead,
    ids::{ClientId, DeviceId, Epoch, Ordinal, Seq, UserId},
};

use super::{
    Harness,
    fixture::{
        Batch, DAY_MS, START_MS, at_every_stage, client_id, conversation, device, event, head, user,
    },
};
use crate::{
    promise::wait,
    views::{SENT_DEVICES_MAX, Sent, SentDevices, Views},
};

/// Who sends the event, and under which id: two users, two devices each, and ids that do not always rise.
fn writer(seq: u64) -> (u8, u8, ClientId) {
    let user = u8::try_from(seq % 2).unwrap_or(0);
    let device = u8::try_from(seq / 2 % 2).unwrap_or(0);
    let number = if seq.is_multiple_of(5) {
        seq - 4
    } else {
        seq + 100
    };
    (user, device, client_id(number))
}

fn sent_head(seq: u64) -> EventHead {
    let (by, on, client_id) = writer(seq);
    let time_ms = START_MS + seq * DAY_MS / 10;
    EventHead {
        sender: user(by),
        device: device(on),
        client_id,
        ..head(seq, Epoch(0), time_ms)
    }
}

const EVENTS: u64 = 60;

/// A device's newest id and last event are known, and every id of the last 7 days leads to its event.
///
/// # Panics
/// When it is not so.
pub fn sent_ids_are_found_again(harness: &impl Harness) {
    let whose = conversation(1);
    at_every_stage(
        harness,
        |owner, half| {
            let range = if half == 0 {
                1..=EVENTS / 2
            } else {
                EVENTS / 2 + 1..=EVENTS
            };
            for seq in range {
                let head = EventHead {
                    epoch: owner.epoch(whose),
                    ..sent_head(seq)
                };
                owner.append(
                    whose,
                    head.time_ms,
                    Batch::default().event(whose, &event(&head, 20)),
                );
            }
        },
        |store, stage| {
            for by in 0..2 {
                let found = wait(store.sent(whose, user(by))).expect("sent is read");
                assert_eq!(found, expected_sent(by), "{stage}: user {by}");
            }
            for (whose, by) in [(whose, user(7)), (conversation(2), user(0))] {
                assert_eq!(
                    wait(store.sent(whose, by)).expect("sent is read"),
                    SentDevices::default(),
                    "{stage}: who sent nothing"
                );
            }
            for seq in 1..=EVENTS {
                let (by, on, id) = writer(seq);
                let found = wait(store.find_sent(whose, user(by), device(on), id))
                    .expect("an id is looked up");
                let found = found.map(|sent| (sent.seq, sent.time_ms, sent.epoch.0 > 0));
                assert_eq!(
                    found,
                    Some((Seq(seq), sent_head(seq).time_ms, true)),
                    "{stage}: id of event {seq}"
                );
            }
            for unknown in [0, 99, 500] {
                let found = wait(store.find_sent(whose, user(0), device(0), client_id(unknown)));
                assert_eq!(
                    found.expect("an id is looked up"),
                    None,
                    "{stage}: id {unknown} was never used"
                );
            }
        },
    );
}

fn expected_sent(by: u8) -> SentDevices {
    let devices = (0..2).map(|on| {
        let own = (1..=EVENTS).filter(|seq| (writer(*seq).0, writer(*seq).1) == (by, on));
        let newest = own
            .clone()
            .map(|seq| writer(seq).2)
            .max()
            .expect("every device writes");
        let last = own.max().expect("every device writes");
        Sent {
            device: device(on),
            newest,
            seq: Seq(last),
            ordinal: Ordinal(last / 2),
        }
    });
    newest_first(devices.collect())
}

fn newest_first(mut devices: Vec<Sent>) -> SentDevices {
    devices.sort_by_key(|sent| Reverse(sent.seq));
    let more = devices.len() > SENT_DEVICES_MAX;
    devices.truncate(SENT_DEVICES_MAX);
    SentDevices { devices, more }
}

/// The same id of another device, user or conversation is another id.
///
/// # Panics
/// When it is not so.
pub fn a_client_id_is_one_devices_alone(harness: &impl Harness) {
    let id = client_id(77);
    // Conversation, user, device, seq.
    let uses = [(1, 1, 1, 1), (1, 1, 2, 2), (1, 2, 1, 3), (2, 1, 1, 1)];
    at_every_stage(
        harness,
        |owner, half| {
            for (whose, by, on, seq) in &uses[half * 2..half * 2 + 2] {
                let whose = conversation(*whose);
                let base = head(*seq, owner.epoch(whose), START_MS + seq);
                let head = EventHead {
                    sender: user(*by),
                    device: device(*on),
                    client_id: id,
                    ..base
                };
                owner.append(
                    whose,
                    head.time_ms,
                    Batch::default().event(whose, &event(&head, 5)),
                );
            }
        },
        |store, stage| {
            for (whose, by, on, seq) in uses {
                let found = wait(store.find_sent(conversation(whose), user(by), device(on), id));
                let found = found.expect("an id is looked up").expect("it was used");
                assert_eq!(
                    (found.seq, found.time_ms),
                    (Seq(seq), START_MS + seq),
                    "{stage}"
                );
            }
            for (whose, by, on) in [(1, 2, 2), (2, 2, 1), (3, 1, 1)] {
                let found = wait(store.find_sent(conversation(whose), user(by), device(on), id));
                assert_eq!(
                    found.expect("an id is looked up"),
                    None,
                    "{stage}: never used there"
                );
            }
        },
    );
}

/// Ids that are told apart by no half of their bits, nor by what the embedded views keep of them.
fn alike(number: u64) -> ClientId {
    let low = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let whole = u128::from(number) << 64 | u128::from(low);
    ClientId::from_bytes(whole.to_be_bytes())
}

/// An id is found by all of its bits.
///
/// # Panics
/// When it is not so.
pub fn ids_that_are_alike_are_told_apart(harness: &impl Harness) {
    let whose = conversation(1);
    at_every_stage(
        harness,
        |owner, half| {
            for seq in half as u64 * 2 + 1..=half as u64 * 2 + 2 {
                let head = EventHead {
                    client_id: alike(seq),
                    ..head(seq, owner.epoch(whose), START_MS + seq)
                };
                let batch = Batch::default().event(whose, &event(&head, 5));
                owner.append(whose, head.time_ms, batch);
            }
        },
        |store, stage| {
            for number in 0..=5 {
                let found = wait(store.find_sent(whose, user(1), device(1), alike(number)));
                let found = found.expect("an id is looked up").map(|sent| sent.seq);
                let expected = (1..=4).contains(&number).then_some(Seq(number));
                assert_eq!(found, expected, "{stage}: id {number}");
            }
        },
    );
}

/// Devices of the user who has many, with which each half begins.
const MANY: u64 = 1_500;
/// Events of an entry, of which some take less than a segment.
const TOGETHER: usize = 100;

/// Who appends with many devices, and then again with every second one of them and as many others; under smaller ids than before.
/// Between them who has as many devices as are named, and who has one more.
fn many_writers(half: usize) -> Vec<(u8, u64, u64)> {
    let first = half == 0;
    let of_many = (0..MANY).map(|number| match (first, number % 2) {
        (true, _) | (false, 0) => number,
        (false, _) => MANY + number,
    });
    let of_many = of_many.map(|device| (1, device, if first { MANY + device } else { device }));
    let named = SENT_DEVICES_MAX as u64;
    let of_few = (2..=3).flat_map(|by| {
        let devices = if first {
            0..named / 2
        } else {
            named / 2..named + u64::from(by) - 2
        };
        devices.map(move |device| (by, device, device))
    });
    let (mut writers, few): (Vec<_>, Vec<_>) = (of_many.collect(), of_few.collect());
    let middle = writers.len() / 2;
    writers.splice(middle..middle, few);
    writers
}

fn many_heads(half: usize) -> Vec<EventHead> {
    let start = if half == 0 { 0 } else { many_writers(0).len() };
    let numbered = (start as u64 + 1..).zip(many_writers(half));
    let heads = numbered.map(|(seq, (by, on, id))| EventHead {
        sender: user(by),
        device: DeviceId::from_bytes((u128::from(on) << 64).to_be_bytes()),
        client_id: client_id(id),
        ..head(seq, Epoch(0), START_MS + seq)
    });
    heads.collect()
}

/// However many devices a user has: a few are named, those with the newest events, each with the newest of all its ids; and the
/// ids of the others are found.
///
/// # Panics
/// When it is not so.
pub fn of_many_devices_the_newest_are_named(harness: &impl Harness) {
    let whose = conversation(1);
    let all: Vec<EventHead> = (0..2).flat_map(many_heads).collect();
    let mut devices: BTreeMap<(UserId, DeviceId), Sent> = BTreeMap::new();
    for head in &all {
        let sent = devices
            .entry((head.sender, head.device))
            .or_insert_with(|| Sent {
                device: head.device,
                newest: head.client_id,
                seq: head.seq,
                ordinal: head.ordinal,
            });
        sent.newest = sent.newest.max(head.client_id);
        (sent.seq, sent.ordinal) = (head.seq, head.ordinal);
    }
    at_every_stage(
        harness,
        |owner, half| {
            for heads in many_heads(half).chunks(TOGETHER) {
                let epoch = owner.epoch(whose);
                let batch = heads.iter().fold(Batch::default(), |batch, head| {
                    batch.event(whose, &event(&EventHead { epoch, ..*head }, 5))
                });
                owner.append(whose, heads[0].time_ms, batch);
            }
        },
        |store, stage| {
            for by in 1..=3 {
                let own = devices
                    .iter()
                    .filter(|((sender, _), _)| *sender == user(by));
                let expected = newest_first(own.map(|(_, sent)| *sent).collect());
                let found = wait(store.sent(whose, user(by))).expect("sent is read");
                assert_eq!(found, expected, "{stage}: user {by}");
            }
            for head in all.iter().step_by(97) {
                let id = head.client_id;
                let found = wait(store.find_sent(whose, head.sender, head.device, id));
                let found = found.expect("an id is looked up").map(|sent| sent.seq);
                assert_eq!(found, Some(head.seq), "{stage}: id of event {}", head.seq);
            }
        },
    );
}
