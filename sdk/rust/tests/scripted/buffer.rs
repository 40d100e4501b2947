//! A caller who takes no events: the client stops reading, and loses nothing.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use rialto_sdk::protocol::frame::{self, FrameKind};
use rialto_sdk::protocol::ids::RequestId;
use rialto_sdk::{Event, Start, v1};

use crate::server::{ROOM, Server, event};

/// Bytes of a message, events in all, and how many may wait for the caller.
const MESSAGE_BYTES: usize = 1_000;
const EVENTS: u64 = 20_000;
const BUFFER: usize = 10;
/// Most bytes that the client reads at once.
const READ_BYTES_MAX: usize = 128 * 1024;

#[tokio::test]
async fn reading_stops_while_the_caller_takes_nothing_and_goes_on_with_him() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server
        .client_with(|builder| builder.event_buffer(BUFFER))
        .await;
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Beginning)]),
        peer.subscribed(7, EVENTS)
    );

    // An answer behind all events: it arrives when the client has read as far as that.
    let mut describing = client.describe(ROOM).boxed();
    assert!((&mut describing).now_or_never().is_none());
    let (id, _) = peer.expect::<v1::Describe>(FrameKind::Describe).await;
    let writing = tokio::spawn(async move {
        let body = Bytes::from(vec![b'x'; MESSAGE_BYTES]);
        for seq in 1..=EVENTS {
            let content = v1::event::Content::Message(v1::Message {
                body: body.clone(),
                ..v1::Message::default()
            });
            let events = vec![v1::Event {
                content: Some(content),
                ..event(seq)
            }];
            let mut out = BytesMut::new();
            frame::encode_into(
                &mut out,
                FrameKind::Deliver,
                RequestId::PUSH,
                &v1::Deliver { handle: 7, events },
            );
            peer.send_bytes(&out).await;
        }
        peer.send(FrameKind::Description, id, &v1::Description::default())
            .await;
        peer
    });
    let mut taken = 0;
    let slack = (BUFFER + READ_BYTES_MAX / MESSAGE_BYTES) as u64 + 1;
    while taken < EVENTS {
        if taken % 500 == 0 {
            // Time for a client that reads ahead to do so.
            for _ in 0..2_000 {
                tokio::task::yield_now().await;
            }
        }
        let answered = (&mut describing).now_or_never();
        assert!(
            answered.is_none() || taken + slack >= EVENTS,
            "answered after {taken} events were taken"
        );
        if let Some(answer) = answered {
            answer.unwrap();
            describing = std::future::pending().boxed();
        }
        if let Event::Delivered { events, .. } = events.next().await.unwrap() {
            for event in events {
                taken += 1;
                assert_eq!(event.seq, taken);
            }
        }
    }
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn without_anybody_to_take_events_the_client_goes_on() {
    let server = Server::start().await;
    let (client, events, mut peer) = server.client_with(|builder| builder.event_buffer(1)).await;
    drop(events);
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Beginning)]),
        peer.subscribed(7, 3)
    );
    for seq in 1..=3 {
        peer.send_bytes(&crate::server::deliver(7, seq..=seq)).await;
    }
    let (described, ()) = tokio::join!(client.describe(ROOM), async {
        let (id, _) = peer.expect::<v1::Describe>(FrameKind::Describe).await;
        peer.send(FrameKind::Description, id, &v1::Description::default())
            .await;
    });
    described.unwrap();
}

#[tokio::test]
async fn events_can_be_taken_by_the_batch() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Beginning)]),
        peer.subscribed(7, 3)
    );
    for seq in 1..=30 {
        peer.send_bytes(&crate::server::deliver(7, seq..=seq)).await;
    }
    let mut seqs = Vec::new();
    let mut batch = Vec::new();
    while seqs.len() < 30 {
        let count = events.next_batch(&mut batch, 8).await;
        assert!((1..=8).contains(&count) && batch.len() == count);
        for event in batch.drain(..) {
            if let Event::Delivered { events, .. } = event {
                seqs.extend(events.iter().map(|event| event.seq));
            }
        }
    }
    assert_eq!(seqs, (1..=30).collect::<Vec<_>>());
}
