//! Silence ends a connection. That a Ping now and then keeps it is shown where time is simulated, in the core.

use rialto_protocol::error::ErrorCode;

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
