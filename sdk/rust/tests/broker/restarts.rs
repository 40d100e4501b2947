//! The broker stops and starts while people write and read: nothing is lost, nothing comes twice, the order stays.

use rialto_sdk::{Client, ConnectionState, Content, ConversationId, Start};

use crate::node::{Node, group, texts};

const RESTARTS: usize = 3;
const MESSAGES: usize = 400;

async fn through_restarts(endpoint: impl Fn(&Node) -> String) {
    let mut node = Node::start();
    let endpoint = endpoint(&node);
    let (ann, _events) = node.client_over(&endpoint, "ann").await;
    let room = group(&ann, &["bob"]).await;
    let (bob, mut events) = node.client_over(&endpoint, "bob").await;
    bob.subscribe(vec![(room, Start::Beginning)]).await.unwrap();
    let mut next = 1;
    for round in 0..=RESTARTS {
        let writing = tokio::spawn(write(ann.clone(), room, round));
        if round < RESTARTS {
            // In the middle: some of the round's messages have been read, others are on their way or not sent yet.
            let mut seen = texts(&mut events, room, &mut next, MESSAGES / 4).await;
            node.stop().await;
            node.start_again();
            let rest = MESSAGES - seen.len();
            seen.extend(texts(&mut events, room, &mut next, rest).await);
            assert_eq!(seen, expected(round));
        } else {
            assert_eq!(
                texts(&mut events, room, &mut next, MESSAGES).await,
                expected(round)
            );
        }
        writing.await.unwrap();
    }
    assert!(matches!(
        *ann.state().borrow(),
        ConnectionState::Connected { .. }
    ));

    // The log as somebody reads it who was not there.
    let (late, mut events) = node.client_over(&endpoint, "bob").await;
    late.subscribe(vec![(room, Start::Beginning)])
        .await
        .unwrap();
    let all = texts(&mut events, room, &mut 1, MESSAGES * (RESTARTS + 1)).await;
    assert_eq!(all, (0..=RESTARTS).flat_map(expected).collect::<Vec<_>>());
    for client in [ann, bob, late] {
        client.close().await;
    }
    node.stop().await;
}

fn expected(round: usize) -> Vec<String> {
    (0..MESSAGES).map(|n| format!("{round}.{n}")).collect()
}

/// Publishes a round's messages, some at a time, each acknowledged in the end.
async fn write(client: Client, room: ConversationId, round: usize) {
    let mut open = Vec::new();
    let mut last = 0;
    for text in expected(round) {
        open.push(client.publish(room, Content::text(text)).await.unwrap());
        if open.len() == 16 {
            for publishing in open.drain(..) {
                let receipt = publishing.await.unwrap();
                assert!(receipt.seq.0 > last);
                last = receipt.seq.0;
            }
        }
    }
    for publishing in open {
        publishing.await.unwrap();
    }
}

#[tokio::test]
async fn restarts_are_survived_over_tcp() {
    through_restarts(Node::tcp).await;
}

#[tokio::test]
async fn restarts_are_survived_over_tls() {
    through_restarts(Node::tls).await;
}

#[tokio::test]
async fn restarts_are_survived_over_quic() {
    through_restarts(Node::quic).await;
}
