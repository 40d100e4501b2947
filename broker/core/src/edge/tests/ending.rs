//! Readers who may read no more.

use rialto_protocol::{
    error::ErrorCode,
    frame::FrameKind,
    ids::{Cursor, Epoch, Seq},
};

use super::rig::{Log, Rig, ended, seqs, subscribe, user};
use crate::message::{ToEdge, ToOwner};

fn cursor(epoch: u64, seq: u64) -> Option<Cursor> {
    Some(Cursor {
        epoch: Epoch(epoch),
        seq: Seq(seq),
    })
}

/// Events of which the last ends a user's reading.
fn ending(mut batch: ToEdge, name: &str, code: ErrorCode) -> ToEdge {
    if let ToEdge::Deliver { ended, .. } = &mut batch {
        ended.push((user(name), code));
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
