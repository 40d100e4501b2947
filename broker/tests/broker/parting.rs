//! quinn keeps a closed connection until its client can have noticed; how long that is, the client says.

use std::{sync::Arc, time::Duration};

use crate::support::{Client, FREE, Node, Unhurried, within};

const PARTING: &str = "rialto_shed_total{queue=\"handshake\",reason=\"parting\"}";

#[tokio::test]
async fn closed_connections_that_are_still_kept_leave_room_for_no_others_past_their_limit() {
    let node = Node::start_with(|config| {
        config.shards = 1;
        config.handshakes_max = 1;
    });
    let target = node.quic();
    // Three times that is how long its connection is kept.
    let crypto = Unhurried::new(target.quic_crypto(), Duration::from_secs(5));
    let endpoint = quinn::Endpoint::client(FREE).unwrap();
    let connecting = Client::connect_as(endpoint, Arc::new(crypto), &target);
    let mut first = within("connecting", connecting).await.unwrap();
    first.hello("ann").await;
    let (_, connection) = first.quic.as_ref().unwrap();
    connection.close(0_u32.into(), b"");
    node.metric_until("rialto_connections_open", |open| open == 0)
        .await;
    assert!(Client::try_connect(&target).await.is_err());
    assert_eq!(node.metric(PARTING).await, 1);
    // Whoever comes over TCP is not concerned.
    node.join("bob").await;
    let again = async {
        while Client::try_connect(&target).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within("being forgotten", again).await;
    node.stop().await;
}
