//! Members, markers, signals and refusals, as a client sees them.

use std::time::Duration;

use rialto_sdk::{
    Content, ConversationId, Create, ErrorCode, Event, Retry, Seq, Start, SubscribeStatus, UserId,
    v1,
};

use crate::node::{Node, group, texts};

/// How long an answer may take that comes in milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn strangers_are_refused_and_told_so() {
    let mut node = Node::start();
    let (ann, _ann_events) = node.client("ann").await;
    let (eve, _eve_events) = node.client("eve").await;
    let room = group(&ann, &[]).await;
    let outcomes = eve.subscribe(vec![(room, Start::Beginning)]).await.unwrap();
    let SubscribeStatus::Denied(error) = &outcomes[0].status else {
        panic!("{outcomes:?}")
    };
    assert_eq!(error.retry(), Retry::Never);
    let refused = eve
        .publish(room, "hello?")
        .await
        .unwrap()
        .await
        .unwrap_err();
    assert_eq!(refused.retry(), Retry::Never);
    let nowhere = ConversationId::v7(1, [1; 10]);
    let unknown = ann.describe(nowhere).await.unwrap_err();
    assert!(
        unknown
            .refusal()
            .unwrap()
            .is(ErrorCode::ConversationNotFound)
    );
    ann.close().await;
    eve.close().await;
    node.stop().await;
}

#[tokio::test]
async fn what_somebody_invited_does_is_seen_by_the_others() {
    let mut node = Node::start();
    let (ann, mut ann_events) = node.client("ann").await;
    let (bob, _bob_events) = node.client("bob").await;
    let room = ann.create(Create::group("den")).await.unwrap().conversation;
    ann.subscribe(vec![(room, Start::Live)]).await.unwrap();
    ann.invite(room, bob.user()).await.unwrap().await.unwrap();
    bob.join(room).await.unwrap().await.unwrap();
    let said = bob.publish(room, Content::text("here").mention(ann.user()));
    let said = said.await.unwrap().await.unwrap();
    bob.publish(room, Content::react(said.seq, "👋"))
        .await
        .unwrap()
        .await
        .unwrap();
    let mut contents = Vec::new();
    while contents.len() < 4 {
        if let Some(Event::Delivered { events, .. }) = ann_events.next().await {
            contents.extend(events.into_iter().filter_map(|event| event.content));
        }
    }
    assert!(
        matches!(&contents[2], v1::event::Content::Message(message) if message.mentions == [ann.user().to_proto()])
    );
    assert!(
        matches!(&contents[3], v1::event::Content::Reaction(reaction) if reaction.target == said.seq.0)
    );

    let description = ann.describe(room).await.unwrap();
    assert_eq!((description.member_count, description.unread), (2, 1));
    assert_eq!(ann.members(room, None, 0).await.unwrap().members.len(), 2);
    let marked = ann.mark_read(room, said.seq).await.unwrap();
    assert_eq!((marked.unread, marked.unread_mentions), (0, 0));
    assert_eq!(ann.mark_unread(room, Seq(0)).await.unwrap().unread, 1);
    // His list of conversations learns of it after all others do.
    let is_listed = async {
        loop {
            let listed = bob.conversations(None, 0).await.unwrap();
            let mut listings = listed.listings.iter();
            if listings.any(|listing| listing.conversation == room.to_proto()) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, is_listed).await.unwrap();
    ann.close().await;
    bob.close().await;
    node.stop().await;
}

#[tokio::test]
async fn signals_and_presence_reach_who_wants_them() {
    let mut node = Node::start();
    for endpoint in [node.tcp(), node.quic()] {
        let (ann, mut events) = node.client_over(&endpoint, "ann").await;
        let (bob, _bob_events) = node.client_over(&endpoint, "bob").await;
        let room = group(&ann, &["bob"]).await;
        ann.subscribe(vec![(room, Start::Live)]).await.unwrap();
        bob.subscribe(vec![(room, Start::Live)]).await.unwrap();
        let watched = ann
            .watch(&[bob.user(), UserId::from_name("nobody")])
            .await
            .unwrap();
        assert_eq!(watched.len(), 2);
        for presence in watched {
            let is_bob = presence.user == bob.user().to_proto();
            assert_eq!(presence.state() == v1::PresenceState::Online, is_bob);
        }
        bob.typing(room).await.unwrap();
        bob.set_presence(v1::PresenceState::Away).await.unwrap();
        let (mut typing, mut away) = (false, false);
        while !typing || !away {
            match events.next().await.unwrap() {
                Event::Signalled {
                    conversation,
                    user,
                    signal,
                } => {
                    assert_eq!((conversation, user), (room, bob.user()));
                    typing |= matches!(
                        signal,
                        v1::signalled::Signal::Typing(v1::Typing { off: false })
                    );
                }
                Event::Presence(presences) => {
                    away |= presences
                        .iter()
                        .any(|one| one.state() == v1::PresenceState::Away);
                }
                _ => {}
            }
        }
        ann.close().await;
        bob.close().await;
    }
    node.stop().await;
}

/// Events ahead of every answer, and nobody who takes them while the answer is waited for.
async fn marks_while_reading(endpoint: impl Fn(&Node) -> String) {
    const MESSAGES: usize = 1_000;
    let mut node = Node::start();
    let endpoint = endpoint(&node);
    let (ann, _events) = node.client_over(&endpoint, "ann").await;
    let room = group(&ann, &["bob"]).await;
    let contents = (0..MESSAGES).map(|n| Content::text(n.to_string()));
    let contents: Vec<_> = contents.collect();
    let mut publishings = Vec::new();
    let queued = ann.publish_batch(room, &contents, &mut publishings);
    queued.await.unwrap();
    for publishing in publishings {
        publishing.await.unwrap();
    }
    let builder = node.builder("bob").endpoint(&endpoint).event_buffer(16);
    let (bob, mut events) = builder.connect().await.unwrap();
    bob.subscribe(vec![(room, Start::Beginning)]).await.unwrap();
    let mut next = 1;
    let mut read = Vec::new();
    while read.len() < MESSAGES {
        read.extend(texts(&mut events, room, &mut next, 1).await);
        let marking = bob.mark_read(room, Seq(next - 1));
        let marked = tokio::time::timeout(PATIENCE, marking).await;
        marked.expect("an answer").unwrap();
    }
    let expected: Vec<_> = (0..MESSAGES).map(|n| n.to_string()).collect();
    assert_eq!(read, expected);
    ann.close().await;
    bob.close().await;
    node.stop().await;
}

#[tokio::test]
async fn a_reader_marks_what_he_reads_as_he_reads_it_over_tcp() {
    marks_while_reading(Node::tcp).await;
}

#[tokio::test]
async fn a_reader_marks_what_he_reads_as_he_reads_it_over_quic() {
    marks_while_reading(Node::quic).await;
}
