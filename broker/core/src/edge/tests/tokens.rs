//! Access tokens of open sessions: their end, and new ones.

use std::num::NonZeroU64;

use rialto_protocol::{error::ErrorCode, frame::FrameKind, v1};

use super::{
    handshake::identity,
    rig::{Rig, START_MS, TOKEN_ENDS_MS, decode, hello},
};
use crate::io::{ConnId, Identity, KeyTag, Output, Transport};

/// A session of Ann's whose token ends after ten seconds.
fn briefly_connected(rig: &mut Rig) -> ConnId {
    let conn = rig.accept(Transport::default());
    rig.send(conn, FrameKind::Hello, 1, &hello());
    rig.authenticate(
        conn,
        Ok(Identity {
            expires_ms: START_MS + 10_000,
            ..identity("ann")
        }),
    );
    rig.outputs.clear();
    conn
}

fn refresh(rig: &mut Rig, conn: ConnId, request: u32) {
    let token = "new".into();
    rig.send(conn, FrameKind::Refresh, request, &v1::Refresh { token });
}

#[test]
fn an_expired_token_closes_after_its_grace() {
    let mut rig = Rig::new();
    let conn = rig.accept(Transport::default());
    rig.send(conn, FrameKind::Hello, 1, &hello());
    rig.authenticate(
        conn,
        Ok(Identity {
            expires_ms: START_MS + 10_000,
            ..identity("ann")
        }),
    );
    rig.frames(conn);
    rig.pass_ms(69_999);
    assert!(!rig.was_closed(conn));
    rig.pass_ms(1);
    assert_eq!(rig.error(conn), (0, ErrorCode::TokenExpired));
    assert!(rig.was_closed(conn));
}

#[test]
fn a_refresh_keeps_the_session_past_its_first_token() {
    let mut rig = Rig::new();
    let conn = rig.accept(Transport::default());
    rig.send(conn, FrameKind::Hello, 1, &hello());
    rig.authenticate(
        conn,
        Ok(Identity {
            expires_ms: START_MS + 10_000,
            ..identity("ann")
        }),
    );
    rig.outputs.clear();
    rig.send(
        conn,
        FrameKind::Refresh,
        2,
        &v1::Refresh {
            token: "new".into(),
        },
    );
    rig.send(
        conn,
        FrameKind::Refresh,
        3,
        &v1::Refresh {
            token: "newer".into(),
        },
    );
    assert!(rig.take_output(
        |output| matches!(output, Output::Authenticate { token, .. } if token == "new")
    ));
    assert!(
        !rig.take_output(|output| matches!(output, Output::Authenticate { .. })),
        "one at a time"
    );
    rig.authenticate(conn, Ok(identity("ann")));
    let frame = rig.frame(conn);
    assert_eq!((frame.kind, frame.request_id.0), (FrameKind::Refreshed, 2));
    assert_eq!(
        decode::<v1::Refreshed>(&frame).token_expires_ms,
        TOKEN_ENDS_MS
    );
    assert!(rig.take_output(
        |output| matches!(output, Output::Authenticate { token, .. } if token == "newer")
    ));
    rig.authenticate(conn, Ok(identity("ann")));
    assert_eq!(rig.frame(conn).request_id.0, 3);
    rig.pass_ms(80_000);
    assert!(!rig.was_closed(conn));
    assert_eq!(rig.edge.conns.get(conn).unwrap().in_flight_bytes, 0);
}

#[test]
fn a_failed_refresh_is_an_answer_and_nothing_more() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    rig.send(
        conn,
        FrameKind::Refresh,
        2,
        &v1::Refresh {
            token: "bad".into(),
        },
    );
    rig.authenticate(conn, Err(ErrorCode::TokenExpired));
    assert_eq!(rig.error(conn), (2, ErrorCode::TokenExpired));
    rig.send(
        conn,
        FrameKind::Refresh,
        3,
        &v1::Refresh {
            token: "of bob".into(),
        },
    );
    rig.authenticate(conn, Ok(identity("bob")));
    assert_eq!(rig.error(conn), (3, ErrorCode::TokenOfAnotherUser));
    rig.send(
        conn,
        FrameKind::Refresh,
        4,
        &v1::Refresh {
            token: String::new(),
        },
    );
    assert_eq!(rig.error(conn), (4, ErrorCode::TokenMalformed));
    rig.send(conn, FrameKind::Ping, 5, &v1::Ping {});
    assert_eq!(rig.frame(conn).kind, FrameKind::Pong);
    assert!(!rig.was_closed(conn));
}

#[test]
fn a_refresh_that_came_in_time_keeps_the_session_for_a_little_longer_only() {
    let mut rig = Rig::new();
    let conn = briefly_connected(&mut rig);
    rig.pass_ms(69_999);
    for request in 2..5 {
        refresh(&mut rig, conn, request);
    }
    rig.pass_ms(10_000);
    assert!(!rig.was_closed(conn));
    rig.pass_ms(1);
    assert!(rig.was_closed(conn));
}

#[test]
fn a_refresh_that_came_in_time_may_be_answered_after_it() {
    let mut rig = Rig::new();
    let conn = briefly_connected(&mut rig);
    rig.pass_ms(69_999);
    refresh(&mut rig, conn, 2);
    rig.pass_ms(9_000);
    rig.authenticate(conn, Ok(identity("ann")));
    rig.pass_ms(60_000);
    assert!(!rig.was_closed(conn));
}

#[test]
fn refreshes_that_come_too_late_do_not_keep_a_session() {
    let mut rig = Rig::new();
    let conn = briefly_connected(&mut rig);
    rig.pass_ms(69_999);
    refresh(&mut rig, conn, 2);
    rig.pass_ms(1);
    refresh(&mut rig, conn, 3);
    assert!(!rig.was_closed(conn));
    rig.authenticate(conn, Err(ErrorCode::TokenMalformed));
    rig.pass_ms(1);
    assert!(rig.was_closed(conn));
}

#[test]
fn sessions_whose_tokens_end_in_the_same_second_end_some_at_a_time() {
    let mut rig = Rig::new();
    let conns: Vec<_> = (0..300).map(|_| briefly_connected(&mut rig)).collect();
    let others: Vec<_> = (0..3_000)
        .map(|_| rig.accept(Transport::default()))
        .collect();
    let closed = |rig: &mut Rig| {
        let closed = |output: &&Output| matches!(output, Output::Close { .. });
        let count = rig.outputs.iter().filter(closed).count();
        rig.outputs.clear();
        count
    };
    rig.pass_ms(4_999);
    for conn in others {
        rig.close(conn);
    }
    // Entries of those that are gone are looked at as well, and end nobody.
    rig.pass_ms(65_000);
    assert_eq!(closed(&mut rig), 0);
    for (wait_ms, count) in [(1, 128), (2, 0), (1, 128), (3, 44), (1_000, 0)] {
        rig.pass_ms(wait_ms);
        assert_eq!(closed(&mut rig), count, "after {wait_ms} ms");
    }
    assert!(
        conns
            .iter()
            .all(|conn| rig.edge.conns.open(*conn).is_none())
    );
}

/// A token of that key.
fn signed_with(key: u64) -> Identity {
    Identity {
        key: NonZeroU64::new(key).map(KeyTag),
        ..identity("ann")
    }
}

fn connected_with(rig: &mut Rig, key: u64) -> ConnId {
    let conn = rig.accept(Transport::default());
    rig.send(conn, FrameKind::Hello, 1, &hello());
    rig.authenticate(conn, Ok(signed_with(key)));
    rig.outputs.clear();
    conn
}

#[test]
fn sessions_of_a_withdrawn_key_end_one_after_the_other_and_others_stay() {
    let mut rig = Rig::new();
    let withdrawn: Vec<_> = (0..10).map(|_| connected_with(&mut rig, 1)).collect();
    let renewed = connected_with(&mut rig, 1);
    let others = [connected_with(&mut rig, 2), connected_with(&mut rig, 0)];
    refresh(&mut rig, renewed, 2);
    rig.edge.withdraw(rig.now, |key| key.0.get() != 1);
    rig.authenticate(renewed, Ok(signed_with(2)));
    rig.outputs.clear();
    for conn in &withdrawn {
        rig.pass_ms(0);
        assert_eq!(rig.error(*conn), (0, ErrorCode::TokenExpired));
        assert!(rig.was_closed(*conn) && rig.outputs.is_empty());
        rig.pass_ms(1);
    }
    rig.pass_ms(10_000);
    assert!(!rig.was_closed(renewed) && others.iter().all(|conn| !rig.was_closed(*conn)));
}
