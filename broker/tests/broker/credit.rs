//! A publisher who does not read its answers is not read from either, and the memory that it takes is bounded.

use rialto_protocol::{frame::FrameKind, v1};

use crate::support::Node;

/// More than the broker and the sockets of both sides may hold.
const BYTES_MAX: usize = 48 << 20;
/// So often it says how it does without having read anything.
const LOOKS: usize = 20;

/// Its shards go on and answer, but not with reading.
async fn has_stopped_reading(node: &Node) -> bool {
    let received = async || node.metric("rialto_bytes_received_total").await;
    let before = received().await;
    for _ in 0..LOOKS {
        if received().await > before {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn a_publisher_who_never_reads_is_stopped_and_goes_on_once_it_does() {
    let node = Node::start_with(|config| {
        config.core.in_flight_bytes_max = 64 << 10;
        config.core.queue_bytes_max = 64 << 10;
    });
    let mut ann = node.join("ann").await;
    let conversation = ann.create_group(1, &[]).await;
    // Each is answered by more than it says: a page of history.
    ann.publish(conversation, &"news ".repeat(400)).await;
    let history = v1::History {
        conversation: conversation.to_proto(),
        direction: v1::Direction::Backward as i32,
        ..v1::History::default()
    };
    let request = ann.next_request();
    let frame = rialto_protocol::frame::encode(FrameKind::History, request, &history);
    let frames = frame.repeat(4_096);
    let mut written = 0;
    let mut offset = 0;
    while written < BYTES_MAX {
        match ann.try_send(&frames[offset..]).await {
            0 if has_stopped_reading(&node).await => break,
            count => {
                written += count;
                offset = (offset + count) % frames.len();
            }
        }
    }
    assert!(written < BYTES_MAX, "the broker goes on reading");
    // Others are served meanwhile.
    let mut bob = node.join("bob").await;
    let other = bob.create_group(2, &[]).await;
    bob.publish(other, "unhurried").await;
    // Every whole request is answered once the publisher reads.
    for _ in 0..written / frame.len() {
        let page: v1::HistoryPage = ann.answer(request, FrameKind::HistoryPage).await;
        assert!(!page.events.is_empty());
    }
    node.stop().await;
}
