//! The judge judged: faults planted into recorded logs are found and counted exactly, and clean logs pass.

use proptest::prelude::*;
use rialto_protocol::ids::{ClientId, Epoch, Ordinal, Seq, UserId};

use super::{Fingerprint, Observed, Reading, Said, Script, Sent, Violations, check};

/// What an event's print is made of: here its seq and client id, in the real one all its bytes.
fn print(event: &Observed) -> Fingerprint {
    Fingerprint::of(
        format!(
            "{:?}",
            (
                event.seq,
                event.epoch,
                event.time_ms,
                event.client_id,
                &event.said
            )
        )
        .as_bytes(),
    )
}

/// A conversation of `count` messages, each third one preceded by a join, read by `readers`.
fn recorded(count: usize, readers: usize) -> (Script, Vec<Reading>) {
    let mut script = Script {
        name: "room".into(),
        messages: Vec::new(),
    };
    let mut events: Vec<Observed> = Vec::new();
    for at in 0..count {
        if at % 3 == 0 {
            push(&mut events, 1_000 + at, None);
        }
        let said = Said {
            sender: UserId::from_name(&format!("user {}", at % 5)),
            body: Fingerprint::of(format!("text {at}").as_bytes()),
            reply_to: script
                .messages
                .last()
                .and_then(|sent: &Sent| sent.receipt)
                .map(|(_, seq)| seq)
                .into_iter()
                .collect(),
        };
        push(&mut events, at, Some(said.clone()));
        let event = &events[events.len() - 1];
        let receipt = Some((event.epoch, event.seq));
        script.messages.push(Sent {
            client_id: Some(event.client_id),
            said,
            receipt,
        });
    }
    let readings = (0..readers).map(|reader| Reading {
        reader: format!("reader {reader}"),
        events: events.clone(),
    });
    (script, readings.collect())
}

fn push(events: &mut Vec<Observed>, id: usize, said: Option<Said>) {
    let number = events.len() as u64 + 1;
    let ordinal = events.last().map_or(0, |event| event.ordinal.0) + u64::from(said.is_some());
    let mut event = Observed {
        seq: Seq(number),
        epoch: Epoch(1 + number / 10),
        time_ms: 1_000 + number / 2,
        ordinal: Ordinal(ordinal),
        client_id: ClientId::v7(id as u64, [0; 10]),
        print: Fingerprint::of(b""),
        said,
    };
    event.print = print(&event);
    events.push(event);
}

/// Where message `at` stands in an unharmed log.
fn place(reading: &Reading, at: usize) -> usize {
    reading
        .events
        .iter()
        .enumerate()
        .filter(|(_, event)| event.said.is_some())
        .nth(at)
        .unwrap()
        .0
}

fn found(script: &Script, readings: &[Reading]) -> Violations {
    let verdict = check(script, readings);
    assert_eq!(
        verdict.is_clean(),
        verdict.examples.is_empty(),
        "every fault has an example"
    );
    verdict.violations
}

#[test]
fn clean_logs_pass() {
    let (script, readings) = recorded(50, 4);
    let verdict = check(&script, &readings);
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(verdict.delivered, 200);
    assert!(check(&Script::default(), &[Reading::new("nobody")]).is_clean());
}

#[test]
fn a_message_that_one_reader_lacks_is_lost_and_leaves_a_gap() {
    let (script, mut readings) = recorded(30, 2);
    let at = place(&readings[1], 7);
    readings[1].events.remove(at);
    assert_eq!(
        found(&script, &readings),
        Violations {
            lost: 1,
            gapped: 1,
            ..Violations::default()
        }
    );
}

#[test]
fn a_join_that_one_reader_lacks_is_a_gap_alone() {
    let (script, mut readings) = recorded(30, 2);
    assert!(readings[0].events[4].said.is_none());
    readings[0].events.remove(4);
    assert_eq!(
        found(&script, &readings),
        Violations {
            gapped: 1,
            ..Violations::default()
        }
    );
}

#[test]
fn a_tail_that_never_came_is_lost_although_nothing_follows_it() {
    let (script, mut readings) = recorded(30, 2);
    let cut = place(&readings[0], 27);
    let events = readings[0].events.len();
    readings[0].events.truncate(cut);
    assert_eq!(
        found(&script, &readings),
        Violations {
            lost: 3,
            gapped: (events - cut) as u64,
            ..Violations::default()
        }
    );
}

#[test]
fn an_acknowledged_message_that_the_log_does_not_hold_is_lost_for_every_reader() {
    let (script, mut readings) = recorded(30, 3);
    for reading in &mut readings {
        let at = place(reading, 29);
        reading.events.truncate(at);
    }
    assert_eq!(
        found(&script, &readings),
        Violations {
            lost: 3,
            gapped: 3,
            ..Violations::default()
        }
    );
}

#[test]
fn a_second_delivery_is_a_repeat() {
    let (script, mut readings) = recorded(30, 2);
    for at in [3, 4, 11] {
        let again = readings[1].events[at].clone();
        readings[1].events.insert(20, again);
    }
    assert_eq!(
        found(&script, &readings),
        Violations {
            duplicated: 3,
            ..Violations::default()
        }
    );
}

#[test]
fn a_message_that_was_appended_twice_is_a_repeat_for_every_reader() {
    let (script, mut readings) = recorded(30, 2);
    for reading in &mut readings {
        let mut again = reading.events[place(reading, 29)].clone();
        again.seq = again.seq.next();
        again.ordinal.0 += 1;
        again.print = print(&again);
        reading.events.push(again);
    }
    assert_eq!(
        found(&script, &readings),
        Violations {
            duplicated: 2,
            ..Violations::default()
        }
    );
}

#[test]
fn events_that_arrive_in_another_order_are_reordered() {
    let (script, mut readings) = recorded(30, 2);
    readings[0].events.swap(10, 11);
    let late = readings[1].events.remove(5);
    readings[1].events.insert(25, late);
    assert_eq!(
        found(&script, &readings),
        Violations {
            reordered: 2,
            ..Violations::default()
        }
    );
}

#[test]
fn messages_numbered_in_another_order_than_sent_are_reordered_and_not_where_acknowledged() {
    let (mut script, readings) = recorded(30, 2);
    script.messages.swap(8, 9);
    assert_eq!(
        found(&script, &readings),
        Violations {
            reordered: 2,
            ..Violations::default()
        }
    );
    let (epoch, seq) = script.messages[8].receipt.unwrap();
    script.messages[8].receipt = Some((epoch, seq.next()));
    assert_eq!(
        found(&script, &readings),
        Violations {
            reordered: 2,
            misacknowledged: 2,
            ..Violations::default()
        }
    );
}

#[test]
fn another_text_sender_or_answer_is_altered() {
    let (script, clean) = recorded(30, 3);
    let alterations: [fn(&mut Said); 3] = [
        |said| said.body = Fingerprint::of(b"something else"),
        |said| said.sender = UserId::from_name("somebody else"),
        |said| said.reply_to = [Seq(1)].into(),
    ];
    for alter in alterations {
        let mut everywhere = clean.clone();
        let mut at_one = clean.clone();
        let at = place(&clean[0], 12);
        for reading in everywhere.iter_mut().chain(at_one.get_mut(1)) {
            alter(reading.events[at].said.as_mut().unwrap());
        }
        assert_eq!(
            found(&script, &everywhere),
            Violations {
                altered: 3,
                ..Violations::default()
            }
        );
        assert_eq!(
            found(&script, &at_one),
            Violations {
                altered: 1,
                diverged: 1,
                ..Violations::default()
            }
        );
    }
}

#[test]
fn events_that_only_differ_in_what_the_script_does_not_know_diverge() {
    let (script, mut readings) = recorded(30, 3);
    readings[0].events[4].print = Fingerprint::of(b"another join");
    readings[2].events[4].print = Fingerprint::of(b"a third one");
    readings[2].events[9].print = Fingerprint::of(b"another message");
    assert_eq!(
        found(&script, &readings),
        Violations {
            diverged: 3,
            ..Violations::default()
        }
    );
}

#[test]
fn a_message_that_nobody_sent_is_foreign() {
    let (script, mut readings) = recorded(30, 1);
    let said = readings[0].events[1].said.clone();
    push(&mut readings[0].events, 5_000, said);
    assert_eq!(
        found(&script, &readings),
        Violations {
            foreign: 1,
            ..Violations::default()
        }
    );
}

#[test]
fn a_message_that_could_not_be_sent_is_lost() {
    let (mut script, readings) = recorded(30, 2);
    let said = script.messages[0].said.clone();
    script.messages.push(Sent {
        client_id: None,
        said,
        receipt: None,
    });
    assert_eq!(
        found(&script, &readings),
        Violations {
            lost: 2,
            ..Violations::default()
        }
    );
}

#[test]
fn a_receipt_that_names_another_place_is_found() {
    let (mut script, readings) = recorded(30, 2);
    let (epoch, seq) = script.messages[3].receipt.unwrap();
    script.messages[3].receipt = Some((epoch.next(), seq));
    assert_eq!(
        found(&script, &readings),
        Violations {
            misacknowledged: 2,
            ..Violations::default()
        }
    );
}

#[test]
fn epochs_times_and_ordinals_that_do_not_follow_are_found() {
    let (script, clean) = recorded(30, 1);
    let harms: [fn(&mut Observed); 3] = [
        |event| event.epoch = Epoch(0),
        |event| event.time_ms = 0,
        |event| event.ordinal = Ordinal(event.ordinal.0 - 1),
    ];
    for (harm, also) in harms.into_iter().zip([1, 0, 0]) {
        let mut readings = clean.clone();
        harm(&mut readings[0].events[21]);
        let violations = found(&script, &readings);
        assert!(
            violations.misnumbered >= 1 && violations.total() == violations.misnumbered + also,
            "{violations:?}"
        );
    }
}

/// A fault of each kind somewhere in a log, and the count that must tell it.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Lose,
    Repeat,
    Swap,
    Alter,
    Diverge,
    Forge,
    Misacknowledge,
    Misnumber,
}

fn plant(
    fault: Fault,
    script: &mut Script,
    reading: &mut Reading,
    at: usize,
) -> fn(&Violations) -> u64 {
    let spot = place(reading, at);
    match fault {
        Fault::Lose => {
            reading.events.remove(spot);
            |found| found.lost
        }
        Fault::Repeat => {
            let again = reading.events[spot].clone();
            reading.events.push(again);
            |found| found.duplicated
        }
        Fault::Swap => {
            reading.events.swap(spot, spot - 1);
            |found| found.reordered
        }
        Fault::Alter => {
            reading.events[spot].said.as_mut().unwrap().body = Fingerprint::of(b"altered");
            |found| found.altered
        }
        Fault::Diverge => {
            reading.events[spot].print = Fingerprint::of(b"diverged");
            |found| found.diverged
        }
        Fault::Forge => {
            reading.events[spot].client_id = ClientId::v7(99_999, [1; 10]);
            |found| found.foreign
        }
        Fault::Misacknowledge => {
            let (epoch, seq) = script.messages[at].receipt.unwrap();
            script.messages[at].receipt = Some((epoch, Seq(seq.0 - 1)));
            |found| found.misacknowledged
        }
        Fault::Misnumber => {
            reading.events[spot].ordinal.0 += 1;
            |found| found.misnumbered
        }
    }
}

proptest! {
    #[test]
    fn any_fault_anywhere_is_found(
        count in 2_usize..60,
        readers in 2_usize..5,
        which in any::<(prop::sample::Index, prop::sample::Index)>(),
        fault in prop::sample::select(vec![
            Fault::Lose, Fault::Repeat, Fault::Swap, Fault::Alter,
            Fault::Diverge, Fault::Forge, Fault::Misacknowledge, Fault::Misnumber,
        ]),
    ) {
        let (mut script, mut readings) = recorded(count, readers);
        prop_assert!(check(&script, &readings).is_clean());
        let reader = which.0.index(readers);
        let told = plant(fault, &mut script, &mut readings[reader], which.1.index(count));
        let verdict = check(&script, &readings);
        prop_assert!(told(&verdict.violations) > 0, "{fault:?}: {:?}", verdict.violations);
        prop_assert!(!verdict.is_clean() && !verdict.examples.is_empty());
    }
}
