//! Drafts and their receipts.

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    frame::{self, Frame, FrameKind},
    ids::{Epoch, Handle, RequestId, Seq, UserId},
    v1,
};

use super::rig::{Log, Rig, client_id, conversation, decode, message, publish, user};
use crate::{
    config::CoreConfig,
    io::{ConnId, Transport},
    message::{Receipt, ToEdge, ToOwner},
};

fn kept(seq: u64) -> Receipt {
    Receipt::Kept {
        epoch: Epoch(3),
        seq: Seq(seq),
        time_ms: 77,
        duplicate: seq == 2,
    }
}

fn receipts(frame: &Frame) -> Vec<v1::Receipt> {
    assert_eq!((frame.kind, frame.request_id.0), (FrameKind::Published, 0));
    decode::<v1::Published>(frame).receipts
}

/// (request, draft, seq, code) of all receipts in the frames.
fn told(frames: &[Frame]) -> Vec<(u32, u32, u64, Option<ErrorCode>)> {
    let receipts = frames.iter().flat_map(receipts);
    receipts
        .map(|receipt| {
            let code = receipt.error.as_ref().and_then(ErrorCode::from_proto);
            (receipt.request_id, receipt.draft, receipt.seq, code)
        })
        .collect()
}

pub(super) fn refusal(rig: &mut Rig, conn: ConnId, publish: &v1::Publish) -> Option<ErrorCode> {
    rig.send(conn, FrameKind::Publish, 2, publish);
    rig.flush();
    let frame = rig.frames(conn).pop()?;
    match frame.kind {
        FrameKind::Error => Some(super::rig::error_of(&frame).1),
        _ => told(&[frame])[0].3,
    }
}

#[test]
fn receipts_of_a_batch_leave_in_one_frame_a_connection() {
    let mut rig = Rig::new();
    let (ann, bob) = (rig.connect("ann"), rig.connect("bob"));
    for (conn, request) in [(ann, 2), (bob, 2), (ann, 3)] {
        rig.send(
            conn,
            FrameKind::Publish,
            request,
            &publish(conversation(1), vec![message("hi"), message("there")]),
        );
    }
    for seq in [1, 3, 5] {
        let append = rig.append();
        rig.receipts(&append, &[kept(seq), kept(seq + 1)]);
    }
    assert!(
        rig.outputs.is_empty(),
        "nothing leaves before the batch ends"
    );
    rig.flush();
    let frame = rig.frame(ann);
    assert_eq!(
        told(std::slice::from_ref(&frame)),
        [
            (2, 0, 1, None),
            (2, 1, 2, None),
            (3, 0, 5, None),
            (3, 1, 6, None)
        ]
    );
    let first = &receipts(&frame)[1];
    assert_eq!((first.epoch, first.time_ms, first.duplicate), (3, 77, true));
    assert_eq!(told(&rig.frames(bob)), [(2, 0, 3, None), (2, 1, 4, None)]);
    rig.flush();
    assert!(rig.outputs.is_empty());
}

#[test]
fn many_receipts_are_split_by_the_frame_limit() {
    let config = CoreConfig {
        frame_bytes_max: 1_000,
        publish_per_s: 0,
        ..CoreConfig::default()
    };
    let mut rig = Rig::with(config);
    let conn = rig.connect("ann");
    let ten = publish(conversation(1), (0..10).map(|_| message("x")).collect());
    for request in 0..20 {
        rig.send(conn, FrameKind::Publish, 2 + request, &ten);
        let append = rig.append();
        let first = u64::from(request) * 10 + 1;
        let kept: Vec<_> = (first..first + 10).map(kept).collect();
        rig.receipts(&append, &kept);
    }
    rig.flush();
    let frames = rig.frames(conn);
    assert!(frames.len() > 1 && frames.iter().all(|frame| frame.body.len() + 12 <= 1_000));
    let seqs: Vec<u64> = told(&frames).iter().map(|receipt| receipt.2).collect();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
}

#[test]
fn drafts_refused_here_find_their_places_among_the_others() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let bad = v1::draft::Content::Vote(v1::Vote {
        target: 1,
        value: 2,
    });
    let contents = vec![
        bad.clone(),
        message("a"),
        bad.clone(),
        bad.clone(),
        message("b"),
        bad,
    ];
    rig.send(
        conn,
        FrameKind::Publish,
        2,
        &publish(conversation(1), contents),
    );
    let append = rig.append();
    assert_eq!(append.client_ids, [client_id(1), client_id(4)]);
    let refused = Receipt::Refused {
        code: ErrorCode::SlowMode,
        retry_after_ms: 4_000,
    };
    rig.receipts(&append, &[kept(9), refused]);
    rig.flush();
    let invalid = Some(ErrorCode::InvalidField);
    assert_eq!(
        told(&rig.frames(conn)),
        [
            (2, 0, 0, invalid),
            (2, 1, 9, None),
            (2, 2, 0, invalid),
            (2, 3, 0, invalid),
            (2, 4, 0, Some(ErrorCode::SlowMode)),
            (2, 5, 0, invalid)
        ]
    );
    assert!(
        rig.edge
            .conns
            .get_mut(conn)
            .unwrap()
            .work_if_any()
            .is_none(),
        "nothing is left over"
    );
}

#[test]
fn a_request_whose_drafts_are_all_refused_is_answered_here() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let mut publish = publish(conversation(1), vec![message("a"), message("b")]);
    publish.drafts[0].client_id = Bytes::from_static(&[4; 16]);
    publish.drafts[1].content = None;
    rig.send(conn, FrameKind::Publish, 2, &publish);
    rig.flush();
    let codes: Vec<_> = told(&rig.frames(conn))
        .iter()
        .map(|receipt| receipt.3.unwrap())
        .collect();
    assert_eq!(codes, [ErrorCode::ClientIdInvalid, ErrorCode::InvalidField]);
    assert!(rig.asked.is_empty() && rig.edge.conns.get(conn).unwrap().in_flight_bytes == 0);
}

#[test]
fn a_request_the_owner_refuses_is_one_error() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let bad = v1::draft::Content::Pin(v1::Pin::default());
    rig.send(
        conn,
        FrameKind::Publish,
        2,
        &publish(conversation(1), vec![message("a"), bad]),
    );
    let ToOwner::Append { origin, .. } = rig.ask() else {
        panic!("Append")
    };
    rig.tell(ToEdge::Refused {
        origin,
        code: ErrorCode::Overloaded,
        retry_after_ms: 300,
    });
    let frame = rig.frame(conn);
    assert_eq!(super::rig::error_of(&frame), (2, ErrorCode::Overloaded));
    assert_eq!(decode::<v1::Error>(&frame).retry_after_ms, 300);
    assert!(
        rig.edge
            .conns
            .get_mut(conn)
            .unwrap()
            .work_if_any()
            .is_none()
    );
}

#[test]
fn a_handle_names_a_subscription_of_this_connection_alone() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 3);
    let (ann, bob) = (rig.connect("ann"), rig.connect("bob"));
    rig.follow(ann, &mut log, None);
    let by_handle = |handle: Handle| v1::Publish {
        target: Some(v1::publish::Target::Handle(handle.0)),
        ..publish(log.conversation, vec![message("hi")])
    };
    assert_eq!(
        refusal(&mut rig, bob, &by_handle(log.handle)),
        Some(ErrorCode::UnknownHandle)
    );
    assert_eq!(
        refusal(&mut rig, ann, &by_handle(Handle(1))),
        Some(ErrorCode::UnknownHandle)
    );
    assert_eq!(refusal(&mut rig, ann, &by_handle(log.handle)), None);
    assert_eq!(rig.append().conversations, [log.conversation]);
}

#[test]
fn only_services_speak_for_others() {
    let mut rig = Rig::new();
    let ann = rig.connect("ann");
    let bridge = rig.connect_as("bridge", Transport::default(), &[], true);
    let for_bob = v1::Publish {
        on_behalf_of: user("bob").to_proto(),
        ..publish(conversation(1), vec![message("hi")])
    };
    assert_eq!(
        refusal(&mut rig, ann, &for_bob),
        Some(ErrorCode::RoleTooLow)
    );
    assert_eq!(refusal(&mut rig, bridge, &for_bob), None);
    assert_eq!(rig.append().author.user, user("bob"));
    let for_system = v1::Publish {
        on_behalf_of: UserId::SYSTEM.to_proto(),
        ..for_bob
    };
    assert_eq!(
        refusal(&mut rig, bridge, &for_system),
        Some(ErrorCode::InvalidField)
    );
}

#[test]
fn drafts_beyond_the_rate_are_refused_with_the_time_to_wait() {
    let mut rig = Rig::new();
    let (first, second) = (rig.connect("ann"), rig.connect("ann"));
    let bob = rig.connect("bob");
    let twenty = || publish(conversation(1), (0..20).map(|_| message("x")).collect());
    rig.send(first, FrameKind::Publish, 2, &twenty());
    assert_eq!(rig.append().client_ids.len(), 20);
    rig.send(second, FrameKind::Publish, 2, &twenty());
    let append = rig.append();
    assert_eq!(
        append.client_ids.len(),
        10,
        "the user's sessions share one allowance"
    );
    let kept: Vec<_> = (1..=10).map(kept).collect();
    rig.receipts(&append, &kept);
    rig.flush();
    let frame = rig.frame(second);
    let mut receipts = receipts(&frame);
    receipts.sort_by_key(|receipt| receipt.draft);
    assert_eq!(receipts.len(), 20);
    assert!(
        receipts[10..]
            .iter()
            .all(|receipt| receipt.error.as_ref().unwrap().retry_after_ms == 100)
    );
    assert_eq!(rig.shed("session", "rate_limited"), 10);
    rig.send(bob, FrameKind::Publish, 2, &twenty());
    assert_eq!(rig.append().client_ids.len(), 20, "others have their own");
    rig.pass_ms(500);
    rig.send(first, FrameKind::Publish, 3, &twenty());
    assert_eq!(rig.append().client_ids.len(), 5);
}

#[test]
fn services_have_no_rate() {
    let mut rig = Rig::new();
    let bridge = rig.connect_as("bridge", Transport::default(), &[], true);
    for request in 2..10 {
        rig.send(
            bridge,
            FrameKind::Publish,
            request,
            &publish(conversation(1), (0..256).map(|_| message("x")).collect()),
        );
        assert_eq!(rig.append().client_ids.len(), 256);
    }
    for request in 10..5_000 {
        rig.send(bridge, FrameKind::Ping, request, &v1::Ping {});
    }
    assert!(
        rig.frames(bridge)
            .iter()
            .all(|frame| frame.kind == FrameKind::Pong)
    );
}

#[test]
fn messages_of_one_read_leave_together_and_before_what_came_after_them() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let room = conversation(1);
    let mut bytes = Vec::new();
    for request in 2..5 {
        let publish = publish(room, vec![message("hi")]);
        bytes.extend(frame::encode(
            FrameKind::Publish,
            RequestId(request),
            &publish,
        ));
    }
    let describe = v1::Describe {
        conversation: room.to_proto(),
    };
    bytes.extend(frame::encode(FrameKind::Describe, RequestId(5), &describe));
    let last = publish(room, vec![message("last")]);
    bytes.extend(frame::encode(FrameKind::Publish, RequestId(6), &last));
    rig.receive(conn, &bytes);
    let before = rig.append();
    assert_eq!((before.client_ids.len(), before.conn), (3, conn));
    assert!(matches!(rig.ask(), ToOwner::Describe { .. }));
    let after = rig.append();
    assert_eq!(after.client_ids.len(), 1);
    rig.receipts(&before, &[kept(1), kept(2), kept(3)]);
    rig.receipts(&after, &[kept(4)]);
    rig.flush();
    let requests: Vec<_> = told(&rig.frames(conn))
        .iter()
        .map(|(request, ..)| *request)
        .collect();
    assert_eq!(requests, [2, 3, 4, 6]);
}

#[test]
fn a_text_that_is_too_long_is_refused_by_itself() {
    let mut rig = Rig::with(CoreConfig {
        body_bytes_max: 10,
        ..CoreConfig::default()
    });
    let conn = rig.connect("ann");
    let contents = vec![message("short"), message("far too long"), message("fine")];
    rig.send(
        conn,
        FrameKind::Publish,
        2,
        &publish(conversation(1), contents),
    );
    let append = rig.append();
    assert_eq!(append.client_ids, [client_id(0), client_id(2)]);
    rig.receipts(&append, &[kept(1), kept(3)]);
    rig.flush();
    let mut told = told(&rig.frames(conn));
    told.sort_unstable_by_key(|receipt| receipt.1);
    assert_eq!(
        told,
        [
            (2, 0, 1, None),
            (2, 1, 0, Some(ErrorCode::BodyTooLarge)),
            (2, 2, 3, None)
        ]
    );
}
