//! Connections past the limit are refused before anything is spent on them.

use rialto_protocol::error::ErrorCode;

use crate::support::{Client, Node};

#[tokio::test]
async fn connections_past_the_limit_are_refused_until_one_ends() {
    let node = Node::start_with(|config| config.connections_max = 2);
    let first = node.join("ann").await;
    let mut second = node.join_over(&node.quic(), "bob").await;
    let mut third = Client::connect(&node.tcp()).await;
    assert_eq!(third.refused().await, ErrorCode::TooManyConnections);
    assert!(Client::try_connect(&node.tls()).await.is_err());
    assert!(Client::try_connect(&node.quic()).await.is_err());
    assert_eq!(
        node.metric("rialto_shed_total{queue=\"accept\",reason=\"total\"}")
            .await,
        3
    );
    drop(first);
    while node.metric("rialto_connections_open").await > 1 {
        tokio::task::yield_now().await;
    }
    let mut fourth = node.join("cid").await;
    let conversation = fourth.create_group(1, &["bob"]).await;
    second.follow_all(conversation).await;
    node.stop().await;
}

#[tokio::test]
async fn one_address_cannot_take_all() {
    let node = Node::start_with(|config| config.connections_per_address_max = 1);
    let _first = node.join("ann").await;
    let mut second = Client::connect(&node.tcp()).await;
    assert_eq!(second.refused().await, ErrorCode::TooManyConnections);
    assert_eq!(
        node.metric("rialto_shed_total{queue=\"accept\",reason=\"address\"}")
            .await,
        1
    );
    node.stop().await;
}

#[tokio::test]
async fn many_quic_handshakes_at_once_have_to_prove_their_address() {
    let node = Node::start_with(|config| config.quic_retry_above = 0);
    node.join_over(&node.quic(), "ann").await;
    assert_eq!(node.metric("rialto_quic_retries_total").await, 1);
    node.stop().await;
}
