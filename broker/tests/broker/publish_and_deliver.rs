//! What one says, the other reads, whatever carries it.

use crate::support::{Node, Target, text_of};

async fn is_delivered_over(node: &Node, target: &Target) {
    let mut ann = node.join_over(target, "ann").await;
    let mut bob = node.join_over(target, "bob").await;
    let conversation = ann.create_group(1, &["bob"]).await;
    bob.follow_all(conversation).await;
    let receipt = ann.publish(conversation, "What news on the Rialto?").await;
    let messages = bob.messages(1).await;
    assert_eq!(text_of(&messages[0]), "What news on the Rialto?");
    assert_eq!(
        (messages[0].epoch, messages[0].seq, messages[0].time_ms),
        (receipt.epoch, receipt.seq, receipt.time_ms)
    );
    // Larger than the shard's read buffer's least room, than a TLS record and than a packet, many times over.
    let long = "news ".repeat(12_000);
    ann.publish(conversation, &long).await;
    assert_eq!(text_of(&bob.messages(1).await[0]), long);
}

#[tokio::test]
async fn a_message_is_delivered_over_tcp() {
    let node = Node::start();
    is_delivered_over(&node, &node.tcp()).await;
    node.stop().await;
}

#[tokio::test]
async fn a_message_is_delivered_over_tls() {
    let node = Node::start();
    is_delivered_over(&node, &node.tls()).await;
    node.stop().await;
}

#[tokio::test]
async fn a_message_is_delivered_over_quic() {
    let node = Node::start();
    is_delivered_over(&node, &node.quic()).await;
    node.stop().await;
}

#[tokio::test]
async fn frames_that_arrive_in_pieces_are_put_together() {
    let node = Node::start();
    let mut ann = node.join("ann").await;
    let conversation = ann.create_group(1, &[]).await;
    ann.follow_all(conversation).await;
    let mut bytes = Vec::new();
    for number in 0..20 {
        let text = format!("{number} ").repeat(1_000);
        bytes.extend_from_slice(&ann.message_frame(conversation, &text));
    }
    for (number, piece) in bytes.chunks(777).enumerate() {
        ann.send_bytes(piece).await;
        if number % 3 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let texts: Vec<_> = ann.messages(20).await.iter().map(text_of).collect();
    let expected: Vec<_> = (0..20)
        .map(|number| format!("{number} ").repeat(1_000))
        .collect();
    assert_eq!(texts, expected);
    node.stop().await;
}
