//! How subscriptions begin and end.

use rialto_protocol::{
    error::ErrorCode,
    frame::FrameKind,
    ids::{Cursor, Epoch, RequestId, Seq},
    v1,
    v1::SubscriptionStatus as Status,
};

use super::{
    leaving::follow_many,
    rig::{Log, Rig, conversation, decode, ended, seqs, subscribe},
};
use crate::{
    config::CoreConfig,
    message::{Standing, ToEdge, ToOwner},
};

pub(super) fn cursor(epoch: u64, seq: u64) -> Option<Cursor> {
    Some(Cursor {
        epoch: Epoch(epoch),
        seq: Seq(seq),
    })
}

pub(super) fn unsubscribe(numbers: &[u8]) -> v1::Unsubscribe {
    v1::Unsubscribe {
        conversations: numbers
            .iter()
            .map(|number| conversation(*number).to_proto())
            .collect(),
    }
}

pub(super) fn deny(ask: &ToOwner, code: ErrorCode) -> ToEdge {
    subscribed(ask, Err(code))
}

/// The owner's answer.
pub(super) fn subscribed(ask: &ToOwner, result: Result<Standing, ErrorCode>) -> ToEdge {
    let ToOwner::Subscribe {
        origin,
        slot,
        user,
        conversation,
        cursor,
    } = *ask
    else {
        panic!("Subscribe")
    };
    ToEdge::Subscribed {
        origin,
        slot,
        user,
        conversation,
        cursor,
        result,
    }
}

#[test]
fn one_answer_holds_all_results_in_the_order_of_the_request() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let (mut one, mut three) = (Log::new(1, 4), Log::new(3, 2));
    let items = [
        (one.conversation, None),
        (conversation(2), None),
        (three.conversation, cursor(3, 1)),
    ];
    rig.send(conn, FrameKind::Subscribe, 2, &subscribe(&items));
    let (first, second, third) = (rig.ask(), rig.ask(), rig.ask());
    rig.tell(three.answer(third).unwrap());
    rig.tell(deny(&second, ErrorCode::ConversationNotFound));
    assert!(rig.frames(conn).is_empty());
    rig.tell(one.answer(first).unwrap());
    let frames = rig.frames(conn);
    assert_eq!(
        (frames[0].kind, frames[0].request_id),
        (FrameKind::Subscribed, RequestId(2))
    );
    let results = decode::<v1::Subscribed>(&frames[0]).results;
    let told: Vec<_> = results
        .iter()
        .map(|result| (result.status, result.handle))
        .collect();
    assert_eq!(
        told,
        [
            (Status::Following as i32, 101),
            (Status::Denied as i32, 0),
            (Status::Following as i32, 103)
        ]
    );
    assert_eq!(
        ErrorCode::from_proto(results[1].error.as_ref().unwrap()),
        Some(ErrorCode::ConversationNotFound)
    );
    assert_eq!(
        (
            results[0].head.unwrap().seq,
            results[0].oldest_seq,
            results[0].role
        ),
        (4, 1, v1::Role::Member as i32)
    );
    assert_eq!((rig.edge.subs.len(), rig.edge.topics.len()), (2, 2));
}

#[test]
fn a_subscription_that_is_refused_or_ends_for_now_comes_with_advice_when_to_try_again() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let mut log = Log::new(1, 9);
    rig.send(
        conn,
        FrameKind::Subscribe,
        2,
        &subscribe(&[(conversation(2), None), (log.conversation, cursor(3, 1))]),
    );
    let (refused, kept) = (rig.ask(), rig.ask());
    rig.tell(deny(&refused, ErrorCode::Overloaded));
    rig.tell(log.answer(kept).unwrap());
    let subscribed: v1::Subscribed = decode(&rig.frame(conn));
    let advice = subscribed.results[0].error.as_ref().unwrap();
    assert_eq!(advice.retry_after_ms, 1_000);
    rig.answer_read(Err(ErrorCode::StorageUnavailable));
    let ended: v1::SubscriptionEnded = decode(&rig.frame(conn));
    assert_eq!(ended.error.unwrap().retry_after_ms, 2_000);
}

#[test]
fn a_cursor_is_judged_against_the_log() {
    let cases = [
        (None, Status::Following),
        (cursor(3, 10), Status::Following),
        (cursor(0, 0), Status::Truncated),
        (cursor(3, 3), Status::Truncated),
        (cursor(3, 4), Status::Following),
        (cursor(2, 7), Status::Following),
        (cursor(3, 11), Status::Diverged),
        (cursor(4, 5), Status::Diverged),
        (cursor(2, 10), Status::Diverged),
    ];
    for (cursor, status) in cases {
        let mut rig = Rig::new();
        let conn = rig.connect("ann");
        let mut log = Log::new(1, 10);
        log.oldest = Seq(5);
        let result = rig.follow(conn, &mut log, cursor);
        assert_eq!(result.status, status as i32, "{cursor:?}");
        assert_eq!(
            rig.edge.subs.len(),
            usize::from(status != Status::Diverged),
            "{cursor:?}"
        );
        if status == Status::Diverged {
            let detach = rig.ask();
            log.answer(detach);
            assert!(!log.attached && rig.edge.topics.len() == 0);
        }
    }
}

#[test]
fn an_empty_log_is_followed_from_nothing() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let mut log = Log::new(1, 0);
    assert_eq!(
        rig.follow(conn, &mut log, cursor(0, 0)).status,
        Status::Following as i32
    );
    let batch = log.append(2, 5);
    rig.tell(batch);
    assert_eq!(seqs(&rig.frames(conn)), [1, 2]);
}

#[test]
fn the_event_at_a_cursor_below_the_head_is_verified_by_the_first_read_alone() {
    let mut rig = Rig::with(CoreConfig {
        catch_up_bytes_max: 200,
        ..CoreConfig::default()
    });
    let conn = rig.connect("ann");
    let mut log = Log::new(1, 10);
    rig.follow(conn, &mut log, cursor(2, 5));
    let ask = rig.ask();
    assert!(matches!(
        ask,
        ToOwner::CatchUp {
            from: Seq(6),
            verify: Some(Epoch(2)),
            ..
        }
    ));
    rig.tell(log.answer(ask).unwrap());
    assert_eq!(ended(&rig.frames(conn)), Some(ErrorCode::CursorDiverged));
    assert_eq!(rig.edge.subs.len(), 0);
    let detach = rig.ask();
    log.answer(detach);

    rig.follow(conn, &mut log, cursor(3, 5));
    let ask = rig.ask();
    rig.tell(log.answer(ask).unwrap());
    assert!(matches!(rig.ask(), ToOwner::CatchUp { from, verify: None, .. } if from > Seq(6)));
}

#[test]
fn there_are_only_so_many_subscriptions() {
    let mut rig = Rig::with(CoreConfig {
        subscriptions_max: 2,
        ..CoreConfig::default()
    });
    let conn = rig.connect("ann");
    let mut logs = [Log::new(1, 1), Log::new(2, 1), Log::new(3, 1)];
    rig.follow(conn, &mut logs[0], None);
    let items: Vec<_> = logs.iter().map(|log| (log.conversation, None)).collect();
    rig.send(conn, FrameKind::Subscribe, 3, &subscribe(&items));
    assert_eq!(
        rig.asked.len(),
        2,
        "the one that is there does not count twice"
    );
    for log in &mut logs[..2] {
        let ask = rig.ask();
        rig.tell(log.answer(ask).unwrap());
    }
    let results = decode::<v1::Subscribed>(&rig.frame(conn)).results;
    assert_eq!(
        ErrorCode::from_proto(results[2].error.as_ref().unwrap()),
        Some(ErrorCode::SubscriptionLimit)
    );
    assert_eq!(
        (
            rig.edge.subs.len(),
            rig.shed("session", "subscription_limit")
        ),
        (2, 1)
    );
}

#[test]
fn subscriptions_of_all_together_have_a_bound_of_which_each_session_has_a_part() {
    // A third of it for subscriptions: 64,000, of which one of a conversation that nobody else follows takes 320.
    let mut rig = Rig::with(CoreConfig {
        shard_bytes_max: 192_000,
        ..CoreConfig::default()
    });
    let (ann, bob) = (rig.connect("ann"), rig.connect("bob"));
    follow_many(&mut rig, ann, 0, 101);
    assert_eq!(rig.edge.subs.len(), 100, "half is for whoever comes");
    let frames = rig.frames(ann);
    let subscribed: v1::Subscribed = decode(frames.last().unwrap());
    let refusal = subscribed.results[100].error.as_ref().unwrap();
    assert_eq!(ErrorCode::from_proto(refusal), Some(ErrorCode::Overloaded));
    assert!(refusal.retry_after_ms > 0);
    assert_eq!(rig.shed("session", "overloaded"), 1);
    // Past that each has a little, whether others follow the same or not.
    follow_many(&mut rig, bob, 1_000, 4);
    follow_many(&mut rig, bob, 0, 4);
    assert_eq!((rig.edge.subs.len(), rig.edge.topics.len()), (106, 104));
    follow_many(&mut rig, bob, 1_000, 4);
    assert_eq!(
        rig.shed("session", "overloaded"),
        3,
        "what is there may begin anew"
    );
    for number in 0..16 {
        let conn = rig.connect(&format!("user {number}"));
        follow_many(&mut rig, conn, 2_000 + 10 * number, 6);
    }
    assert_eq!(rig.edge.topics.len(), 199, "and nobody more than there is");
    // What is left by one who is gone is there until it is taken apart.
    rig.close(ann);
    let eve = rig.connect("eve");
    follow_many(&mut rig, eve, 5_000, 1);
    assert_eq!(rig.edge.topics.len(), 199);
    rig.pass_ms(0);
    rig.asked.clear();
    // Bob follows two of hers.
    assert_eq!(rig.edge.topics.len(), 101);
    follow_many(&mut rig, eve, 5_000, 7);
    assert_eq!(rig.edge.topics.len(), 107);
}

#[test]
fn subscriptions_that_wait_for_their_answers_count_as_if_they_had_come() {
    let mut rig = Rig::with(CoreConfig {
        shard_bytes_max: 192_000,
        ..CoreConfig::default()
    });
    let conn = rig.connect("ann");
    for number in 0..2 {
        let items: Vec<_> = (0..60)
            .map(|item| (conversation(60 * number + item), None))
            .collect();
        let request = 2 + u32::from(number);
        rig.send(conn, FrameKind::Subscribe, request, &subscribe(&items));
    }
    assert_eq!(rig.asked.len(), 100);
    let asked: Vec<_> = rig.asked.drain(..).collect();
    for ask in &asked {
        rig.tell(deny(ask, ErrorCode::ConversationNotFound));
    }
    let items: Vec<_> = (0..100).map(|item| (conversation(item), None)).collect();
    rig.send(conn, FrameKind::Subscribe, 4, &subscribe(&items));
    assert_eq!(rig.asked.len(), 100, "what was denied takes nothing");
}

#[test]
fn the_last_subscriber_to_go_detaches_the_edge() {
    let mut rig = Rig::new();
    let (ann, bob) = (rig.connect("ann"), rig.connect("bob"));
    let mut log = Log::new(1, 1);
    rig.follow(ann, &mut log, None);
    rig.follow(bob, &mut log, None);
    rig.send(ann, FrameKind::Unsubscribe, 3, &unsubscribe(&[1, 9]));
    assert_eq!(rig.frame(ann).kind, FrameKind::Done);
    assert!(rig.asked.is_empty());
    rig.close(bob);
    rig.pass_ms(0);
    assert!(
        matches!(rig.ask(), ToOwner::Detach { conversation, .. } if conversation == log.conversation)
    );
    assert_eq!((rig.edge.subs.len(), rig.edge.topics.len()), (0, 0));
}

#[test]
fn the_edge_stays_attached_while_somebody_is_about_to_subscribe() {
    let mut rig = Rig::new();
    let (ann, bob) = (rig.connect("ann"), rig.connect("bob"));
    let mut log = Log::new(1, 1);
    rig.follow(ann, &mut log, None);
    rig.send(
        bob,
        FrameKind::Subscribe,
        2,
        &subscribe(&[(log.conversation, None)]),
    );
    let ask = rig.ask();
    rig.close(ann);
    rig.pass_ms(0);
    assert!(
        rig.asked.is_empty(),
        "Detach would overtake nothing, but take the new reader's events away"
    );
    rig.tell(log.answer(ask).unwrap());
    let batch = log.append(1, 5);
    rig.tell(batch);
    assert_eq!(seqs(&rig.frames(bob)), [2]);
}

#[test]
fn a_result_for_a_connection_that_is_gone_detaches() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let mut log = Log::new(1, 1);
    rig.send(
        conn,
        FrameKind::Subscribe,
        2,
        &subscribe(&[(log.conversation, None)]),
    );
    rig.close(conn);
    let ask = rig.ask();
    assert!(rig.asked.is_empty());
    rig.tell(log.answer(ask).unwrap());
    let detach = rig.ask();
    log.answer(detach);
    assert!(!log.attached && rig.edge.topics.len() == 0);
}

#[test]
fn a_denied_subscribe_leaves_nothing_behind() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    rig.send(
        conn,
        FrameKind::Subscribe,
        2,
        &subscribe(&[(conversation(1), None)]),
    );
    let ask = rig.ask();
    rig.tell(deny(&ask, ErrorCode::NotAMember));
    assert!(rig.asked.is_empty() && rig.edge.topics.len() == 0);
    assert!(
        rig.edge
            .conns
            .get_mut(conn)
            .unwrap()
            .work_if_any()
            .is_none()
    );
}

#[test]
fn events_that_come_before_the_answer_are_read_after_it() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let (mut one, mut two) = (Log::new(1, 3), Log::new(2, 1));
    rig.send(
        conn,
        FrameKind::Subscribe,
        2,
        &subscribe(&[(one.conversation, None), (two.conversation, None)]),
    );
    let (first, second) = (rig.ask(), rig.ask());
    rig.tell(one.answer(first).unwrap());
    let batch = one.append(2, 5);
    rig.tell(batch);
    assert!(
        rig.frames(conn).is_empty(),
        "the client does not know the handle yet"
    );
    rig.tell(two.answer(second).unwrap());
    assert_eq!(rig.frame(conn).kind, FrameKind::Subscribed);
    let ask = rig.ask();
    rig.tell(one.answer(ask).unwrap());
    let batch = one.append(1, 5);
    rig.tell(batch);
    assert_eq!(seqs(&rig.frames(conn)), [4, 5, 6]);
}

#[test]
fn an_answer_that_overtakes_word_of_events_that_were_left_out_stands() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 3);
    let (live, later) = (rig.connect("ann"), rig.connect("bob"));
    let cursors = [None, cursor(3, 6), cursor(3, 4)];
    let others = cursors.map(|cursor| (rig.connect("eve"), cursor));
    rig.follow(live, &mut log, None);
    // A shard that has no room leaves them out, and says so after all else that it has to say.
    log.append(3, 5);
    let left_out = ToEdge::missed(log.conversation, log.head().seq);
    for (conn, cursor) in others {
        rig.follow_later(conn, &mut log, cursor);
        while let Some(read) = rig.asked.pop_front() {
            rig.tell(log.answer(read).unwrap());
        }
        let frames = rig.frames(conn);
        assert_eq!(ended(&frames), None, "{cursor:?}");
        let missing: &[u64] = if cursor == self::cursor(3, 4) {
            &[5, 6]
        } else {
            &[]
        };
        assert_eq!(seqs(&frames), missing);
    }
    rig.follow_later(later, &mut log, None);
    rig.tell(left_out);
    assert!(rig.asked.is_empty());
    let batch = log.append(1, 5);
    rig.tell(batch);
    assert_eq!(seqs(&rig.frames(live)), [4, 5, 6, 7]);
    assert_eq!(seqs(&rig.frames(later)), [7]);
}

#[test]
fn a_repeated_subscribe_replaces_the_cursor() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let mut log = Log::new(1, 10);
    rig.follow(conn, &mut log, None);
    rig.follow(conn, &mut log, cursor(3, 4));
    let stale = rig.ask();
    rig.follow_later(conn, &mut log, cursor(3, 8));
    rig.tell(log.answer(stale).unwrap());
    assert!(
        seqs(&rig.frames(conn)).is_empty(),
        "what was read for the former cursor is not sent"
    );
    let ask = rig.ask();
    rig.tell(log.answer(ask).unwrap());
    assert_eq!(seqs(&rig.frames(conn)), [9, 10]);
    assert_eq!(rig.edge.subs.len(), 1);
    let batch = log.append(1, 5);
    rig.tell(batch);
    assert_eq!(seqs(&rig.frames(conn)), [11]);
}

#[test]
fn a_repeated_subscribe_that_is_refused_ends_what_was_there() {
    for diverges in [true, false] {
        let mut rig = Rig::new();
        let conn = rig.connect("ann");
        let mut log = Log::new(1, 9);
        rig.follow(conn, &mut log, None);
        rig.send(
            conn,
            FrameKind::Subscribe,
            3,
            &subscribe(&[(log.conversation, cursor(4, 1))]),
        );
        let ask = rig.ask();
        let answer = if diverges {
            log.answer(ask).unwrap()
        } else {
            deny(&ask, ErrorCode::Banned)
        };
        rig.tell(answer);
        let result = decode::<v1::Subscribed>(&rig.frame(conn)).results.remove(0);
        let status = if diverges {
            Status::Diverged
        } else {
            Status::Denied
        };
        assert_eq!(result.status, status as i32);
        assert_eq!(rig.edge.subs.len(), 0);
        assert!(matches!(rig.ask(), ToOwner::Detach { .. }));
    }
}

#[test]
fn a_conversation_that_is_subscribed_to_again_before_the_answer_counts_once() {
    let mut rig = Rig::with(CoreConfig {
        subscriptions_max: 1,
        ..CoreConfig::default()
    });
    let conn = rig.connect("ann");
    let log = Log::new(1, 1);
    for request in [2, 3] {
        rig.send(
            conn,
            FrameKind::Subscribe,
            request,
            &subscribe(&[(log.conversation, None)]),
        );
    }
    assert_eq!(rig.asked.len(), 2);
    rig.send(conn, FrameKind::Unsubscribe, 4, &unsubscribe(&[1]));
    rig.send(
        conn,
        FrameKind::Subscribe,
        5,
        &subscribe(&[(conversation(2), None)]),
    );
    assert_eq!(rig.asked.len(), 3, "what is given up makes room at once");
}

#[test]
fn a_reader_whose_next_events_are_dropped_subscribes_anew_and_follows_what_is_left() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let mut log = Log::new(1, 10);
    let result = rig.follow(conn, &mut log, cursor(3, 2));
    assert_eq!(result.status, Status::Following as i32);
    log.oldest = Seq(6);
    let ask = rig.ask();
    rig.tell(log.answer(ask).unwrap());
    let ended: v1::SubscriptionEnded = decode(&rig.frame(conn));
    let error = ended.error.unwrap();
    assert_eq!(
        ErrorCode::from_proto(&error),
        Some(ErrorCode::StorageUnavailable)
    );
    assert_ne!(
        error.retry(),
        v1::Retry::Never,
        "nothing is to be discarded"
    );
    let detach = rig.ask();
    log.answer(detach);

    let result = rig.follow(conn, &mut log, cursor(3, 2));
    assert_eq!(result.status, Status::Truncated as i32);
    assert_eq!(result.oldest_seq, 6);
    let ask = rig.ask();
    rig.tell(log.answer(ask).unwrap());
    let live = log.append(1, 10);
    rig.tell(live);
    assert_eq!(seqs(&rig.frames(conn)), [6, 7, 8, 9, 10, 11]);
}
