//! What is asked for once more after a break, and what is not: what a later request has replaced, or nobody waits for.

use rialto_sdk::protocol::frame::FrameKind;
use rialto_sdk::protocol::ids::RequestId;
use rialto_sdk::{Client, RequestError, Retry, Seq, v1};
use tokio::task::JoinHandle;

use crate::server::{OTHER_ROOM, Peer, ROOM, Server, expect_nothing};

const DISCONNECTED: RequestError = RequestError::Disconnected {
    retry: Retry::MaybeDuplicate,
};

type Call<T> = JoinHandle<Result<T, RequestError>>;

/// Sets a preference, and takes the request for it.
async fn prefer(
    client: &Client,
    peer: &mut Peer,
    hidden: Option<bool>,
    muted_until_ms: Option<u64>,
) -> (Call<()>, RequestId) {
    let client = client.clone();
    let call = async move { client.prefer(ROOM, hidden, muted_until_ms).await };
    let call = tokio::spawn(call);
    let (id, _) = peer.expect::<v1::Prefer>(FrameKind::Prefer).await;
    (call, id)
}

#[tokio::test]
async fn a_preference_that_a_later_one_has_replaced_is_not_set_again() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let (replaced, _) = prefer(&client, &mut peer, Some(false), Some(1)).await;
    let (other, _) = prefer(&client, &mut peer, Some(true), None).await;
    let (later, id) = prefer(&client, &mut peer, None, Some(2)).await;
    // Of the three this is answered first, and then the connection breaks.
    peer.send(FrameKind::Done, id, &v1::Done {}).await;
    later.await.unwrap().unwrap();
    drop(peer);
    let mut peer = server.welcome().await;
    let (id, again) = peer.expect::<v1::Prefer>(FrameKind::Prefer).await;
    assert_eq!((again.hidden, again.muted_until_ms), (Some(true), None));
    peer.send(FrameKind::Done, id, &v1::Done {}).await;
    other.await.unwrap().unwrap();
    assert_eq!(replaced.await.unwrap(), Err(DISCONNECTED));
}

#[tokio::test]
async fn preferences_of_which_none_was_answered_are_all_set_again_in_their_order() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let (first, _) = prefer(&client, &mut peer, None, Some(1)).await;
    let (second, _) = prefer(&client, &mut peer, None, Some(2)).await;
    drop(peer);
    let mut peer = server.welcome().await;
    for (call, muted_until_ms) in [(first, 1), (second, 2)] {
        let (id, again) = peer.expect::<v1::Prefer>(FrameKind::Prefer).await;
        assert_eq!(again.muted_until_ms, Some(muted_until_ms));
        peer.send(FrameKind::Done, id, &v1::Done {}).await;
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_was_marked_unread_is_not_read_again() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let mut reads: Vec<Call<v1::Marked>> = Vec::new();
    for (room, seq) in [(ROOM, 10), (ROOM, 5), (OTHER_ROOM, 10)] {
        let client = client.clone();
        let call = async move { client.mark_read(room, Seq(seq)).await };
        reads.push(tokio::spawn(call));
        peer.expect::<v1::Mark>(FrameKind::Mark).await;
    }
    let (unread, ()) = tokio::join!(client.mark_unread(ROOM, Seq(5)), async {
        let (id, _) = peer.expect::<v1::Mark>(FrameKind::Mark).await;
        peer.send(FrameKind::Marked, id, &v1::Marked::default())
            .await;
    });
    unread.unwrap();
    drop(peer);
    let mut peer = server.welcome().await;
    let [beyond, up_to, elsewhere]: [_; 3] = reads.try_into().unwrap();
    for (call, room, seq) in [(up_to, ROOM, 5), (elsewhere, OTHER_ROOM, 10)] {
        let (id, again) = peer.expect::<v1::Mark>(FrameKind::Mark).await;
        assert_eq!(again.conversation, room.to_proto());
        assert_eq!(again.read_seq, seq);
        peer.send(FrameKind::Marked, id, &v1::Marked::default())
            .await;
        call.await.unwrap().unwrap();
    }
    assert_eq!(beyond.await.unwrap(), Err(DISCONNECTED));
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_asked_again() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.members(ROOM, None, 10).await }
    });
    peer.expect::<v1::Members>(FrameKind::Members).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    drop(peer);
    let mut peer = server.welcome().await;
    expect_nothing(&client, &mut peer).await;
}
