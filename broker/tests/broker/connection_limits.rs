//! Connections past the limit are refused before anything is spent on them.

use std::net::Ipv4Addr;

use rialto_protocol::error::ErrorCode;
use tokio::io::AsyncReadExt;

use crate::support::{Client, Node, within};

/// Over every transport, and each is counted.
async fn others_are_refused(node: &Node, counter: &str) {
    let mut over_tcp = Client::connect(&node.tcp()).await;
    assert_eq!(over_tcp.refused().await, ErrorCode::TooManyConnections);
    assert!(Client::try_connect(&node.tls()).await.is_err());
    assert_eq!(node.metric(counter).await, 2);
    assert!(Client::try_connect(&node.quic()).await.is_err());
    // More than once if the client had to send its first packet again before it was answered.
    assert!(node.metric(counter).await >= 3);
}

#[tokio::test]
async fn connections_past_the_limit_are_refused_until_one_ends() {
    let node = Node::start_with(|config| config.connections_max = 2);
    let first = node.join("ann").await;
    let mut second = node.join_over(&node.quic(), "bob").await;
    others_are_refused(
        &node,
        "rialto_shed_total{queue=\"accept\",reason=\"total\"}",
    )
    .await;
    drop(first);
    node.metric_until("rialto_connections_open", |open| open == 1)
        .await;
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
async fn files_that_are_left_to_storage_are_not_taken_by_connections() {
    let node = Node::start_with(|config| config.descriptors_max = 0);
    let mut over_tcp = Client::connect(&node.tcp()).await;
    assert_eq!(over_tcp.refused().await, ErrorCode::TooManyConnections);
    assert!(Client::try_connect(&node.tls()).await.is_err());
    let counter = "rialto_shed_total{queue=\"accept\",reason=\"files\"}";
    assert_eq!(node.metric(counter).await, 2);
    // All of them share the sockets that are there.
    node.join_over(&node.quic(), "ann").await;
    node.stop().await;
}

#[tokio::test]
async fn many_quic_handshakes_at_once_have_to_prove_their_address() {
    let node = Node::start_with(|config| config.quic_retry_above = 0);
    node.join_over(&node.quic(), "ann").await;
    // More than once if the client had to send its first packet again before it was answered.
    assert!(node.metric("rialto_quic_retries_total").await >= 1);
    node.stop().await;
}

#[tokio::test]
async fn one_user_cannot_take_all() {
    let node = Node::start_with(|config| config.connections_per_user_max = 1);
    let first = node.join("ann").await;
    let mut second = Client::connect(&node.tls()).await;
    let hello = second.hello_frame("user:ann");
    second.send_bytes(&hello).await;
    assert_eq!(second.refused().await, ErrorCode::TooManyConnections);
    node.join_over(&node.quic(), "bob").await;
    assert_eq!(
        node.metric("rialto_shed_total{queue=\"session\",reason=\"too_many_connections\"}")
            .await,
        1
    );
    drop((first, second));
    node.metric_until("rialto_connections_open", |open| open == 0)
        .await;
    node.join("ann").await;
    node.stop().await;
}

#[tokio::test]
async fn strangers_cannot_take_all() {
    let node = Node::start_with(|config| {
        config.shards = 1;
        config.handshakes_max = 1;
    });
    let mut stranger = Client::connect(&node.tcp()).await;
    // Nothing else says that it has been accepted.
    node.metric_until("rialto_connections_open", |open| open == 1)
        .await;
    others_are_refused(
        &node,
        "rialto_shed_total{queue=\"handshake\",reason=\"pending\"}",
    )
    .await;
    // Once it has shown who it is there is room for the next.
    stranger.hello("ann").await;
    node.join("bob").await;
    node.stop().await;
}

#[tokio::test]
async fn strangers_of_one_address_leave_places_for_others() {
    let node = Node::start_with(|config| {
        config.shards = 1;
        config.handshakes_max = 4;
    });
    let host = |last: u8| Ipv4Addr::new(127, 0, 0, last);
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(Client::connect_from(host(2), &node.tcp()).await);
    }
    node.metric_until("rialto_connections_open", |open| open == 4)
        .await;
    let mut one_more = Client::connect_from(host(2), &node.tcp()).await;
    assert_eq!(one_more.refused().await, ErrorCode::TooManyConnections);
    let refused = "rialto_shed_total{queue=\"handshake\",reason=\"address\"}";
    assert_eq!(node.metric(refused).await, 1);
    let mut newcomer = Client::connect_from(host(3), &node.tcp()).await;
    newcomer.hello("ann").await;
    assert_eq!(node.metric(refused).await, 1);
    drop(silent);
    node.stop().await;
}

#[tokio::test]
async fn a_tls_client_that_is_refused_is_told_so_before_any_handshake() {
    let node = Node::start_with(|config| config.connections_max = 1);
    let _first = node.join("ann").await;
    let mut refused = tokio::net::TcpStream::connect(node.broker.addresses().tls.unwrap())
        .await
        .unwrap();
    let mut told = Vec::new();
    within("the end", refused.read_to_end(&mut told))
        .await
        .unwrap();
    // A fatal alert, "internal error".
    assert_eq!(told, [21, 3, 3, 0, 2, 2, 80]);
    node.stop().await;
}
