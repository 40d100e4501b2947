//! The session itself: tokens, reconnects, keep-alive, errors of the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use rialto_sdk::protocol::body;
use rialto_sdk::protocol::frame::{self, FrameKind};
use rialto_sdk::protocol::ids::RequestId;
use rialto_sdk::{
    Client, ClientBuilder, CloseReason, ConnectError, ConnectionState, Create, DisconnectCause,
    ErrorCode, Event, Events, PublishError, ReconnectPolicy, RequestError, Retry, Seq, Signal,
    Start, TokenError, TransportError, UserId, v1,
};

use crate::server::{
    DEVICE, PATIENCE, Peer, ROOM, Server, Tokens, builder, presences, reconnecting, user, welcome,
};

/// What the client told at its very end.
async fn last(events: &mut Events) -> Option<Event> {
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    last
}

#[tokio::test]
async fn hello_says_who_is_there_and_welcome_is_told_to_the_caller() {
    let server = Server::start().await;
    let builder = builder().endpoint(server.endpoint()).sdk_name("test/1");
    let (connected, hello) = tokio::join!(builder.connect(), async {
        let mut peer = server.accept().await;
        let hello = peer.hello(welcome()).await;
        (hello, peer)
    });
    let (client, mut events) = connected.unwrap();
    let (hello, _peer) = hello;
    assert_eq!(
        (&hello.token[..], &hello.device, &hello.sdk[..]),
        ("token", &DEVICE.to_proto(), "test/1")
    );
    assert!(
        hello.capabilities.is_empty(),
        "TCP has neither streams nor datagrams"
    );
    assert_eq!(
        (client.user(), client.device(), client.limits().drafts_max),
        (user(), DEVICE, 256)
    );
    let Some(Event::Connection(state)) = events.next().await else {
        panic!()
    };
    assert_eq!(state, *client.state().borrow());
    assert!(
        matches!(state, ConnectionState::Connected { endpoint, .. } if endpoint.to_string() == server.endpoint())
    );
}

#[tokio::test]
async fn a_token_is_replaced_before_it_expires() {
    let server = Server::start().await;
    let tokens = Arc::new(Tokens(AtomicU64::new(0)));
    let connecting = tokio::spawn(
        builder()
            .endpoint(server.endpoint())
            .token_provider(tokens.clone())
            .connect(),
    );
    let mut peer = server.accept().await;
    let soon = v1::Welcome {
        token_expires_ms: welcome().server_time_ms + 5,
        ..welcome()
    };
    assert_eq!(peer.hello(soon).await.token, "token-1");
    let (client, _events) = connecting.await.unwrap().unwrap();
    for number in 2..5 {
        let (id, refresh) = peer.expect::<v1::Refresh>(FrameKind::Refresh).await;
        assert_eq!(refresh.token, format!("token-{number}"));
        let soon_ms = welcome().server_time_ms + 100 * number;
        let token_expires_ms = if number == 4 { u64::MAX } else { soon_ms };
        peer.send(
            FrameKind::Refreshed,
            id,
            &v1::Refreshed { token_expires_ms },
        )
        .await;
    }
    // An answer that names the expired token is a reason to replace it too.
    let (described, ()) = tokio::join!(client.describe(ROOM), async {
        let (id, _) = peer.expect::<v1::Describe>(FrameKind::Describe).await;
        peer.refuse(id, ErrorCode::TokenExpired).await;
    });
    assert!(
        described
            .unwrap_err()
            .refusal()
            .unwrap()
            .is(ErrorCode::TokenExpired)
    );
    let (_, refresh) = peer.expect::<v1::Refresh>(FrameKind::Refresh).await;
    assert_eq!(refresh.token, "token-5");
    assert_eq!(tokens.0.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn an_expired_token_is_asked_for_anew_once() {
    let server = Server::start().await;
    let tokens = Arc::new(Tokens(AtomicU64::new(0)));
    let connecting = tokio::spawn(
        builder()
            .endpoint(server.endpoint())
            .token_provider(tokens.clone())
            .connect(),
    );
    for number in 1..=2 {
        let mut peer = server.accept().await;
        let (id, hello) = peer.expect::<v1::Hello>(FrameKind::Hello).await;
        assert_eq!(hello.token, format!("token-{number}"));
        peer.refuse(id, ErrorCode::TokenExpired).await;
    }
    match connecting.await.unwrap() {
        Err(ConnectError::Refused(error)) => assert!(error.is(ErrorCode::TokenExpired)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_provider_that_has_no_more_tokens_closes_the_client() {
    let server = Server::start().await;
    let asked = AtomicU64::new(0);
    let provider = move || {
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                Ok("token".to_owned())
            } else {
                Err(TokenError::permanent("signed out"))
            }
        }
    };
    let options = |builder: ClientBuilder| builder.token_provider(Arc::new(provider));
    let (_client, mut events, peer) = server.client_with(options).await;
    drop(peer);
    let last = last(&mut events).await;
    let Some(Event::Connection(ConnectionState::Closed(CloseReason::Token(error)))) = last else {
        panic!("{last:?}")
    };
    assert_eq!(error.to_string(), "signed out");
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_not_waited_for_without_end() {
    let server = Server::start().await;
    let silent = || std::future::pending::<Result<String, TokenError>>();
    let connecting = builder()
        .endpoint(server.endpoint())
        .token_provider(Arc::new(silent))
        .connect_timeout_ms(20)
        .connect();
    let connected = tokio::time::timeout(PATIENCE, connecting).await;
    let error = connected.expect("an end").unwrap_err();
    assert!(
        matches!(error, ConnectError::Token(_)) && error.retry() == Retry::Safe,
        "{error}"
    );

    // Of a client that has been connected, another attempt follows.
    let asked = AtomicU64::new(0);
    let provider = move || {
        let second = asked.fetch_add(1, Ordering::SeqCst) == 1;
        async move {
            if second {
                std::future::pending::<()>().await;
            }
            Ok("token".to_owned())
        }
    };
    let (_client, _events, peer) = server
        .client_with(|builder| {
            builder
                .token_provider(Arc::new(provider))
                .connect_timeout_ms(2_000)
        })
        .await;
    drop(peer);
    server.welcome().await;
}

#[tokio::test]
async fn what_one_user_had_to_say_is_not_said_in_the_name_of_another() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let open = client.publish(ROOM, "from ann").await.unwrap();
    peer.drafts(1).await;
    drop(peer);
    // The next token is of somebody else, who has signed in meanwhile.
    let mut peer = server.accept().await;
    let other = v1::Welcome {
        user: UserId::from_name("bob").to_proto(),
        ..welcome()
    };
    peer.hello(other).await;
    assert!(peer.next().await.is_none());
    match open.await {
        Err(PublishError::Closed {
            reason: CloseReason::Refused(error),
            retry: Retry::MaybeDuplicate,
        }) => assert!(error.is(ErrorCode::TokenOfAnotherUser)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        last(&mut events).await,
        Some(Event::Connection(ConnectionState::Closed(
            CloseReason::Refused(_)
        )))
    ));
}

#[tokio::test]
async fn why_there_is_no_client_is_typed() {
    let refused = |code| async move {
        let server = Server::start().await;
        let (connected, ()) =
            tokio::join!(builder().endpoint(server.endpoint()).connect(), async {
                let mut peer = server.accept().await;
                let (id, _) = peer.expect::<v1::Hello>(FrameKind::Hello).await;
                peer.refuse(id, code).await;
            });
        connected.unwrap_err()
    };
    let error = refused(ErrorCode::TokenSignatureInvalid).await;
    assert!(
        matches!(error, ConnectError::Refused(_)) && error.retry() == Retry::Never,
        "{error}"
    );
    let error = refused(ErrorCode::TooManyConnections).await;
    assert!(
        matches!(error, ConnectError::Refused(_)) && error.retry() == Retry::Safe,
        "{error}"
    );

    assert!(matches!(
        builder().connect().await,
        Err(ConnectError::NoEndpoint)
    ));
    assert!(matches!(
        builder().endpoint("http://h:1").connect().await,
        Err(ConnectError::Endpoint(_))
    ));
    let tokenless = Client::builder()
        .endpoint("tcp://127.0.0.1:1")
        .connect()
        .await;
    for builder in [
        builder().connect_timeout_ms(0),
        builder().answer_timeout_ms(0),
    ] {
        let endpoint = builder.endpoint("tcp://127.0.0.1:1");
        assert!(matches!(
            endpoint.connect().await,
            Err(ConnectError::Invalid(_))
        ));
    }
    assert!(matches!(tokenless, Err(ConnectError::NoToken)));
    let rootless = builder()
        .endpoint("tls://127.0.0.1:1")
        .connect()
        .await
        .unwrap_err();
    assert_eq!(rootless.retry(), Retry::Never, "{rootless}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_pinged_and_then_left() {
    let server = Server::start().await;
    let connecting = tokio::spawn(builder().endpoint(server.endpoint()).connect());
    let mut peer = server.accept().await;
    peer.hello(v1::Welcome {
        keep_alive_ms: 1_000,
        ..welcome()
    })
    .await;
    let (client, _events) = connecting.await.unwrap().unwrap();
    for _ in 0..2 {
        let (id, _) = peer.expect::<v1::Ping>(FrameKind::Ping).await;
        peer.send(FrameKind::Pong, id, &v1::Pong::default()).await;
    }
    peer.expect::<v1::Ping>(FrameKind::Ping).await;
    let _next = server.welcome().await;
    assert!(peer.next().await.is_none());
    drop(client);
}

#[tokio::test]
async fn a_server_that_does_not_answer_a_request_is_left_and_asked_again() {
    let server = Server::start().await;
    let (client, _events, mut silent) = server
        .client_with(|builder| builder.answer_timeout_ms(50))
        .await;
    let describing = tokio::spawn(async move { client.describe(ROOM).await });
    silent.expect::<v1::Describe>(FrameKind::Describe).await;
    let mut peer = server.welcome().await;
    let (id, _) = peer.expect::<v1::Describe>(FrameKind::Describe).await;
    peer.send(FrameKind::Description, id, &v1::Description::default())
        .await;
    describing.await.unwrap().unwrap();
}

#[test]
fn when_the_clients_runtime_ends_nobody_is_left_waiting() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let theirs = runtime();
    let (client, mut events, open, peer) = theirs.block_on(async {
        let server = Server::start().await;
        let (client, events, mut peer) = server.client().await;
        let open = client.publish(ROOM, "a").await.unwrap();
        peer.drafts(1).await;
        (client, events, open, peer)
    });
    theirs.shutdown_background();
    drop(peer);
    let all = async {
        let failed = open.await.unwrap_err();
        assert!(
            matches!(
                failed,
                PublishError::Closed {
                    reason: CloseReason::Gone,
                    retry: Retry::MaybeDuplicate
                }
            ),
            "{failed:?}"
        );
        let failed = client.describe(ROOM).await.unwrap_err();
        assert!(
            matches!(
                failed,
                RequestError::Closed {
                    reason: CloseReason::Gone,
                    retry: Retry::Safe
                }
            ),
            "{failed:?}"
        );
        client.close().await;
        let last = last(&mut events).await;
        assert!(matches!(
            last,
            Some(Event::Connection(ConnectionState::Closed(
                CloseReason::Gone
            )))
        ));
    };
    runtime()
        .block_on(async { tokio::time::timeout(PATIENCE, all).await })
        .expect("an end");
}

#[tokio::test]
async fn an_error_of_the_connection_that_will_come_again_closes_the_client() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let open = client.publish(ROOM, "a").await.unwrap();
    peer.drafts(1).await;
    peer.refuse(RequestId::PUSH, ErrorCode::MalformedFrame)
        .await;
    match open.await {
        Err(PublishError::Closed {
            reason: CloseReason::Refused(error),
            retry: Retry::MaybeDuplicate,
        }) => {
            assert!(error.is(ErrorCode::MalformedFrame));
        }
        other => panic!("{other:?}"),
    }
    let last = last(&mut events).await;
    assert!(matches!(
        last,
        Some(Event::Connection(ConnectionState::Closed(
            CloseReason::Refused(_)
        )))
    ));
    let closed = client.describe(ROOM).await.unwrap_err();
    assert!(
        matches!(
            closed,
            RequestError::Closed {
                retry: Retry::Safe,
                ..
            }
        ),
        "{closed:?}"
    );
}

#[tokio::test]
async fn an_error_of_the_connection_that_passes_is_survived() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    peer.refuse(RequestId::PUSH, ErrorCode::IdleTimeout).await;
    let mut peer = server.welcome().await;
    // So is a server that talks nonsense.
    peer.send_bytes(&[0xff; 64]).await;
    let _peer = server.welcome().await;
    drop(client);
}

#[tokio::test]
async fn why_there_is_no_connection_is_told() {
    let server = Server::start().await;
    let (client, mut events, peer) = server.client().await;
    let mut state = client.state();
    assert!(matches!(events.next().await, Some(Event::Connection(_))));
    drop(peer);
    match events.next().await {
        Some(Event::Connection(ConnectionState::Reconnecting {
            attempt: 1,
            cause: DisconnectCause::Lost(TransportError::Closed),
        })) => {}
        other => panic!("{other:?}"),
    }
    let mut peer = server.accept().await;
    let (id, _) = peer.expect::<v1::Hello>(FrameKind::Hello).await;
    peer.refuse(id, ErrorCode::TooManyConnections).await;
    let refused = |state: &ConnectionState| {
        matches!(state, ConnectionState::Reconnecting {
            attempt: 2..,
            cause: DisconnectCause::NotConnected(ConnectError::Refused(error)),
        } if error.is(ErrorCode::TooManyConnections))
    };
    let waiting = tokio::time::timeout(PATIENCE, state.wait_for(refused));
    waiting.await.expect("the cause").unwrap();
}

#[tokio::test]
async fn the_client_gives_up_when_its_policy_says_so() {
    let server = Server::start().await;
    let policy = ReconnectPolicy {
        base_ms: 0,
        max_ms: 0,
        attempts_max: Some(3),
    };
    let (client, mut events, peer) = server
        .client_with(|builder| builder.reconnect(policy))
        .await;
    drop(server);
    drop(peer);
    let last = last(&mut events).await;
    assert!(
        matches!(
            last,
            Some(Event::Connection(ConnectionState::Closed(
                CloseReason::GaveUp(3)
            )))
        ),
        "{last:?}"
    );
    assert!(client.publish(ROOM, "a").await.is_err());
}

#[tokio::test]
async fn requests_are_asked_again_unless_that_could_undo_something() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let create = tokio::spawn({
        let client = client.clone();
        async move {
            client
                .create(Create::group("den").member(UserId::from_name("bob")))
                .await
        }
    });
    let (_, first) = peer.expect::<v1::Create>(FrameKind::Create).await;
    let unread = tokio::spawn({
        let client = client.clone();
        async move { client.mark_unread(ROOM, Seq(3)).await }
    });
    let (_, mark) = peer.expect::<v1::Mark>(FrameKind::Mark).await;
    assert!(mark.unread && mark.read_seq == 3);
    drop(peer);
    let mut peer = server.welcome().await;
    assert_eq!(
        unread.await.unwrap(),
        Err(RequestError::Disconnected {
            retry: Retry::MaybeDuplicate
        })
    );
    let (id, second) = peer.expect::<v1::Create>(FrameKind::Create).await;
    assert_eq!(second, first);
    send_existing(&mut peer, id, &first).await;
    let created = create.await.unwrap().unwrap();
    assert!(created.existed && created.conversation.to_proto() == first.conversation);
}

/// Answers that what was to be created is there already.
async fn send_existing(peer: &mut Peer, id: RequestId, create: &v1::Create) {
    let created = v1::CreatedConversation {
        conversation: create.conversation.clone(),
        head: None,
        existed: true,
    };
    peer.send(FrameKind::CreatedConversation, id, &created)
        .await;
}

#[tokio::test]
async fn a_conversation_that_may_have_been_opened_is_asked_for_under_its_id_until_it_is_there() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let create = tokio::spawn({
        let client = client.clone();
        async move { client.create(Create::group("den")).await }
    });
    let (_, first) = peer.expect::<v1::Create>(FrameKind::Create).await;
    drop(peer);
    let mut peer = server.welcome().await;
    // Who closes the client waits for it too.
    assert!(client.close_within(PATIENCE).now_or_never().is_none());
    for code in [ErrorCode::RateLimited, ErrorCode::Overloaded] {
        let (id, again) = peer.expect::<v1::Create>(FrameKind::Create).await;
        assert_eq!(again, first);
        peer.send_bytes(&frame::error(id, code, 1)).await;
    }
    let (id, again) = peer.expect::<v1::Create>(FrameKind::Create).await;
    assert_eq!(again, first);
    send_existing(&mut peer, id, &first).await;
    assert!(create.await.unwrap().unwrap().existed);
    assert!(peer.next().await.is_none());
}

#[tokio::test]
async fn a_conversation_that_was_not_asked_for_before_is_refused_at_once() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let (refused, ()) = tokio::join!(client.create(Create::group("den")), async {
        let (id, _) = peer.expect::<v1::Create>(FrameKind::Create).await;
        peer.refuse(id, ErrorCode::RateLimited).await;
    });
    assert_eq!(refused.unwrap_err().retry(), Retry::Safe);
}

#[tokio::test]
async fn an_answer_of_another_kind_is_an_error_of_that_request_alone() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let (answer, ()) = tokio::join!(client.members(ROOM, None, 10), async {
        let (id, members) = peer.expect::<v1::Members>(FrameKind::Members).await;
        assert_eq!(members.limit, 10);
        peer.send(FrameKind::Done, id, &v1::Done {}).await;
    });
    assert_eq!(answer, Err(RequestError::UnexpectedAnswer));
    let (answer, ()) = tokio::join!(client.conversations(None, 0), async {
        let (id, _) = peer
            .expect::<v1::Conversations>(FrameKind::Conversations)
            .await;
        peer.send(
            FrameKind::ConversationsPage,
            id,
            &v1::ConversationsPage {
                listings: vec![],
                end: true,
            },
        )
        .await;
    });
    assert!(answer.unwrap().end);
}

#[tokio::test]
async fn a_request_that_no_frame_carries_is_refused_here_and_disturbs_nothing() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let large = client.create(Create::group("x".repeat(256 * 1024)));
    let refused = tokio::time::timeout(PATIENCE, large).await;
    let error = refused.expect("an answer").unwrap_err();
    assert!(matches!(error, RequestError::Invalid(_)), "{error}");
    assert_eq!(error.retry(), Retry::Never);
    let (_, ()) = tokio::join!(client.describe(ROOM), async {
        let (id, _) = peer.expect::<v1::Describe>(FrameKind::Describe).await;
        peer.refuse(id, ErrorCode::NotAMember).await;
    });
}

#[tokio::test]
async fn what_is_watched_is_watched_again_after_a_reconnect() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let bob = UserId::from_name("bob");
    let presences = |state| presences(bob, state);
    let watched = [bob];
    let (answer, ()) = tokio::join!(client.watch(&watched), async {
        let (id, _) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
        peer.send(
            FrameKind::Presences,
            id,
            &presences(v1::PresenceState::Offline),
        )
        .await;
    });
    assert_eq!(answer.unwrap()[0].state(), v1::PresenceState::Offline);
    drop(peer);
    let mut peer = server.welcome().await;
    let (id, watch) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
    assert_eq!(watch.users, [bob.to_proto()]);
    peer.send(
        FrameKind::Presences,
        id,
        &presences(v1::PresenceState::Online),
    )
    .await;
    peer.push(FrameKind::Presences, &presences(v1::PresenceState::Away))
        .await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let Some(Event::Presence(presences)) = events.next().await {
            seen.extend(presences.iter().map(v1::Presence::state));
        }
    }
    assert_eq!(seen, [v1::PresenceState::Online, v1::PresenceState::Away]);
}

#[tokio::test]
async fn what_was_not_told_because_the_server_refused_it_is_told_again() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server.client().await;
    let bob = [UserId::from_name("bob")];
    let none = v1::Presences { presences: vec![] };
    let (_, ()) = tokio::join!(client.watch(&bob), async {
        let (id, _) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
        peer.send(FrameKind::Presences, id, &none).await;
    });
    let (_, ()) = tokio::join!(client.set_presence(v1::PresenceState::Away), async {
        let (id, _) = peer.expect::<v1::SetPresence>(FrameKind::SetPresence).await;
        peer.send(FrameKind::Done, id, &v1::Done {}).await;
    });
    drop(peer);
    let mut peer = server.welcome().await;
    let (watch, _) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
    let (presence, _) = peer.expect::<v1::SetPresence>(FrameKind::SetPresence).await;
    for id in [watch, presence] {
        peer.send_bytes(&frame::error(id, ErrorCode::RateLimited, 1))
            .await;
    }
    let mut told = Vec::new();
    for _ in 0..2 {
        let frame = peer.next().await.unwrap();
        told.push(frame.kind);
        if frame.kind == FrameKind::Watch {
            let online = v1::Presence {
                user: bob[0].to_proto(),
                state: v1::PresenceState::Online.into(),
                last_seen_ms: 0,
            };
            let presences = vec![online];
            peer.send(
                FrameKind::Presences,
                frame.request_id,
                &v1::Presences { presences },
            )
            .await;
        }
    }
    assert!(told.contains(&FrameKind::Watch) && told.contains(&FrameKind::SetPresence));
    loop {
        match events.next().await.unwrap() {
            Event::Presence(seen) => {
                assert_eq!(seen[0].state(), v1::PresenceState::Online);
                break;
            }
            Event::Connection(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_the_server_refused_to_watch_is_not_watched_after_a_reconnect() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let (bob, zoe) = (UserId::from_name("bob"), UserId::from_name("zoe"));
    let watched = [bob];
    let (answer, ()) = tokio::join!(client.watch(&watched), async {
        let (id, _) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
        let offline = presences(bob, v1::PresenceState::Offline);
        peer.send(FrameKind::Presences, id, &offline).await;
    });
    answer.unwrap();
    let other = [zoe];
    let (refused, ()) = tokio::join!(client.watch(&other), async {
        let (id, _) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
        peer.refuse(id, ErrorCode::RateLimited).await;
    });
    refused.unwrap_err();
    drop(peer);
    let mut peer = server.welcome().await;
    let (_, watch) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
    assert_eq!(watch.users, [bob.to_proto()]);
}

/// A Watch that is under way.
struct Watching {
    call: tokio::task::JoinHandle<Result<Vec<v1::Presence>, RequestError>>,
    id: RequestId,
    body: v1::Watch,
}

impl Watching {
    async fn begin(client: &Client, peer: &mut Peer, users: Vec<UserId>) -> Self {
        let client = client.clone();
        let call = tokio::spawn(async move { client.watch(&users).await });
        let (id, body) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
        Self { call, id, body }
    }

    /// Two of them, one after the other.
    async fn begin_two(client: &Client, peer: &mut Peer, first: Vec<UserId>) -> [Self; 2] {
        let first = Self::begin(client, peer, first).await;
        let second = vec![UserId::from_name("zoe")];
        [first, Self::begin(client, peer, second).await]
    }

    /// Takes the same Watch on the next connection.
    async fn again(&mut self, peer: &mut Peer) {
        let (id, body) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
        assert_eq!(body, self.body);
        self.id = id;
    }

    async fn answer(self, peer: &mut Peer) {
        let user = UserId::from_slice(&self.body.users[0]).unwrap();
        let offline = presences(user, v1::PresenceState::Offline);
        peer.send(FrameKind::Presences, self.id, &offline).await;
        self.call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn of_two_lists_that_were_under_way_the_later_one_is_watched_after_a_reconnect() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let bob = vec![UserId::from_name("bob")];
    let [first, second] = Watching::begin_two(&client, &mut peer, bob).await;
    let later = second.body.clone();
    // The homes of those in the second list were faster.
    second.answer(&mut peer).await;
    first.answer(&mut peer).await;
    drop(peer);
    let mut peer = server.welcome().await;
    let (_, watch) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
    assert_eq!(watch, later);
}

#[tokio::test]
async fn a_list_that_is_asked_for_once_more_does_not_replace_a_later_one_that_was_taken() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let bob = vec![UserId::from_name("bob")];
    let [mut first, second] = Watching::begin_two(&client, &mut peer, bob).await;
    let later = second.body.clone();
    second.answer(&mut peer).await;
    drop(peer);
    let mut peer = server.welcome().await;
    first.again(&mut peer).await;
    first.answer(&mut peer).await;
    let (_, watch) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
    assert_eq!(watch, later);
}

#[tokio::test]
async fn a_list_that_nobody_waits_for_any_more_gives_way_to_the_one_before_it() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let bob = vec![UserId::from_name("bob")];
    let [first, second] = Watching::begin_two(&client, &mut peer, bob).await;
    let earlier = first.body.clone();
    first.answer(&mut peer).await;
    second.call.abort();
    assert!(second.call.await.unwrap_err().is_cancelled());
    drop(peer);
    let mut peer = server.welcome().await;
    let (_, watch) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
    assert_eq!(watch, earlier);
}

#[tokio::test]
async fn a_list_that_the_next_connection_cannot_carry_keeps_no_later_one_from_being_watched() {
    let server = Server::start().await;
    let (client, _events, mut peer) = server.client().await;
    let many = (0..500).map(|n: u32| UserId::from_name(&n.to_string()));
    let many = many.collect();
    let [first, second] = Watching::begin_two(&client, &mut peer, many).await;
    let later = second.body.clone();
    second.answer(&mut peer).await;
    drop(peer);
    let mut peer = server.accept().await;
    let mut lowered = welcome();
    lowered.limits.as_mut().unwrap().frame_bytes_max = 4 * 1024;
    peer.hello(lowered).await;
    let (_, watch) = peer.expect::<v1::Watch>(FrameKind::Watch).await;
    assert_eq!(watch, later);
    let refused = first.call.await.unwrap();
    assert!(
        matches!(refused, Err(RequestError::Invalid(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn signals_go_both_ways_and_no_refusal_of_one_is_asked_for() {
    let server = Server::start().await;
    let (client, mut events, mut peer) = server
        .client_with(|builder| builder.in_flight_bytes(2_000))
        .await;
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Live)]),
        peer.subscribed(7, 0)
    );
    client.typing(ROOM).await.unwrap();
    let frame = peer.next().await.unwrap();
    assert_eq!(
        (frame.kind, frame.request_id),
        (FrameKind::Signal, RequestId::PUSH)
    );
    let signal: v1::Signal = body::decode(&frame.body).unwrap();
    assert_eq!(
        signal.signal,
        Some(v1::signal::Signal::Typing(v1::Typing { off: false }))
    );
    let signal = v1::signalled::Signal::Typing(v1::Typing { off: true });
    let push = v1::Signalled {
        handle: 7,
        user: user().to_proto(),
        signal: Some(signal.clone()),
    };
    peer.push(FrameKind::Signalled, &push).await;
    loop {
        match events.next().await.unwrap() {
            Event::Signalled {
                conversation: ROOM,
                user: by,
                signal: what,
            } => {
                assert_eq!((by, what), (user(), signal));
                break;
            }
            Event::Connection(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // Without byte credit it is dropped: later it would not be true.
    let open = client.publish(ROOM, "x".repeat(5_000)).await.unwrap();
    let sent = peer.drafts(1).await;
    client
        .typing(ROOM)
        .now_or_never()
        .expect("no waiting")
        .unwrap();
    peer.acknowledge(&sent[0], 1).await;
    open.await.unwrap();
    let (_, ()) = tokio::join!(client.describe(ROOM), async {
        let (id, _) = peer.expect::<v1::Describe>(FrameKind::Describe).await;
        peer.refuse(id, ErrorCode::NotAMember).await;
    });
}

#[tokio::test]
async fn a_signal_that_cannot_be_one_is_refused_with_a_connection_and_without() {
    let server = Server::start().await;
    let (client, _events, peer) = server.client().await;
    let long = || Signal::Custom(vec![0; 1025].into());
    let refused = client.signal(ROOM, long()).await;
    assert!(matches!(refused, Err(RequestError::Invalid(_))));
    drop(peer);
    reconnecting(&client).await;
    client.typing(ROOM).await.unwrap();
    let refused = client.signal(ROOM, long()).await;
    assert!(matches!(refused, Err(RequestError::Invalid(_))));
    client.close().await;
    let refused = client.typing(ROOM).await;
    assert!(
        matches!(refused, Err(RequestError::Closed { .. })),
        "{refused:?}"
    );
}
