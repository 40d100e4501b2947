//! Requests that are passed on to owners, and how their answers come back.

use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::{
    error::ErrorCode,
    frame::FrameKind,
    ids::{RequestId, Seq},
    v1,
};

use super::rig::{Rig, conversation, decode, message, publish, subscribe, user};
use crate::{
    config::CoreConfig,
    io::{ConnId, Output},
    message::{ToEdge, ToOwner},
};

/// Sends it; the code of the refusal, or what the owner is asked.
pub(super) fn outcome<M: prost::Message>(
    rig: &mut Rig,
    conn: ConnId,
    kind: FrameKind,
    body: &M,
) -> Result<ToOwner, ErrorCode> {
    rig.send(conn, kind, 6, body);
    match rig.asked.pop_front() {
        Some(ask) => Ok(ask),
        None => {
            let (request, code) = rig.error(conn);
            assert_eq!(request, 6);
            Err(code)
        }
    }
}

#[test]
fn an_answer_carries_the_request_id_and_gives_the_credit_back() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    rig.send(
        conn,
        FrameKind::Describe,
        8,
        &v1::Describe {
            conversation: conversation(1).to_proto(),
        },
    );
    let ToOwner::Describe {
        origin,
        user: asker,
        conversation: about,
    } = rig.ask()
    else {
        panic!("Describe")
    };
    assert_eq!((asker, about), (user("ann"), conversation(1)));
    assert_eq!(
        rig.edge.conns.get(conn).unwrap().in_flight_bytes,
        origin.cost as usize
    );
    rig.answer(
        origin,
        FrameKind::Description,
        &v1::Description {
            title: "Rialto".into(),
            ..v1::Description::default()
        },
    );
    let frame = rig.frame(conn);
    assert_eq!(
        (frame.kind, frame.request_id),
        (FrameKind::Description, RequestId(8))
    );
    assert_eq!(decode::<v1::Description>(&frame).title, "Rialto");
    assert_eq!(rig.edge.conns.get(conn).unwrap().in_flight_bytes, 0);
}

#[test]
fn answers_for_a_connection_that_is_gone_are_dropped() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    rig.send(
        conn,
        FrameKind::Describe,
        8,
        &v1::Describe {
            conversation: conversation(1).to_proto(),
        },
    );
    rig.send(
        conn,
        FrameKind::Publish,
        9,
        &publish(conversation(1), vec![message("hi")]),
    );
    let ToOwner::Describe { origin, .. } = rig.ask() else {
        panic!("Describe")
    };
    let append = rig.append();
    rig.close(conn);
    rig.outputs.clear();
    rig.answer(origin, FrameKind::Description, &v1::Description::default());
    rig.tell(ToEdge::Refused {
        origin,
        code: ErrorCode::Overloaded,
        retry_after_ms: 0,
    });
    let receipt = crate::message::Receipt::Refused {
        code: ErrorCode::Overloaded,
        retry_after_ms: 0,
    };
    rig.receipts(&append, &[receipt]);
    rig.flush();
    assert!(matches!(rig.outputs[..], [Output::Settled { .. }]));
}

#[test]
fn a_signal_does_not_keep_the_frame_that_it_came_in() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let signal = v1::Signal {
        conversation: conversation(1).to_proto(),
        signal: Some(v1::signal::Signal::Custom(Bytes::from_static(b"?"))),
    };
    let mut body = prost::Message::encode_to_vec(&signal);
    // A field that nobody knows yet, whose bytes stand behind what is known.
    prost::encoding::bytes::encode(1_000, &vec![0; 100_000], &mut body);
    rig.send_raw(conn, FrameKind::Signal, 0, &body);
    let ToOwner::Signal { signal, .. } = rig.ask() else {
        panic!("Signal")
    };
    let v1::signalled::Signal::Custom(custom) = signal else {
        panic!("{signal:?}")
    };
    assert_eq!(&custom[..], b"?");
    assert!(custom.try_into_mut().unwrap().capacity() < 100);
}

#[test]
fn a_request_without_an_id_closes_but_a_signal_needs_none() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let typing = v1::Signal {
        conversation: conversation(1).to_proto(),
        signal: Some(v1::signal::Signal::Typing(v1::Typing { off: false })),
    };
    rig.send(conn, FrameKind::Signal, 0, &typing);
    let ToOwner::Signal { origin, .. } = rig.ask() else {
        panic!("Signal")
    };
    assert_eq!(origin.cost, 0, "what is not answered holds no credit");
    rig.tell(ToEdge::Refused {
        origin,
        code: ErrorCode::NotAMember,
        retry_after_ms: 0,
    });
    assert!(rig.frames(conn).is_empty());
    rig.send(conn, FrameKind::Signal, 4, &typing);
    let ToOwner::Signal { origin, .. } = rig.ask() else {
        panic!("Signal")
    };
    rig.tell(ToEdge::Refused {
        origin,
        code: ErrorCode::NotAMember,
        retry_after_ms: 0,
    });
    assert_eq!(rig.error(conn), (4, ErrorCode::NotAMember));
    rig.send(conn, FrameKind::Ping, 0, &v1::Ping {});
    assert_eq!(rig.error(conn), (0, ErrorCode::RequestIdMissing));
    assert!(rig.was_closed(conn));
}

#[test]
fn a_body_that_cannot_be_read_and_a_kind_of_servers_close() {
    for (kind, code) in [
        (FrameKind::Describe, ErrorCode::MalformedBody),
        (FrameKind::Ping, ErrorCode::MalformedBody),
        (FrameKind::Deliver, ErrorCode::UnexpectedKind),
        (FrameKind::Error, ErrorCode::UnexpectedKind),
    ] {
        let mut rig = Rig::new();
        let conn = rig.connect("ann");
        rig.send_raw(conn, kind, 2, &[0x0a, 0x7f]);
        assert_eq!(rig.error(conn), (0, code));
        assert!(rig.was_closed(conn));
    }
}

#[test]
fn pages_have_a_usual_size_and_a_largest_one() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let history = |limit| v1::History {
        conversation: conversation(1).to_proto(),
        from_seq: 5,
        direction: v1::Direction::Backward as i32,
        limit,
    };
    for (asked, given) in [(0, Some(50)), (1_000, Some(1_000)), (1_001, None)] {
        match (
            outcome(&mut rig, conn, FrameKind::History, &history(asked)),
            given,
        ) {
            (
                Ok(ToOwner::History {
                    limit,
                    from,
                    backward,
                    ..
                }),
                Some(given),
            ) => {
                assert_eq!((limit, from, backward), (given, Seq(5), true));
            }
            (result, given) => assert!(
                result == Err(ErrorCode::InvalidField) && given.is_none(),
                "{result:?}"
            ),
        }
    }
    let undirected = v1::History {
        direction: 0,
        ..history(1)
    };
    assert_eq!(
        outcome(&mut rig, conn, FrameKind::History, &undirected).unwrap_err(),
        ErrorCode::InvalidField
    );
    let members = |limit, after| v1::Members {
        conversation: conversation(1).to_proto(),
        limit,
        after_user: after,
    };
    assert!(matches!(
        outcome(
            &mut rig,
            conn,
            FrameKind::Members,
            &members(0, Bytes::new())
        ),
        Ok(ToOwner::Members {
            limit: 100,
            after: None,
            ..
        })
    ));
    let bad = outcome(
        &mut rig,
        conn,
        FrameKind::Members,
        &members(501, Bytes::new()),
    );
    assert_eq!(bad.unwrap_err(), ErrorCode::InvalidField);
    let bad = outcome(
        &mut rig,
        conn,
        FrameKind::Members,
        &members(1, Bytes::from_static(&[1; 3])),
    );
    assert_eq!(bad.unwrap_err(), ErrorCode::InvalidField);
    let conversations = v1::Conversations {
        after_conversation: conversation(3).to_proto(),
        limit: 0,
    };
    assert!(matches!(
        outcome(&mut rig, conn, FrameKind::Conversations, &conversations),
        Ok(ToOwner::Conversations { limit: 100, after: Some(after), .. }) if after == conversation(3)
    ));
}

impl PartialEq for ToOwner {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

#[test]
fn the_smaller_requests_are_checked() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let id = conversation(1).to_proto();
    let short = Bytes::from_static(&[1; 8]);
    let invalid = ErrorCode::InvalidField;
    let mark = v1::Mark {
        conversation: id.clone(),
        read_seq: 4,
        delivered_seq: 5,
        unread: true,
    };
    assert!(matches!(
        outcome(&mut rig, conn, FrameKind::Mark, &mark),
        Ok(ToOwner::Mark {
            read: Seq(4),
            delivered: Seq(5),
            unread: true,
            ..
        })
    ));
    let prefer = v1::Prefer {
        conversation: id.clone(),
        hidden: Some(true),
        muted_until_ms: None,
    };
    assert!(matches!(
        outcome(&mut rig, conn, FrameKind::Prefer, &prefer),
        Ok(ToOwner::Prefer {
            hidden: Some(true),
            muted_until_ms: None,
            ..
        })
    ));
    let prefer = v1::Prefer {
        conversation: id.clone(),
        hidden: None,
        muted_until_ms: None,
    };
    assert_eq!(
        outcome(&mut rig, conn, FrameKind::Prefer, &prefer),
        Err(invalid)
    );
    let describe = v1::Describe {
        conversation: short.clone(),
    };
    assert_eq!(
        outcome(&mut rig, conn, FrameKind::Describe, &describe),
        Err(invalid)
    );
    let signal = |signal| v1::Signal {
        conversation: id.clone(),
        signal,
    };
    assert_eq!(
        outcome(&mut rig, conn, FrameKind::Signal, &signal(None)),
        Err(invalid)
    );
    let custom = |bytes| {
        signal(Some(v1::signal::Signal::Custom(Bytes::from(vec![
            1;
            bytes
        ]))))
    };
    assert!(outcome(&mut rig, conn, FrameKind::Signal, &custom(1_024)).is_ok());
    assert_eq!(
        outcome(&mut rig, conn, FrameKind::Signal, &custom(1_025)),
        Err(invalid)
    );
    let watch = v1::Watch { users: vec![short] };
    assert_eq!(
        outcome(&mut rig, conn, FrameKind::Watch, &watch),
        Err(invalid)
    );
    for state in [0, v1::PresenceState::Offline as i32, 9] {
        assert_eq!(
            outcome(
                &mut rig,
                conn,
                FrameKind::SetPresence,
                &v1::SetPresence { state }
            ),
            Err(invalid)
        );
    }
    for _ in 0..2 {
        assert_eq!(
            outcome(
                &mut rig,
                conn,
                FrameKind::Subscribe,
                &v1::Subscribe::default()
            ),
            Err(invalid)
        );
        assert_eq!(
            outcome(
                &mut rig,
                conn,
                FrameKind::Unsubscribe,
                &v1::Unsubscribe::default()
            ),
            Err(invalid)
        );
    }
    assert!(!rig.was_closed(conn));
}

#[test]
fn requests_beyond_the_rate_are_refused_until_time_has_passed() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    for request in 2..1_002 {
        rig.send(conn, FrameKind::Ping, request, &v1::Ping {});
    }
    assert!(
        rig.frames(conn)
            .iter()
            .all(|frame| frame.kind == FrameKind::Pong)
    );
    rig.send(conn, FrameKind::Ping, 2_000, &v1::Ping {});
    let frame = rig.frame(conn);
    assert_eq!(
        super::rig::error_of(&frame),
        (2_000, ErrorCode::RateLimited)
    );
    let error: v1::Error = decode(&frame);
    assert_eq!(
        (error.retry_after_ms, error.retry),
        (10, v1::Retry::Safe as i32)
    );
    assert_eq!(rig.shed("session", "rate_limited"), 1);
    rig.pass_ms(10);
    rig.send(conn, FrameKind::Ping, 2_001, &v1::Ping {});
    assert_eq!(rig.frame(conn).kind, FrameKind::Pong);
}

fn describe() -> v1::Describe {
    v1::Describe {
        conversation: conversation(1).to_proto(),
    }
}

#[test]
fn all_sessions_of_a_user_share_the_rate_of_requests_and_new_ones_do_too() {
    let mut rig = Rig::with(CoreConfig {
        requests_per_s: 1,
        requests_burst: 2,
        ..CoreConfig::default()
    });
    let limited = Err(ErrorCode::RateLimited);
    let (first, second) = (rig.connect("ann"), rig.connect("ann"));
    for conn in [first, second] {
        assert!(outcome(&mut rig, conn, FrameKind::Describe, &describe()).is_ok());
    }
    for conn in [first, second] {
        assert_eq!(
            outcome(&mut rig, conn, FrameKind::Describe, &describe()),
            limited
        );
    }
    rig.close(first);
    let again = rig.connect("ann");
    assert_eq!(
        outcome(&mut rig, again, FrameKind::Describe, &describe()),
        limited
    );
    rig.send(again, FrameKind::Ping, 2, &v1::Ping {});
    assert_eq!(
        rig.frame(again).kind,
        FrameKind::Pong,
        "a session can be kept all the same"
    );
    let other = rig.connect("bob");
    assert!(outcome(&mut rig, other, FrameKind::Describe, &describe()).is_ok());
    rig.pass_ms(1_000);
    assert!(outcome(&mut rig, again, FrameKind::Describe, &describe()).is_ok());
}

#[test]
fn whoever_asks_for_much_at_once_pays_for_several_requests() {
    let history = |limit| v1::History {
        conversation: conversation(1).to_proto(),
        from_seq: 1,
        direction: v1::Direction::Forward as i32,
        limit,
    };
    let members = v1::Members {
        conversation: conversation(1).to_proto(),
        after_user: Bytes::new(),
        limit: 500,
    };
    let conversations = v1::Conversations {
        after_conversation: Bytes::new(),
        limit: 500,
    };
    let items: Vec<_> = (0..=255)
        .map(|number| (conversation(number), None))
        .collect();
    let watch = v1::Watch {
        users: (0..1_000)
            .map(|number| user(&number.to_string()).to_proto())
            .collect(),
    };
    let cases = [
        (FrameKind::History, history(100).encode_to_vec(), 1),
        (FrameKind::History, history(1_000).encode_to_vec(), 10),
        (FrameKind::Members, members.encode_to_vec(), 5),
        (FrameKind::Conversations, conversations.encode_to_vec(), 5),
        (FrameKind::Subscribe, subscribe(&items).encode_to_vec(), 3),
        (FrameKind::Watch, watch.encode_to_vec(), 10),
    ];
    for (kind, body, cost) in cases {
        let mut rig = Rig::with(CoreConfig {
            requests_per_s: 1,
            requests_burst: 20,
            ..CoreConfig::default()
        });
        let conn = rig.connect("ann");
        rig.send_raw(conn, kind, 6, &body);
        assert!(rig.frames(conn).is_empty());
        rig.asked.clear();
        let mut left = 0;
        while outcome(&mut rig, conn, FrameKind::Describe, &describe()).is_ok() {
            left += 1;
        }
        assert_eq!(left, 20 - cost);
    }
}
