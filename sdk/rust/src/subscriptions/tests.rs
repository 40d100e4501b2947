//! What a caller sees of events that arrive in any order, on any stream, or not at all.

mod room;

use std::sync::Arc;

use rialto_protocol::error::ErrorCode;
use rialto_protocol::ids::Epoch;

use v1::SubscriptionStatus as Status;

use super::*;
use crate::command::Shared;
use crate::error::CloseReason;
use crate::events::{ConnectionState, EndReason, Event, Events};

const ROOM: ConversationId = ConversationId::from_bytes([1; 16]);

struct Bench {
    subscriptions: Subscriptions,
    sink: EventSender,
    events: Events,
    now: Instant,
}

impl Bench {
    fn new(streams: bool) -> Self {
        Self::with_buffer(streams, 1_000)
    }

    fn with_buffer(streams: bool, events_max: usize) -> Self {
        let state = ConnectionState::Closed(CloseReason::Asked);
        let shared = Arc::new(Shared::new(state, v1::Limits::default(), 1, [0; 6]));
        let (sink, events) = EventSender::new(&shared, events_max);
        let mut subscriptions = Subscriptions::default();
        let now = Instant::now();
        subscriptions.connected(streams, now);
        Self {
            subscriptions,
            sink,
            events,
            now,
        }
    }

    /// Asks for the room and has it answered with this handle and head.
    fn follow(&mut self, start: Start, handle: u32, head: u64) -> SubscribeStatus {
        let generation = self.subscriptions.begin(ROOM, start);
        self.subscriptions.asked();
        self.answer(generation, &following(handle, head), true)
    }

    fn answer(
        &mut self,
        generation: u64,
        result: &v1::SubscriptionResult,
        by_caller: bool,
    ) -> SubscribeStatus {
        let asked = [(ROOM, generation)];
        let results = vec![result.clone()];
        let mut outcomes = self
            .subscriptions
            .answered(&asked, results, by_caller, &self.sink, self.now);
        outcomes.remove(0).status
    }

    fn deliver(&mut self, handle: u32, seqs: std::ops::RangeInclusive<u64>) {
        let events: Vec<_> = seqs
            .map(|seq| v1::Event {
                seq,
                epoch: 1,
                ..v1::Event::default()
            })
            .collect();
        let bytes = 100 * events.len();
        self.subscriptions
            .deliver(v1::Deliver { handle, events }, bytes, &self.sink, self.now);
    }

    fn seen(&mut self) -> Vec<u64> {
        let mut seen = Vec::new();
        while let Some(event) = self.events.try_next() {
            match event {
                Event::Delivered {
                    conversation: ROOM,
                    events,
                } => seen.extend(events.iter().map(|event| event.seq)),
                other => panic!("{other:?}"),
            }
        }
        seen
    }

    fn due(&mut self) -> Vec<(ConversationId, u64)> {
        self.subscriptions.due(1_000, &self.sink, self.now)
    }

    fn cursor(&self) -> Option<Cursor> {
        self.subscriptions.to_proto(ROOM).cursor.map(Into::into)
    }
}

fn following(handle: u32, head: u64) -> v1::SubscriptionResult {
    v1::SubscriptionResult {
        status: Status::Following.into(),
        handle,
        head: Some(v1::Cursor {
            epoch: 1,
            seq: head,
        }),
        ..v1::SubscriptionResult::default()
    }
}

fn cursor(seq: u64) -> Cursor {
    Cursor {
        epoch: Epoch(1),
        seq: Seq(seq),
    }
}

#[test]
fn repeats_are_dropped_whole_or_in_part() {
    let mut bench = Bench::new(false);
    bench.follow(Start::Beginning, 7, 0);
    for seqs in [1..=3, 1..=3, 2..=5, 5..=5, 1..=6] {
        bench.deliver(7, seqs);
    }
    assert_eq!(bench.seen(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(bench.cursor(), Some(cursor(6)));
}

#[test]
fn a_live_start_begins_after_the_head() {
    let mut bench = Bench::new(false);
    bench.follow(Start::Live, 7, 41);
    bench.deliver(7, 40..=43);
    assert_eq!(bench.seen(), [42, 43]);
}

#[test]
fn on_several_streams_what_comes_early_is_held_back() {
    let mut bench = Bench::new(true);
    bench.follow(Start::Beginning, 7, 9);
    for seqs in [7..=8, 4..=6, 9..=9, 4..=5, 2..=3] {
        bench.deliver(7, seqs);
    }
    assert_eq!(bench.seen(), []);
    bench.deliver(7, 1..=1);
    assert_eq!(bench.seen(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(bench.subscriptions.held_bytes(), 0);
    assert!(bench.due().is_empty());
}

#[test]
fn every_order_of_arrival_gives_the_same_events() {
    let mut order = [1_u64, 2, 3, 4, 5, 6];
    permutations(&mut order, 0, &mut |order| {
        let mut bench = Bench::new(true);
        bench.follow(Start::Beginning, 7, 0);
        for first in order {
            // Overlapping pairs: each event comes twice.
            bench.deliver(7, *first..=first + 1);
        }
        assert_eq!(bench.seen(), [1, 2, 3, 4, 5, 6, 7], "{order:?}");
        assert_eq!(bench.subscriptions.held_bytes(), 0, "{order:?}");
    });
}

fn permutations(order: &mut [u64; 6], from: usize, each: &mut impl FnMut(&[u64; 6])) {
    if from == order.len() {
        each(order);
    }
    for other in from..order.len() {
        order.swap(from, other);
        permutations(order, from + 1, each);
        order.swap(from, other);
    }
}

#[test]
fn what_stays_missing_on_several_streams_is_asked_for_again() {
    let mut bench = Bench::new(true);
    bench.follow(Start::Beginning, 7, 0);
    bench.deliver(7, 1..=2);
    bench.deliver(7, 4..=4);
    bench.now += GAP_PATIENCE - Duration::from_millis(1);
    assert!(bench.due().is_empty());
    bench.now += Duration::from_millis(1);
    let due = bench.due();
    assert_eq!(due.len(), 1);
    assert_eq!(bench.cursor(), Some(cursor(2)));
    bench.subscriptions.asked();
    bench.answer(due[0].1, &following(8, 4), false);
    bench.deliver(8, 3..=3);
    assert_eq!(bench.seen(), [1, 2, 3, 4]);
}

#[test]
fn a_catch_up_that_takes_its_time_is_left_to_it() {
    let mut bench = Bench::new(true);
    bench.follow(Start::Beginning, 7, 0);
    bench.deliver(7, 50..=50);
    for seq in 1..40 {
        bench.now += GAP_PATIENCE / 3;
        bench.deliver(7, seq..=seq);
        assert!(bench.due().is_empty(), "at {seq}");
        assert!(bench.subscriptions.deadlines.len() <= 1);
    }
    bench.now += GAP_PATIENCE;
    assert_eq!(bench.due().len(), 1);
}

#[test]
fn what_lies_unread_because_the_caller_is_slow_is_not_missing() {
    let mut bench = Bench::with_buffer(true, 2);
    bench.follow(Start::Beginning, 7, 9);
    bench.deliver(7, 9..=9);
    bench.deliver(7, 1..=2);
    for _ in 0..3 {
        bench.now += GAP_PATIENCE;
        assert!(bench.due().is_empty());
    }
    assert_eq!(bench.seen(), [1, 2]);
    bench.deliver(7, 3..=8);
    assert_eq!(bench.seen(), [3, 4, 5, 6, 7, 8, 9]);
    assert!(bench.due().is_empty());
}

#[test]
fn what_was_held_back_before_the_answer_is_not_waited_for_in_vain() {
    let mut bench = Bench::new(true);
    let generation = bench.subscriptions.begin(ROOM, Start::Beginning);
    bench.subscriptions.asked();
    bench.deliver(7, 2..=2);
    bench.answer(generation, &following(7, 2), true);
    bench.now += GAP_PATIENCE;
    assert_eq!(bench.due().len(), 1);
}

#[test]
fn on_one_stream_what_an_earlier_start_brought_is_no_gap_in_a_later_one() {
    let mut bench = Bench::new(false);
    bench.follow(Start::Live, 7, 8);
    let generation = bench.subscriptions.begin(ROOM, Start::Beginning);
    bench.subscriptions.asked();
    // Under way when the server was asked; it names a conversation alike as long as somebody follows it.
    bench.deliver(7, 9..=9);
    bench.answer(generation, &following(7, 9), true);
    assert!(bench.due().is_empty());
    bench.deliver(7, 1..=9);
    assert_eq!(bench.seen(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn on_one_stream_a_gap_is_asked_for_again_at_once() {
    let mut bench = Bench::new(false);
    bench.follow(Start::Beginning, 7, 0);
    bench.deliver(7, 1..=1);
    bench.deliver(7, 3..=3);
    let due = bench.due();
    assert_eq!((due.len(), bench.cursor()), (1, Some(cursor(1))));
    // Of the old subscription, still on its way.
    bench.deliver(7, 4..=4);
    assert_eq!(bench.seen(), [1]);
    bench.subscriptions.asked();
    bench.answer(due[0].1, &following(7, 4), false);
    bench.deliver(7, 2..=4);
    assert_eq!(bench.seen(), [2, 3, 4]);
    assert_eq!(bench.subscriptions.held_bytes(), 0);
}

#[test]
fn events_before_the_answer_that_announces_them_are_kept() {
    let mut bench = Bench::new(true);
    let generation = bench.subscriptions.begin(ROOM, Start::Beginning);
    bench.subscriptions.asked();
    bench.deliver(7, 1..=2);
    bench.deliver(9, 1..=2);
    assert_eq!(bench.seen(), []);
    bench.answer(generation, &following(7, 3), true);
    assert_eq!(bench.seen(), [1, 2]);
    assert_eq!(
        bench.subscriptions.held_bytes(),
        0,
        "what nobody announced is forgotten"
    );
    bench.deliver(9, 3..=3);
    assert_eq!(bench.subscriptions.held_bytes(), 0);
}

#[test]
fn too_much_held_back_is_thrown_away_and_asked_for_again() {
    let mut bench = Bench::new(true);
    bench.follow(Start::Beginning, 7, 0);
    let far = v1::Deliver {
        handle: 7,
        events: vec![v1::Event {
            seq: 3,
            ..v1::Event::default()
        }],
    };
    bench
        .subscriptions
        .deliver(far.clone(), HOLD_BYTES_MAX, &bench.sink, bench.now);
    assert_eq!(bench.subscriptions.held_bytes(), HOLD_BYTES_MAX);
    assert!(bench.due().is_empty());
    bench.deliver(7, 5..=5);
    assert_eq!(
        (bench.due().len(), bench.subscriptions.held_bytes()),
        (1, HOLD_BYTES_MAX)
    );

    let mut bench = Bench::new(true);
    let generation = bench.subscriptions.begin(ROOM, Start::Beginning);
    bench.subscriptions.asked();
    bench
        .subscriptions
        .deliver(far, HOLD_BYTES_MAX + 1, &bench.sink, bench.now);
    assert_eq!(bench.subscriptions.held_bytes(), 0);
    bench.answer(generation, &following(7, 3), true);
    assert_eq!(
        bench.due().len(),
        1,
        "an event was lost that nothing after it would show"
    );
}

#[test]
fn a_new_connection_asks_for_everything_from_the_cursors() {
    let mut bench = Bench::new(true);
    bench.follow(Start::Beginning, 7, 0);
    bench.deliver(7, 1..=2);
    bench.deliver(7, 4..=4);
    bench.subscriptions.disconnected();
    assert_eq!(bench.subscriptions.held_bytes(), 0);
    bench.deliver(7, 3..=3);
    bench.subscriptions.connected(true, bench.now);
    let due = bench.due();
    assert_eq!(due.len(), 1);
    assert_eq!(bench.cursor(), Some(cursor(2)));
    assert_eq!(bench.seen(), [1, 2]);
}

#[test]
fn a_truncated_log_is_told_once_and_followed_from_its_oldest_event() {
    let mut bench = Bench::new(false);
    bench.follow(Start::Beginning, 7, 0);
    bench.deliver(7, 1..=2);
    assert_eq!(bench.seen(), [1, 2]);
    for _ in 0..2 {
        bench.subscriptions.connected(false, bench.now);
        let due = bench.due();
        bench.subscriptions.asked();
        let truncated = v1::SubscriptionResult {
            status: Status::Truncated.into(),
            oldest_seq: 10,
            ..following(7, 20)
        };
        bench.answer(due[0].1, &truncated, false);
    }
    assert!(matches!(
        bench.events.try_next(),
        Some(Event::Truncated {
            conversation: ROOM,
            oldest: Seq(10)
        })
    ));
    bench.deliver(7, 10..=11);
    assert_eq!(bench.seen(), [10, 11]);
}

#[test]
fn a_refusal_that_passes_is_waited_out_and_another_ends_the_subscription() {
    let mut bench = Bench::new(false);
    bench.follow(Start::Beginning, 7, 0);
    let push = |code: ErrorCode, after_ms| v1::SubscriptionEnded {
        conversation: ROOM.to_proto(),
        handle: 7,
        error: Some(code.to_proto(after_ms)),
    };
    bench
        .subscriptions
        .ended(push(ErrorCode::Overloaded, 50), &bench.sink, bench.now);
    bench.now += Duration::from_millis(49);
    assert!(bench.due().is_empty());
    bench.now += Duration::from_millis(1 + 2 * AGAIN_MS);
    let due = bench.due();
    assert_eq!(due.len(), 1);
    bench.subscriptions.asked();
    bench.answer(due[0].1, &following(7, 0), false);
    bench
        .subscriptions
        .ended(push(ErrorCode::Banned, 0), &bench.sink, bench.now);
    match bench.events.try_next() {
        Some(Event::SubscriptionEnded {
            conversation: ROOM,
            reason: EndReason::Refused(error),
        }) => {
            assert!(error.is(ErrorCode::Banned));
        }
        other => panic!("{other:?}"),
    }
    bench.subscriptions.connected(false, bench.now);
    assert!(bench.due().is_empty());
}

#[test]
fn readers_that_are_told_to_come_back_later_do_not_come_all_at_once() {
    let ended = v1::SubscriptionEnded {
        conversation: ROOM.to_proto(),
        handle: 7,
        error: Some(ErrorCode::Overloaded.to_proto(1_000)),
    };
    let now = Instant::now();
    let waits: BTreeSet<_> = (0..50)
        .map(|_| {
            let mut bench = Bench::new(false);
            bench.follow(Start::Beginning, 7, 0);
            bench.subscriptions.ended(ended.clone(), &bench.sink, now);
            bench.subscriptions.deadline().unwrap() - now
        })
        .collect();
    assert!(waits.first() >= Some(&Duration::from_secs(1)));
    assert!(waits.len() > 1, "{waits:?}");
}

#[test]
fn another_log_ends_the_subscription() {
    let mut bench = Bench::new(false);
    bench.follow(Start::After(cursor(5)), 7, 5);
    bench.subscriptions.connected(false, bench.now);
    let due = bench.due();
    bench.subscriptions.asked();
    let diverged = v1::SubscriptionResult {
        status: Status::Diverged.into(),
        ..following(0, 3)
    };
    assert_eq!(
        bench.answer(due[0].1, &diverged, false),
        SubscribeStatus::Diverged
    );
    match bench.events.try_next() {
        Some(Event::SubscriptionEnded {
            reason: EndReason::Diverged { head },
            ..
        }) => assert_eq!(head, Some(cursor(3))),
        other => panic!("{other:?}"),
    }

    let mut bench = Bench::new(false);
    bench.follow(Start::After(cursor(5)), 7, 5);
    let push = v1::SubscriptionEnded {
        conversation: ROOM.to_proto(),
        handle: 7,
        error: Some(ErrorCode::CursorDiverged.to_proto(0)),
    };
    bench.subscriptions.ended(push, &bench.sink, bench.now);
    assert!(
        matches!(
            bench.events.try_next(),
            Some(Event::SubscriptionEnded {
                reason: EndReason::Diverged { head: None },
                ..
            })
        ),
        "divergence inside the log is divergence too"
    );
}

#[test]
fn an_answer_to_an_earlier_subscription_is_not_taken_for_that_of_the_next() {
    let mut bench = Bench::new(true);
    let old = bench.subscriptions.begin(ROOM, Start::After(cursor(8)));
    bench.subscriptions.asked();
    let new = bench.subscriptions.begin(ROOM, Start::Beginning);
    bench.subscriptions.asked();
    bench.answer(old, &following(7, 9), true);
    bench.deliver(7, 9..=9);
    assert_eq!(bench.seen(), []);
    bench.answer(new, &following(8, 9), true);
    bench.deliver(8, 1..=9);
    assert_eq!(bench.seen(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn what_there_is_no_room_for_is_left_and_asked_for_again_when_there_is() {
    let mut bench = Bench::with_buffer(true, 2);
    bench.follow(Start::Beginning, 7, 9);
    bench.deliver(7, 6..=6);
    bench.deliver(7, 1..=2);
    bench.deliver(7, 3..=3);
    assert_eq!(bench.subscriptions.held_bytes(), 0);
    assert_eq!(bench.subscriptions.take_leaving(), Some(vec![ROOM]));
    assert_eq!(bench.subscriptions.take_leaving(), None);
    assert_eq!(bench.seen(), [1, 2]);
    // There is room, but what comes is behind what was left out.
    bench.deliver(7, 4..=9);
    assert_eq!(bench.seen(), []);
    assert!(bench.due().is_empty());
    bench.subscriptions.has_room(bench.now);
    let due = bench.due();
    assert_eq!((due.len(), bench.cursor()), (1, Some(cursor(2))));
    bench.subscriptions.asked();
    bench.answer(due[0].1, &following(8, 9), false);
    bench.deliver(8, 3..=9);
    assert_eq!(bench.seen(), [3, 4, 5, 6, 7, 8, 9]);
}
