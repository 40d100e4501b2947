//! What a client may send over QUIC before any of it is read: little while it is a stranger, and less than its largest frames.

use rialto_protocol::limits::FRAME_BYTES_MAX_UNAUTHENTICATED;

use crate::support::{Client, Node, text_of};

#[tokio::test]
async fn a_stranger_may_send_as_much_as_is_kept_of_it() {
    let node = Node::start();
    let mut stranger = Client::connect(&node.quic()).await;
    let taken = stranger.try_send(&[0; 1 << 20]).await;
    assert_eq!(taken, 4 * FRAME_BYTES_MAX_UNAUTHENTICATED);
    node.stop().await;
}

#[tokio::test]
async fn a_frame_that_is_larger_than_the_window_comes_by_pieces() {
    let node = Node::start_with(|config| {
        config.core.frame_bytes_max = 1 << 20;
        config.core.body_bytes_max = 512 << 10;
    });
    let mut ann = node.join_over(&node.quic(), "ann").await;
    let conversation = ann.create_group(1, &[]).await;
    ann.follow_all(conversation).await;
    let text = "long ".repeat(100_000);
    ann.publish(conversation, &text).await;
    assert_eq!(text_of(&ann.messages(1).await[0]), text);
    node.stop().await;
}

#[tokio::test]
async fn clients_are_told_that_datagrams_of_theirs_are_not_taken() {
    let node = Node::start();
    let client = node.join_over(&node.quic(), "ann").await;
    let (_, connection) = client.quic.as_ref().unwrap();
    assert_eq!(connection.max_datagram_size().unwrap_or(0), 0);
    node.stop().await;
}
