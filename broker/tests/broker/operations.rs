//! What operators see.

use std::net::SocketAddr;

use rialto_broker::ops::METRICS;

use rialto_protocol::error::ErrorCode;

use crate::support::{Client, Node, get, within};

/// Every shard answers; on a busy machine not each time in time.
async fn is_found_alive(ops: SocketAddr) {
    within("being found alive", async {
        while get(ops, "/health/live").await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn metrics_health_and_status_tell_how_the_broker_does() {
    let node = Node::start();
    let ops = node.ops();
    let mut ann = node.join("ann").await;
    let conversation = ann.create_group(1, &[]).await;
    ann.follow_all(conversation).await;
    ann.publish(conversation, "hello").await;
    // Something that is counted with a label.
    let mut stranger = Client::connect(&node.tcp()).await;
    stranger.send_bytes(&[0xff; 12]).await;
    assert_eq!(stranger.refused().await, ErrorCode::FrameTooLarge);

    let metrics = get(ops, "/metrics").await;
    assert_eq!(metrics.status, 200);
    for (name, _) in METRICS {
        assert!(metrics.body.contains(name), "{name} is missing");
    }
    assert!(metrics.body.ends_with("# EOF\n"));
    assert_eq!(node.metric("rialto_sessions").await, 1);
    assert_eq!(
        node.metric("rialto_connections_opened_total{transport=\"tcp\"}")
            .await,
        2
    );
    // That somebody created the group, and the message.
    assert!(node.metric("rialto_events_appended_total").await >= 2);

    let status = node.status().await;
    assert_eq!(
        (
            status.state.as_str(),
            status.shards,
            status.sessions,
            status.subscriptions
        ),
        ("serving", 2, 1, 1)
    );
    assert_eq!(status.addresses.ops, Some(ops));
    // The other one may not be quite gone.
    assert!((1..=2).contains(&status.connections.tcp));
    assert_eq!(status.shed, 1);

    is_found_alive(ops).await;
    assert_eq!(get(ops, "/health/ready").await.status, 200);
    assert_eq!(get(ops, "/elsewhere").await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn a_draining_broker_is_alive_and_not_ready() {
    let node = Node::start();
    let ops = node.ops();
    assert_eq!(node.broker.drain(std::time::Duration::ZERO).await, 0);
    is_found_alive(ops).await;
    assert_eq!(get(ops, "/health/ready").await.status, 503);
    node.stop().await;
}
