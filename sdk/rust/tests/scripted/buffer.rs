//! A caller who takes no events: the client stops reading, or leaves out what it can get again, and loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use rialto_sdk::protocol::body;
use rialto_sdk::protocol::frame::{self, FrameKind};
use rialto_sdk::protocol::ids::RequestId;
use rialto_sdk::{ConnectionState, ErrorCode, Event, Events, Start, UserId, v1};

use crate::server::{PATIENCE, Peer, ROOM, Server, deliver, event, following, presences};

/// Bytes of a message, events in all, and how many may wait for the caller.
const MESSAGE_BYTES: usize = 1_000;
const EVENTS: u64 = 20_000;
const BUFFER: usize = 10;

/// A Deliver of one long message.
fn long(seq: u64) -> BytesMut {
    let content = v1::event::Content::Message(v1::Message {
        body: Bytes::from(vec![b'x'; MESSAGE_BYTES]),
        ..v1::Message::default()
    });
    let events = vec![v1::Event {
        content: Some(content),
        ..event(seq)
    }];
    let mut out = BytesMut::new();
    let body = v1::Deliver { handle: 7, events };
    frame::encode_into(&mut out, FrameKind::Deliver, RequestId::PUSH, &body);
    out
}

/// The numbers of the next events of the room.
async fn next_seqs(events: &mut Events) -> Vec<u64> {
    loop {
        if let Event::Delivered { events, .. } = events.next().await.unwrap() {
            return events.iter().map(|event| event.seq).collect();
        }
    }
}

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
    let written = Arc::new(AtomicU64::new(0));
    let writing = tokio::spawn({
        let written = written.clone();
        async move {
            for seq in 1..=EVENTS {
                peer.send_bytes(&long(seq)).await;
                written.store(seq, Ordering::Relaxed);
            }
            peer
        }
    });
    // Time for a client that reads ahead to do so.
    for _ in 0..20_000 {
        tokio::task::yield_now().await;
    }
    assert!(written.load(Ordering::Relaxed) < EVENTS);
    let mut taken = 0;
    while taken < EVENTS {
        for seq in next_seqs(&mut events).await {
            taken += 1;
            assert_eq!(seq, taken);
        }
    }
    // Nothing was left out that would have had to be asked for again.
    let mut peer = writing.await.unwrap();
    let (_, ()) = tokio::join!(client.describe(ROOM), async {
        let (id, _) = peer.expect::<v1::Describe>(FrameKind::Describe).await;
        peer.refuse(id, ErrorCode::NotAMember).await;
    });
}

/// A server of one log with `last` events, until the client leaves. How often it was asked for it.
async fn serve(mut peer: Peer, last: u64) -> u64 {
    let mut asked = 0;
    while let Some(frame) = peer.next().await {
        let id = frame.request_id;
        match frame.kind {
            FrameKind::Describe => {
                peer.send(FrameKind::Description, id, &v1::Description::default())
                    .await;
            }
            FrameKind::Unsubscribe => peer.send(FrameKind::Done, id, &v1::Done {}).await,
            FrameKind::Subscribe => {
                asked += 1;
                let body: v1::Subscribe = body::decode(&frame.body).unwrap();
                let cursor = body.subscriptions[0].cursor.unwrap();
                let handle = u32::try_from(asked).unwrap();
                let results = vec![following(&ROOM.to_proto(), handle, last)];
                peer.send(FrameKind::Subscribed, id, &v1::Subscribed { results })
                    .await;
                for seq in cursor.seq + 1..=last {
                    peer.send_bytes(&deliver(handle, seq..=seq)).await;
                }
            }
            other => panic!("{other}"),
        }
    }
    asked
}

#[tokio::test]
async fn an_answer_behind_more_events_than_there_is_room_for_arrives_and_no_event_is_lost() {
    const LAST: u64 = 200;
    let server = Server::start().await;
    let (client, mut events, peer) = server
        .client_with(|builder| builder.event_buffer(BUFFER))
        .await;
    let serving = tokio::spawn(serve(peer, LAST));
    client
        .subscribe(vec![(ROOM, Start::Beginning)])
        .await
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < usize::try_from(LAST).unwrap() {
        // In the loop that takes the events: nobody else does meanwhile.
        let describing = tokio::time::timeout(PATIENCE, client.describe(ROOM));
        describing.await.expect("an answer").unwrap();
        seen.extend(next_seqs(&mut events).await);
    }
    assert_eq!(seen, (1..=LAST).collect::<Vec<_>>());
    client.close().await;
    assert!(serving.await.unwrap() > 1);
}

#[tokio::test]
async fn what_waits_is_bounded_by_its_bytes_whatever_it_is() {
    const SIGNALS: usize = 40;
    const SIGNAL_BYTES: usize = 512 * 1024;
    const BUFFER_BYTES_MAX: usize = 8 << 20;
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Live)]),
        peer.subscribed(7, 0)
    );
    let describing = tokio::time::timeout(PATIENCE, client.describe(ROOM));
    let (answer, ()) = tokio::join!(describing, async {
        let (id, _) = peer.expect::<v1::Describe>(FrameKind::Describe).await;
        for _ in 0..SIGNALS {
            let custom = Bytes::from(vec![0; SIGNAL_BYTES]);
            let push = v1::Signalled {
                handle: 7,
                user: UserId::from_name("bob").to_proto(),
                signal: Some(v1::signalled::Signal::Custom(custom)),
            };
            peer.push(FrameKind::Signalled, &push).await;
        }
        peer.send(FrameKind::Description, id, &v1::Description::default())
            .await;
    });
    answer.expect("an answer").unwrap();
    let waiting = std::iter::from_fn(|| events.try_next());
    let signals = waiting.filter(|event| matches!(event, Event::Signalled { .. }));
    let signals = signals.count();
    assert!(
        (1..=BUFFER_BYTES_MAX / SIGNAL_BYTES).contains(&signals),
        "{signals}"
    );
}

#[tokio::test]
async fn presence_that_there_was_no_room_for_is_asked_for_again() {
    let server = Server::start().await;
    let (client, mut events, mut peer) =
        server.client_with(|builder| builder.event_buffer(1)).await;
    let bob = UserId::from_name("bob");
    let presences = |state| presences(bob, state);
    let watched = [bob];
    let watching = tokio::time::timeout(PATIENCE, client.watch(&watched));
    let (answer, ()) = tokio::join!(watching, async {
        let (id, _) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
        // Ahead of the answer, and the one event that may wait is there already: that the client is connected.
        let away = presences(v1::PresenceState::Away);
        peer.push(FrameKind::Presences, &away).await;
        let offline = presences(v1::PresenceState::Offline);
        peer.send(FrameKind::Presences, id, &offline).await;
    });
    answer.expect("an answer").unwrap();
    assert!(matches!(events.next().await, Some(Event::Connection(_))));
    let (id, _) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
    let online = presences(v1::PresenceState::Online);
    peer.send(FrameKind::Presences, id, &online).await;
    match events.next().await {
        Some(Event::Presence(seen)) => assert_eq!(seen[0].state(), v1::PresenceState::Online),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn breaks_that_there_is_no_room_for_are_not_told_and_later_ones_are() {
    let server = Server::start().await;
    let (client, mut events, mut peer) =
        server.client_with(|builder| builder.event_buffer(1)).await;
    for _ in 0..3 {
        drop(peer);
        // Who waits for an answer notices the break, room or not.
        (_, peer) = tokio::join!(client.describe(ROOM), async {
            let mut peer = server.welcome().await;
            let (id, _) = peer.expect::<v1::Describe>(FrameKind::Describe).await;
            peer.refuse(id, ErrorCode::NotAMember).await;
            peer
        });
    }
    assert!(matches!(
        events.try_next(),
        Some(Event::Connection(ConnectionState::Connected { .. }))
    ));
    assert!(events.try_next().is_none());
    drop(peer);
    assert!(matches!(
        events.next().await,
        Some(Event::Connection(ConnectionState::Reconnecting { .. }))
    ));
    let _peer = server.welcome().await;
    assert!(matches!(
        events.next().await,
        Some(Event::Connection(ConnectionState::Connected { .. }))
    ));
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
        peer.send_bytes(&deliver(7, seq..=seq)).await;
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
        peer.send_bytes(&deliver(7, seq..=seq)).await;
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
