//! Requests about one conversation that cross each other: their effects and answers keep the order of the requests.

use rialto_protocol::{error::ErrorCode, frame::FrameKind};

use super::{
    rig::{Log, Rig, seqs, subscribe},
    subscribing::{cursor, deny, unsubscribe},
};
use crate::message::ToOwner;

#[test]
fn answers_for_one_conversation_come_in_the_order_of_the_requests() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let (mut one, mut two) = (Log::new(1, 9), Log::new(2, 1));
    let items = [(one.conversation, None), (two.conversation, None)];
    rig.send(conn, FrameKind::Subscribe, 2, &subscribe(&items));
    let later = [(one.conversation, cursor(3, 7))];
    rig.send(conn, FrameKind::Subscribe, 3, &subscribe(&later));
    let (first, slow, second) = (rig.ask(), rig.ask(), rig.ask());
    rig.tell(one.answer(first).unwrap());
    rig.tell(one.answer(second).unwrap());
    assert!(rig.frames(conn).is_empty() && rig.asked.is_empty());
    rig.tell(two.answer(slow).unwrap());
    let ask = rig.ask();
    rig.tell(one.answer(ask).unwrap());
    let frames = rig.frames(conn);
    let requests: Vec<u32> = frames.iter().map(|frame| frame.request_id.0).collect();
    assert_eq!((&requests[..2], seqs(&frames)), (&[2, 3][..], vec![8, 9]));
}

#[test]
fn an_unsubscribe_behind_a_subscribe_is_answered_after_it_and_holds() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let mut log = Log::new(1, 3);
    rig.send(
        conn,
        FrameKind::Subscribe,
        2,
        &subscribe(&[(log.conversation, None)]),
    );
    rig.send(conn, FrameKind::Unsubscribe, 3, &unsubscribe(&[1]));
    assert!(rig.frames(conn).is_empty());
    let ask = rig.ask();
    rig.tell(log.answer(ask).unwrap());
    let kinds: Vec<_> = rig
        .frames(conn)
        .iter()
        .map(|frame| (frame.kind, frame.request_id.0))
        .collect();
    assert_eq!(kinds, [(FrameKind::Subscribed, 2), (FrameKind::Done, 3)]);
    assert_eq!(rig.edge.subs.len(), 0);
    assert!(matches!(rig.ask(), ToOwner::Detach { .. }));
    let session = rig.edge.conns.get_mut(conn).unwrap();
    assert!(session.work_if_any().is_none() && session.in_flight_bytes == 0);
}

#[test]
fn a_subscribe_behind_an_unsubscribe_stands() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let mut log = Log::new(1, 3);
    rig.send(
        conn,
        FrameKind::Subscribe,
        2,
        &subscribe(&[(log.conversation, None)]),
    );
    rig.send(conn, FrameKind::Unsubscribe, 3, &unsubscribe(&[1]));
    rig.send(
        conn,
        FrameKind::Subscribe,
        4,
        &subscribe(&[(log.conversation, cursor(3, 1))]),
    );
    for _ in 0..2 {
        let ask = rig.ask();
        rig.tell(log.answer(ask).unwrap());
    }
    assert_eq!(rig.edge.subs.len(), 1);
    let ask = rig.ask();
    rig.tell(log.answer(ask).unwrap());
    let frames = rig.frames(conn);
    assert_eq!(seqs(&frames), [2, 3]);
    let kinds: Vec<_> = frames.iter().map(|frame| frame.request_id.0).collect();
    assert_eq!(kinds[..3], [2, 3, 4]);
}

#[test]
fn a_subscribe_behind_an_unsubscribe_that_waits_for_others_is_answered_after_it() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let (mut log, mut slow) = (Log::new(1, 3), Log::new(2, 1));
    let to_log = subscribe(&[(log.conversation, None)]);
    rig.send(
        conn,
        FrameKind::Subscribe,
        2,
        &subscribe(&[(slow.conversation, None)]),
    );
    let slow_ask = rig.ask();
    rig.send(conn, FrameKind::Subscribe, 3, &to_log);
    rig.send(conn, FrameKind::Unsubscribe, 4, &unsubscribe(&[1]));
    let ask = rig.ask();
    rig.tell(log.answer(ask).unwrap());
    rig.send(conn, FrameKind::Subscribe, 5, &to_log);
    while let Some(ask) = rig.asked.pop_front() {
        log.answer(ask).into_iter().for_each(|said| rig.tell(said));
    }
    rig.tell(slow.answer(slow_ask).unwrap());
    let frames = rig.frames(conn);
    let answered = frames.iter().map(|frame| frame.request_id.0);
    let answered: Vec<u32> = answered.filter(|request| *request != 2).collect();
    assert_eq!(answered, [3, 4, 5]);
    let batch = log.append(1, 5);
    rig.tell(batch);
    assert_eq!(seqs(&rig.frames(conn)), [4]);
    assert_eq!(rig.edge.subs.len(), 2);
}

#[test]
fn a_result_that_comes_after_that_of_a_later_request_has_no_effect() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let mut log = Log::new(1, 3);
    let to_log = subscribe(&[(log.conversation, None)]);
    rig.send(conn, FrameKind::Subscribe, 2, &to_log);
    rig.send(conn, FrameKind::Subscribe, 3, &to_log);
    let (earlier, later) = (rig.ask(), rig.ask());
    rig.tell(deny(&later, ErrorCode::Banned));
    rig.tell(log.answer(earlier).unwrap());
    let answered: Vec<u32> = rig
        .frames(conn)
        .iter()
        .map(|frame| frame.request_id.0)
        .collect();
    assert_eq!(answered, [2, 3]);
    assert_eq!(rig.edge.subs.len(), 0);
    assert!(matches!(rig.ask(), ToOwner::Detach { .. }));
}

#[test]
fn an_earlier_of_two_subscribes_holds_until_the_later_has_its_result() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let mut log = Log::new(1, 3);
    rig.follow(conn, &mut log, None);
    for (request, seq) in [(2, 1), (3, 2)] {
        rig.send(
            conn,
            FrameKind::Subscribe,
            request,
            &subscribe(&[(log.conversation, cursor(3, seq))]),
        );
    }
    let (earlier, later) = (rig.ask(), rig.ask());
    rig.tell(log.answer(earlier).unwrap());
    let read = rig.ask();
    rig.tell(log.answer(read).unwrap());
    assert_eq!(seqs(&rig.frames(conn)), [2, 3]);
    rig.tell(log.answer(later).unwrap());
    let read = rig.ask();
    rig.tell(log.answer(read).unwrap());
    assert_eq!(seqs(&rig.frames(conn)), [3]);
}
