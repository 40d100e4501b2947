//! Access tokens of open sessions: their end, and new ones.

use rialto_protocol::{error::ErrorCode, frame::FrameKind, v1};

use super::{
    handshake::identity,
    rig::{Rig, START_MS, TOKEN_ENDS_MS, decode, hello},
};
use crate::io::{Identity, Output, Transport};

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
