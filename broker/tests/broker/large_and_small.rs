//! Bytes come in the pieces that a client pleases: one at a time, thousands of frames at once, or never whole.

use rialto_protocol::{
    error::ErrorCode,
    frame::{self, FrameKind},
    v1,
};
use rialto_storage::memory::Durability;

use crate::support::{Node, Target};

const PINGS: usize = 20_000;

/// A frame of some length, without its last byte.
fn unfinished(length: usize) -> Vec<u8> {
    let body = vec![0; length];
    let ping = frame::wrap(FrameKind::Ping, rialto_protocol::ids::RequestId(1), &body);
    ping[..ping.len() - 1].to_vec()
}

async fn one_byte_at_a_time(node: &Node, target: &Target) {
    let mut ann = node.join_over(target, "ann").await;
    let frame = frame::encode(FrameKind::Ping, ann.next_request(), &v1::Ping {});
    for _ in 0..20 {
        for byte in &frame {
            ann.send_bytes(std::slice::from_ref(byte)).await;
        }
        let _: v1::Pong = ann.expect(FrameKind::Pong).await;
    }
}

async fn thousands_at_once(node: &Node, target: &Target) {
    let mut ann = node.join_over(target, "ann").await;
    let frame = frame::encode(FrameKind::Ping, ann.next_request(), &v1::Ping {});
    ann.send_bytes(&frame.repeat(PINGS)).await;
    for _ in 0..PINGS {
        let _: v1::Pong = ann.expect(FrameKind::Pong).await;
    }
}

#[tokio::test]
async fn frames_may_come_one_byte_at_a_time_or_thousands_at_once() {
    let node = Node::start();
    for target in [node.tcp(), node.tls(), node.quic()] {
        one_byte_at_a_time(&node, &target).await;
        thousands_at_once(&node, &target).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_frame_that_never_comes_whole_does_not_keep_its_connection() {
    let node = Node::start_with(|config| config.core.keep_alive_ms = 40);
    for target in [node.tcp(), node.tls(), node.quic()] {
        let mut ann = node.join_over(&target, "ann").await;
        ann.push(&unfinished(10_000)).await;
        assert_eq!(ann.refused().await, ErrorCode::IdleTimeout);
    }
    node.stop().await;
}

#[tokio::test]
async fn beginnings_of_large_frames_have_a_budget_and_small_ones_pass() {
    let node = Node::start_with(|config| {
        config.shards = 1;
        // A quarter of it is for beginnings of frames.
        config.core.shard_bytes_max = 4 * (256 << 10);
    });
    for target in [node.tcp(), node.tls(), node.quic()] {
        let mut first = node.join_over(&target, "ann").await;
        let mut second = node.join_over(&target, "bob").await;
        first.send_bytes(&unfinished(100_000)).await;
        second.push(&unfinished(250_000)).await;
        assert_eq!(second.refused().await, ErrorCode::TooManyConnections);
        one_byte_at_a_time(&node, &target).await;
        // What the first one held is free again once it is gone.
        drop((first, second));
        node.metric_until("rialto_connections_open", |open| open == 0)
            .await;
    }
    // The first ones are refused too, should they be read on while the second ones are still held.
    let refused = node
        .metric("rialto_shed_total{queue=\"partial_frame\",reason=\"shard_budget\"}")
        .await;
    assert!((3..=6).contains(&refused), "{refused}");
    node.stop().await;
}

#[tokio::test]
async fn who_waits_for_credit_takes_no_room_from_who_has_not_finished_a_frame() {
    const HOLDERS: usize = 24;
    const RECEIVED: &str = "rialto_bytes_received_total";
    let node = Node::start_with(|config| {
        config.shards = 1;
        config.core.in_flight_bytes_max = 8 << 10;
        // A quarter of it is for beginnings of frames.
        config.core.shard_bytes_max = 4 * (256 << 10);
    });
    let mut numbers = 1..;
    for target in [node.tcp(), node.tls(), node.quic()] {
        let mut ann = node.join_over(&target, "ann").await;
        let conversation = ann.create_group(numbers.next().unwrap(), &[]).await;
        let mut holders = Vec::new();
        for number in numbers.by_ref().take(HOLDERS) {
            let mut holder = node.join_over(&target, &format!("holder{number}")).await;
            let own = holder.create_group(number, &[]).await;
            holders.push((holder, own));
        }
        node.store.set_durability(Durability::Stepped);
        for (holder, own) in &mut holders {
            // Read with what follows it, for which there is no credit.
            let ping = frame::encode(FrameKind::Ping, holder.next_request(), &v1::Ping {});
            let mut frames = ping.to_vec();
            while frames.len() < 48 << 10 {
                frames.extend(holder.message_frame(*own, &"news ".repeat(200)));
            }
            holder.send_bytes(&frames).await;
            let _: v1::Pong = holder.expect(FrameKind::Pong).await;
        }
        let large = ann.message_frame(conversation, &"news ".repeat(3_000));
        let (last, beginning) = large.split_last().unwrap();
        let received = node.metric(RECEIVED).await + beginning.len() as u64;
        ann.send_bytes(beginning).await;
        node.metric_until(RECEIVED, |bytes| bytes >= received).await;
        ann.send_bytes(&[*last]).await;
        node.store.set_durability(Durability::AtOnce);
        while node.store.step().is_some() {}
        let published: v1::Published = ann.expect(FrameKind::Published).await;
        assert_eq!(published.receipts[0].error, None);
    }
    node.stop().await;
}
