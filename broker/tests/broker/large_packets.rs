//! Over QUIC packets between two programs of one machine are as large as the client says that it takes them in.

use std::sync::Arc;

use rialto_protocol::limits::QUIC_LOOPBACK_PAYLOAD_BYTES;

use crate::support::{Client, FREE, Node, text_of, within};

const MESSAGES: usize = 40;

#[tokio::test]
async fn packets_are_as_large_as_the_client_takes_them() {
    let node = Node::start();
    let mut ann = node.join("ann").await;
    let conversation = ann.create_group(1, &["bob"]).await;
    for number in 0..MESSAGES {
        ann.publish(conversation, &format!("{number} ").repeat(5_000))
            .await;
    }
    for payload_max in [1_200, 1_472, 2_000, QUIC_LOOPBACK_PAYLOAD_BYTES, 65_527] {
        let mut config = quinn::EndpointConfig::default();
        config.max_udp_payload_size(payload_max).unwrap();
        let socket = std::net::UdpSocket::bind(FREE).unwrap();
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(config, None, socket, runtime).unwrap();
        let target = node.quic();
        let connecting = Client::connect_by(endpoint, &target);
        let mut bob = within("connecting", connecting).await.unwrap();
        bob.hello("bob").await;
        bob.follow_all(conversation).await;
        let messages = bob.messages(MESSAGES).await;
        assert!(text_of(&messages[MESSAGES - 1]).starts_with("39 39 "));
        let received = bob.quic.as_ref().unwrap().1.stats().udp_rx;
        let mean = received.bytes / received.datagrams;
        let most = payload_max.min(QUIC_LOOPBACK_PAYLOAD_BYTES).into();
        assert!(
            (most / 2..=most).contains(&mean),
            "{mean} bytes a packet, {payload_max} at most"
        );
    }
    node.stop().await;
}
