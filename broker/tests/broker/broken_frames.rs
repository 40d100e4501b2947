//! What is no frame gets its error and costs its own connection, and nobody else's.

use rialto_protocol::{error::ErrorCode, frame::FrameKind};

use crate::support::{Client, Node, text_of};

/// Sends it after a Hello, and wants to be refused; somebody else's session has to survive that.
async fn is_refused_with(bytes: &[u8], code: ErrorCode) {
    let node = Node::start();
    let mut bob = node.join("bob").await;
    let conversation = bob.create_group(1, &[]).await;
    bob.follow_all(conversation).await;
    let mut ann = node.join("ann").await;
    ann.push(bytes).await;
    assert_eq!(ann.refused().await, code);
    bob.publish(conversation, "still here").await;
    assert_eq!(text_of(&bob.messages(1).await[0]), "still here");
    node.stop().await;
}

#[tokio::test]
async fn garbage_is_refused() {
    is_refused_with(&[0xff; 1 << 20], ErrorCode::FrameTooLarge).await;
}

#[tokio::test]
async fn a_frame_beyond_the_limit_is_refused_by_its_length_alone() {
    let mut header = (256_u32 * 1024 - 3).to_le_bytes().to_vec();
    header.extend_from_slice(&[FrameKind::Publish.number(), 0, 0, 0, 1, 0, 0, 0]);
    is_refused_with(&header, ErrorCode::FrameTooLarge).await;
}

#[tokio::test]
async fn a_length_that_holds_no_header_is_refused() {
    is_refused_with(&[3, 0, 0, 0, 1, 2, 3], ErrorCode::MalformedFrame).await;
}

#[tokio::test]
async fn an_unknown_kind_is_refused() {
    is_refused_with(
        &[8, 0, 0, 0, 63, 0, 0, 0, 1, 0, 0, 0],
        ErrorCode::UnknownKind,
    )
    .await;
}

#[tokio::test]
async fn a_frame_that_only_servers_send_is_refused() {
    let number = FrameKind::Deliver.number();
    is_refused_with(
        &[8, 0, 0, 0, number, 0, 0, 0, 0, 0, 0, 0],
        ErrorCode::UnexpectedKind,
    )
    .await;
}

#[tokio::test]
async fn a_frame_that_is_cut_off_is_refused() {
    let node = Node::start();
    let mut ann = node.join("ann").await;
    let ping = [8, 0, 0, 0, FrameKind::Ping.number(), 0, 0, 0, 1, 0, 0, 0];
    ann.send_bytes(&ping[..7]).await;
    ann.finish().await;
    assert_eq!(ann.refused().await, ErrorCode::MalformedFrame);
    node.stop().await;
}

#[tokio::test]
async fn before_authentication_a_large_frame_is_refused_by_its_length_alone() {
    for over in ["tcp", "tls", "quic"] {
        let node = Node::start();
        let target = match over {
            "tcp" => node.tcp(),
            "tls" => node.tls(),
            _ => node.quic(),
        };
        let mut client = Client::connect(&target).await;
        client.send_bytes(&4_093_u32.to_le_bytes()).await;
        assert_eq!(client.refused().await, ErrorCode::FrameTooLarge, "{over}");
        node.stop().await;
    }
}
