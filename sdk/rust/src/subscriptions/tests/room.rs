//! What a caller sees who had no room for events while they were asked for again.

use super::*;

/// A subscription that is asked for again behind a full buffer: two events are there, and the caller takes them.
fn asked_again(streams: bool) -> (Bench, u64) {
    let mut bench = Bench::with_buffer(streams, 2);
    bench.follow(Start::Beginning, 7, 9);
    bench.deliver(7, 1..=2);
    bench.deliver(7, 3..=3);
    assert_eq!(bench.subscriptions.take_leaving(), Some(vec![ROOM]));
    assert_eq!(bench.seen(), [1, 2]);
    bench.subscriptions.has_room(bench.now);
    let due = bench.due();
    assert_eq!((due.len(), bench.cursor()), (1, Some(cursor(2))));
    bench.subscriptions.asked();
    (bench, due[0].1)
}

/// Something else fills the buffer of two.
fn fill(bench: &Bench) {
    for _ in 0..2 {
        bench.sink.send(Event::Presence(Vec::new()));
    }
}

fn empty(bench: &mut Bench) {
    while bench.events.try_next().is_some() {}
}

/// What is due once the longest wait is over of what was asked for in vain once.
fn due_after_once(bench: &mut Bench) -> Vec<(ConversationId, u64)> {
    bench.now += Duration::from_millis(2 * AGAIN_MS);
    bench.due()
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

#[test]
fn what_overtakes_its_answer_and_finds_no_room_is_asked_for_again() {
    let (mut bench, generation) = asked_again(true);
    fill(&bench);
    // The server names the conversation as before, since somebody else follows it.
    bench.deliver(7, 3..=9);
    empty(&mut bench);
    bench.answer(generation, &following(7, 9), false);
    let due = due_after_once(&mut bench);
    assert_eq!((due.len(), bench.cursor()), (1, Some(cursor(2))));
    bench.subscriptions.asked();
    bench.answer(due[0].1, &following(7, 9), false);
    bench.deliver(7, 3..=9);
    assert_eq!(bench.seen(), [3, 4, 5, 6, 7, 8, 9]);
    assert!(bench.due().is_empty());
}

#[test]
fn what_finds_no_room_ahead_of_its_answer_nor_behind_it_waits_for_the_caller() {
    let (mut bench, generation) = asked_again(true);
    fill(&bench);
    bench.deliver(7, 3..=9);
    bench.answer(generation, &following(7, 9), false);
    assert_eq!(bench.subscriptions.deadline(), None);
    assert_eq!(bench.subscriptions.take_leaving(), Some(vec![ROOM]));
    empty(&mut bench);
    bench.subscriptions.has_room(bench.now);
    let due = due_after_once(&mut bench);
    assert_eq!((due.len(), bench.cursor()), (1, Some(cursor(2))));
}

#[test]
fn on_one_stream_the_rest_of_the_subscription_before_is_no_reason_to_ask_for_more() {
    let (mut bench, generation) = asked_again(false);
    // Under way when the server was told to send nothing more: some is beyond what was left out, some finds no room.
    bench.deliver(7, 5..=6);
    fill(&bench);
    bench.deliver(7, 7..=9);
    empty(&mut bench);
    assert_eq!(bench.subscriptions.held_bytes(), 0);
    bench.answer(generation, &following(7, 9), false);
    for seq in 3..=9 {
        bench.deliver(7, seq..=seq);
        assert!(bench.due().is_empty(), "at {seq}");
        assert_eq!(bench.seen(), [seq]);
    }
}

#[test]
fn on_one_stream_what_showed_a_gap_shows_no_other_one() {
    let mut bench = Bench::new(false);
    bench.follow(Start::Beginning, 7, 9);
    bench.deliver(7, 9..=9);
    let due = bench.due();
    assert_eq!(due.len(), 1);
    bench.subscriptions.asked();
    bench.answer(due[0].1, &following(7, 9), false);
    for seq in 1..=9 {
        bench.deliver(7, seq..=seq);
        assert!(bench.due().is_empty(), "at {seq}");
    }
    assert_eq!(bench.seen(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}
