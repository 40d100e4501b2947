//! A broker that stops tells its clients, answers what it has accepted, and lets go of its port.

use std::time::Duration;

use rialto_protocol::{frame::FrameKind, v1};
use rialto_storage::memory::Durability;

use crate::support::{Client, Node, within};

#[tokio::test]
async fn draining_tells_clients_to_go_and_takes_no_new_ones() {
    let node = Node::start();
    let mut clients = Vec::new();
    for target in [node.tcp(), node.tls(), node.quic()] {
        clients.push(node.join_over(&target, "ann").await);
    }
    assert_eq!(node.broker.drain(Duration::from_millis(1)).await, 3);
    for client in &mut clients {
        let go_away: v1::GoAway = client.expect(FrameKind::GoAway).await;
        assert_eq!(go_away.reason(), v1::GoAwayReason::Shutdown);
    }
    // Each shard stops listening when it comes to it.
    for target in [node.tcp(), node.quic()] {
        within("being refused", async {
            while Client::try_connect(&target).await.is_ok() {}
        })
        .await;
    }
    let refused = node
        .metric("rialto_shed_total{queue=\"accept\",reason=\"stopping\"}")
        .await;
    assert!(refused >= 1, "{refused}");
    node.stop().await;
}

#[tokio::test]
async fn what_was_accepted_is_answered_before_the_end() {
    let node = Node::start();
    let store = node.store.clone();
    let mut ann = node.join("ann").await;
    let conversation = ann.create_group(1, &[]).await;
    store.set_durability(Durability::Stepped);
    let frame = ann.message_frame(conversation, "just in time");
    ann.send_bytes(&frame).await;
    // What waits may be her inbox's; an answer to what comes after the message says that it was taken in.
    ann.send(FrameKind::Ping, &v1::Ping {}).await;
    let _: v1::Pong = ann.expect(FrameKind::Pong).await;
    within("the message on its way", async {
        while store.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stopping = tokio::spawn(node.broker.stop());
    // Only after the broker has begun to stop does the message become durable.
    let _: v1::GoAway = ann.expect(FrameKind::GoAway).await;
    store.set_durability(Durability::AtOnce);
    while store.step().is_some() {}
    let published: v1::Published = ann.expect(FrameKind::Published).await;
    assert_eq!(published.receipts[0].error, None);
    while ann.next().await.is_some() {}
    within("stopping", stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_broker_that_is_dropped_lets_go_of_its_port() {
    let node = Node::start();
    let tcp = node.broker.addresses().tcp;
    let mut ann = node.join("ann").await;
    drop(node);
    while ann.next().await.is_some() {}
    within("the port", async {
        while tokio::net::TcpListener::bind(tcp.unwrap()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
