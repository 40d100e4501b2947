//! Silence ends a connection; a Ping now and then keeps it.

use rialto_protocol::{error::ErrorCode, frame::FrameKind, v1};

use crate::support::{Client, Node};

#[tokio::test]
async fn a_silent_session_is_closed_with_its_reason() {
    let node = Node::start_with(|config| config.core.keep_alive_ms = 40);
    for target in [node.tcp(), node.tls(), node.quic()] {
        let mut client = node.join_over(&target, "ann").await;
        assert_eq!(client.refused().await, ErrorCode::IdleTimeout);
    }
    node.stop().await;
}

#[tokio::test]
async fn whoever_pings_outlives_whoever_does_not() {
    let node = Node::start_with(|config| config.core.keep_alive_ms = 200);
    let mut pinging = node.join("ann").await;
    let mut silent = node.join("bob").await;
    let ended = tokio::spawn(async move { silent.refused().await });
    while !ended.is_finished() {
        let request = pinging.send(FrameKind::Ping, &v1::Ping {}).await;
        let _: v1::Pong = pinging.answer(request, FrameKind::Pong).await;
    }
    assert_eq!(ended.await.unwrap(), ErrorCode::IdleTimeout);
    let request = pinging.send(FrameKind::Ping, &v1::Ping {}).await;
    let _: v1::Pong = pinging.answer(request, FrameKind::Pong).await;
    node.stop().await;
}

#[tokio::test]
async fn whoever_has_quic_keep_itself_alive_is_not_asked_to_ping_unless_little_silence_is_allowed()
{
    for (configured_ms, over_quic_ms) in [(50_000, 0), (20_000, 0), (19_999, 19_999)] {
        let node = Node::start_with(|config| config.core.keep_alive_ms = configured_ms);
        for (target, expected_ms) in [
            (node.tcp(), configured_ms),
            (node.tls(), configured_ms),
            (node.quic(), over_quic_ms),
        ] {
            let welcome = Client::connect(&target).await.hello("ann").await;
            assert_eq!(welcome.keep_alive_ms, expected_ms);
        }
        node.stop().await;
    }
}
