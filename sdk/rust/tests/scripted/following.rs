//! Subscriptions: no gap, no repeat, whatever happens to the connection.

use rialto_sdk::protocol::frame::FrameKind;
use rialto_sdk::protocol::ids::Epoch;
use rialto_sdk::protocol::limits;
use rialto_sdk::{
    Client, ConversationId, Cursor, EndReason, ErrorCode, Event, Events, RequestError, Retry, Seq,
    Start, SubscribeStatus, v1,
};

use crate::server::{OTHER_ROOM, Peer, ROOM, Server, deliver, event, expect_nothing, following};

/// The next event that is not about the connection.
async fn next(events: &mut Events) -> Event {
    loop {
        match events.next().await.expect("an event") {
            Event::Connection(_) => {}
            other => return other,
        }
    }
}

/// The next `count` events of the room.
async fn seen(events: &mut Events, count: usize) -> Vec<v1::Event> {
    let mut seen = Vec::new();
    while seen.len() < count {
        match next(events).await {
            Event::Delivered {
                conversation: ROOM,
                events,
            } => seen.extend(events),
            other => panic!("{other:?}"),
        }
    }
    seen
}

fn log(seqs: std::ops::RangeInclusive<u64>) -> Vec<v1::Event> {
    seqs.map(event).collect()
}

#[tokio::test]
async fn cuts_at_every_byte_leave_no_gap_and_no_repeat() {
    const LAST: u64 = 14;
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    // Frames of one, two and three events, as they follow an event.
    let frames_after = |cursor: u64| {
        let mut frames = Vec::new();
        let mut from = cursor + 1;
        while from <= LAST {
            let to = LAST.min(from + from % 3);
            frames.extend_from_slice(&deliver(7, from..=to));
            from = to + 1;
        }
        frames
    };
    let bytes = frames_after(0).len();
    let mut cut = 0;
    while cut <= bytes {
        // Each round begins anew, is cut once at the byte whose turn it is, and is then left to finish.
        let (subscribed, asked) = tokio::join!(
            client.subscribe(vec![(ROOM, Start::Beginning)]),
            peer.subscribed(7, LAST)
        );
        assert!(subscribed.unwrap()[0].is_following());
        assert_eq!(asked[0].cursor, Some(v1::Cursor { epoch: 0, seq: 0 }));
        peer.send_bytes(&frames_after(0)[..cut]).await;
        drop(peer);
        peer = server.welcome().await;
        let cursor = peer.subscribed(7, LAST).await[0].cursor.unwrap();
        assert_eq!(
            cursor.epoch,
            if cursor.seq == 0 {
                0
            } else {
                event(cursor.seq).epoch
            }
        );
        peer.send_bytes(&frames_after(cursor.seq)).await;
        assert_eq!(
            seen(&mut events, usize::try_from(LAST).unwrap()).await,
            log(1..=LAST),
            "cut at byte {cut}"
        );
        cut += 1;
    }
}

#[tokio::test]
async fn a_server_that_repeats_itself_is_heard_once() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Beginning)]),
        peer.subscribed(7, 9)
    );
    for seqs in [1..=4, 1..=4, 3..=6, 6..=6, 2..=9] {
        peer.send_bytes(&deliver(7, seqs)).await;
    }
    assert_eq!(seen(&mut events, 9).await, log(1..=9));
    peer.send_bytes(&deliver(7, 10..=10)).await;
    assert_eq!(seen(&mut events, 1).await, log(10..=10));
}

#[tokio::test]
async fn a_gap_is_closed_by_asking_again_from_the_cursor() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Beginning)]),
        peer.subscribed(7, 9)
    );
    peer.send_bytes(&deliver(7, 1..=2)).await;
    peer.send_bytes(&deliver(7, 4..=4)).await;
    let asked = peer.subscribed(8, 9).await;
    assert_eq!(asked[0].cursor, Some(v1::Cursor { epoch: 1, seq: 2 }));
    peer.send_bytes(&deliver(8, 3..=9)).await;
    assert_eq!(seen(&mut events, 9).await, log(1..=9));
}

#[tokio::test]
async fn a_live_subscription_goes_on_from_where_it_was_though_nothing_had_come() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let (_, asked) = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Live)]),
        peer.subscribed(7, 5)
    );
    assert_eq!(asked[0].cursor, None);
    drop(peer);
    let mut peer = server.welcome().await;
    let asked = peer.subscribed(9, 8).await;
    assert_eq!(asked[0].cursor, Some(v1::Cursor { epoch: 1, seq: 5 }));
    peer.send_bytes(&deliver(9, 6..=8)).await;
    assert_eq!(seen(&mut events, 3).await, log(6..=8));
}

#[tokio::test]
async fn a_subscribe_that_was_never_answered_is_asked_again() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let start = Start::after(&event(3));
    let last = Cursor {
        epoch: Epoch(1),
        seq: Seq(3),
    };
    assert_eq!(start, Start::After(last));
    let subscribing = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe(vec![(ROOM, start)]).await }
    });
    peer.expect::<v1::Subscribe>(FrameKind::Subscribe).await;
    drop(peer);
    let mut peer = server.welcome().await;
    let asked = peer.subscribed(7, 4).await;
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].cursor, Some(v1::Cursor { epoch: 1, seq: 3 }));
    assert_eq!(
        subscribing.await.unwrap().unwrap()[0].status,
        SubscribeStatus::Following
    );
    peer.send_bytes(&deliver(7, 4..=4)).await;
    assert_eq!(seen(&mut events, 1).await, log(4..=4));
}

#[tokio::test]
async fn many_conversations_are_asked_for_in_requests_that_the_protocol_allows() {
    const ALLOWED: usize = limits::SUBSCRIPTIONS_PER_REQUEST_MAX;
    const MORE: usize = ALLOWED / 2;
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let rooms: Vec<_> = (0..)
        .take(ALLOWED + MORE)
        .map(|n| ConversationId::v7(n, [1; 10]))
        .collect();
    let starts = rooms.iter().map(|room| (*room, Start::Live)).collect();
    let second = u32::try_from(ALLOWED).unwrap();
    let (outcomes, asked) = tokio::join!(client.subscribe(starts), async {
        [
            peer.subscribed(0, 1).await.len(),
            peer.subscribed(second, 1).await.len(),
        ]
    });
    assert_eq!(asked, [ALLOWED, MORE]);
    assert_eq!(
        outcomes
            .unwrap()
            .iter()
            .map(|outcome| outcome.conversation)
            .collect::<Vec<_>>(),
        rooms
    );
    drop(peer);
    let mut peer = server.welcome().await;
    assert_eq!(
        [
            peer.subscribed(0, 1).await.len(),
            peer.subscribed(second, 1).await.len()
        ],
        [ALLOWED, MORE]
    );
}

/// A client that follows the room from handle 7 and has got its first two events.
async fn following_two(server: &Server) -> (Client, Events, Peer) {
    let (client, mut events, mut peer) = server.client().await;
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Beginning)]),
        peer.subscribed(7, 2)
    );
    peer.send_bytes(&deliver(7, 1..=2)).await;
    assert_eq!(seen(&mut events, 2).await, log(1..=2));
    (client, events, peer)
}

#[tokio::test]
async fn a_subscription_goes_on_when_the_request_for_another_start_is_refused() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = following_two(&server).await;
    let (refused, ()) = tokio::join!(client.subscribe(vec![(ROOM, Start::Beginning)]), async {
        let (id, _) = peer.expect::<v1::Subscribe>(FrameKind::Subscribe).await;
        peer.refuse(id, ErrorCode::RateLimited).await;
    });
    assert_eq!(refused.unwrap_err().retry(), Retry::Safe);
    let asked = peer.subscribed(8, 3).await;
    assert_eq!(asked[0].cursor, Some(v1::Cursor { epoch: 1, seq: 2 }));
    peer.send_bytes(&deliver(8, 3..=3)).await;
    assert_eq!(seen(&mut events, 1).await, log(3..=3));
}

#[tokio::test]
async fn a_subscription_goes_on_when_another_start_is_denied_for_now_and_ends_when_for_good() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = following_two(&server).await;
    for code in [ErrorCode::StorageUnavailable, ErrorCode::NotAMember] {
        let (outcomes, ()) = tokio::join!(client.subscribe(vec![(ROOM, Start::Live)]), async {
            let (id, _) = peer.expect::<v1::Subscribe>(FrameKind::Subscribe).await;
            let denied = v1::SubscriptionResult {
                conversation: ROOM.to_proto(),
                status: v1::SubscriptionStatus::Denied.into(),
                error: Some(code.to_proto(1)),
                ..v1::SubscriptionResult::default()
            };
            let results = vec![denied];
            peer.send(FrameKind::Subscribed, id, &v1::Subscribed { results })
                .await;
        });
        assert!(!outcomes.unwrap()[0].is_following());
        if code == ErrorCode::StorageUnavailable {
            let asked = peer.subscribed(8, 3).await;
            assert_eq!(asked[0].cursor, Some(v1::Cursor { epoch: 1, seq: 2 }));
            peer.send_bytes(&deliver(8, 3..=3)).await;
            assert_eq!(seen(&mut events, 1).await, log(3..=3));
        }
    }
    drop(peer);
    let mut peer = server.welcome().await;
    expect_nothing(&client, &mut peer).await;
}

#[tokio::test]
async fn a_subscription_goes_on_when_the_connection_breaks_before_another_start_is_answered() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = following_two(&server).await;
    let subscribing = tokio::spawn(async move {
        let refused = client.subscribe(vec![(ROOM, Start::Beginning)]).await;
        (client, refused)
    });
    peer.expect::<v1::Subscribe>(FrameKind::Subscribe).await;
    drop(peer);
    let mut peer = server.welcome().await;
    // What was followed is renewed, then what was asked for is asked for again, and refused now.
    let asked = peer.subscribed(7, 3).await;
    assert_eq!(asked[0].cursor, Some(v1::Cursor { epoch: 1, seq: 2 }));
    let (id, _) = peer.expect::<v1::Subscribe>(FrameKind::Subscribe).await;
    peer.refuse(id, ErrorCode::Overloaded).await;
    let (_client, refused) = subscribing.await.unwrap();
    assert!(refused.is_err());
    let asked = peer.subscribed(8, 3).await;
    assert_eq!(asked[0].cursor, Some(v1::Cursor { epoch: 1, seq: 2 }));
    peer.send_bytes(&deliver(8, 3..=3)).await;
    assert_eq!(seen(&mut events, 1).await, log(3..=3));
}

#[tokio::test]
async fn of_several_requests_to_follow_a_refused_one_denies_its_own_conversations_alone() {
    const ALLOWED: usize = limits::SUBSCRIPTIONS_PER_REQUEST_MAX;
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let starts = (0..).take(ALLOWED + 1);
    let starts = starts.map(|n| (ConversationId::v7(n, [1; 10]), Start::Live));
    let (outcomes, ()) = tokio::join!(client.subscribe(starts.collect()), async {
        let (id, _) = peer.expect::<v1::Subscribe>(FrameKind::Subscribe).await;
        peer.refuse(id, ErrorCode::RateLimited).await;
        peer.subscribed(0, 1).await;
    });
    let outcomes = outcomes.unwrap();
    assert_eq!(outcomes.len(), ALLOWED + 1);
    assert!(outcomes[ALLOWED].is_following());
    for outcome in &outcomes[..ALLOWED] {
        assert!(
            matches!(&outcome.status, SubscribeStatus::Denied(error) if error.is(ErrorCode::RateLimited))
        );
    }
}

#[tokio::test]
async fn outcomes_tell_apart_what_was_denied() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let answer = async {
        let (id, subscribe) = peer.expect::<v1::Subscribe>(FrameKind::Subscribe).await;
        let denied = v1::SubscriptionResult {
            conversation: subscribe.subscriptions[0].conversation.clone(),
            status: v1::SubscriptionStatus::Denied.into(),
            error: Some(ErrorCode::NotAMember.to_proto(0)),
            ..v1::SubscriptionResult::default()
        };
        let diverged = v1::SubscriptionResult {
            status: v1::SubscriptionStatus::Diverged.into(),
            ..following(&subscribe.subscriptions[1].conversation, 0, 3)
        };
        peer.send(
            FrameKind::Subscribed,
            id,
            &v1::Subscribed {
                results: vec![denied, diverged],
            },
        )
        .await;
    };
    let far = Start::After(Cursor {
        epoch: Epoch(9),
        seq: Seq(9),
    });
    let (outcomes, ()) = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Live), (OTHER_ROOM, far)]),
        answer
    );
    let outcomes = outcomes.unwrap();
    let SubscribeStatus::Denied(error) = &outcomes[0].status else {
        panic!("{outcomes:?}")
    };
    assert_eq!(
        (error.known(), error.retry()),
        (Some(ErrorCode::NotAMember), Retry::Never)
    );
    assert_eq!(
        (&outcomes[1].status, outcomes[1].head.seq),
        (&SubscribeStatus::Diverged, Seq(3))
    );
    // Neither is a subscription: the next connection is asked for nothing.
    drop(peer);
    let mut peer = server.welcome().await;
    let (described, id) = tokio::join!(client.describe(ROOM), async {
        let (id, _) = peer.expect::<v1::Describe>(FrameKind::Describe).await;
        peer.refuse(id, ErrorCode::NotAMember).await;
        id
    });
    assert!(matches!(described, Err(RequestError::Refused(_))), "{id:?}");
    let twice = client
        .subscribe(vec![(ROOM, Start::Live), (ROOM, Start::Beginning)])
        .await;
    assert!(matches!(twice, Err(RequestError::Invalid(_))));
}

#[tokio::test]
async fn after_unsubscribing_nothing_comes_and_nothing_is_asked_for_again() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let starts = vec![(ROOM, Start::Beginning), (OTHER_ROOM, Start::Beginning)];
    let _ = tokio::join!(client.subscribe(starts), peer.subscribed(7, 0));
    let (done, ()) = tokio::join!(client.unsubscribe(&[OTHER_ROOM]), async {
        let (id, body) = peer.expect::<v1::Unsubscribe>(FrameKind::Unsubscribe).await;
        assert_eq!(body.conversations, [OTHER_ROOM.to_proto()]);
        peer.send_bytes(&deliver(8, 1..=1)).await;
        peer.send(FrameKind::Done, id, &v1::Done {}).await;
    });
    done.unwrap();
    drop(peer);
    let mut peer = server.welcome().await;
    assert_eq!(peer.subscribed(7, 1).await.len(), 1);
    peer.send_bytes(&deliver(7, 1..=1)).await;
    assert_eq!(seen(&mut events, 1).await, log(1..=1));
}

#[tokio::test]
async fn an_unsubscribe_that_was_never_answered_is_asked_again_behind_its_subscribe() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let subscribing = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe(vec![(ROOM, Start::Live)]).await }
    });
    peer.expect::<v1::Subscribe>(FrameKind::Subscribe).await;
    let unsubscribing = tokio::spawn({
        let client = client.clone();
        async move { client.unsubscribe(&[ROOM]).await }
    });
    peer.expect::<v1::Unsubscribe>(FrameKind::Unsubscribe).await;
    drop(peer);
    let mut peer = server.welcome().await;
    peer.subscribed(7, 0).await;
    let (id, body) = peer.expect::<v1::Unsubscribe>(FrameKind::Unsubscribe).await;
    assert_eq!(body.conversations, [ROOM.to_proto()]);
    peer.send(FrameKind::Done, id, &v1::Done {}).await;
    subscribing.await.unwrap().unwrap();
    unsubscribing.await.unwrap().unwrap();
    // Nothing is followed: the next connection is asked for nothing but what is asked now.
    drop(peer);
    let mut peer = server.welcome().await;
    expect_nothing(&client, &mut peer).await;
}

#[tokio::test]
async fn an_unsubscribe_that_was_refused_reaches_the_server_when_it_is_tried_again() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Live)]),
        peer.subscribed(7, 0)
    );
    let (refused, ()) = tokio::join!(client.unsubscribe(&[ROOM]), async {
        let (id, _) = peer.expect::<v1::Unsubscribe>(FrameKind::Unsubscribe).await;
        peer.refuse(id, ErrorCode::RateLimited).await;
    });
    assert_eq!(refused.unwrap_err().retry(), Retry::Safe);
    let (done, ()) = tokio::join!(client.unsubscribe(&[ROOM]), async {
        let (id, body) = peer.expect::<v1::Unsubscribe>(FrameKind::Unsubscribe).await;
        assert_eq!(body.conversations, [ROOM.to_proto()]);
        peer.send(FrameKind::Done, id, &v1::Done {}).await;
    });
    done.unwrap();
}

#[tokio::test]
async fn a_log_that_was_cut_or_replaced_meanwhile_is_told() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Beginning)]),
        peer.subscribed(7, 0)
    );
    peer.send_bytes(&deliver(7, 1..=2)).await;
    assert_eq!(seen(&mut events, 2).await, log(1..=2));
    drop(peer);
    let mut peer = server.welcome().await;
    let (id, subscribe) = peer.expect::<v1::Subscribe>(FrameKind::Subscribe).await;
    let room = &subscribe.subscriptions[0].conversation;
    let truncated = v1::SubscriptionResult {
        status: v1::SubscriptionStatus::Truncated.into(),
        oldest_seq: 8,
        ..following(room, 7, 9)
    };
    peer.send(
        FrameKind::Subscribed,
        id,
        &v1::Subscribed {
            results: vec![truncated],
        },
    )
    .await;
    peer.send_bytes(&deliver(7, 8..=9)).await;
    let Event::Truncated {
        conversation: ROOM,
        oldest: Seq(8),
    } = next(&mut events).await
    else {
        panic!()
    };
    assert_eq!(seen(&mut events, 2).await, log(8..=9));
    drop(peer);
    let mut peer = server.welcome().await;
    let (id, _) = peer.expect::<v1::Subscribe>(FrameKind::Subscribe).await;
    let diverged = v1::SubscriptionResult {
        status: v1::SubscriptionStatus::Diverged.into(),
        ..following(room, 0, 4)
    };
    peer.send(
        FrameKind::Subscribed,
        id,
        &v1::Subscribed {
            results: vec![diverged],
        },
    )
    .await;
    match next(&mut events).await {
        Event::SubscriptionEnded {
            conversation: ROOM,
            reason: EndReason::Diverged { head },
        } => {
            assert_eq!(
                head,
                Some(Cursor {
                    epoch: Epoch(1),
                    seq: Seq(4)
                })
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_removed_member_is_told_and_a_busy_server_is_asked_again() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let starts = vec![(ROOM, Start::Beginning), (OTHER_ROOM, Start::Beginning)];
    let _ = tokio::join!(client.subscribe(starts), peer.subscribed(7, 0));
    let ended = |room: ConversationId, handle, code: ErrorCode| v1::SubscriptionEnded {
        conversation: room.to_proto(),
        handle,
        error: Some(code.to_proto(1)),
    };
    peer.push(
        FrameKind::SubscriptionEnded,
        &ended(OTHER_ROOM, 8, ErrorCode::NotAMember),
    )
    .await;
    match next(&mut events).await {
        Event::SubscriptionEnded {
            conversation: OTHER_ROOM,
            reason: EndReason::Refused(error),
        } => {
            assert!(error.is(ErrorCode::NotAMember));
        }
        other => panic!("{other:?}"),
    }
    peer.push(
        FrameKind::SubscriptionEnded,
        &ended(ROOM, 7, ErrorCode::Overloaded),
    )
    .await;
    assert_eq!(peer.subscribed(9, 0).await.len(), 1);
    peer.send_bytes(&deliver(9, 1..=1)).await;
    assert_eq!(seen(&mut events, 1).await, log(1..=1));
}

#[tokio::test]
async fn pushes_of_later_versions_are_ignored() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Beginning)]),
        peer.subscribed(7, 0)
    );
    let mut unknown = deliver(7, 1..=3).to_vec();
    unknown[4] = 250;
    peer.send_bytes(&unknown).await;
    peer.send_bytes(&deliver(7, 1..=1)).await;
    assert_eq!(seen(&mut events, 1).await, log(1..=1));
}
