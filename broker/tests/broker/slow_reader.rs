//! A reader that does not read delays nobody and loses nothing.

use rialto_broker::BrokerConfig;
use rialto_protocol::{
    frame::{self, FrameKind},
    v1,
};

use crate::support::{Node, Target, text_of, within};

const MESSAGES: usize = 600;
/// So many the slow one still reads: a reader that has not come to the end of the log yet cannot fall behind it.
const READ_ALONG: usize = 10;

fn small_queues(config: &mut BrokerConfig) {
    config.core.queue_bytes_max = 64 << 10;
}

/// 600 messages of 32 KiB, far more than sockets and queues hold.
fn text(number: usize) -> String {
    format!("{number:032}").repeat(1_024)
}

async fn delays_nobody(node: Node, target: &Target) {
    let mut ann = node.join("ann").await;
    let mut bob = node.join("bob").await;
    let mut slow = node.join_over(target, "cid").await;
    let conversation = ann.create_group(1, &["bob", "cid"]).await;
    bob.follow_all(conversation).await;
    slow.follow_all(conversation).await;
    for number in 0..MESSAGES {
        ann.publish(conversation, &text(number)).await;
        assert_eq!(text_of(&bob.messages(1).await[0]), text(number));
        if number < READ_ALONG {
            assert_eq!(text_of(&slow.messages(1).await[0]), text(number));
        }
    }
    node.metric_until("rialto_readers_fallen_behind_total", |count| count > 0)
        .await;
    // Now it reads: everything is there, in order.
    let messages = slow.messages(MESSAGES - READ_ALONG).await;
    assert!(
        (READ_ALONG..)
            .zip(&messages)
            .all(|(number, message)| text_of(message) == text(number))
    );
    node.stop().await;
}

#[tokio::test]
async fn a_reader_over_tcp_that_does_not_read_delays_nobody_and_loses_nothing() {
    let node = Node::start_with(small_queues);
    let target = node.tcp();
    delays_nobody(node, &target).await;
}

#[tokio::test]
async fn a_reader_over_quic_that_does_not_read_delays_nobody_and_loses_nothing() {
    let node = Node::start_with(small_queues);
    let target = node.quic();
    delays_nobody(node, &target).await;
}

#[tokio::test]
async fn a_reader_over_tls_that_does_not_read_delays_nobody_and_loses_nothing() {
    let node = Node::start_with(small_queues);
    let target = node.tls();
    delays_nobody(node, &target).await;
}

#[tokio::test]
async fn a_shard_over_its_budget_gives_each_reader_little_and_loses_nothing() {
    let node = Node::start_with(|config| config.core.shard_bytes_max = 64 << 10);
    let target = node.tcp();
    delays_nobody(node, &target).await;
}

/// Asks for more and more, reads nothing of it, and pings.
async fn is_closed(node: Node, target: &Target) {
    let unread = "rialto_shed_total{queue=\"queue\",reason=\"unread\"}";
    let mut ann = node.join("ann").await;
    let conversation = ann.create_group(1, &["cid"]).await;
    ann.publish(conversation, &text(0)).await;
    let mut deaf = node.join_over(target, "cid").await;
    let history = v1::History {
        conversation: conversation.to_proto(),
        from_seq: 0,
        direction: v1::Direction::Backward as i32,
        limit: 1,
    };
    within("closing", async {
        while node.metric(unread).await == 0 {
            let (ask, ping) = (deaf.next_request(), deaf.next_request());
            deaf.push(&frame::encode(FrameKind::History, ask, &history))
                .await;
            deaf.push(&frame::encode(FrameKind::Ping, ping, &v1::Ping {}))
                .await;
        }
    })
    .await;
    node.metric_until("rialto_connections_open", |open| open == 1)
        .await;
    ann.publish(conversation, "news").await;
    assert_eq!(node.metric(unread).await, 1);
    node.stop().await;
}

fn impatient(config: &mut BrokerConfig) {
    config.shards = 1;
    config.core.shard_bytes_max = 1 << 20;
    config.core.unread_timeout_ms = 100;
}

#[tokio::test]
async fn who_lets_a_shard_run_full_over_tcp_and_does_not_read_is_closed() {
    let node = Node::start_with(impatient);
    let target = node.tcp();
    is_closed(node, &target).await;
}

#[tokio::test]
async fn who_lets_a_shard_run_full_over_quic_and_does_not_read_is_closed() {
    let node = Node::start_with(impatient);
    let target = node.quic();
    is_closed(node, &target).await;
}
