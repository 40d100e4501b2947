//! Connections and conversations of different shards find each other.

use crate::support::{Node, text_of};

const CONVERSATIONS: u16 = 16;

#[tokio::test]
async fn publishers_and_readers_need_not_be_on_the_shard_of_the_conversation() {
    let node = Node::start();
    let mut ann = node.join("ann").await;
    let mut bob = node.join("bob").await;
    // Both shards own some of so many: wherever the two connections are, some of what they say crosses over.
    for number in 0..CONVERSATIONS {
        let conversation = ann.create_group(number, &["bob"]).await;
        bob.follow_all(conversation).await;
        let text = format!("news {number}");
        ann.publish(conversation, &text).await;
        assert_eq!(text_of(&bob.messages(1).await[0]), text);
    }
    assert!(node.metric("rialto_forwarded_total").await > 0);
    node.stop().await;
}

#[tokio::test]
async fn a_full_mailbox_delays_and_loses_nothing() {
    // A mailbox that is full with its first message.
    let node = Node::start_with(|config| config.forward_bytes_max = 1);
    let mut ann = node.join("ann").await;
    let mut bob = node.join("bob").await;
    let mut conversations = Vec::new();
    for number in 0..CONVERSATIONS {
        let conversation = ann.create_group(number, &["bob"]).await;
        bob.follow_all(conversation).await;
        conversations.push(conversation);
    }
    let rounds = 200;
    let mut frames = Vec::new();
    for round in 0..rounds {
        for conversation in &conversations {
            frames.extend_from_slice(&ann.message_frame(*conversation, &format!("round {round}")));
        }
    }
    let writing = async {
        ann.send_bytes(&frames).await;
        ann
    };
    let reading = async {
        let mut seqs = std::collections::HashMap::new();
        let mut messages = 0;
        while messages < rounds * usize::from(CONVERSATIONS) {
            let deliver: rialto_protocol::v1::Deliver =
                bob.expect(rialto_protocol::frame::FrameKind::Deliver).await;
            for event in deliver.events {
                let last = seqs.insert(deliver.handle, event.seq);
                assert!(
                    last.is_none_or(|last| event.seq == last + 1),
                    "{last:?} and then {}",
                    event.seq
                );
                messages += usize::from(matches!(
                    event.content,
                    Some(rialto_protocol::v1::event::Content::Message(_))
                ));
            }
        }
    };
    tokio::join!(writing, reading);
    node.stop().await;
}
