//! Presence: at the edge and at the user's home, which are one shard here unless a test plays the other.

use rialto_protocol::{
    frame::{self, FrameKind},
    ids::{RequestId, UserId},
    v1,
    v1::PresenceState as State,
};

use super::{
    handshake::identity,
    rig::{Rig, START_MS, decode, user},
};
use crate::{
    io::{Answer, ConnId, Output, Query, Ticket, Transport},
    message::{Message, PresenceOf, ToEdge, ToHome},
    topology::ShardId,
};

/// Between two times that a user is told of.
pub(super) const PASS_MS: u64 = 250;

pub(super) fn watch(names: &[&str]) -> v1::Watch {
    v1::Watch {
        users: names.iter().map(|name| user(name).to_proto()).collect(),
    }
}

pub(super) fn states(frame: &frame::Frame) -> Vec<(UserId, i32, u64)> {
    assert_eq!(frame.kind, FrameKind::Presences);
    let presences = decode::<v1::Presences>(frame).presences;
    let mut states: Vec<_> = presences
        .iter()
        .map(|presence| {
            (
                UserId::from_slice(&presence.user).unwrap(),
                presence.state,
                presence.last_seen_ms,
            )
        })
        .collect();
    states.sort_unstable();
    states
}

pub(super) fn one(name: &str, state: State, last_seen_ms: u64) -> Vec<(UserId, i32, u64)> {
    vec![(user(name), state as i32, last_seen_ms)]
}

/// The read that the home asked for.
pub(super) fn load(rig: &mut Rig) -> (Ticket, Vec<UserId>) {
    let place = rig
        .outputs
        .iter()
        .position(|output| matches!(output, Output::Load { .. }))
        .expect("a read");
    match rig.outputs.remove(place) {
        Output::Load {
            ticket,
            query: Query::LastSeen { users },
            ..
        } => (ticket, users),
        other => panic!("{other:?}"),
    }
}

pub(super) fn loaded(rig: &mut Rig, ticket: Ticket, answer: Option<Vec<Option<u64>>>) {
    rig.edge
        .handle_loaded(rig.now, ticket, answer.map(Answer::LastSeen), &mut rig.fx);
    rig.settle();
}

pub(super) fn set(rig: &mut Rig, conn: ConnId, state: State) {
    rig.send(
        conn,
        FrameKind::SetPresence,
        7,
        &v1::SetPresence {
            state: state as i32,
        },
    );
    assert_eq!(rig.frame(conn).kind, FrameKind::Done);
}

#[test]
fn watchers_see_the_best_state_of_all_sessions_as_it_changes() {
    let mut rig = Rig::new();
    let (bob, ann) = (rig.connect("bob"), rig.connect("ann"));
    rig.send(bob, FrameKind::Watch, 2, &watch(&["ann"]));
    let frame = rig.frame(bob);
    assert_eq!(frame.request_id, RequestId(2));
    assert_eq!(states(&frame), one("ann", State::Online, 0));
    let ann_too = rig.connect("ann");
    assert!(rig.frames(bob).is_empty(), "no change, no word");
    set(&mut rig, ann, State::Away);
    assert!(rig.frames(bob).is_empty());
    set(&mut rig, ann_too, State::Away);
    let frame = rig.frame(bob);
    assert_eq!(
        (frame.request_id, states(&frame)),
        (RequestId::PUSH, one("ann", State::Away, 0))
    );
    set(&mut rig, ann, State::Online);
    rig.pass_ms(PASS_MS);
    assert_eq!(states(&rig.frame(bob)), one("ann", State::Online, 0));
    rig.close(ann);
    rig.pass_ms(PASS_MS);
    assert_eq!(states(&rig.frame(bob)), one("ann", State::Away, 0));
    rig.pass_ms(5_000 - 2 * PASS_MS);
    rig.close(ann_too);
    assert_eq!(
        states(&rig.frame(bob)),
        one("ann", State::Offline, START_MS + 5_000)
    );
    let seen = |output: &Output| matches!(output, Output::Seen { user: of, time_ms } if *of == user("ann") && *time_ms == START_MS + 5_000);
    assert!(rig.take_output(seen));
}

#[test]
fn when_an_unconnected_user_was_seen_is_read_once() {
    let mut rig = Rig::new();
    let (bob, eve) = (rig.connect("bob"), rig.connect("eve"));
    rig.send(bob, FrameKind::Watch, 2, &watch(&["ann", "eve", "max"]));
    let (ticket, users) = load(&mut rig);
    assert!(
        ticket.0 >> 63 == 1,
        "not to be taken for one of the owner's"
    );
    let mut expected = [user("ann"), user("max")];
    expected.sort_unstable();
    assert_eq!(users, expected);
    assert!(rig.frames(bob).is_empty());
    let seen = users
        .iter()
        .map(|of| (*of == user("ann")).then_some(1_234))
        .collect();
    loaded(&mut rig, ticket, Some(seen));
    let mut all = [
        one("ann", State::Offline, 1_234),
        one("eve", State::Online, 0),
        one("max", State::Offline, 0),
    ]
    .concat();
    all.sort_unstable();
    assert_eq!(states(&rig.frame(bob)), all);
    rig.send(bob, FrameKind::Watch, 3, &watch(&[]));
    assert!(states(&rig.frame(bob)).is_empty());
    rig.send(eve, FrameKind::Watch, 2, &watch(&["ann"]));
    assert_eq!(
        states(&rig.frame(eve)),
        one("ann", State::Offline, 1_234),
        "it is remembered"
    );
}

#[test]
fn a_read_that_fails_is_asked_again_next_time() {
    let mut rig = Rig::new();
    let bob = rig.connect("bob");
    rig.send(bob, FrameKind::Watch, 2, &watch(&["ann"]));
    let (ticket, _) = load(&mut rig);
    loaded(&mut rig, ticket, None);
    assert_eq!(states(&rig.frame(bob)), one("ann", State::Offline, 0));
    let again = |rig: &mut Rig, conn: ConnId, answer: Option<u64>| {
        rig.send(conn, FrameKind::Watch, 3, &watch(&["ann"]));
        let (ticket, users) = load(rig);
        assert_eq!(users, [user("ann")]);
        loaded(rig, ticket, answer.map(|seen_ms| vec![Some(seen_ms)]));
        assert_eq!(
            states(&rig.frame(conn)),
            one("ann", State::Offline, answer.unwrap_or(0))
        );
    };
    // Bob watches her all the while.
    let max = rig.connect("max");
    again(&mut rig, max, None);
    again(&mut rig, max, Some(5));
    rig.pass_ms(PASS_MS);
    rig.send(bob, FrameKind::Watch, 4, &watch(&["ann"]));
    assert_eq!(states(&rig.frame(bob)), one("ann", State::Offline, 5));
}

#[test]
fn what_could_not_be_read_is_learned_from_the_next_change() {
    let mut rig = Rig::new();
    let bob = rig.connect("bob");
    rig.send(bob, FrameKind::Watch, 2, &watch(&["ann"]));
    let (ticket, _) = load(&mut rig);
    loaded(&mut rig, ticket, None);
    rig.frames(bob);
    let ann = rig.accept(Transport::default());
    rig.send(ann, FrameKind::Hello, 1, &super::rig::hello());
    rig.authenticate(ann, Ok(identity("ann")));
    assert_eq!(states(&rig.frame(bob)), one("ann", State::Online, 0));
    rig.close(ann);
    rig.pass_ms(PASS_MS);
    assert_eq!(
        states(&rig.frame(bob)),
        one("ann", State::Offline, START_MS)
    );
    rig.send(bob, FrameKind::Watch, 3, &watch(&["ann"]));
    assert_eq!(
        states(&rig.frame(bob)),
        one("ann", State::Offline, START_MS)
    );
}

#[test]
fn a_change_during_the_read_is_in_the_answer() {
    let mut rig = Rig::new();
    let bob = rig.connect("bob");
    rig.send(bob, FrameKind::Watch, 2, &watch(&["ann"]));
    let (ticket, _) = load(&mut rig);
    rig.input(crate::io::Input::Opened {
        conn: ConnId {
            index: 50,
            generation: 1,
        },
        transport: Transport::default(),
    });
    let ann = ConnId {
        index: 50,
        generation: 1,
    };
    rig.send(ann, FrameKind::Hello, 1, &super::rig::hello());
    rig.authenticate(ann, Ok(identity("ann")));
    loaded(&mut rig, ticket, Some(vec![Some(9)]));
    let frames = rig.frames(bob);
    assert_eq!(states(frames.last().unwrap()), one("ann", State::Online, 0));
}

#[test]
fn a_list_is_replaced_and_forgotten_with_its_session() {
    let mut rig = Rig::new();
    let (bob, ann, eve) = (rig.connect("bob"), rig.connect("ann"), rig.connect("eve"));
    rig.send(bob, FrameKind::Watch, 2, &watch(&["ann"]));
    rig.send(bob, FrameKind::Watch, 3, &watch(&["eve"]));
    rig.frames(bob);
    set(&mut rig, ann, State::Away);
    assert!(rig.frames(bob).is_empty());
    set(&mut rig, eve, State::Away);
    assert_eq!(states(&rig.frame(bob)), one("eve", State::Away, 0));
    rig.close(bob);
    rig.outputs.clear();
    set(&mut rig, eve, State::Online);
    assert!(rig.outputs.is_empty());
}

#[test]
fn a_home_tells_edges_that_watch_and_only_them() {
    let mut rig = Rig::new();
    let (near, far) = (ShardId(3), ShardId(4));
    let told = |rig: &mut Rig, message: ToHome| {
        rig.edge.take_home(rig.now, message, &mut rig.fx);
        std::mem::take(&mut rig.fx.messages)
            .into_iter()
            .filter_map(|(shard, message)| match message {
                Message::ToEdge(ToEdge::Presence {
                    origin: None,
                    presences,
                }) => Some((shard, presences[0].state)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let report = |edge, state| ToHome::Report {
        edge,
        user: user("ann"),
        state,
        time_ms: 8,
    };
    let origin = crate::message::Origin {
        edge: near,
        conn: ConnId {
            index: 1,
            generation: 1,
        },
        request: RequestId(1),
        cost: 0,
    };
    assert!(told(&mut rig, report(far, State::Away)).is_empty());
    assert!(
        told(
            &mut rig,
            ToHome::Watch {
                origin,
                users: vec![user("ann")]
            }
        )
        .is_empty()
    );
    assert_eq!(
        told(&mut rig, report(near, State::Online)),
        [(near, State::Online)]
    );
    assert!(
        told(&mut rig, report(far, State::Offline)).is_empty(),
        "another edge has the user online"
    );
    assert_eq!(
        told(&mut rig, report(near, State::Offline)),
        [(near, State::Offline)]
    );
    assert!(
        told(
            &mut rig,
            ToHome::Unwatch {
                edge: near,
                users: vec![user("ann")]
            }
        )
        .is_empty()
    );
    assert!(told(&mut rig, report(near, State::Online)).is_empty());
}

#[test]
fn an_answer_from_several_homes_holds_what_was_told_last() {
    let mut rig = Rig::new();
    let bob = rig.connect("bob");
    rig.edge.topology.shards = 4;
    rig.edge.batches.resize_with(4, || None);
    let homes: Vec<ShardId> = ["ann", "eve", "max", "zoe"]
        .iter()
        .map(|name| rig.edge.topology.home_of(&user(name)))
        .collect();
    let watch = frame::encode(
        FrameKind::Watch,
        RequestId(2),
        &watch(&["ann", "eve", "max", "zoe"]),
    );
    rig.edge
        .receive(rig.now, bob, &watch, usize::MAX, &mut rig.fx)
        .expect("a frame");
    let asked: Vec<_> = std::mem::take(&mut rig.fx.messages)
        .into_iter()
        .map(|(shard, message)| match message {
            Message::ToHome(ToHome::Watch { origin, users }) => (shard, origin, users),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(
        asked.len() > 1 && asked.iter().all(|(shard, ..)| homes.contains(shard)),
        "{homes:?}"
    );
    let presence = |user: UserId, state| PresenceOf {
        user,
        state,
        last_seen_ms: Some(0),
    };
    for (_, origin, users) in &asked {
        assert!(
            rig.frames(bob)
                .iter()
                .all(|frame| frame.request_id == RequestId::PUSH)
        );
        let presences = users
            .iter()
            .map(|user| presence(*user, State::Online))
            .collect();
        rig.tell(ToEdge::Presence {
            origin: Some(*origin),
            presences,
        });
        if origin == &asked[0].1 && users == &asked[0].2 {
            rig.tell(ToEdge::Presence {
                origin: None,
                presences: vec![presence(users[0], State::Away)],
            });
        }
    }
    let frames = rig.frames(bob);
    let answer = frames
        .iter()
        .find(|frame| frame.request_id == RequestId(2))
        .expect("an answer");
    let first = asked[0].2[0];
    assert!(states(answer).iter().all(|(of, state, _)| *state
        == if *of == first {
            State::Away
        } else {
            State::Online
        } as i32));
    assert_eq!(states(answer).len(), 4);
}

#[test]
fn a_watcher_is_told_of_several_users_in_one_frame() {
    let mut rig = Rig::new();
    let (bob, max) = (rig.connect("bob"), rig.connect("max"));
    rig.connect("ann");
    rig.connect("eve");
    rig.send(bob, FrameKind::Watch, 2, &watch(&["ann", "eve"]));
    rig.send(max, FrameKind::Watch, 2, &watch(&["eve"]));
    rig.outputs.clear();
    let away = |name| PresenceOf {
        user: user(name),
        state: State::Away,
        last_seen_ms: Some(0),
    };
    // The first since long is told at once.
    rig.tell(ToEdge::Presence {
        origin: None,
        presences: vec![away("ann"), away("eve")],
    });
    let mut both = [one("ann", State::Away, 0), one("eve", State::Away, 0)].concat();
    both.sort_unstable();
    assert_eq!(states(&rig.frame(bob)), both);
    assert_eq!(states(&rig.frame(max)), one("eve", State::Away, 0));
}

#[test]
fn a_list_that_was_replaced_meanwhile_is_answered_as_its_homes_say() {
    let mut rig = Rig::new();
    let bob = rig.connect("bob");
    rig.edge.topology.shards = 4;
    rig.edge.batches.resize_with(4, || None);
    let names = ["ann", "eve", "max", "zoe"];
    for (request, names) in [(2, &names[..]), (3, &[])] {
        let frame = frame::encode(FrameKind::Watch, RequestId(request), &watch(names));
        let taken = rig
            .edge
            .receive(rig.now, bob, &frame, usize::MAX, &mut rig.fx);
        taken.expect("a frame");
    }
    let mut asked: Vec<_> = std::mem::take(&mut rig.fx.messages)
        .into_iter()
        .filter_map(|(_, message)| match message {
            Message::ToHome(ToHome::Watch { origin, users }) => Some((origin, users)),
            _ => None,
        })
        .collect();
    assert!(asked.len() > 1);
    // Once with greater ids first: the order in which homes answer is their own.
    asked.sort_by_key(|(_, users)| std::cmp::Reverse(users[0]));
    for (origin, users) in asked {
        let online = |user| PresenceOf {
            user,
            state: State::Online,
            last_seen_ms: Some(0),
        };
        rig.tell(ToEdge::Presence {
            origin: Some(origin),
            presences: users.into_iter().map(online).collect(),
        });
    }
    let frames = rig.frames(bob);
    let answer = frames
        .iter()
        .find(|frame| frame.request_id == RequestId(2))
        .expect("an answer");
    let mut expected = names.map(|name| one(name, State::Online, 0)).concat();
    expected.sort_unstable();
    assert_eq!(states(answer), expected);
}

#[test]
fn who_was_never_here_takes_no_place_among_those_who_were() {
    let mut rig = Rig::new();
    let bob = rig.connect("bob");
    for _ in 0..2 {
        rig.send(bob, FrameKind::Watch, 2, &watch(&["nobody"]));
        let (ticket, users) = load(&mut rig);
        assert_eq!(users, [user("nobody")]);
        loaded(&mut rig, ticket, Some(vec![None]));
        assert_eq!(states(&rig.frame(bob)), one("nobody", State::Offline, 0));
        rig.send(bob, FrameKind::Watch, 3, &watch(&[]));
        rig.frame(bob);
    }
}
