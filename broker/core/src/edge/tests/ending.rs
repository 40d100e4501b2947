//! Readers who may read no more.

use rialto_protocol::{
    error::ErrorCode,
    frame::{self, FrameKind},
    ids::{Cursor, Epoch, Seq},
};

use super::rig::{Log, Rig, ended, seqs, subscribe, user};
use crate::{
    io::Output,
    message::{ToEdge, ToOwner},
};

fn cursor(epoch: u64, seq: u64) -> Option<Cursor> {
    Some(Cursor {
        epoch: Epoch(epoch),
        seq: Seq(seq),
    })
}

/// Events of which the last ends a user's reading.
fn ending(mut batch: ToEdge, name: &str, code: ErrorCode) -> ToEdge {
    if let ToEdge::Deliver { ended, last, .. } = &mut batch {
        ended.push((user(name), *last, code));
    }
    batch
}

/// Events of which some end the reading of users, each that of the one who is named with it.
fn ending_at(mut batch: ToEdge, who: &[(&str, u64)]) -> ToEdge {
    if let ToEdge::Deliver { ended, .. } = &mut batch {
        let of = |(name, seq): &(&str, u64)| (user(name), Seq(*seq), ErrorCode::NotAMember);
        ended.extend(who.iter().map(of));
    }
    batch
}

#[test]
fn a_removed_reader_gets_the_removal_and_nothing_after_it() {
    let mut rig = Rig::new();
    let (ann, bob) = (rig.connect("ann"), rig.connect("bob"));
    let mut log = Log::new(1, 3);
    rig.follow(ann, &mut log, None);
    rig.follow(bob, &mut log, None);
    let batch = ending(log.append(2, 5), "bob", ErrorCode::NotAMember);
    rig.tell(batch);
    assert_eq!(seqs(&rig.frames(ann)), [4, 5]);
    let frames = rig.frames(bob);
    assert_eq!(seqs(&frames), [4, 5]);
    assert_eq!(ended(&frames), Some(ErrorCode::NotAMember));
    let batch = log.append(1, 5);
    rig.tell(batch);
    assert!(rig.frames(bob).is_empty());
    assert_eq!(seqs(&rig.frames(ann)), [6]);
}

#[test]
fn those_who_leave_together_get_a_frame_each_up_to_their_own_end_and_the_others_share_one() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 3);
    let stay: Vec<_> = (0..20).map(|_| rig.connect("ann")).collect();
    let names = ["bob", "carl", "dora", "eve"];
    let leave: Vec<_> = names.iter().map(|name| rig.connect(name)).collect();
    let again = rig.connect("bob");
    for conn in stay.iter().chain(&leave).chain([&again]) {
        rig.follow(*conn, &mut log, None);
    }
    // Their lengths take one byte and two.
    let small = log.append(2, 0);
    let ToEdge::Deliver { first, .. } = small else {
        panic!("Deliver")
    };
    let large = log.append(3, 300);
    let ToEdge::Deliver { last, .. } = large else {
        panic!("Deliver")
    };
    let events = &log.events[3..];
    let mut batch = ToEdge::missed(log.conversation, last);
    if let ToEdge::Deliver {
        first: from, frame, ..
    } = &mut batch
    {
        (*from, *frame) = (first, frame::deliver(log.handle, events.iter()));
    }
    // Carl has come back in between and is put out again.
    let who = [
        ("bob", 4),
        ("carl", 5),
        ("dora", 7),
        ("carl", 7),
        ("eve", 8),
    ];
    rig.tell(ending_at(batch, &who));
    assert_eq!(
        rig.outputs.len(),
        20 + 2 * 5,
        "each gets one frame, and who leaves the end of it, whoever else does"
    );
    for (conn, last) in leave.iter().zip([4, 5, 7, 8]).chain([(&again, 4)]) {
        let frames = rig.frames(*conn);
        assert_eq!(ended(&frames), Some(ErrorCode::NotAMember));
        let count = usize::try_from(last).unwrap() - 3;
        let own = frame::deliver(log.handle, events[..count].iter());
        assert_eq!(frames[0].body, own[frame::HEADER_BYTES..], "up to {last}");
        assert_eq!(seqs(&frames), (4..=last).collect::<Vec<_>>());
    }
    let shared = |output: &Output| matches!(output, Output::Send { frame, .. } if *frame == frame::deliver(log.handle, events.iter()));
    assert!(rig.outputs.len() == 20 && rig.outputs.iter().all(shared));
    assert_eq!(rig.fx.counters.events_delivered, 20 * 5 + 1 + 1 + 2 + 4 + 5);
    assert_eq!(rig.edge.subs.len(), 20);
}

#[test]
fn who_leaves_with_events_that_were_left_out_on_the_way_gets_none_of_them() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 3);
    let (ann, bob) = (rig.connect("ann"), rig.connect("bob"));
    rig.follow(ann, &mut log, None);
    rig.follow(bob, &mut log, None);
    log.append(4, 5);
    let left_out = ToEdge::missed(log.conversation, Seq(7));
    rig.tell(ending_at(left_out, &[("bob", 5)]));
    let frames = rig.frames(bob);
    assert_eq!((frames.len(), seqs(&frames)), (1, vec![]));
    assert_eq!(ended(&frames), Some(ErrorCode::NotAMember));
    let read = rig.ask();
    rig.tell(log.answer(read).unwrap());
    assert_eq!(seqs(&rig.frames(ann)), [4, 5, 6, 7]);
}

#[test]
fn a_removed_reader_who_is_the_only_one_detaches_the_edge() {
    let mut rig = Rig::new();
    let bob = rig.connect("bob");
    let mut log = Log::new(1, 3);
    rig.follow(bob, &mut log, None);
    let batch = ending(log.append(1, 5), "bob", ErrorCode::Banned);
    rig.tell(batch);
    let frames = rig.frames(bob);
    assert_eq!(
        (seqs(&frames), ended(&frames)),
        (vec![4], Some(ErrorCode::Banned))
    );
    assert!(matches!(rig.ask(), ToOwner::Detach { .. }));
    assert_eq!(rig.edge.topics.len(), 0);
}

#[test]
fn a_removed_reader_who_is_behind_or_not_yet_answered_is_ended_too() {
    let mut rig = Rig::new();
    let (behind, waiting) = (rig.connect("bob"), rig.connect("bob"));
    let (mut log, mut other) = (Log::new(1, 3), Log::new(2, 1));
    rig.follow(behind, &mut log, cursor(3, 1));
    let read = rig.ask();
    rig.send(
        waiting,
        FrameKind::Subscribe,
        2,
        &subscribe(&[(log.conversation, None), (other.conversation, None)]),
    );
    let (first_ask, second_ask) = (rig.ask(), rig.ask());
    rig.tell(log.answer(first_ask).unwrap());
    let batch = ending(log.append(1, 5), "bob", ErrorCode::Banned);
    rig.tell(batch);
    assert_eq!(ended(&rig.frames(behind)), Some(ErrorCode::Banned));
    rig.tell(log.answer(read).unwrap());
    assert!(
        rig.frames(behind).is_empty(),
        "a read that was under way is not passed on"
    );
    assert!(rig.frames(waiting).is_empty());
    rig.tell(other.answer(second_ask).unwrap());
    let frames = rig.frames(waiting);
    assert_eq!(frames[0].kind, FrameKind::Subscribed);
    assert_eq!(
        (ended(&frames), seqs(&frames)),
        (Some(ErrorCode::Banned), vec![])
    );
    assert!(matches!(rig.ask(), ToOwner::Detach { .. }));
}
