//! Byte credit: what a connection may have under way before it is read no further.

use rialto_protocol::{
    error::ErrorCode,
    frame::{self, FrameKind},
    ids::RequestId,
    v1,
};

use super::rig::{Log, Rig, conversation, message, publish, user};
use crate::{
    config::CoreConfig,
    io::{Answer, Input, Output, Transport},
    message::{Receipt, ToEdge, ToOwner},
};

fn config() -> CoreConfig {
    CoreConfig {
        in_flight_bytes_max: 10_000,
        publish_per_s: 0,
        queue_bytes_max: 10_000,
        ..CoreConfig::default()
    }
}

#[test]
fn a_connection_with_too_much_in_flight_is_not_read_until_half_is_answered() {
    let mut rig = Rig::with(config());
    let conn = rig.connect("ann");
    let mut sent = 0;
    while rig.edge.may_read(conn) {
        rig.send(
            conn,
            FrameKind::Publish,
            2,
            &publish(conversation(1), vec![message(&"x".repeat(900))]),
        );
        sent += 1;
    }
    assert_eq!(sent, 9, "messages of a little below 1,200 bytes");
    let mut answered = 0;
    while !rig.was_resumed(conn) {
        let append = rig.append();
        let receipt = Receipt::Refused {
            code: ErrorCode::Overloaded,
            retry_after_ms: 1,
        };
        rig.receipts(&append, &[receipt]);
        rig.flush();
        answered += 1;
    }
    assert_eq!(answered, 5);
    assert!(rig.edge.may_read(conn));
}

/// How many pages of so many events a connection may ask for before it is not read any more.
fn pages_until_unread(limit: u32) -> usize {
    let mut rig = Rig::with(CoreConfig {
        in_flight_bytes_max: 1 << 20,
        ..config()
    });
    let conn = rig.connect("ann");
    let history = v1::History {
        conversation: conversation(1).to_proto(),
        from_seq: 0,
        direction: v1::Direction::Backward as i32,
        limit,
    };
    let mut sent = 0;
    while rig.edge.may_read(conn) {
        rig.send(conn, FrameKind::History, 2, &history);
        sent += 1;
    }
    sent
}

#[test]
fn a_small_request_for_a_large_page_takes_credit_for_the_page() {
    assert_eq!(
        pages_until_unread(1_000),
        5,
        "pages of 256 KiB against 1 MiB"
    );
}

#[test]
fn a_request_for_one_event_takes_credit_for_a_long_one() {
    assert_eq!(pages_until_unread(1), 16, "events of 64 KiB against 1 MiB");
}

#[test]
fn a_watch_takes_credit_for_all_that_is_kept_until_it_is_answered() {
    let mut rig = Rig::with(CoreConfig {
        in_flight_bytes_max: 1 << 20,
        ..config()
    });
    let conn = rig.connect("ann");
    let users = (0..1_000).map(|number| user(&format!("user {number}")).to_proto());
    let watch = v1::Watch {
        users: users.collect(),
    };
    let mut sent = 0;
    while rig.edge.may_read(conn) {
        rig.send(conn, FrameKind::Watch, 2, &watch);
        sent += 1;
    }
    assert_eq!(sent, 8, "18,000 bytes and 120 for each user against 1 MiB");
}

#[test]
fn a_client_that_does_not_read_its_answers_is_not_read_either() {
    let mut rig = Rig::with(config());
    let conn = rig.connect("ann");
    let mut answers = 0;
    while rig.edge.may_read(conn) {
        rig.send(
            conn,
            FrameKind::Describe,
            2,
            &v1::Describe {
                conversation: conversation(1).to_proto(),
            },
        );
        let ToOwner::Describe { origin, .. } = rig.ask() else {
            panic!("Describe")
        };
        let description = v1::Description {
            topic: "t".repeat(2_000),
            ..v1::Description::default()
        };
        rig.answer(origin, FrameKind::Description, &description);
        answers += 1;
    }
    assert_eq!(answers, 10, "twice 10,000 bytes are queued");
    let queued = rig.edge.conns.queued_bytes(conn).unwrap();
    rig.input(Input::Written {
        conn,
        bytes: queued - 10_001,
    });
    assert!(!rig.was_resumed(conn));
    rig.input(Input::Written { conn, bytes: 1 });
    assert!(rig.was_resumed(conn) && rig.edge.may_read(conn));
}

#[test]
fn a_subscribe_holds_its_credit_until_all_of_it_is_answered() {
    let mut rig = Rig::with(config());
    let conn = rig.connect("ann");
    let (mut one, mut two) = (Log::new(1, 1), Log::new(2, 1));
    let request = super::rig::subscribe(&[(one.conversation, None), (two.conversation, None)]);
    rig.send(conn, FrameKind::Subscribe, 2, &request);
    let held = rig.edge.conns.get(conn).unwrap().in_flight_bytes;
    assert!(held > 0);
    let ask = rig.ask();
    rig.tell(one.answer(ask).unwrap());
    assert_eq!(rig.edge.conns.get(conn).unwrap().in_flight_bytes, held);
    let ask = rig.ask();
    rig.tell(two.answer(ask).unwrap());
    assert_eq!(rig.edge.conns.get(conn).unwrap().in_flight_bytes, 0);
}

#[test]
fn connections_have_little_in_flight_each_while_the_shard_is_over_its_budget() {
    let mut rig = Rig::with(CoreConfig {
        in_flight_bytes_max: 1 << 20,
        shard_bytes_max: 400_000,
        ..config()
    });
    let mut frames_until_stopped = |user: &str| {
        let conn = rig.connect(user);
        let mut sent = 0;
        while rig.edge.may_read(conn) {
            let draft = message(&"x".repeat(9_900));
            rig.send(
                conn,
                FrameKind::Publish,
                2,
                &publish(conversation(1), vec![draft]),
            );
            sent += 1;
        }
        sent
    };
    assert_eq!(frames_until_stopped("ann"), 20, "half of the budget");
    assert_eq!(frames_until_stopped("bob"), 3, "a half of an eighth");
    let eve = rig.connect("eve");
    let history = v1::History {
        conversation: conversation(1).to_proto(),
        direction: v1::Direction::Backward as i32,
        limit: 1_000,
        ..v1::History::default()
    };
    rig.send(eve, FrameKind::History, 2, &history);
    let page = loop {
        if let ToOwner::History { bytes_max, .. } = rig.ask() {
            break bytes_max;
        }
    };
    assert!(page <= 400_000 / 8 / 3, "{page}");
}

#[test]
fn a_full_shard_refuses_requests_with_advice_and_goes_on_with_messages() {
    let mut rig = Rig::with(CoreConfig {
        in_flight_bytes_max: 1 << 20,
        publish_per_s: 0,
        shard_bytes_max: 20_000,
        ..config()
    });
    let draft = || message(&"x".repeat(9_900));
    for user in ["ann", "bob"] {
        let conn = rig.connect(user);
        rig.send(
            conn,
            FrameKind::Publish,
            2,
            &publish(conversation(1), vec![draft()]),
        );
    }
    let eve = rig.connect("eve");
    rig.frames(eve);
    let request = super::rig::subscribe(&[(conversation(1), None)]);
    rig.send(eve, FrameKind::Subscribe, 2, &request);
    let refusal = rig.frames(eve).remove(0);
    let error: v1::Error = rialto_protocol::body::decode(&refusal.body).unwrap();
    assert_eq!(ErrorCode::from_proto(&error), Some(ErrorCode::Overloaded));
    assert!(error.retry_after_ms > 0);
    assert_eq!(rig.shed("session", "overloaded"), 1);
    let asked = rig.asked.len();
    rig.send(
        eve,
        FrameKind::Publish,
        3,
        &publish(conversation(1), vec![draft()]),
    );
    assert_eq!(rig.asked.len(), asked + 1);
}

#[test]
fn a_connection_that_is_refused_again_and_again_for_its_rate_is_not_read_for_a_while() {
    let mut rig = Rig::with(CoreConfig {
        queue_bytes_max: 1 << 20,
        requests_per_s: 1,
        requests_burst: 1,
        ..config()
    });
    let (conn, other) = (rig.connect("ann"), rig.connect("bob"));
    let ping = frame::encode(FrameKind::Ping, RequestId(2), &v1::Ping {});
    let bytes = ping.repeat(100);
    let taken = rig.edge.receive(rig.now, conn, &bytes, 100, &mut rig.fx);
    assert_eq!(
        taken.unwrap().bytes,
        65 * ping.len(),
        "one is answered, 64 are refused"
    );
    assert!(!rig.edge.may_read(conn) && rig.edge.may_read(other));
    let due_us = rig.edge.deadline_us().unwrap();
    assert_eq!(due_us, rig.now.mono_us + 100_000);
    rig.now.mono_us = due_us - 1;
    rig.edge.handle_tick(rig.now, &mut rig.fx);
    assert!(!rig.edge.may_read(conn));
    rig.now.mono_us = due_us;
    rig.edge.handle_tick(rig.now, &mut rig.fx);
    assert!(rig.edge.may_read(conn));
    let resumed = |output: &Output| matches!(output, Output::Resume { conn: of } if *of == conn);
    assert!(rig.fx.outputs.iter().any(resumed));
}

#[test]
fn a_turn_ends_after_some_requests_and_the_rest_is_brought_again() {
    let mut rig = Rig::with(CoreConfig {
        queue_bytes_max: 1 << 20,
        requests_per_s: 0,
        ..config()
    });
    let conn = rig.connect("ann");
    let ping = frame::encode(FrameKind::Ping, RequestId(2), &v1::Ping {});
    let bytes = ping.repeat(400);
    let taken = rig
        .edge
        .receive(rig.now, conn, &bytes, 256, &mut rig.fx)
        .unwrap();
    assert_eq!((taken.bytes, taken.work), (256 * ping.len(), 256));
    let taken = taken.bytes;
    assert!(rig.edge.may_read(conn));
    let rest = rig
        .edge
        .receive(rig.now, conn, &bytes[taken..], 256, &mut rig.fx);
    assert_eq!(rest.unwrap().bytes, 144 * ping.len());
}

#[test]
fn a_compressed_frame_takes_as_much_of_a_turn_as_what_it_becomes() {
    let mut rig = Rig::new();
    let zstd = [v1::Capability::Zstd];
    let conn = rig.connect_as("ann", Transport::default(), &zstd, false);
    let varied: Vec<u8> = (0..2_000_u32)
        .map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let aimless = v1::Publish {
        target: None,
        drafts: vec![v1::Draft {
            client_id: varied.repeat(30).into(),
            ..v1::Draft::default()
        }],
        ..v1::Publish::default()
    };
    let long = frame::encode(FrameKind::Publish, RequestId(2), &aimless);
    let short = frame::compress(&long).unwrap();
    assert!(long.len() > 60_000 && short.len() < 6_000);
    let taken = rig.edge.receive(rig.now, conn, &short, 500, &mut rig.fx);
    assert_eq!(taken.unwrap().work, 1 + long.len() / 512);
    rig.settle();
    assert_eq!(rig.error(conn), (2, ErrorCode::InvalidField));
}

#[test]
fn a_connection_that_publishes_what_nobody_may_is_not_read_for_a_while_either() {
    let nowhere = |target| v1::Publish {
        target,
        ..publish(conversation(1), vec![message("hi")])
    };
    let unknown = nowhere(Some(v1::publish::Target::Handle(7)));
    for (publish, code) in [
        (unknown, ErrorCode::UnknownHandle),
        (nowhere(None), ErrorCode::InvalidField),
    ] {
        let mut rig = Rig::new();
        let conn = rig.connect("ann");
        let frame = frame::encode(FrameKind::Publish, RequestId(2), &publish);
        let bytes = frame.repeat(100);
        let taken = rig.edge.receive(rig.now, conn, &bytes, 500, &mut rig.fx);
        assert_eq!(taken.unwrap().bytes, 64 * frame.len());
        assert!(!rig.edge.may_read(conn));
        rig.settle();
        let frames = rig.frames(conn);
        assert_eq!(frames.len(), 64, "each is answered");
        assert_eq!(super::rig::error_of(&frames[0]), (2, code));
        rig.pass_ms(100);
        assert!(rig.edge.may_read(conn));
    }
}

fn history(limit: u32) -> v1::History {
    v1::History {
        conversation: conversation(1).to_proto(),
        from_seq: 0,
        direction: v1::Direction::Backward as i32,
        limit,
    }
}

/// A shard that a page of half of its budget makes crowded.
fn small_shard() -> Rig {
    Rig::with(CoreConfig {
        in_flight_bytes_max: 1 << 20,
        shard_bytes_max: 400_000,
        ..config()
    })
}

#[test]
fn what_a_connection_that_is_gone_has_asked_for_is_held_until_it_is_answered() {
    let mut rig = small_shard();
    let (conn, free) = (rig.connect("ann"), rig.edge.conns.in_flight_share());
    rig.send(conn, FrameKind::History, 2, &history(1_000));
    let crowded = rig.edge.conns.in_flight_share();
    assert!(crowded < free);
    rig.close(conn);
    assert!(rig.edge.awaits_answers(conn));
    assert!(rig.edge.conns.in_flight_share() <= 400_000 / 8);
    let again = rig.connect("ann");
    assert!(rig.edge.conns.in_flight_share() <= 400_000 / 8);
    let ToOwner::History { origin, .. } = rig.ask() else {
        panic!("History")
    };
    let settled = |output: &Output| matches!(output, Output::Settled { conn: of } if *of == conn);
    assert!(!rig.take_output(settled));
    rig.answer(origin, FrameKind::HistoryPage, &v1::HistoryPage::default());
    assert!(rig.take_output(settled) && !rig.edge.awaits_answers(conn));
    assert_eq!(rig.edge.conns.in_flight_share(), free);
    rig.close(again);
    assert_eq!(rig.edge.conns.held_bytes(), 0);
}

#[test]
fn so_is_that_of_one_that_was_told_to_close() {
    let mut rig = small_shard();
    let conn = rig.connect("ann");
    rig.send(conn, FrameKind::History, 2, &history(1_000));
    rig.input(Input::Broken {
        conn,
        code: ErrorCode::MalformedFrame,
    });
    assert!(rig.was_closed(conn));
    assert!(rig.edge.conns.in_flight_share() <= 400_000 / 8);
    let ToOwner::History { origin, .. } = rig.ask() else {
        panic!("History")
    };
    rig.tell(ToEdge::Refused {
        origin,
        code: ErrorCode::Overloaded,
        retry_after_ms: 0,
    });
    assert!(!rig.edge.awaits_answers(conn));
    rig.close(conn);
    assert_eq!(rig.edge.conns.held_bytes(), 0);
}

#[test]
fn what_is_answered_in_parts_is_given_back_in_parts_and_what_nobody_was_asked_at_once() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let (mut one, mut two) = (Log::new(1, 9), Log::new(2, 9));
    // A read for one that is behind is under way.
    let cursor = Some(one.cursor(1));
    rig.follow(conn, &mut one, cursor);
    let read = rig.ask();
    let request = super::rig::subscribe(&[(one.conversation, None), (two.conversation, None)]);
    rig.send(conn, FrameKind::Subscribe, 2, &request);
    let unsubscribe = v1::Unsubscribe {
        conversations: vec![two.conversation.to_proto()],
    };
    rig.send(conn, FrameKind::Unsubscribe, 3, &unsubscribe);
    let watch = v1::Watch {
        users: vec![user("bob").to_proto()],
    };
    rig.send(conn, FrameKind::Watch, 4, &watch);
    let seen = rig.outputs.iter().find_map(|output| match output {
        Output::Load { ticket, .. } => Some(*ticket),
        _ => None,
    });
    let refresh = v1::Refresh {
        token: "token".into(),
    };
    rig.send(conn, FrameKind::Refresh, 5, &refresh);
    let before = rig.edge.conns.get(conn).unwrap().in_flight_bytes;
    rig.close(conn);
    let held = rig.edge.conns.orphan(conn);
    assert!(
        held > 0 && held < before,
        "the Refresh and the Unsubscribe are gone"
    );
    for ask in [rig.ask(), rig.ask()] {
        let answer = if matches!(&ask, ToOwner::Subscribe { conversation, .. } if *conversation == one.conversation)
        {
            one.answer(ask)
        } else {
            two.answer(ask)
        };
        rig.tell(answer.unwrap());
    }
    assert!(rig.edge.conns.orphan(conn) > 0);
    let answer = Some(Answer::LastSeen(vec![None]));
    rig.edge
        .handle_loaded(rig.now, seen.unwrap(), answer, &mut rig.fx);
    rig.settle();
    assert_eq!(rig.edge.conns.orphan(conn), 0);
    assert!(rig.edge.awaits_answers(conn), "the read is not answered");
    rig.tell(one.answer(read).unwrap());
    assert!(!rig.edge.awaits_answers(conn));
    assert_eq!(rig.edge.conns.held_bytes(), 0);
}

#[test]
fn frames_that_came_before_the_token_was_known_to_be_good_are_given_back_when_it_is_not() {
    let mut rig = Rig::new();
    let conn = rig.accept(Transport::default());
    rig.send(conn, FrameKind::Hello, 1, &super::rig::hello());
    rig.send(conn, FrameKind::History, 2, &history(1));
    assert!(rig.edge.conns.held_bytes() > 0);
    rig.close(conn);
    assert!(!rig.edge.awaits_answers(conn));
    assert_eq!(rig.edge.conns.held_bytes(), 0);
}

#[test]
fn what_compressing_an_answer_took_counts_in_the_next_turns_of_who_asked() {
    let mut rig = Rig::with(CoreConfig {
        queue_bytes_max: 1 << 20,
        ..CoreConfig::default()
    });
    let zstd = [v1::Capability::Zstd];
    let conn = rig.connect_as("ann", Transport::default(), &zstd, false);
    rig.send(conn, FrameKind::History, 2, &history(1_000));
    let ToOwner::History { origin, .. } = rig.ask() else {
        panic!("History")
    };
    let long = v1::Description {
        topic: "t".repeat(400 * 512),
        ..v1::Description::default()
    };
    rig.answer(origin, FrameKind::Description, &long);
    let ping = frame::encode(FrameKind::Ping, RequestId(2), &v1::Ping {});
    let bytes = ping.repeat(300);
    let mut turn = || {
        let taken = rig.edge.receive(rig.now, conn, &bytes, 256, &mut rig.fx);
        let taken = taken.unwrap();
        (taken.bytes / ping.len(), taken.work)
    };
    assert_eq!(turn(), (1, 256), "one at least");
    assert_eq!(turn(), (256 - (400 - 255), 256));
    assert_eq!(turn(), (256, 256));
}
