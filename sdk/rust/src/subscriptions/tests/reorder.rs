//! What a caller sees of events that arrive ahead of those before them, or of the answer that announces them.

use super::*;
use crate::subscriptions::reorder::HANDLES_MAX;

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
fn handles_that_nobody_announces_are_not_kept_without_end() {
    let mut bench = Bench::new(true);
    let generation = bench.subscriptions.begin(ROOM, Start::Beginning);
    bench.subscriptions.asked();
    let last = u32::try_from(HANDLES_MAX).unwrap();
    for handle in 0..=last {
        bench.deliver(handle, 1..=1);
    }
    bench.answer(generation, &following(last, 1), true);
    assert_eq!(bench.seen(), []);
    assert_eq!(bench.due().len(), 1);
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
fn a_hole_in_a_deliver_is_asked_for_by_one_request_at_a_time() {
    let mut bench = Bench::new(true);
    bench.follow(Start::Beginning, 7, 3);
    let event = |seq| v1::Event {
        seq,
        ..v1::Event::default()
    };
    let holed = v1::Deliver {
        handle: 7,
        events: vec![event(1), event(3)],
    };
    let deliver = |bench: &mut Bench| {
        let (deliver, sink) = (holed.clone(), &bench.sink);
        bench.subscriptions.deliver(deliver, 200, sink, bench.now);
    };
    deliver(&mut bench);
    let due = bench.due();
    assert_eq!(due.len(), 1);
    bench.subscriptions.asked();
    deliver(&mut bench);
    assert_eq!(bench.subscriptions.deadline(), None, "that is asked for");
    bench.answer(due[0].1, &following(8, 3), false);
    bench.now += Duration::from_millis(2 * AGAIN_MS);
    let due = bench.due();
    assert_eq!(due.len(), 1);
    bench.subscriptions.asked();
    bench.answer(due[0].1, &following(9, 3), false);
    bench.deliver(9, 1..=3);
    assert_eq!(bench.seen(), [1, 2, 3]);
    assert!(bench.due().is_empty());
}
