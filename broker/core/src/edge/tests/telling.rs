//! How often watchers are told, and how many at once.

use rialto_protocol::{frame::FrameKind, v1::PresenceState as State};

use super::{
    presence::{PASS_MS, load, loaded, one, set, states, watch},
    rig::Rig,
};
use crate::io::{ConnId, Via};

/// Watchers of Ann's, each once.
fn crowd(rig: &mut Rig, count: usize) -> Vec<ConnId> {
    let crowd: Vec<ConnId> = (0..count)
        .map(|number| rig.connect(&format!("watcher {number}")))
        .collect();
    for conn in &crowd {
        rig.send(*conn, FrameKind::Watch, 2, &watch(&["ann"]));
        assert_eq!(states(&rig.frame(*conn)), one("ann", State::Online, 0));
    }
    crowd
}

#[test]
fn who_comes_and_goes_without_end_is_told_of_now_and_then() {
    let mut rig = Rig::new();
    let ann = rig.connect("ann");
    let crowd = crowd(&mut rig, 100);
    for _ in 0..100 {
        set(&mut rig, ann, State::Away);
        set(&mut rig, ann, State::Online);
    }
    set(&mut rig, ann, State::Away);
    set(&mut rig, ann, State::Online);
    rig.pass_ms(PASS_MS - 1);
    for conn in &crowd {
        let frames = rig.frames_via(*conn);
        assert_eq!(frames.len(), 1);
        let (frame, via) = &frames[0];
        assert_eq!(states(frame), one("ann", State::Away, 0));
        assert_eq!(*via, Via::Crowd, "others go first");
    }
    rig.pass_ms(1);
    for conn in &crowd {
        assert_eq!(states(&rig.frame(*conn)), one("ann", State::Online, 0));
    }
    rig.pass_ms(10 * PASS_MS);
    assert!(rig.outputs.is_empty() && rig.edge.presence.telling.due_us().is_none());
}

#[test]
fn a_user_who_is_again_as_his_watchers_know_him_is_not_told_of() {
    let mut rig = Rig::new();
    let (ann, bob) = (rig.connect("ann"), rig.connect("bob"));
    rig.send(bob, FrameKind::Watch, 2, &watch(&["ann"]));
    set(&mut rig, ann, State::Away);
    rig.frames(bob);
    set(&mut rig, ann, State::Online);
    set(&mut rig, ann, State::Away);
    rig.pass_ms(PASS_MS);
    assert!(rig.frames(bob).is_empty());
}

#[test]
fn who_begins_to_watch_between_two_changes_learns_of_the_second() {
    let mut rig = Rig::new();
    let (ann, bob, max) = (rig.connect("ann"), rig.connect("bob"), rig.connect("max"));
    rig.send(bob, FrameKind::Watch, 2, &watch(&["ann"]));
    set(&mut rig, ann, State::Away);
    rig.frames(bob);
    set(&mut rig, ann, State::Online);
    rig.send(max, FrameKind::Watch, 2, &watch(&["ann"]));
    assert_eq!(states(&rig.frame(max)), one("ann", State::Online, 0));
    set(&mut rig, ann, State::Away);
    rig.pass_ms(PASS_MS);
    assert_eq!(states(&rig.frame(max)), one("ann", State::Away, 0));
}

#[test]
fn an_answer_to_one_does_not_pass_for_a_word_to_all() {
    let mut rig = Rig::new();
    let names = ["zoe", "bob", "max", "eve"];
    let [zoe, bob, max, eve] = names.map(|name| rig.connect(name));
    rig.send(bob, FrameKind::Watch, 2, &watch(&["ann", "zoe"]));
    let (first, _) = load(&mut rig);
    rig.send(max, FrameKind::Watch, 2, &watch(&["ann"]));
    let (second, _) = load(&mut rig);
    loaded(&mut rig, first, Some(vec![Some(5)]));
    // The pass begins with her, so that Ann waits for the next.
    set(&mut rig, zoe, State::Away);
    rig.frames(bob);
    rig.connect("ann");
    rig.send(eve, FrameKind::Watch, 2, &watch(&["ann"]));
    assert_eq!(states(&rig.frame(eve)), one("ann", State::Online, 0));
    loaded(&mut rig, second, Some(vec![Some(5)]));
    assert_eq!(states(&rig.frame(max)), one("ann", State::Online, 0));
    rig.pass_ms(PASS_MS);
    assert_eq!(states(&rig.frame(bob)), one("ann", State::Online, 0));
}

#[test]
fn changes_within_a_pass_come_in_one_frame() {
    let mut rig = Rig::new();
    let (ann, eve, zoe) = (rig.connect("ann"), rig.connect("eve"), rig.connect("zoe"));
    let bob = rig.connect("bob");
    rig.send(bob, FrameKind::Watch, 2, &watch(&["ann", "eve", "zoe"]));
    set(&mut rig, zoe, State::Away);
    rig.frames(bob);
    set(&mut rig, ann, State::Away);
    set(&mut rig, eve, State::Away);
    rig.pass_ms(PASS_MS);
    let mut both = [one("ann", State::Away, 0), one("eve", State::Away, 0)].concat();
    both.sort_unstable();
    assert_eq!(states(&rig.frame(bob)), both);
}

#[test]
fn the_more_is_told_the_later_is_the_next() {
    const WATCHERS: usize = 10_000;
    let mut rig = Rig::new();
    let ann = rig.connect("ann");
    let crowd = crowd(&mut rig, WATCHERS);
    let told_us = rig.now.mono_us;
    set(&mut rig, ann, State::Away);
    for conn in [crowd[0], crowd[WATCHERS - 1]] {
        assert_eq!(rig.frames(conn).len(), 1);
    }
    set(&mut rig, ann, State::Online);
    let due_us = rig.edge.presence.telling.due_us();
    assert_eq!(due_us, Some(told_us + WATCHERS as u64 * 41));
}

#[test]
fn a_pass_is_told_a_part_at_a_time() {
    let mut rig = Rig::new();
    let users: Vec<String> = (0..1_000).map(|number| format!("user {number}")).collect();
    let sessions: Vec<ConnId> = users.iter().map(|name| rig.connect(name)).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    let watchers: Vec<ConnId> = (0..10).map(|_| rig.connect("bob")).collect();
    for conn in &watchers {
        rig.send(*conn, FrameKind::Watch, 2, &watch(&names));
        rig.frames(*conn);
    }
    let told = |rig: &mut Rig| {
        let frames = rig.frames(watchers[0]).into_iter();
        frames.map(|frame| states(&frame).len()).collect::<Vec<_>>()
    };
    for conn in &sessions {
        set(&mut rig, *conn, State::Away);
    }
    assert_eq!(told(&mut rig), [1]);
    rig.pass_ms(PASS_MS);
    assert_eq!(told(&mut rig), [409], "ten times 409 are 4,090");
    // Ten frames and 4,090 presences.
    rig.pass_ms(4);
    assert!(told(&mut rig).is_empty());
    rig.pass_ms(1);
    assert_eq!(told(&mut rig), [409]);
    // Who was told of in this pass waits for the next.
    set(&mut rig, sessions[1], State::Online);
    rig.pass_ms(PASS_MS - 6);
    assert_eq!(told(&mut rig), [181]);
    rig.pass_ms(1);
    assert_eq!(told(&mut rig), [1]);
}

#[test]
fn those_who_need_no_telling_any_more_are_passed_over_a_part_at_a_time() {
    const USERS: usize = 5_000;
    let mut rig = Rig::new();
    let users: Vec<String> = (0..USERS).map(|number| format!("user {number}")).collect();
    let sessions: Vec<ConnId> = users.iter().map(|name| rig.connect(name)).collect();
    for names in users.chunks(1_000) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let bob = rig.connect("bob");
        rig.send(bob, FrameKind::Watch, 2, &watch(&names));
        rig.frames(bob);
    }
    // The first is told of at once; the others are as they were before it is their turn.
    for state in [State::Away, State::Online] {
        for conn in &sessions {
            set(&mut rig, *conn, state);
        }
    }
    rig.pass_ms(PASS_MS - 1);
    rig.now.mono_us += 1_000;
    let mut left = Vec::new();
    for _ in 0..2 {
        rig.edge.handle_tick(rig.now, &mut rig.fx);
        left.push(rig.edge.presence.telling.due_us().is_some());
        rig.now.mono_us += 5_000;
    }
    assert_eq!(left, [true, false]);
}
