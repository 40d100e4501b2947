//! From the accepted connection to the open session, and its token and time.

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    frame::{self, Flags, Frame, FrameKind},
    ids::{DeviceId, RequestId, UserId},
    limits, v1,
};

use super::rig::{Rig, START_MS, TOKEN_ENDS_MS, decode, error_of, hello, user};
use crate::{
    edge::session::{Session, SubRef},
    edge::subscription::Sub,
    io::{Identity, Input, Output, Transport},
};

pub(super) fn identity(name: &str) -> Identity {
    Identity {
        user: user(name),
        expires_ms: TOKEN_ENDS_MS,
        service: false,
        key: None,
    }
}

#[test]
fn hello_is_verified_and_welcomed_with_what_both_sides_can_do() {
    let mut rig = Rig::new();
    let conn = rig.accept(Transport {
        catch_up_streams: true,
        datagrams: false,
        ..Transport::default()
    });
    assert_eq!(
        rig.edge.frame_bytes_max(conn),
        limits::FRAME_BYTES_MAX_UNAUTHENTICATED
    );
    let all = [
        v1::Capability::Zstd,
        v1::Capability::CatchUpStreams,
        v1::Capability::SignalDatagrams,
    ];
    let capabilities = all
        .iter()
        .map(|capability| *capability as i32)
        .chain([99])
        .collect();
    rig.send(
        conn,
        FrameKind::Hello,
        5,
        &v1::Hello {
            capabilities,
            ..hello()
        },
    );
    assert!(rig.take_output(
        |output| matches!(output, Output::Authenticate { token, .. } if token == "token")
    ));
    rig.authenticate(conn, Ok(identity("ann")));
    let frame = rig.frame(conn);
    assert_eq!(
        (frame.kind, frame.request_id),
        (FrameKind::Welcome, RequestId(5))
    );
    let welcome: v1::Welcome = decode(&frame);
    assert_eq!(UserId::from_slice(&welcome.user).unwrap(), user("ann"));
    assert_eq!(
        welcome.capabilities,
        [
            v1::Capability::Zstd as i32,
            v1::Capability::CatchUpStreams as i32
        ]
    );
    assert_eq!(
        (welcome.server_time_ms, welcome.token_expires_ms),
        (START_MS, TOKEN_ENDS_MS)
    );
    assert_eq!(welcome.limits.unwrap().publish_per_s, 10);
    assert_eq!(
        rig.edge.frame_bytes_max(conn),
        limits::FRAME_BYTES_MAX_DEFAULT
    );
}

#[test]
fn sessions_have_different_names() {
    let mut rig = Rig::new();
    let mut names = Vec::new();
    for _ in 0..2 {
        let conn = rig.accept(Transport::default());
        rig.send(conn, FrameKind::Hello, 1, &hello());
        rig.authenticate(conn, Ok(identity("ann")));
        names.push(decode::<v1::Welcome>(&rig.frame(conn)).session);
    }
    assert_ne!(names[0], names[1]);
}

#[test]
fn anything_before_hello_closes() {
    let mut rig = Rig::new();
    for (kind, code) in [
        (FrameKind::Ping, ErrorCode::NotAuthenticated),
        (FrameKind::Publish, ErrorCode::NotAuthenticated),
        (FrameKind::Welcome, ErrorCode::UnexpectedKind),
    ] {
        let conn = rig.accept(Transport::default());
        rig.send_raw(conn, kind, 1, &[]);
        assert_eq!(rig.error(conn), (0, code));
        assert!(rig.was_closed(conn));
        rig.send(conn, FrameKind::Hello, 1, &hello());
        assert!(
            rig.outputs.is_empty(),
            "a connection that closes is not listened to"
        );
    }
}

#[test]
fn a_hello_with_a_bad_form_is_refused_and_another_may_follow_where_that_can_help() {
    let cases = [
        (
            v1::Hello {
                device: Bytes::from_static(&[1; 15]),
                ..hello()
            },
            ErrorCode::DeviceInvalid,
            false,
        ),
        (
            v1::Hello {
                device: Bytes::from_static(&[0; 16]),
                ..hello()
            },
            ErrorCode::DeviceInvalid,
            false,
        ),
        (
            v1::Hello {
                sdk: "x".repeat(limits::SDK_BYTES_MAX + 1),
                ..hello()
            },
            ErrorCode::InvalidField,
            false,
        ),
        (
            v1::Hello {
                token: String::new(),
                ..hello()
            },
            ErrorCode::TokenMalformed,
            true,
        ),
        (
            v1::Hello {
                token: "x".repeat(limits::TOKEN_BYTES_MAX + 1),
                ..hello()
            },
            ErrorCode::TokenMalformed,
            true,
        ),
    ];
    for (hello, code, closes) in cases {
        let mut rig = Rig::new();
        let conn = rig.accept(Transport::default());
        rig.send(conn, FrameKind::Hello, 4, &hello);
        assert_eq!(rig.error(conn), (4, code));
        assert_eq!(rig.was_closed(conn), closes);
        if !closes {
            rig.send(conn, FrameKind::Hello, 5, &super::rig::hello());
            assert!(matches!(rig.outputs[..], [Output::Authenticate { .. }]));
        }
    }
}

#[test]
fn a_hello_that_cannot_be_read_closes() {
    let mut rig = Rig::new();
    let conn = rig.accept(Transport::default());
    rig.send_raw(conn, FrameKind::Hello, 1, &[0xff]);
    assert_eq!(rig.error(conn), (0, ErrorCode::MalformedBody));
    assert!(rig.was_closed(conn));
    let conn = rig.accept(Transport::default());
    rig.send(conn, FrameKind::Hello, 0, &hello());
    assert_eq!(rig.error(conn), (0, ErrorCode::RequestIdMissing));
    assert!(rig.was_closed(conn));
    let conn = rig.accept(Transport::default());
    rig.input(Input::Broken {
        conn,
        code: ErrorCode::FrameTooLarge,
    });
    assert_eq!(rig.error(conn), (0, ErrorCode::FrameTooLarge));
    assert!(rig.was_closed(conn));
}

#[test]
fn a_refused_token_answers_hello_and_closes() {
    let mut rig = Rig::new();
    let conn = rig.accept(Transport::default());
    rig.send(conn, FrameKind::Hello, 3, &hello());
    rig.authenticate(conn, Err(ErrorCode::TokenSignatureInvalid));
    assert_eq!(rig.error(conn), (3, ErrorCode::TokenSignatureInvalid));
    assert!(rig.was_closed(conn));
}

#[test]
fn nobody_is_the_system() {
    let mut rig = Rig::new();
    let conn = rig.accept(Transport::default());
    rig.send(conn, FrameKind::Hello, 3, &hello());
    rig.authenticate(
        conn,
        Ok(Identity {
            user: UserId::SYSTEM,
            ..identity("ann")
        }),
    );
    assert_eq!(rig.error(conn), (3, ErrorCode::TokenClaimsRefused));
}

#[test]
fn frames_sent_behind_hello_are_kept_in_order() {
    let mut rig = Rig::new();
    let conn = rig.accept(Transport::default());
    rig.send(conn, FrameKind::Hello, 1, &hello());
    for request in 2..5 {
        rig.send(conn, FrameKind::Ping, request, &v1::Ping {});
    }
    assert!(rig.frames(conn).is_empty());
    rig.authenticate(conn, Ok(identity("ann")));
    let requests: Vec<u32> = rig
        .frames(conn)
        .iter()
        .map(|frame| frame.request_id.0)
        .collect();
    assert_eq!(requests, [1, 2, 3, 4]);
    assert_eq!(rig.edge.conns.get(conn).unwrap().in_flight_bytes, 0);
}

#[test]
fn little_is_kept_while_the_token_is_verified() {
    let mut rig = Rig::new();
    let conn = rig.accept(Transport::default());
    rig.send(conn, FrameKind::Hello, 1, &hello());
    let mut frames = 0;
    while rig.edge.may_read(conn) {
        rig.send_raw(conn, FrameKind::Ping, 2, &[0; 1_000]);
        frames += 1;
    }
    assert!((10..20).contains(&frames), "{frames} frames of 1 KB");
    rig.authenticate(conn, Err(ErrorCode::TokenExpired));
    assert!(rig.was_closed(conn) && !rig.was_resumed(conn));
}

#[test]
fn few_small_frames_are_kept_while_the_token_is_verified() {
    let mut rig = Rig::new();
    let conn = rig.accept(Transport::default());
    rig.send(conn, FrameKind::Hello, 1, &hello());
    let mut frames = 0;
    while rig.edge.may_read(conn) {
        rig.send_raw(conn, FrameKind::Ping, 2, &[]);
        frames += 1;
    }
    let bytes_max = 4 * limits::FRAME_BYTES_MAX_UNAUTHENTICATED;
    assert!(
        frames * (size_of::<Frame>() + frame::HEADER_BYTES) < bytes_max + 100,
        "{frames} frames"
    );
    rig.authenticate(conn, Ok(identity("ann")));
    assert_eq!(rig.edge.conns.get(conn).unwrap().in_flight_bytes, 0);
    assert!(rig.was_resumed(conn));
}

#[test]
fn a_session_reads_on_when_what_was_parked_is_dealt_with() {
    let mut rig = Rig::new();
    let conn = rig.accept(Transport::default());
    rig.send(conn, FrameKind::Hello, 1, &hello());
    let body = v1::Signal {
        signal: None,
        conversation: Bytes::from(vec![1; 3_000]),
    };
    while rig.edge.may_read(conn) {
        rig.send(conn, FrameKind::Signal, 0, &body);
    }
    rig.authenticate(conn, Ok(identity("ann")));
    assert!(rig.was_resumed(conn) && rig.edge.may_read(conn));
}

#[test]
fn a_second_hello_closes() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    rig.send(conn, FrameKind::Hello, 2, &hello());
    assert_eq!(rig.error(conn), (0, ErrorCode::AlreadyAuthenticated));
    assert!(rig.was_closed(conn));
}

#[test]
fn silence_before_hello_times_out_and_so_does_a_token_nobody_verifies() {
    let mut rig = Rig::new();
    let silent = rig.accept(Transport::default());
    let waiting = rig.accept(Transport::default());
    rig.send(waiting, FrameKind::Hello, 1, &hello());
    rig.pass_ms(4_999);
    assert!(!rig.was_closed(silent));
    rig.pass_ms(1);
    assert_eq!(rig.error(silent), (0, ErrorCode::HandshakeTimeout));
    assert_eq!(rig.error(waiting), (0, ErrorCode::HandshakeTimeout));
    assert!(rig.was_closed(silent) && rig.was_closed(waiting));
}

#[test]
fn a_session_that_is_heard_of_stays_and_a_silent_one_is_closed() {
    let mut rig = Rig::with(crate::config::CoreConfig {
        keep_alive_ms: 30_000,
        ..crate::config::CoreConfig::default()
    });
    let (silent, alive) = (rig.connect("ann"), rig.connect("bob"));
    for request in 2..20 {
        rig.pass_ms(29_999);
        rig.send(alive, FrameKind::Ping, request, &v1::Ping {});
        let closed = rig.was_closed(silent);
        assert_eq!(closed, request == 5, "90 s are over with the fourth step");
    }
    assert_eq!(
        error_of(&rig.frames(silent)[0]),
        (0, ErrorCode::IdleTimeout)
    );
    assert!(!rig.was_closed(alive));
}

#[test]
fn a_transport_that_keeps_itself_alive_is_not_pinged_over_and_does_not_wait_for_half_a_frame() {
    let mut rig = Rig::new();
    let transport = Transport {
        keeps_alive: true,
        ..Transport::default()
    };
    let conn = rig.accept(transport);
    rig.send(conn, FrameKind::Hello, 1, &hello());
    rig.authenticate(conn, Ok(identity("ann")));
    let frame = rig.frame(conn);
    assert_eq!(decode::<v1::Welcome>(&frame).keep_alive_ms, 0);

    let patience_ms = limits::KEEP_ALIVE_MS_DEFAULT * limits::KEEP_ALIVE_PATIENCE;
    rig.pass_ms(4 * patience_ms);
    let ping = frame::encode(FrameKind::Ping, RequestId(2), &v1::Ping {});
    rig.receive(conn, &ping[..3]);
    rig.pass_ms(patience_ms - 1);
    rig.receive(conn, &ping[..4]);
    assert!(!rig.was_closed(conn), "the whole time is for the frame");
    rig.receive(conn, &ping);
    assert_eq!(rig.frame(conn).kind, FrameKind::Pong);
    rig.pass_ms(4 * patience_ms);
    assert!(!rig.was_closed(conn), "the frame came whole");

    rig.receive(conn, &ping[..3]);
    rig.pass_ms(patience_ms - 1);
    rig.receive(conn, &ping[..4]);
    assert!(!rig.was_closed(conn));
    rig.pass_ms(1);
    assert_eq!(rig.error(conn), (0, ErrorCode::IdleTimeout));
    assert!(rig.was_closed(conn));
}

#[test]
fn frames_do_not_add_to_the_timers() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let before = rig.edge.timers.len();
    for request in 2..500 {
        rig.send(conn, FrameKind::Ping, request, &v1::Ping {});
    }
    assert_eq!(rig.edge.timers.len(), before);
}

#[test]
fn nothing_is_kept_of_a_connection_that_is_gone_until_its_token_would_have_ended() {
    let mut rig = Rig::new();
    let transport = Transport {
        keeps_alive: true,
        ..Transport::default()
    };
    let conn = rig.connect_as("ann", transport, &[], false);
    let handshake_ms = limits::HANDSHAKE_MS_DEFAULT;
    rig.pass_ms(handshake_ms);
    rig.close(conn);
    assert_eq!(rig.edge.timers.len(), 1);
    rig.pass_ms((TOKEN_ENDS_MS - START_MS) / 2);
    assert_eq!(rig.edge.timers.len(), 0);
}

#[test]
fn an_idle_session_with_five_subscriptions_is_small() {
    // A slot, a session, and for each subscription its record, its entry in the session and its entry in the topic.
    let bytes =
        24 + size_of::<Session>() + 5 * (size_of::<Sub>() + size_of::<SubRef>() + 12) + 2 * 16;
    assert!(bytes < 500, "{bytes} bytes");
}

#[test]
fn a_draining_edge_sends_everybody_away_and_welcomes_nobody() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let late = rig.accept(Transport::default());
    rig.send(late, FrameKind::Hello, 1, &hello());
    rig.input(Input::Drain { window_ms: 8_000 });
    let go_away: v1::GoAway = decode(&rig.frame(conn));
    assert_eq!(go_away.reason, v1::GoAwayReason::Shutdown as i32);
    assert_eq!(go_away.reconnect_window_ms, 4_000);
    rig.authenticate(late, Ok(identity("bob")));
    assert_eq!(rig.error(late), (1, ErrorCode::ShuttingDown));
    assert!(rig.was_closed(late));
    let later = rig.accept(Transport::default());
    rig.send(later, FrameKind::Hello, 1, &hello());
    assert_eq!(rig.error(later), (1, ErrorCode::ShuttingDown));
    rig.send(conn, FrameKind::Ping, 2, &v1::Ping {});
    assert_eq!(
        rig.frame(conn).kind,
        FrameKind::Pong,
        "what is open is served to the end"
    );
}

#[test]
fn answers_for_a_former_connection_of_the_slot_are_not_given_to_the_next() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    rig.send(
        conn,
        FrameKind::Refresh,
        2,
        &v1::Refresh {
            token: "new".into(),
        },
    );
    rig.close(conn);
    let next = crate::io::ConnId {
        generation: conn.generation + 1,
        ..conn
    };
    rig.input(Input::Opened {
        conn: next,
        transport: Transport::default(),
    });
    rig.send(next, FrameKind::Hello, 1, &hello());
    rig.authenticate(conn, Ok(identity("ann")));
    assert!(rig.frames(next).is_empty());
    assert_eq!(rig.edge.open, 0);
}

#[test]
fn a_compressed_frame_is_read_only_where_that_was_agreed() {
    let ping = |request| {
        let mut ping = frame::wrap(FrameKind::Ping, RequestId(request), &[1, 2, 3]).to_vec();
        ping[frame::LENGTH_BYTES + 1] = Flags::COMPRESSED.bits();
        ping
    };
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    rig.receive(conn, &ping(2));
    assert_eq!(rig.error(conn), (0, ErrorCode::DecompressionFailed));

    let conn = rig.connect_as("ann", Transport::default(), &[v1::Capability::Zstd], false);
    let text = "tell it again ".repeat(200);
    let publish = super::rig::publish(
        super::rig::conversation(1),
        vec![super::rig::message(&text)],
    );
    let whole = frame::encode(FrameKind::Publish, RequestId(2), &publish);
    let small = frame::compress(&whole).expect("smaller");
    rig.receive(conn, &small);
    assert_eq!(rig.append().author.device, DeviceId::from_bytes([1; 16]));
    rig.receive(conn, &ping(3));
    assert_eq!(rig.error(conn), (0, ErrorCode::DecompressionFailed));
    assert!(rig.was_closed(conn));
}
