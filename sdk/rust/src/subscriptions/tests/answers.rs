//! What a caller sees when the server has cut or replaced a log, or will not send it, now or at all.

use super::*;
use crate::events::EndReason;

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
