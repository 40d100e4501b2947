//! A journal that cannot be trusted any more ends the broker, and nobody is told that something is durable.

use rialto_broker::{StopError, StopReason};
use rialto_protocol::{frame::FrameKind, v1};

use crate::support::{Node, get, within};

#[tokio::test]
async fn a_poisoned_journal_ends_the_broker_and_its_publishers_get_an_error() {
    let node = Node::start();
    let mut ann = node.join("ann").await;
    let conversation = ann.create_group(1, &[]).await;
    node.store.poison("a sync failed");
    let frame = ann.message_frame(conversation, "lost?");
    ann.send_bytes(&frame).await;
    let published: v1::Published = ann.expect(FrameKind::Published).await;
    assert!(published.receipts[0].error.is_some());
    let reason = within("the end", node.broker.stopped()).await;
    assert!(matches!(reason, StopReason::JournalPoisoned(_)), "{reason}");
    let ops = node.broker.addresses().ops.unwrap();
    assert_eq!(get(ops, "/health/ready").await.status, 503);
    let stopped = within("stopping", node.broker.stop()).await;
    assert!(
        matches!(&stopped, Err(StopError::CannotGoOn(same)) if *same == reason),
        "{stopped:?}"
    );
}

#[tokio::test]
async fn a_full_disk_refuses_messages_and_takes_them_again_once_there_is_room() {
    let node = Node::start();
    let mut ann = node.join("ann").await;
    let conversation = ann.create_group(1, &[]).await;
    node.store.set_full(true);
    let frame = ann.message_frame(conversation, "no room");
    ann.send_bytes(&frame).await;
    let published: v1::Published = ann.expect(FrameKind::Published).await;
    assert!(published.receipts[0].error.is_some());
    node.store.set_full(false);
    ann.publish(conversation, "room").await;
    node.stop().await;
}
