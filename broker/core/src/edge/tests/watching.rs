//! What watching others may take: requests, reads that wait, and memory for as long as it lasts.

use rialto_protocol::{error::ErrorCode, frame::FrameKind, v1, v1::PresenceState as State};

use super::{
    presence::{load, loaded, one, set, states},
    rig::{Rig, decode, error_of, user},
};
use crate::{config::CoreConfig, io::ConnId};

fn rig(shard_bytes_max: usize) -> Rig {
    Rig::with(CoreConfig {
        shard_bytes_max,
        ..CoreConfig::default()
    })
}

/// So many users of that name.
fn watch(rig: &mut Rig, conn: ConnId, name: &str, count: usize) {
    let users = (0..count).map(|number| user(&format!("{name} {number}")).to_proto());
    let watch = v1::Watch {
        users: users.collect(),
    };
    rig.send(conn, FrameKind::Watch, 2, &watch);
}

#[test]
fn watches_that_wait_for_a_read_have_a_bound_and_what_is_more_is_answered_without() {
    // A sixteenth of it: three reads of ten users.
    let mut rig = rig(48_000);
    let conns = ["ann", "bob", "eve", "max"].map(|name| rig.connect(name));
    let mut reads = Vec::new();
    for conn in &conns[..3] {
        watch(&mut rig, *conn, "user", 10);
        reads.push(load(&mut rig).0);
        assert!(rig.frames(*conn).is_empty());
    }
    watch(&mut rig, conns[3], "user", 10);
    assert_eq!(states(&rig.frame(conns[3])).len(), 10);
    assert_eq!(rig.shed("last_seen", "full"), 1);
    // A client that is gone holds its place until the read is done.
    rig.close(conns[0]);
    watch(&mut rig, conns[3], "user", 10);
    assert_eq!(rig.shed("last_seen", "full"), 2);
    rig.frame(conns[3]);
    loaded(&mut rig, reads[0], None);
    watch(&mut rig, conns[3], "user", 10);
    let (ticket, _) = load(&mut rig);
    loaded(&mut rig, ticket, Some(vec![Some(7); 10]));
    assert!(states(&rig.frame(conns[3])).iter().all(|seen| seen.2 == 7));
}

#[test]
fn lists_of_the_watched_have_a_bound_of_which_each_session_has_a_part() {
    // A quarter of it for lists: 20,000, of which a user whom nobody else watches takes 416.
    let mut rig = rig(80_000);
    let (ann, bob) = (rig.connect("ann"), rig.connect("bob"));
    watch(&mut rig, ann, "user", 24);
    let (ticket, _) = load(&mut rig);
    loaded(&mut rig, ticket, None);
    rig.frame(ann);
    watch(&mut rig, bob, "other", 24);
    let refusal = rig.frame(bob);
    assert_eq!(error_of(&refusal), (2, ErrorCode::Overloaded));
    assert!(decode::<v1::Error>(&refusal).retry_after_ms > 0);
    watch(&mut rig, bob, "other", 12);
    let (ticket, _) = load(&mut rig);
    loaded(&mut rig, ticket, Some(vec![Some(1); 12]));
    assert_eq!(states(&rig.frame(bob)).len(), 12);
    // Whom Ann watches already costs little, and less is always possible.
    watch(&mut rig, bob, "user", 24);
    let (ticket, _) = load(&mut rig);
    loaded(&mut rig, ticket, Some(vec![Some(1); 24]));
    assert_eq!(states(&rig.frame(bob)).len(), 24);
    watch(&mut rig, ann, "user", 23);
    assert_eq!(states(&rig.frame(ann)).len(), 23);
    rig.close(ann);
    watch(&mut rig, bob, "user", 0);
    assert!(states(&rig.frame(bob)).is_empty());
    rig.pass_ms(0);
    assert_eq!(rig.edge.presence.watched_bytes(), 0);
}

#[test]
fn a_watch_that_is_refused_leaves_the_list_as_it_is() {
    let mut rig = rig(80_000);
    let (ann, bob) = (rig.connect("ann"), rig.connect("user 0"));
    watch(&mut rig, ann, "user", 1);
    assert_eq!(states(&rig.frame(ann)), one("user 0", State::Online, 0));
    watch(&mut rig, ann, "user", 100);
    assert_eq!(rig.error(ann), (2, ErrorCode::Overloaded));
    set(&mut rig, bob, State::Away);
    assert_eq!(states(&rig.frame(ann)), one("user 0", State::Away, 0));
}
