//! quinn keeps a closed connection until its client can have noticed; how long that is, the client says.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use crate::support::{Client, Node, Target, Unhurried, within};

/// From that address of loopback.
fn endpoint(last: u8) -> quinn::Endpoint {
    quinn::Endpoint::client((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap()
}

/// Closes a session, whose connection is kept for three times as long as `max_ack_delay`.
async fn part(node: &Node, target: &Target, host: u8, max_ack_delay: Duration) {
    let crypto = Unhurried::new(target.quic_crypto(), max_ack_delay);
    let connecting = Client::connect_as(endpoint(host), Arc::new(crypto), target);
    let mut client = within("connecting", connecting).await.unwrap();
    client.hello("ann").await;
    let (_, connection) = client.quic.as_ref().unwrap();
    connection.close(0_u32.into(), b"");
    node.metric_until("rialto_connections_open", |open| open == 0)
        .await;
}

const PARTING: &str = "rialto_shed_total{queue=\"handshake\",reason=\"parting\"}";

#[tokio::test]
async fn closed_connections_that_are_still_kept_leave_room_for_no_others_past_their_limit() {
    let node = Node::start_with(|config| {
        config.shards = 1;
        config.handshakes_max = 1;
    });
    let target = node.quic();
    part(&node, &target, 1, Duration::from_secs(5)).await;
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

#[tokio::test]
async fn closed_connections_of_one_address_leave_places_for_others() {
    let node = Node::start_with(|config| {
        config.shards = 1;
        config.handshakes_max = 2;
    });
    let target = node.quic();
    for _ in 0..2 {
        part(&node, &target, 2, Duration::from_secs(16)).await;
    }
    let one_more = Client::connect_by(endpoint(2), &target);
    assert!(within("being refused", one_more).await.is_err());
    assert_eq!(node.metric(PARTING).await, 1);
    let newcomer = Client::connect_by(endpoint(3), &target);
    let mut newcomer = within("connecting", newcomer).await.unwrap();
    newcomer.hello("bob").await;
    assert_eq!(node.metric(PARTING).await, 1);
    node.stop().await;
}
