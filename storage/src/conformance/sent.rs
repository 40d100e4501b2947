//! Who sent what under which id.

use rialto_protocol::{
    event::EventHead,
    ids::{ClientId, Ordinal, Seq},
};

use super::{
    Harness,
    fixture::{
        Batch, DAY_MS, START_MS, at_every_stage, client_id, conversation, device, event, head, user,
    },
};
use crate::{
    promise::wait,
    views::{Sent, Views},
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
        ..head(seq, rialto_protocol::ids::Epoch(0), time_ms)
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
                let mut found = wait(store.sent(whose, user(by))).expect("sent is read");
                found.sort_by_key(|sent| sent.device);
                assert_eq!(found, expected_sent(by), "{stage}: user {by}");
            }
            assert!(
                wait(store.sent(whose, user(7)))
                    .expect("sent is read")
                    .is_empty(),
                "{stage}: who sent nothing"
            );
            assert!(
                wait(store.sent(conversation(2), user(0)))
                    .expect("sent is read")
                    .is_empty(),
                "{stage}"
            );
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

fn expected_sent(by: u8) -> Vec<Sent> {
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
    devices.collect()
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
