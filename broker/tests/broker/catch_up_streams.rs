//! Over QUIC stored events come on streams of their own, and signals as datagrams, to clients that can take them.

use rialto_protocol::{
    frame::{self, FrameKind},
    v1,
};

use crate::support::{Client, Node, text_of, within};

const BOTH: [v1::Capability; 2] = [
    v1::Capability::CatchUpStreams,
    v1::Capability::SignalDatagrams,
];

#[tokio::test]
async fn stored_events_come_on_a_stream_of_their_own() {
    let node = Node::start();
    let mut ann = node.join("ann").await;
    let conversation = ann.create_group(1, &["bob"]).await;
    for number in 0..40 {
        ann.publish(conversation, &format!("{number} ").repeat(5_000))
            .await;
    }
    let mut bob = Client::connect(&node.quic()).await;
    bob.hello_with("bob", &BOTH).await;
    bob.follow_all(conversation).await;
    let (_, connection) = bob.quic.clone().unwrap();
    let mut seqs = Vec::new();
    // One, or several if the reader had caught up with what was read of the log before more of it was.
    while seqs.len() < 41 {
        let mut stream = within("a stream of the server", connection.accept_uni())
            .await
            .unwrap();
        // A stream ends by itself once the reader has caught up.
        let bytes = within("the end of the stream", stream.read_to_end(16 << 20))
            .await
            .unwrap();
        let mut buf = bytes::BytesMut::from(&bytes[..]);
        while let Some(frame) = frame::split(&mut buf, 1 << 20).unwrap() {
            assert_eq!(frame.kind, FrameKind::Deliver);
            let deliver = <v1::Deliver as prost::Message>::decode(frame.body).unwrap();
            seqs.extend(deliver.events.iter().map(|event| event.seq));
        }
    }
    assert_eq!(seqs, (1..=41).collect::<Vec<_>>());
    // What is said now comes on the main stream.
    ann.publish(conversation, "live").await;
    assert_eq!(text_of(&bob.messages(1).await[0]), "live");
    node.stop().await;
}

#[tokio::test]
async fn signals_travel_as_datagrams() {
    let node = Node::start();
    let mut ann = node.join("ann").await;
    let conversation = ann.create_group(1, &["bob"]).await;
    let mut bob = Client::connect(&node.quic()).await;
    bob.hello_with("bob", &BOTH).await;
    bob.follow_all(conversation).await;
    let typing = v1::Signal {
        conversation: conversation.to_proto(),
        signal: Some(v1::signal::Signal::Typing(v1::Typing { off: false })),
    };
    ann.send(FrameKind::Signal, &typing).await;
    let (_, connection) = bob.quic.clone().unwrap();
    let datagram = within("a datagram", connection.read_datagram())
        .await
        .unwrap();
    let mut buf = bytes::BytesMut::from(&datagram[..]);
    let frame = frame::split(&mut buf, 1 << 20).unwrap().unwrap();
    assert_eq!(frame.kind, FrameKind::Signalled);
    node.stop().await;
}
