//! Where the client connects, and how it leaves a server that sends it away.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use rialto_sdk::protocol::frame::FrameKind;
use rialto_sdk::protocol::ids::RequestId;
use rialto_sdk::{
    CloseReason, ConnectError, ConnectionState, ErrorCode, Event, Events, PublishError, Retry, Seq,
    Start, TransportError, v1,
};

use crate::server::{ROOM, Server, Tokens, builder, deliver};

/// Longest time that the client waits for what is under way on a connection that it is to leave.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

async fn next_go_away(events: &mut Events) -> v1::GoAwayReason {
    loop {
        match events.next().await.expect("an event") {
            Event::GoAway { reason, .. } => return reason,
            Event::Connection(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_next_endpoint_is_tried_when_one_cannot_be_reached() {
    // Has the port, so that nobody else gets it, and does not listen.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = format!("tcp://{}", nobody.local_addr().unwrap());
    let server = Server::start().await;
    let endpoints = builder().endpoint(&gone).endpoint(server.endpoint());
    let (client, _events, _peer) = server.client_with(|_| endpoints).await;
    let state = client.state().borrow().clone();
    assert!(
        matches!(state, ConnectionState::Connected { endpoint, .. } if endpoint.to_string() == server.endpoint())
    );

    let error = builder()
        .endpoint(&gone)
        .endpoint(&gone)
        .connect()
        .await
        .unwrap_err();
    let ConnectError::Unreachable(failures) = &error else {
        panic!("{error}")
    };
    assert_eq!((failures.len(), error.retry()), (2, Retry::Safe));
}

/// Refuses the server's next connection.
async fn refuse(server: &Server, code: ErrorCode) {
    let mut peer = server.accept().await;
    let (id, _) = peer.expect::<v1::Hello>(FrameKind::Hello).await;
    peer.refuse(id, code).await;
}

#[tokio::test]
async fn what_one_endpoint_refuses_for_good_another_one_may_take() {
    for code in [
        ErrorCode::TokenKeyUnknown,
        ErrorCode::TokenExpired,
        ErrorCode::TokenClaimsRefused,
        ErrorCode::MalformedBody,
    ] {
        let (server, other) = (Server::start().await, Server::start().await);
        let endpoints = builder()
            .endpoint(server.endpoint())
            .endpoint(other.endpoint())
            .token_provider(Arc::new(Tokens(AtomicU64::new(0))));
        let (connected, _peer) = tokio::join!(endpoints.connect(), async {
            refuse(&server, code).await;
            other.welcome().await
        });
        let (client, _events) = connected.unwrap();
        let state = client.state().borrow().clone();
        assert!(
            matches!(state, ConnectionState::Connected { endpoint, .. } if endpoint.to_string() == other.endpoint())
        );
    }
}

/// Connects to two servers that refuse.
async fn refused_by_both(codes: [ErrorCode; 2]) -> ConnectError {
    let (server, other) = (Server::start().await, Server::start().await);
    let endpoints = builder()
        .endpoint(server.endpoint())
        .endpoint(other.endpoint());
    let (connected, (), ()) = tokio::join!(
        endpoints.connect(),
        refuse(&server, codes[0]),
        refuse(&other, codes[1])
    );
    connected.unwrap_err()
}

#[tokio::test]
async fn endpoints_that_refuse_for_good_are_given_up_where_none_may_accept_later() {
    let codes = [ErrorCode::TokenKeyUnknown, ErrorCode::TokenClaimsRefused];
    match refused_by_both(codes).await {
        ConnectError::Refused(error) => assert!(error.is(codes[0])),
        other => panic!("{other}"),
    }
    let codes = [ErrorCode::TokenKeyUnknown, ErrorCode::TooManyConnections];
    let error = refused_by_both(codes).await;
    assert_eq!(error.retry(), Retry::Safe, "{error}");
    let ConnectError::Unreachable(failures) = &error else {
        panic!("{error}")
    };
    for (failure, code) in failures.iter().zip(codes) {
        assert!(
            matches!(&failure.error, TransportError::Refused(error) if error.is(code)),
            "{failure}"
        );
    }
}

#[tokio::test]
async fn while_one_endpoint_refuses_for_good_a_client_waits_for_the_other_one_to_serve_again() {
    let (server, other) = (Server::start().await, Server::start().await);
    let endpoints = builder()
        .endpoint(server.endpoint())
        .endpoint(other.endpoint());
    let (connected, peer) = tokio::join!(endpoints.connect(), async {
        refuse(&server, ErrorCode::TokenKeyUnknown).await;
        other.welcome().await
    });
    let (client, _events) = connected.unwrap();
    drop(peer);
    for code in [ErrorCode::ShuttingDown, ErrorCode::TooManyConnections] {
        refuse(&server, ErrorCode::TokenKeyUnknown).await;
        refuse(&other, code).await;
    }
    refuse(&server, ErrorCode::TokenKeyUnknown).await;
    let mut peer = other.welcome().await;
    let open = client.publish(ROOM, "still there").await.unwrap();
    let sent = peer.drafts(1).await;
    peer.acknowledge(&sent[0], 1).await;
    assert_eq!(open.await.unwrap().seq, Seq(1));
}

#[tokio::test]
async fn a_server_that_ends_the_connection_for_good_is_left_for_another_one_if_there_is_one() {
    let (server, other) = (Server::start().await, Server::start().await);
    let endpoints = builder()
        .endpoint(server.endpoint())
        .endpoint(other.endpoint());
    let (client, _events, mut peer) = server.client_with(|_| endpoints).await;
    let open = client.publish(ROOM, "open").await.unwrap();
    let sent = peer.drafts(1).await;
    peer.refuse(RequestId::PUSH, ErrorCode::UnknownKind).await;
    let mut peer = other.welcome().await;
    let again = peer.drafts(1).await;
    assert_eq!(again[0].draft, sent[0].draft);
    peer.refuse(RequestId::PUSH, ErrorCode::UnknownKind).await;
    match open.await {
        Err(PublishError::Closed {
            reason: CloseReason::Refused(error),
            retry: Retry::MaybeDuplicate,
        }) => assert!(error.is(ErrorCode::UnknownKind)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn go_away_leads_to_the_named_endpoint_with_everything_that_is_open() {
    let (server, other) = (Server::start().await, Server::start().await);
    let (client, mut events, mut peer) = server.client().await;
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Beginning)]),
        peer.subscribed(7, 1)
    );
    peer.send_bytes(&deliver(7, 1..=1)).await;
    let open = client.publish(ROOM, "open").await.unwrap();
    let sent = peer.drafts(1).await;
    let push = v1::GoAway {
        reason: v1::GoAwayReason::Shutdown.into(),
        reconnect_after_ms: 1,
        reconnect_window_ms: 1,
        endpoints: vec![other.endpoint()],
    };
    peer.push(FrameKind::GoAway, &push).await;
    let mut moved = other.welcome().await;
    assert!(peer.next().await.is_none(), "the old connection is left");
    assert_eq!(
        moved.subscribed(7, 1).await[0].cursor,
        Some(v1::Cursor { epoch: 1, seq: 1 })
    );
    let again = moved.drafts(1).await;
    assert_eq!(again[0].draft, sent[0].draft);
    moved.acknowledge(&again[0], 2).await;
    assert_eq!(open.await.unwrap().seq, Seq(2));
    assert!(matches!(
        events.next().await,
        Some(Event::Connection(ConnectionState::Connected { .. }))
    ));
    assert!(matches!(events.next().await, Some(Event::Delivered { .. })));
    assert_eq!(next_go_away(&mut events).await, v1::GoAwayReason::Shutdown);
    assert!(matches!(
        events.next().await,
        Some(Event::Connection(ConnectionState::Reconnecting {
            attempt: 1,
            ..
        }))
    ));
    assert!(matches!(
        events.next().await,
        Some(Event::Connection(ConnectionState::Connected { .. }))
    ));
}

#[tokio::test]
async fn what_is_under_way_is_finished_before_the_client_leaves_and_what_comes_then_waits() {
    loop {
        let began = Instant::now();
        let server = Server::start().await;
        let (client, mut events, mut peer) = server.client().await;
        let open = client.publish(ROOM, "under way").await.unwrap();
        let sent = peer.drafts(1).await;
        peer.push(FrameKind::GoAway, &v1::GoAway::default()).await;
        next_go_away(&mut events).await;
        let describing = tokio::spawn(async move { client.describe(ROOM).await });
        // Time for a client that leaves at once to do so.
        for _ in 0..20_000 {
            tokio::task::yield_now().await;
        }
        peer.acknowledge(&sent[0], 1).await;
        let mut moved = server.welcome().await;
        let next = moved.next().await.expect("a frame");
        if next.kind != FrameKind::Describe && began.elapsed() >= LEAVE_PATIENCE {
            // The machine stood still for so long that the client was right to leave: once more.
            continue;
        }
        assert_eq!(
            next.kind,
            FrameKind::Describe,
            "sent again, or for the first time"
        );
        assert_eq!(open.await.unwrap().seq, Seq(1));
        assert!(peer.next().await.is_none(), "nothing more was begun");
        let description = v1::Description::default();
        moved
            .send(FrameKind::Description, next.request_id, &description)
            .await;
        describing.await.unwrap().unwrap();
        break;
    }
}
