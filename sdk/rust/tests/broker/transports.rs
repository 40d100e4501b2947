//! What is published over one transport is read over every other.

use rialto_sdk::{Content, HistoryQuery, Seq, Start};

use crate::node::{Node, group, text_of, texts};

const MESSAGES: usize = 2_000;

#[tokio::test]
async fn every_transport_carries_everything_in_both_directions() {
    let mut node = Node::start();
    for endpoint in [node.tcp(), node.tls(), node.quic()] {
        let (ann, _events) = node.client_over(&endpoint, "ann").await;
        let room = group(&ann, &["bob"]).await;
        let contents = (0..MESSAGES).map(|n| Content::text(n.to_string()));
        let contents: Vec<_> = contents.collect();
        let expected: Vec<_> = (0..MESSAGES).map(|n| n.to_string()).collect();

        // One reader who is there from the start, one who catches up when all is said.
        let (bob, mut live) = node.client_over(&endpoint, "bob").await;
        let outcomes = bob.subscribe(vec![(room, Start::Beginning)]).await.unwrap();
        assert!(outcomes[0].is_following());
        let mut seqs = Vec::new();
        let mut publishings = Vec::new();
        let queued = ann.publish_batch(room, &contents, &mut publishings);
        queued.await.unwrap();
        for publishing in publishings {
            seqs.push(publishing.await.unwrap().seq.0);
        }
        assert!(
            seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]),
            "{endpoint}"
        );
        assert_eq!(
            texts(&mut live, room, &mut 1, MESSAGES).await,
            expected,
            "{endpoint}"
        );
        let (late, mut events) = node.client_over(&endpoint, "bob").await;
        late.subscribe(vec![(room, Start::Beginning)])
            .await
            .unwrap();
        assert_eq!(
            texts(&mut events, room, &mut 1, MESSAGES).await,
            expected,
            "{endpoint}"
        );

        let page = late
            .history(room, HistoryQuery::from(Seq(seqs[0])).limit(10))
            .await
            .unwrap();
        let read: Vec<_> = page.events.iter().filter_map(text_of).collect();
        assert_eq!(read, expected[..10], "{endpoint}");
        assert_eq!((page.head.seq.0, page.end), (seqs[MESSAGES - 1], false));
        for client in [ann, bob, late] {
            client.close().await;
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn quic_is_left_for_tls_when_nobody_answers() {
    let mut node = Node::start();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let builder = node
        .builder("ann")
        .endpoint(format!("quic://{}", silent.local_addr().unwrap()))
        .endpoint(node.tls());
    let (ann, _events) = builder.connect().await.unwrap();
    let state = ann.state().borrow().clone();
    let rialto_sdk::ConnectionState::Connected { endpoint, .. } = state else {
        panic!("{state:?}")
    };
    assert_eq!(endpoint.to_string(), node.tls());
    ann.close().await;
    node.stop().await;
}
