//! Nobody stays without saying who he is, and in time.

use std::sync::Arc;

use futures_util::future::join_all;
use rialto_protocol::{error::ErrorCode, frame::FrameKind, v1};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::support::{Client, FREE, Node, within};

/// How long a client may be silent that has nothing to compute first.
const SILENT_MS: u32 = 50;
/// How long one may take that has a handshake of TLS or QUIC to do, in a debug build on a busy machine.
const SLOW_MS: u32 = 5_000;

#[tokio::test]
async fn requests_before_hello_are_refused() {
    let node = Node::start();
    let mut client = Client::connect(&node.tcp()).await;
    client.send(FrameKind::Ping, &v1::Ping {}).await;
    assert_eq!(client.refused().await, ErrorCode::NotAuthenticated);
    node.stop().await;
}

#[tokio::test]
async fn a_token_that_cannot_be_read_is_refused() {
    let node = Node::start();
    for target in [node.tcp(), node.tls(), node.quic()] {
        let mut client = Client::connect(&target).await;
        let hello = client.hello_frame("nonsense");
        client.send_bytes(&hello).await;
        assert_eq!(client.refused().await, ErrorCode::TokenMalformed);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_token_that_breaks_the_verifier_costs_its_own_connection_alone() {
    let node = Node::start();
    let mut ann = node.join("ann").await;
    let mut client = Client::connect(&node.tcp()).await;
    let hello = client.hello_frame("panic");
    client.send_bytes(&hello).await;
    assert_eq!(client.refused().await, ErrorCode::TokenMalformed);
    ann.create_group(1, &[]).await;
    node.stop().await;
}

#[tokio::test]
async fn requests_may_follow_hello_without_waiting_for_welcome() {
    let node = Node::start();
    let mut client = Client::connect(&node.tcp()).await;
    let mut bytes = client.hello_frame("user:ann").to_vec();
    let request = client.next_request();
    bytes.extend_from_slice(&rialto_protocol::frame::encode(
        FrameKind::Ping,
        request,
        &v1::Ping {},
    ));
    client.send_bytes(&bytes).await;
    let _: v1::Welcome = client.expect(FrameKind::Welcome).await;
    let _: v1::Pong = client.answer(request, FrameKind::Pong).await;
    node.stop().await;
}

#[tokio::test]
async fn clients_whose_client_hello_takes_several_packets_are_served() {
    let node = Node::start();
    let target = node.quic();
    // 3 KB of names, in packets of 1.2 KB.
    let others: Vec<Vec<u8>> = (0..12).map(|number| vec![b'a' + number; 250]).collect();
    let crypto = Arc::new(target.quic_crypto_of(&others));
    let coming = (0..20).map(|_| async {
        let endpoint = quinn::Endpoint::client(FREE).unwrap();
        let mut client = Client::connect_as(endpoint, crypto.clone(), &target)
            .await
            .unwrap();
        client.hello("ann").await;
        client.create_group(1, &[]).await;
    });
    within("being served", join_all(coming)).await;
    node.stop().await;
}

#[tokio::test]
async fn a_connection_without_hello_is_closed_in_time() {
    let node = Node::start_with(|config| config.core.handshake_timeout_ms = SILENT_MS);
    let mut silent = Client::connect(&node.tcp()).await;
    assert_eq!(silent.refused().await, ErrorCode::HandshakeTimeout);
    node.stop().await;
}

#[tokio::test]
async fn a_hello_that_never_comes_whole_is_given_up() {
    let node = Node::start_with(|config| config.core.handshake_timeout_ms = SLOW_MS);
    let mut slow = Client::connect(&node.tls()).await;
    let hello = slow.hello_frame("user:ann");
    slow.send_bytes(&hello[..20]).await;
    assert_eq!(slow.refused().await, ErrorCode::HandshakeTimeout);
    node.stop().await;
}

#[tokio::test]
async fn a_tls_handshake_that_never_comes_is_given_up() {
    let node = Node::start_with(|config| config.core.handshake_timeout_ms = SILENT_MS);
    let mut stream = TcpStream::connect(node.broker.addresses().tls.unwrap())
        .await
        .unwrap();
    let read = within("the end", stream.read(&mut [0; 16])).await;
    assert_eq!(read.unwrap(), 0);
    assert_eq!(
        node.metric("rialto_shed_total{queue=\"handshake\",reason=\"timeout\"}")
            .await,
        1
    );
    node.stop().await;
}

#[tokio::test]
async fn a_quic_connection_without_a_stream_is_given_up() {
    let node = Node::start_with(|config| config.core.handshake_timeout_ms = SLOW_MS);
    let client = Client::connect(&node.quic()).await;
    let (_, connection) = client.quic.as_ref().unwrap();
    within("the end", connection.closed()).await;
    assert_eq!(
        node.metric("rialto_shed_total{queue=\"handshake\",reason=\"timeout\"}")
            .await,
        1
    );
    node.stop().await;
}

#[tokio::test]
async fn another_protocol_is_not_spoken_to() {
    let node = Node::start();
    let mut stream = TcpStream::connect(node.broker.addresses().tls.unwrap())
        .await
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"));
    assert_eq!(
        node.metric("rialto_shed_total{queue=\"handshake\",reason=\"tls\"}")
            .await,
        1
    );
    node.stop().await;
}
