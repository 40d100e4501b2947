//! Reading events and heads.

use bytes::Bytes;
use rialto_protocol::ids::{ConversationId, Epoch, Ordinal, Seq};

use super::{
    Harness,
    fixture::{Batch, DAY_MS, Owner, START_MS, at_every_stage, conversation, event, head},
};
use crate::{
    journal::Journal,
    promise::wait,
    views::{Head, Order, Range, Views},
};

const EVENTS: u64 = 90;
/// A window of the usual width is crossed several times.
const STEP_MS: u64 = DAY_MS / 3;

fn time_ms(seq: u64) -> u64 {
    START_MS + seq * STEP_MS
}

fn text_bytes(seq: u64) -> usize {
    usize::try_from(seq % 7 * 40).unwrap_or(0)
}

/// Half of the events of a conversation, several an entry.
fn write_half<S: Journal>(owner: &mut Owner<'_, S>, whose: ConversationId, half: usize) {
    let half = half as u64 * (EVENTS / 2);
    for first in (1..=EVENTS / 2).step_by(5) {
        let epoch = owner.epoch(whose);
        let batch = (first..first + 5).fold(Batch::default(), |batch, seq| {
            let seq = half + seq;
            batch.event(
                whose,
                &event(&head(seq, epoch, time_ms(seq)), text_bytes(seq)),
            )
        });
        owner.append(whose, time_ms(half + first), batch);
    }
}

fn read<S: Views>(store: &S, range: Range) -> Vec<Bytes> {
    wait(store.events(range)).expect("events are read")
}

fn numbers(events: &[Bytes]) -> Vec<u64> {
    events
        .iter()
        .map(|event| rialto_protocol::event::peek(event).expect("an event").seq.0)
        .collect()
}

/// The range's events, whole and in order, from either end, cut by bytes, and never another conversation's.
///
/// # Panics
/// When it is not so, as with every behaviour here.
pub fn events_come_back_in_order_and_cut_where_asked(harness: &impl Harness) {
    let whose = [conversation(1), conversation(2)];
    at_every_stage(
        harness,
        |owner, half| {
            for whose in whose {
                write_half(owner, whose, half);
            }
        },
        |store, stage| {
            for whose in whose {
                check_ranges(store, whose, stage);
            }
            let nobody = Range {
                conversation: conversation(0),
                from: Seq(1),
                to: Seq(u64::MAX),
                bytes_max: usize::MAX,
                order: Order::Forward,
            };
            assert!(
                read(store, nobody).is_empty(),
                "{stage}: a conversation without events has none"
            );
            assert!(
                read(
                    store,
                    Range {
                        conversation: conversation(3),
                        order: Order::Backward,
                        ..nobody
                    }
                )
                .is_empty()
            );
        },
    );
}

fn check_ranges<S: Views>(store: &S, conversation: ConversationId, stage: &str) {
    let range = |from, to, bytes_max, order| Range {
        conversation,
        from: Seq(from),
        to: Seq(to),
        bytes_max,
        order,
    };
    let all = read(store, range(1, EVENTS, usize::MAX, Order::Forward));
    assert_eq!(
        numbers(&all),
        (1..=EVENTS).collect::<Vec<_>>(),
        "{stage}: all events, in order, none twice"
    );
    for (seq, bytes) in (1..).zip(&all) {
        let found = rialto_protocol::event::peek(bytes).expect("an event");
        assert_eq!(
            *bytes,
            event(&head(seq, found.epoch, time_ms(seq)), text_bytes(seq)),
            "{stage}: event {seq}"
        );
    }
    for (from, to) in [
        (0, u64::MAX),
        (1, 1),
        (3, 44),
        (44, 47),
        (45, 45),
        (46, 90),
        (90, 500),
        (91, 500),
        (7, 6),
    ] {
        for bytes_max in [0, 1, 500, 3_000, usize::MAX] {
            for order in [Order::Forward, Order::Backward] {
                let found = read(store, range(from, to, bytes_max, order));
                let expected = cut(&all, from, to, bytes_max, order);
                assert_eq!(
                    numbers(&found),
                    numbers(&expected),
                    "{stage}: {from}..={to}, {bytes_max} bytes, {order:?}"
                );
                assert_eq!(found, expected);
            }
        }
    }
}

/// What a range should give.
fn cut(all: &[Bytes], from: u64, to: u64, bytes_max: usize, order: Order) -> Vec<Bytes> {
    let mut wanted: Vec<Bytes> = (1..)
        .zip(all)
        .filter(|(seq, _)| (from..=to).contains(seq))
        .map(|(_, event)| event.clone())
        .collect();
    if order == Order::Backward {
        wanted.reverse();
    }
    let mut sum = 0;
    let fitting = wanted.iter().take_while(|event| {
        let first = sum == 0;
        sum += event.len();
        first || sum <= bytes_max
    });
    let mut kept: Vec<Bytes> = fitting.cloned().collect();
    if order == Order::Backward {
        kept.reverse();
    }
    kept
}

/// A head is the last event's, whoever wrote it.
///
/// # Panics
/// When it is not so.
pub fn heads_are_of_the_last_event(harness: &impl Harness) {
    let whose = conversation(1);
    at_every_stage(
        harness,
        |owner, half| write_half(owner, whose, half),
        |store, stage| {
            let found = wait(store.head(whose))
                .expect("a head is read")
                .expect("there is one");
            assert!(found.epoch > Epoch(0));
            let expected = Head {
                seq: Seq(EVENTS),
                epoch: found.epoch,
                ordinal: Ordinal(EVENTS / 2),
                time_ms: time_ms(EVENTS),
                oldest: Seq(1),
            };
            assert_eq!(found, expected, "{stage}");
            assert_eq!(
                wait(store.head(conversation(2))).expect("a head is read"),
                None,
                "{stage}"
            );
        },
    );
}

/// Events far longer than what is stored together come back whole, alone and among short ones.
///
/// # Panics
/// When it is not so.
pub fn long_events_are_whole(harness: &impl Harness) {
    let whose = conversation(4);
    let sizes = [10, 70_000, 10, 10, 16_384, 16_000, 10];
    let time = |seq: u64| START_MS + seq;
    at_every_stage(
        harness,
        |owner, half| {
            let epoch = owner.epoch(whose);
            let range = if half == 0 { 0..4 } else { 4..sizes.len() };
            for index in range {
                let seq = index as u64 + 1;
                let batch = Batch::default()
                    .event(whose, &event(&head(seq, epoch, time(seq)), sizes[index]));
                owner.append(whose, time(seq), batch);
            }
        },
        |store, stage| {
            let range = Range {
                conversation: whose,
                from: Seq(1),
                to: Seq(sizes.len() as u64),
                bytes_max: usize::MAX,
                order: Order::Forward,
            };
            let events = read(store, range);
            assert_eq!(events.len(), sizes.len(), "{stage}");
            for (seq, (bytes, size)) in (1..).zip(events.iter().zip(sizes)) {
                let found = rialto_protocol::event::peek(bytes).expect("an event");
                assert_eq!(
                    *bytes,
                    event(&head(seq, found.epoch, time(seq)), size),
                    "{stage}: event {seq}"
                );
            }
            let cut = read(
                store,
                Range {
                    bytes_max: 1,
                    order: Order::Backward,
                    to: Seq(2),
                    ..range
                },
            );
            assert_eq!(numbers(&cut), [2], "{stage}: the first event always fits");
        },
    );
}
