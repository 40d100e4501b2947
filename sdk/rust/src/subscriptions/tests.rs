//! What a caller sees of events that arrive in any order, on any stream, or not at all.

mod answers;
mod reorder;
mod room;

use std::sync::Arc;

use rialto_protocol::error::ErrorCode;
use rialto_protocol::ids::Epoch;

use v1::SubscriptionStatus as Status;

use super::*;
use crate::command::Shared;
use crate::error::CloseReason;
use crate::events::{ConnectionState, Event, Events};

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
fn a_handle_that_names_another_conversation_by_now_is_left_to_it() {
    let other = ConversationId::from_bytes([2; 16]);
    for renewed in [true, false] {
        let mut bench = Bench::new(false);
        bench.follow(Start::Beginning, 7, 0);
        let push = v1::SubscriptionEnded {
            conversation: ROOM.to_proto(),
            handle: 7,
            error: Some(ErrorCode::Overloaded.to_proto(0)),
        };
        bench.subscriptions.ended(push, &bench.sink, bench.now);
        let generation = bench.subscriptions.begin(other, Start::Beginning);
        bench.subscriptions.asked();
        let (asked, results) = ([(other, generation)], vec![following(7, 0)]);
        bench
            .subscriptions
            .answered(&asked, results, true, &bench.sink, bench.now);
        if renewed {
            bench.now += Duration::from_millis(2 * AGAIN_MS);
            let due = bench.due();
            assert_eq!(due.len(), 1);
            bench.subscriptions.asked();
            bench.answer(due[0].1, &following(8, 0), false);
        } else {
            bench.subscriptions.remove(ROOM);
        }
        assert_eq!(bench.subscriptions.conversation(7), Some(other));
    }
}
