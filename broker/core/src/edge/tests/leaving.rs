//! What sessions leave when they are gone: it is taken apart some at a time, and is in nobody's way until then.

use rialto_protocol::{
    error::ErrorCode,
    frame::{self, FrameKind},
    ids::{ConversationId, Handle, RequestId},
    v1,
    v1::PresenceState as State,
};

use super::{
    handshake::identity,
    presence::{load, loaded, one, set, states, watch},
    rig::{Log, Rig, START_MS, hello, seqs, subscribe, user},
    subscribing::subscribed,
};
use crate::{
    counters::Counters,
    io::{ConnId, Input, Output, Transport},
    message::{Standing, ToEdge, ToOwner},
};

/// Has a connection follow so many conversations, those from `first` on.
pub(super) fn follow_many(rig: &mut Rig, conn: ConnId, first: u32, count: u32) {
    let conversations: Vec<ConversationId> = (first..first + count)
        .map(|number| {
            let mut entropy = [9; 10];
            entropy[..4].copy_from_slice(&number.to_be_bytes());
            ConversationId::v7(START_MS, entropy)
        })
        .collect();
    for conversations in conversations.chunks(256) {
        let items: Vec<_> = conversations.iter().map(|id| (*id, None)).collect();
        rig.send(conn, FrameKind::Subscribe, 5, &subscribe(&items));
        while let Some(ask) = rig.asked.pop_front() {
            rig.tell(following(&ask));
        }
    }
}

/// The owner of an empty conversation has the edge follow it.
fn following(ask: &ToOwner) -> ToEdge {
    let ToOwner::Subscribe { conversation, .. } = ask else {
        panic!("Subscribe")
    };
    let number = conversation.as_bytes()[6..10].try_into().unwrap();
    let standing = Standing {
        handle: Handle(u32::from_be_bytes(number)),
        ..Log::new(1, 0).standing()
    };
    subscribed(ask, Ok(standing))
}

fn subscriptions(rig: &Rig) -> u64 {
    let mut counters = Counters::default();
    rig.edge.gauges(&mut counters);
    counters.subscriptions
}

/// A session of a user's in a slot that was another's.
fn connect_in_place_of(rig: &mut Rig, former: ConnId, name: &str) -> ConnId {
    let conn = ConnId {
        index: former.index,
        generation: former.generation + 1,
    };
    rig.input(Input::Opened {
        conn,
        transport: Transport::default(),
    });
    rig.send(conn, FrameKind::Hello, 1, &hello());
    rig.authenticate(conn, Ok(identity(name)));
    rig.frames(conn);
    conn
}

#[test]
fn the_subscriptions_of_one_who_leaves_are_taken_apart_a_thousand_at_a_time() {
    let mut rig = Rig::new();
    let (ann, bob) = (rig.connect("ann"), rig.connect("bob"));
    follow_many(&mut rig, ann, 0, 2_000);
    follow_many(&mut rig, bob, 2_000, 500);
    assert_eq!((subscriptions(&rig), rig.edge.topics.len()), (2_500, 2_500));
    rig.close(ann);
    rig.close(bob);
    assert_eq!(subscriptions(&rig), 0, "nobody has them any more");
    assert!(rig.asked.is_empty(), "none is taken apart by what ends it");
    for (wait_ms, detached) in [(0, 1_024), (2, 0), (1, 1_024), (3, 452), (1_000, 0)] {
        rig.pass_ms(wait_ms);
        assert_eq!(rig.asked.len(), detached, "after {wait_ms} ms");
        let is_detach = |ask: ToOwner| matches!(ask, ToOwner::Detach { .. });
        assert!(rig.asked.drain(..).all(is_detach));
    }
    assert_eq!((rig.edge.subs.len(), rig.edge.topics.len()), (0, 0));
    assert_eq!(rig.edge.estates.due_us(), None);
}

#[test]
fn a_reader_who_is_gone_is_passed_over_until_it_is_taken_apart() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 3);
    let (ann, bob, eve) = (rig.connect("ann"), rig.connect("bob"), rig.connect("eve"));
    for conn in [bob, ann, eve] {
        rig.follow(conn, &mut log, None);
    }
    // One is told to close, the other's connection is gone, and its slot another's.
    let broken = rig.receive(eve, &[0xff; 64]);
    assert!(broken > 0 && rig.was_closed(eve));
    rig.close(bob);
    let max = connect_in_place_of(&mut rig, bob, "max");
    rig.outputs.clear();
    let batch = log.append(2, 20);
    rig.tell(batch);
    assert_eq!(rig.outputs.len(), 1);
    assert_eq!(seqs(&rig.frames(ann)), [4, 5]);
    assert_eq!(rig.fx.counters.events_delivered, 2);
    let typing = v1::Signalled {
        handle: log.handle.0,
        user: user("zoe").to_proto(),
        signal: Some(v1::signalled::Signal::Typing(v1::Typing { off: false })),
    };
    rig.tell(ToEdge::Signalled {
        conversation: log.conversation,
        user: user("zoe"),
        frame: frame::encode(FrameKind::Signalled, RequestId::PUSH, &typing),
    });
    assert_eq!(rig.outputs.len(), 1);
    assert_eq!(rig.frame(ann).kind, FrameKind::Signalled);
    // What nobody waits for is no reader's fault.
    log.append(1, 20);
    rig.tell(ToEdge::missed(log.conversation, log.head().seq));
    assert_eq!(rig.fx.counters.readers_fallen_behind, 1);
    let read = rig.ask();
    assert!(matches!(read, ToOwner::CatchUp { conn, .. } if conn == ann));
    let answer = log.answer(read).unwrap();
    rig.tell(answer);
    assert_eq!(seqs(&rig.frames(ann)), [6]);
    rig.follow(max, &mut log, None);
    assert!(
        rig.fx
            .counters
            .shed
            .iter()
            .all(|(shed, _)| shed.queue == "session")
    );
    assert_eq!((subscriptions(&rig), rig.edge.subs.len()), (2, 4));
    rig.pass_ms(0);
    assert_eq!((subscriptions(&rig), rig.edge.subs.len()), (2, 2));
    let batch = log.append(1, 20);
    rig.tell(batch);
    assert_eq!(
        (seqs(&rig.frames(ann)), seqs(&rig.frames(max))),
        (vec![7], vec![7])
    );
    for conn in [ann, max] {
        rig.close(conn);
    }
    rig.pass_ms(1);
    assert!(matches!(rig.ask(), ToOwner::Detach { .. }));
    assert_eq!((rig.edge.subs.len(), rig.edge.topics.len()), (0, 0));
    rig.close(eve);
    assert_eq!(rig.edge.conns.held_bytes(), 0);
}

#[test]
fn who_is_put_out_and_gone_has_nothing_left_to_be_ended() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 3);
    let (ann, bob) = (rig.connect("ann"), rig.connect("bob"));
    for conn in [ann, bob] {
        rig.follow(conn, &mut log, None);
    }
    rig.close(bob);
    rig.outputs.clear();
    let mut batch = log.append(1, 20);
    if let ToEdge::Deliver { ended, last, .. } = &mut batch {
        ended.push((user("bob"), *last, ErrorCode::NotAMember));
    }
    rig.tell(batch);
    assert_eq!(seqs(&rig.frames(ann)), [4]);
    assert_eq!(rig.shed("subscription", "not_a_member"), 0);
    assert!(rig.outputs.is_empty(), "nothing is queued for nobody");
    assert_eq!(rig.fx.counters.events_delivered, 1);
    rig.pass_ms(0);
    assert_eq!(rig.edge.subs.len(), 1);
    rig.close(ann);
    assert_eq!(rig.edge.conns.held_bytes(), 0);
}

#[test]
fn lists_of_the_watched_are_taken_apart_with_what_else_is_left() {
    let mut rig = Rig::new();
    let mut watchers = Vec::new();
    for number in 0..3 {
        let conn = rig.connect(&format!("watcher {number}"));
        let users = (0..600).map(|name| user(&format!("user {number} {name}")).to_proto());
        let body = v1::Watch {
            users: users.collect(),
        };
        rig.send(conn, FrameKind::Watch, 2, &body);
        let (ticket, users) = load(&mut rig);
        loaded(&mut rig, ticket, Some(vec![Some(1); users.len()]));
        watchers.push(conn);
    }
    let each = rig.edge.presence.watched_bytes() / 1_800;
    for conn in watchers {
        rig.close(conn);
    }
    assert_eq!(rig.edge.presence.watched_bytes(), 1_800 * each);
    rig.pass_ms(0);
    assert_eq!(rig.edge.presence.watched_bytes(), 776 * each);
    rig.pass_ms(3);
    assert_eq!(rig.edge.presence.watched_bytes(), 0);
}

#[test]
fn a_watcher_who_is_gone_is_told_nothing_and_others_are_told_all() {
    let mut rig = Rig::new();
    let (ann, bob) = (rig.connect("ann"), rig.connect("bob"));
    rig.send(bob, FrameKind::Watch, 2, &watch(&["ann"]));
    rig.close(bob);
    let eve = connect_in_place_of(&mut rig, bob, "eve");
    rig.outputs.clear();
    set(&mut rig, ann, State::Away);
    assert!(rig.outputs.is_empty());
    assert_eq!(rig.shed("presence", "queue_full"), 0);
    rig.send(eve, FrameKind::Watch, 2, &watch(&["ann"]));
    assert_eq!(states(&rig.frame(eve)), one("ann", State::Away, 0));
    rig.pass_ms(super::presence::PASS_MS);
    set(&mut rig, ann, State::Online);
    assert_eq!(states(&rig.frame(eve)), one("ann", State::Online, 0));
    rig.close(eve);
    rig.pass_ms(1);
    assert_eq!(rig.edge.presence.watched_bytes(), 0);
}

#[test]
fn what_is_left_of_one_session_does_not_end_that_of_another_in_the_same_slot() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 1);
    let mut conn = rig.connect("ann");
    for _ in 0..5 {
        rig.follow(conn, &mut log, None);
        rig.send(conn, FrameKind::Watch, 2, &watch(&["bob"]));
        let is_load = |output: &Output| matches!(output, Output::Load { .. });
        if rig.outputs.iter().any(is_load) {
            let (ticket, _) = load(&mut rig);
            loaded(&mut rig, ticket, Some(vec![Some(1)]));
        }
        rig.close(conn);
        conn = connect_in_place_of(&mut rig, conn, "ann");
    }
    rig.follow(conn, &mut log, None);
    rig.send(conn, FrameKind::Watch, 2, &watch(&["bob"]));
    assert_eq!((subscriptions(&rig), rig.edge.subs.len()), (1, 6));
    rig.pass_ms(1_000);
    assert_eq!((subscriptions(&rig), rig.edge.subs.len()), (1, 1));
    rig.outputs.clear();
    let elsewhere = ConnId {
        index: 50,
        generation: 0,
    };
    connect_in_place_of(&mut rig, elsewhere, "bob");
    assert_eq!(states(&rig.frame(conn)), one("bob", State::Online, 0));
    let batch = log.append(1, 20);
    rig.tell(batch);
    assert_eq!(seqs(&rig.frames(conn)), [2]);
}
