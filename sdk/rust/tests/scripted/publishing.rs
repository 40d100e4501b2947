//! Drafts: pipelined, acknowledged, sent again.

use std::time::Duration;

use futures_util::FutureExt;
use rialto_sdk::protocol::frame::FrameKind;
use rialto_sdk::{
    Client, ClientId, CloseReason, Content, Cursor, Epoch, ErrorCode, Events, PublishError,
    Publishing, Receipt, Retry, Seq, UserId, v1,
};

use crate::server::{OTHER_ROOM, PATIENCE, ROOM, Sent, Server, builder, reconnecting, welcome};

fn client_ids(sent: &[Sent]) -> Vec<ClientId> {
    sent.iter()
        .map(|sent| ClientId::from_slice(&sent.draft.client_id).unwrap())
        .collect()
}

#[tokio::test]
async fn drafts_are_pipelined_and_each_finds_its_receipt() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let mut publishings = Vec::new();
    for n in 0..6 {
        let room = if n % 3 == 2 { OTHER_ROOM } else { ROOM };
        publishings.push(
            client
                .publish(room, Content::text(n.to_string()))
                .await
                .unwrap(),
        );
    }
    let sent = peer.drafts(6).await;
    assert_eq!(
        sent.iter().map(Sent::text).collect::<Vec<_>>(),
        ["0", "1", "2", "3", "4", "5"]
    );
    assert_eq!(
        sent.iter()
            .map(|sent| sent.conversation)
            .filter(|room| *room == OTHER_ROOM)
            .count(),
        2
    );
    let ids = client_ids(&sent);
    assert!(ids.is_sorted() && ids.iter().all(ClientId::is_v7));
    assert_eq!(
        ids,
        publishings
            .iter()
            .map(Publishing::client_id)
            .collect::<Vec<_>>()
    );

    // Backwards, in two frames; nothing resolves that was not acknowledged.
    peer.receipts(
        sent[3..]
            .iter()
            .rev()
            .zip(10..)
            .map(|(sent, seq)| sent.receipt(seq))
            .collect(),
    )
    .await;
    assert_eq!(publishings.pop().unwrap().await.unwrap().seq, Seq(10));
    assert!(
        publishings
            .iter_mut()
            .take(3)
            .all(|one| one.now_or_never().is_none())
    );
    peer.receipts(
        sent[..3]
            .iter()
            .rev()
            .zip(13..)
            .map(|(sent, seq)| sent.receipt(seq))
            .collect(),
    )
    .await;
    let mut seqs = Vec::new();
    for publishing in publishings {
        let receipt = publishing.await.unwrap();
        assert_eq!(
            receipt.cursor(),
            Cursor {
                epoch: Epoch(1),
                seq: receipt.seq
            }
        );
        assert_eq!(
            (receipt.time_ms, receipt.duplicate),
            (1_000 + receipt.seq.0, false)
        );
        seqs.push(receipt.seq.0);
    }
    assert_eq!(seqs, [15, 14, 13, 12, 11]);
}

#[tokio::test]
async fn client_ids_are_not_of_before_the_servers_time() {
    // Far beyond this machine's clock, which is slow then.
    const SERVER_TIME_MS: u64 = 1 << 45;
    let server = Server::start().await;
    let connecting = tokio::spawn(builder().endpoint(server.endpoint()).connect());
    let mut peer = server.accept().await;
    peer.hello(v1::Welcome {
        server_time_ms: SERVER_TIME_MS,
        ..welcome()
    })
    .await;
    let (client, _events) = connecting.await.unwrap().unwrap();
    let first = client.publish(ROOM, "a").await.unwrap().client_id();
    let second = client.publish(ROOM, "b").await.unwrap().client_id();
    assert!(first < second && first.time_ms() >= SERVER_TIME_MS);
}

#[tokio::test]
async fn drafts_that_wait_together_travel_together() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let contents: Vec<_> = (0..600).map(|n| Content::text(n.to_string())).collect();
    let mut publishings = Vec::new();
    let queued = client.publish_batch(ROOM, &contents, &mut publishings);
    queued.await.unwrap();
    let sent = peer.drafts(600).await;
    let mut requests: Vec<_> = sent.iter().map(|sent| sent.id).collect();
    requests.dedup();
    assert_eq!(requests.len(), 3, "600 drafts, 256 a frame");
    assert!(client_ids(&sent).is_sorted());
    peer.receipts(
        sent.iter()
            .zip(1..)
            .map(|(sent, seq)| sent.receipt(seq))
            .collect(),
    )
    .await;
    for (publishing, seq) in publishings.into_iter().zip(1..) {
        assert_eq!(publishing.await.unwrap().seq, Seq(seq));
    }
}

#[tokio::test]
async fn a_batch_that_is_cancelled_or_cut_short_by_closing_says_what_became_of_each_draft() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server
        .client_with(|builder| builder.in_flight_bytes(400))
        .await;
    let contents: Vec<_> = (0..5).map(|n| Content::text(format!("{n:0100}"))).collect();
    let mut publishings = Vec::new();
    // There is credit for some; then the caller loses his patience.
    let waiting = client.publish_batch(ROOM, &contents, &mut publishings);
    assert!(waiting.now_or_never().is_none());
    let sent = publishings.len();
    assert!((1..5).contains(&sent), "{sent}");
    let drafts = peer.drafts(sent).await;
    let ids: Vec<_> = publishings.iter().map(Publishing::client_id).collect();
    assert_eq!(client_ids(&drafts), ids);
    for (draft, seq) in drafts.iter().zip(1..) {
        peer.acknowledge(draft, seq).await;
    }
    for publishing in publishings.drain(..) {
        publishing.await.unwrap();
    }

    // Once more; this time somebody closes the client.
    let closing = client.clone();
    let (queued, ()) = tokio::join!(
        client.publish_batch(ROOM, &contents, &mut publishings),
        closing.close_within(Duration::from_millis(20))
    );
    queued.unwrap();
    assert_eq!(publishings.len(), 5);
    for (index, publishing) in publishings.into_iter().enumerate() {
        let expected = if index < sent {
            Retry::MaybeDuplicate
        } else {
            Retry::Safe
        };
        assert_eq!(publishing.await.unwrap_err().retry(), expected, "{index}");
    }
    let mut none = Vec::new();
    let invalid = Content::text("x".repeat(256 * 1024));
    let refused = client
        .publish_batch(ROOM, &["a".into(), invalid], &mut none)
        .await;
    assert!(matches!(refused, Err(PublishError::TooLarge { .. })) && none.is_empty());
}

#[tokio::test]
async fn drafts_for_different_users_do_not_share_a_frame() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let (ann, bob) = (UserId::from_name("ann"), UserId::from_name("bob"));
    let mut open = Vec::new();
    for user in [ann, ann, bob] {
        open.push(client.publish_as(user, ROOM, "hello").await.unwrap());
    }
    open.push(client.publish(ROOM, "hello").await.unwrap());
    let sent = peer.drafts(4).await;
    let users: Vec<_> = sent
        .iter()
        .map(|sent| UserId::from_slice(&sent.on_behalf_of).ok())
        .collect();
    assert_eq!(users, [Some(ann), Some(ann), Some(bob), None]);
}

#[tokio::test]
async fn after_a_cut_what_is_open_is_sent_again_in_order_under_the_same_ids() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let mut open: Vec<_> = Vec::new();
    for n in 0..8 {
        let room = if n % 2 == 0 { ROOM } else { OTHER_ROOM };
        open.push(
            client
                .publish(room, Content::text(n.to_string()))
                .await
                .unwrap(),
        );
    }
    let first = peer.drafts(8).await;
    for (index, seq) in [(0, 1), (3, 1), (4, 2)] {
        peer.acknowledge(&first[index], seq).await;
    }
    for index in [4, 3, 0] {
        open.remove(index).await.unwrap();
    }
    // The newest one, under the request id that the oldest one had.
    open.push(client.publish(ROOM, "8").await.unwrap());
    peer.drafts(1).await;
    drop(peer);
    let mut peer = server.welcome().await;
    let second = peer.drafts(6).await;
    assert_eq!(
        second.iter().map(Sent::text).collect::<Vec<_>>(),
        ["1", "2", "5", "6", "7", "8"]
    );
    assert_eq!(
        client_ids(&second)[..5],
        [1, 2, 5, 6, 7].map(|index| client_ids(&first)[index])
    );
    // The server had got them all before: it answers with the figures of the first time.
    let receipts = second.iter().zip(1..).map(|(sent, seq)| v1::Receipt {
        duplicate: true,
        ..sent.receipt(seq)
    });
    peer.receipts(receipts.collect()).await;
    for (publishing, seq) in open.into_iter().zip(1..) {
        let receipt = publishing.await.unwrap();
        assert_eq!((receipt.seq, receipt.duplicate), (Seq(seq), true));
    }
}

#[tokio::test]
async fn every_cut_between_two_receipts_leaves_each_draft_sent_once_more_or_acknowledged() {
    for acknowledged in 0..=5 {
        let server = Server::start().await;
        let (client, _events, mut peer) = server.client().await;
        let contents: Vec<_> = (0..5).map(|n| Content::text(n.to_string())).collect();
        let mut open = Vec::new();
        let queued = client.publish_batch(ROOM, &contents, &mut open);
        queued.await.unwrap();
        let first = peer.drafts(5).await;
        for (sent, seq) in first[..acknowledged].iter().zip(1..) {
            peer.acknowledge(sent, seq).await;
        }
        drop(peer);
        let mut peer = server.welcome().await;
        let again = peer.drafts(5 - acknowledged).await;
        assert_eq!(client_ids(&again), client_ids(&first[acknowledged..]));
        for (sent, seq) in again.iter().zip(acknowledged as u64 + 1..) {
            peer.acknowledge(sent, seq).await;
        }
        for (publishing, seq) in open.into_iter().zip(1..) {
            assert_eq!(publishing.await.unwrap().seq, Seq(seq));
        }
    }
}

#[tokio::test]
async fn refusals_are_typed_and_say_whether_to_try_again() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let banned = client.publish(ROOM, "a").await.unwrap();
    let limited = client.publish(ROOM, "b").await.unwrap();
    let sent = peer.drafts(2).await;
    peer.receipts(vec![
        sent[0].refusal(ErrorCode::Banned, 0),
        sent[1].refusal(ErrorCode::RateLimited, 70),
    ])
    .await;
    let error = banned.await.unwrap_err();
    assert_eq!(error.retry(), Retry::Never);
    assert!(error.refusal().unwrap().is(ErrorCode::Banned));
    let error = limited.await.unwrap_err();
    assert_eq!(error.retry(), Retry::Safe);
    assert_eq!(
        error.refusal().unwrap().retry_after().unwrap().as_millis(),
        70
    );

    // A refusal of the request is one of each of its drafts.
    let mut open = Vec::new();
    let contents = ["c".into(), "d".into()];
    let queued = client.publish_batch(ROOM, &contents, &mut open);
    queued.await.unwrap();
    let sent = peer.drafts(2).await;
    peer.refuse(sent[0].id, ErrorCode::NotAMember).await;
    for publishing in open {
        assert!(
            publishing
                .await
                .unwrap_err()
                .refusal()
                .unwrap()
                .is(ErrorCode::NotAMember)
        );
    }

    let large = client
        .publish(ROOM, "x".repeat(256 * 1024))
        .await
        .unwrap_err();
    assert!(
        matches!(
            large,
            PublishError::TooLarge {
                bytes_max: 262_144,
                ..
            }
        ),
        "{large:?}"
    );
}

#[tokio::test]
async fn drafts_whose_request_gets_an_answer_of_another_kind_are_sent_again_elsewhere() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let open = client.publish(ROOM, "a").await.unwrap();
    let first = peer.drafts(1).await;
    peer.send(FrameKind::Done, first[0].id, &v1::Done {}).await;
    let mut peer = server.welcome().await;
    let again = peer.drafts(1).await;
    assert_eq!(again[0].draft, first[0].draft);
    peer.acknowledge(&again[0], 1).await;
    assert_eq!(open.await.unwrap().seq, Seq(1));
}

#[tokio::test]
async fn a_draft_that_the_next_connection_cannot_carry_fails_and_the_others_go_out() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let large = client.publish(ROOM, "x".repeat(100_000)).await.unwrap();
    let small = client.publish(ROOM, "small").await.unwrap();
    peer.drafts(2).await;
    drop(peer);
    let mut peer = server.accept().await;
    let mut lowered = welcome();
    lowered.limits.as_mut().unwrap().frame_bytes_max = 64 * 1024;
    peer.hello(lowered).await;
    let sent = peer.drafts(1).await;
    assert_eq!(sent[0].text(), "small");
    peer.acknowledge(&sent[0], 1).await;
    assert_eq!(small.await.unwrap().seq, Seq(1));
    let error = large.await.unwrap_err();
    assert!(
        matches!(
            error,
            PublishError::TooLarge {
                bytes_max: 65_536,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_the_server_could_not_do_is_sent_again_under_the_same_id() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let open = client.publish(ROOM, "a").await.unwrap();
    let first = peer.drafts(1).await;
    peer.receipts(vec![first[0].refusal(ErrorCode::StorageUnavailable, 1)])
        .await;
    let second = peer.drafts(1).await;
    assert_eq!(second[0].draft, first[0].draft);
    // The broker stops: the draft waits for the next connection, however long the advised time is.
    peer.receipts(vec![second[0].refusal(ErrorCode::ShuttingDown, 3_600_000)])
        .await;
    drop(peer);
    let mut peer = server.welcome().await;
    let third = peer.drafts(1).await;
    assert_eq!(third[0].draft, first[0].draft);
    peer.acknowledge(&third[0], 1).await;
    assert_eq!(open.await.unwrap().seq, Seq(1));
}

#[tokio::test]
async fn what_was_sent_before_without_an_answer_and_is_refused_for_now_is_sent_again_under_the_same_id()
 {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let contents: Vec<_> = (0..3).map(|n| Content::text(n.to_string())).collect();
    let mut open = Vec::new();
    let queued = client.publish_batch(ROOM, &contents, &mut open);
    queued.await.unwrap();
    let first = peer.drafts(3).await;
    // All of them stand in the log, and the client is not told.
    drop(peer);
    let mut peer = server.welcome().await;
    let second = peer.drafts(3).await;
    let again = |sent: &Sent, seq| v1::Receipt {
        duplicate: true,
        ..sent.receipt(seq)
    };
    peer.receipts(vec![
        again(&second[0], 1),
        second[1].refusal(ErrorCode::RateLimited, 1),
        second[2].refusal(ErrorCode::Overloaded, 1),
    ])
    .await;
    let third = peer.drafts(2).await;
    assert_eq!(client_ids(&third), client_ids(&first[1..]));
    // Refused as a whole it is the same.
    peer.refuse(third[0].id, ErrorCode::RateLimited).await;
    let fourth = peer.drafts(2).await;
    assert_eq!(client_ids(&fourth), client_ids(&first[1..]));
    peer.receipts(vec![again(&fourth[0], 2), again(&fourth[1], 3)])
        .await;
    for (publishing, seq) in open.into_iter().zip(1..) {
        let receipt = publishing.await.unwrap();
        assert_eq!((receipt.seq, receipt.duplicate), (Seq(seq), true));
    }
}

#[tokio::test]
async fn later_drafts_of_the_conversation_wait_for_one_that_is_sent_again() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let mut open = vec![client.publish(ROOM, "first").await.unwrap()];
    let sent = peer.drafts(1).await;
    let elsewhere = client.publish(OTHER_ROOM, "elsewhere").await.unwrap();
    let other = peer.drafts(1).await;
    // Both in one frame: what follows is sent with the refusal in mind.
    peer.receipts(vec![
        sent[0].refusal(ErrorCode::OwnerMoved, 1),
        other[0].receipt(1),
    ])
    .await;
    elsewhere.await.unwrap();
    open.push(client.publish(ROOM, "second").await.unwrap());
    let again = peer.drafts(2).await;
    assert_eq!([again[0].text(), again[1].text()], ["first", "second"]);
    assert_eq!(again[0].draft, sent[0].draft);
    peer.receipts(vec![again[0].receipt(1), again[1].receipt(2)])
        .await;
    for (publishing, seq) in open.into_iter().zip(1..) {
        assert_eq!(publishing.await.unwrap().seq, Seq(seq));
    }
}

#[tokio::test]
async fn a_draft_can_be_sent_again_by_hand_under_its_id() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let id = client.publish(ROOM, "a").await.unwrap().client_id();
    let again = client.publish_again(id, ROOM, "a").await.unwrap();
    assert_eq!(again.client_id(), id);
    let sent = peer.drafts(2).await;
    assert_eq!(sent[0].draft, sent[1].draft);

    let bob = UserId::from_name("bob");
    let id = client.publish_as(bob, ROOM, "b").await.unwrap().client_id();
    let again = client.publish_again_as(bob, id, ROOM, "b").await.unwrap();
    assert_eq!(again.client_id(), id);
    let sent = peer.drafts(2).await;
    assert_eq!(sent[0].draft, sent[1].draft);
    assert_eq!(sent[0].on_behalf_of, sent[1].on_behalf_of);
    assert_eq!(sent[0].on_behalf_of, bob.to_proto());
    // That this attempt did nothing says nothing about the one before.
    peer.receipts(vec![sent[1].refusal(ErrorCode::RateLimited, 1)])
        .await;
    assert_eq!(again.await.unwrap_err().retry(), Retry::MaybeDuplicate);
    client.close_within(Duration::ZERO).await;
    let late = client.publish_again_as(bob, id, ROOM, "b").await;
    assert_eq!(late.unwrap_err().retry(), Retry::MaybeDuplicate);
}

#[tokio::test]
async fn publishing_waits_for_byte_credit_and_goes_on_with_it() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server
        .client_with(|builder| builder.in_flight_bytes(400))
        .await;
    let mut open = Vec::new();
    // Without waiting, for as long as there is credit.
    while let Some(publishing) = client.publish(ROOM, "x".repeat(100)).now_or_never() {
        open.push(publishing.unwrap());
    }
    assert!((1..=4).contains(&open.len()), "{}", open.len());
    let sent = peer.drafts(open.len()).await;
    let (next, ()) = tokio::join!(client.publish(ROOM, "next"), peer.acknowledge(&sent[0], 1));
    open.push(next.unwrap());
    assert_eq!(peer.drafts(1).await[0].text(), "next");

    // A single draft beyond all credit takes all of it, rather than waiting for ever.
    for (sent, seq) in sent[1..].iter().zip(2..) {
        peer.acknowledge(sent, seq).await;
    }
    drop(open);
    drop(peer);
    let mut peer = server.welcome().await;
    let next = peer.drafts(1).await;
    peer.acknowledge(&next[0], 9).await;
    let large = client.publish(ROOM, "x".repeat(5_000)).await.unwrap();
    let sent = peer.drafts(1).await;
    peer.acknowledge(&sent[0], 10).await;
    assert_eq!(large.await.unwrap().seq, Seq(10));
}

#[tokio::test]
async fn close_waits_for_what_is_open_and_refuses_what_comes_after() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let open = client.publish(ROOM, "last words").await.unwrap();
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close().await }
    });
    let sent = peer.drafts(1).await;
    assert!(!closing.is_finished());
    peer.acknowledge(&sent[0], 1).await;
    assert!(peer.next().await.is_none());
    closing.await.unwrap();
    assert_eq!(open.await.unwrap().seq, Seq(1));
    match client.publish(ROOM, "too late").await {
        Err(PublishError::Closed {
            reason: CloseReason::Asked,
            retry: Retry::Safe,
        }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_whose_handles_are_all_gone_says_what_it_had_to_say_and_leaves() {
    let server = Server::start().await;
    let (client, events, mut peer) = server.client().await;
    let open = client.publish(ROOM, "last words").await.unwrap();
    drop(events);
    drop(client);
    let sent = peer.drafts(1).await;
    peer.acknowledge(&sent[0], 1).await;
    assert_eq!(open.await.unwrap().seq, Seq(1));
    assert!(peer.next().await.is_none());
}

#[tokio::test]
async fn what_is_open_when_the_client_is_closed_without_a_connection_fails_and_may_have_happened() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let open = client.publish(ROOM, "a").await.unwrap();
    peer.drafts(1).await;
    drop(server);
    drop(peer);
    reconnecting(&client).await;
    let closing = client.close_within(Duration::from_millis(20));
    tokio::time::timeout(PATIENCE, closing).await.unwrap();
    assert_failed_by_closing(open.await);
}

fn assert_failed_by_closing(receipt: Result<Receipt, PublishError>) {
    match receipt {
        Err(PublishError::Closed {
            reason: CloseReason::Asked,
            retry: Retry::MaybeDuplicate,
        }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn closing_does_not_wait_longer_than_it_may_for_a_server_that_does_not_answer() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let open = client.publish(ROOM, "a").await.unwrap();
    peer.drafts(1).await;
    let late = client.clone();
    let closing = client.close_within(Duration::from_millis(20));
    tokio::time::timeout(PATIENCE, closing).await.unwrap();
    assert_failed_by_closing(open.await);
    assert!(peer.next().await.is_none());
    late.close().await;
}

/// A client between two connections, with a draft that is not acknowledged.
async fn between_connections(server: &Server) -> (Client, Events, Publishing) {
    let (client, events, mut peer) = server.client().await;
    let open = client.publish(ROOM, "last words").await.unwrap();
    peer.drafts(1).await;
    drop(peer);
    reconnecting(&client).await;
    (client, events, open)
}

#[tokio::test]
async fn closing_between_connections_waits_for_the_next_one_and_what_is_open() {
    let server = Server::start().await;
    let (client, _events, open) = between_connections(&server).await;
    tokio::join!(client.close_within(PATIENCE), async {
        let mut peer = server.welcome().await;
        let sent = peer.drafts(1).await;
        peer.acknowledge(&sent[0], 1).await;
        assert!(peer.next().await.is_none());
    });
    assert_eq!(open.await.unwrap().seq, Seq(1));
}

#[tokio::test]
async fn a_client_that_is_dropped_between_connections_says_what_it_had_to_say() {
    let server = Server::start().await;
    let (client, events, open) = between_connections(&server).await;
    drop((client, events));
    let mut peer = server.welcome().await;
    let sent = peer.drafts(1).await;
    peer.acknowledge(&sent[0], 1).await;
    assert_eq!(open.await.unwrap().seq, Seq(1));
    assert!(peer.next().await.is_none());
}

#[tokio::test]
async fn a_client_with_nothing_open_closes_at_once_without_a_connection() {
    let server = Server::start().await;
    let (client, _events, peer) = server.client().await;
    drop(peer);
    reconnecting(&client).await;
    // The server says no word.
    let closed = tokio::time::timeout(PATIENCE, client.close_within(10 * PATIENCE)).await;
    closed.unwrap();
}
