//! Clients that let others go short and do not read.

use rialto_protocol::{error::ErrorCode, frame::FrameKind, v1};

use super::rig::{Rig, conversation};
use crate::{
    config::CoreConfig,
    io::{ConnId, Input, Output},
    message::ToOwner,
};

/// Of one connection: more than a share of a crowded shard, and less than twice of it.
const QUEUED: usize = 6_000;

/// A shard that four with so much queued fill to more than half.
fn small_shard() -> CoreConfig {
    CoreConfig {
        queue_bytes_max: 10_000,
        shard_bytes_max: 40_000,
        requests_per_s: 0,
        ..CoreConfig::default()
    }
}

/// Has a connection ask for so much and not read it.
fn queue(rig: &mut Rig, conn: ConnId) {
    let describe = v1::Describe {
        conversation: conversation(1).to_proto(),
    };
    rig.send(conn, FrameKind::Describe, 2, &describe);
    let ToOwner::Describe { origin, .. } = rig.ask() else {
        panic!("Describe")
    };
    let description = v1::Description {
        topic: "t".repeat(QUEUED),
        ..v1::Description::default()
    };
    rig.answer(origin, FrameKind::Description, &description);
    rig.flush();
}

fn take(rig: &mut Rig, conn: ConnId) {
    let bytes = rig.edge.conns.queued_bytes(conn).unwrap();
    rig.input(Input::Written { conn, bytes });
}

fn deaf(rig: &mut Rig, count: usize) -> Vec<ConnId> {
    let conns: Vec<_> = (0..count).map(|_| rig.connect("eve")).collect();
    for conn in &conns {
        take(rig, *conn);
        queue(rig, *conn);
    }
    conns
}

/// Time passes, and all of them ping every five seconds.
fn ping_for_s(rig: &mut Rig, conns: &[ConnId], seconds: u64) {
    for _ in 0..seconds / 5 {
        for conn in conns {
            rig.send(*conn, FrameKind::Ping, 3, &v1::Ping {});
        }
        rig.flush();
        rig.pass_ms(5_000);
    }
}

#[test]
fn who_pings_and_does_not_read_is_closed_while_others_go_short() {
    let mut rig = Rig::with(small_shard());
    let (quiet, steady) = (rig.connect("ann"), rig.connect("bob"));
    let deaf = deaf(&mut rig, 4);
    let all = [&deaf[..], &[quiet]].concat();
    take(&mut rig, steady);
    for _ in 0..8 {
        queue(&mut rig, steady);
        ping_for_s(&mut rig, &all, 5);
        take(&mut rig, steady);
        take(&mut rig, quiet);
        assert!(deaf.iter().all(|conn| !rig.was_closed(*conn)));
    }
    ping_for_s(&mut rig, &all, 5);
    for conn in deaf {
        assert!(rig.was_closed(conn));
        let (_, code) = super::rig::error_of(rig.frames(conn).last().unwrap());
        assert_eq!(code, ErrorCode::TooManyConnections);
    }
    assert_eq!(rig.shed("queue", "unread"), 4);
    assert!(!rig.was_closed(quiet) && !rig.was_closed(steady));
}

#[test]
fn as_long_as_there_is_room_nobody_has_to_read() {
    let mut rig = Rig::with(small_shard());
    let deaf = deaf(&mut rig, 3);
    ping_for_s(&mut rig, &deaf, 100);
    assert!(deaf.iter().all(|conn| !rig.was_closed(*conn)));
}

#[test]
fn very_many_who_do_not_read_are_closed_some_at_a_time() {
    let mut rig = Rig::with(CoreConfig {
        shard_bytes_max: 3_000_000,
        ..small_shard()
    });
    let deaf = deaf(&mut rig, 300);
    ping_for_s(&mut rig, &deaf, 40);
    let mut closed = Vec::new();
    for _ in 0..20_000 {
        rig.outputs.clear();
        rig.pass_ms(1);
        let closes = |output: &&Output| matches!(output, Output::Close { .. });
        closed.push(rig.outputs.iter().filter(closes).count());
    }
    closed.retain(|count| *count > 0);
    assert_eq!(closed, [128, 128, 44]);
    assert_eq!(rig.shed("queue", "unread"), 300);
}

#[test]
fn who_reads_after_he_was_found_not_to_is_not_closed() {
    let mut rig = Rig::with(CoreConfig {
        shard_bytes_max: 3_000_000,
        ..small_shard()
    });
    let deaf = deaf(&mut rig, 300);
    ping_for_s(&mut rig, &deaf, 40);
    rig.outputs.clear();
    while !rig.was_closed(deaf[0]) {
        rig.pass_ms(1);
    }
    // All were found in the same look, and the last are to be closed some milliseconds later.
    take(&mut rig, deaf[299]);
    rig.pass_ms(20_000);
    assert!(rig.was_closed(deaf[298]) && !rig.was_closed(deaf[299]));
    assert_eq!(rig.shed("queue", "unread"), 299);
}
