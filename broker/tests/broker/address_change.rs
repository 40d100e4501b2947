//! A QUIC client that changes its address keeps its session, whichever shard the kernel would choose by the new address.

use crate::support::{FREE, Node, text_of};

#[tokio::test]
async fn a_quic_client_that_changes_its_port_keeps_its_session() {
    let node = Node::start_with(|config| config.shards = 3);
    let mut ann = node.join_over(&node.quic(), "ann").await;
    let conversation = ann.create_group(1, &[]).await;
    ann.follow_all(conversation).await;
    // With so many changes, going by addresses would lose the shard sooner or later.
    for number in 0..12 {
        let (endpoint, _) = ann.quic.as_ref().unwrap();
        endpoint
            .rebind(std::net::UdpSocket::bind(FREE).unwrap())
            .unwrap();
        let text = format!("from port {number}");
        ann.publish(conversation, &text).await;
        assert_eq!(text_of(&ann.messages(1).await[0]), text);
    }
    assert_eq!(
        node.metric("rialto_connections_opened_total{transport=\"quic\"}")
            .await,
        1
    );
    node.stop().await;
}
