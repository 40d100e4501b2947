//! Delivery: live, behind, live again; nobody misses an event, and only signals are dropped.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;
use rialto_protocol::{
    error::ErrorCode,
    frame::{self, Flags, FrameKind},
    ids::{Cursor, Epoch, RequestId, Seq},
    v1,
};

use super::rig::{Log, Rig, decode, ended, seqs, user};
use crate::{
    config::CoreConfig,
    io::{ConnId, Input, Output, Transport, Via},
    message::{ToEdge, ToOwner},
};

fn small_queues() -> CoreConfig {
    CoreConfig {
        queue_bytes_max: 2_000,
        catch_up_bytes_max: 1_000,
        frame_bytes_max: 4_000,
        ..CoreConfig::default()
    }
}

fn signalled(log: &Log, name: &str, signal: v1::signalled::Signal) -> ToEdge {
    let body = v1::Signalled {
        handle: log.handle.0,
        user: user(name).to_proto(),
        signal: Some(signal),
    };
    ToEdge::Signalled {
        conversation: log.conversation,
        user: user(name),
        frame: frame::encode(FrameKind::Signalled, RequestId::PUSH, &body),
    }
}

fn typing() -> v1::signalled::Signal {
    v1::signalled::Signal::Typing(v1::Typing { off: false })
}

#[test]
fn live_readers_share_one_frame() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 3);
    let conns = ["ann", "bob", "eve"].map(|name| rig.connect(name));
    for conn in conns {
        rig.follow(conn, &mut log, None);
    }
    let batch = log.append(3, 20);
    let ToEdge::Deliver { frame: sent, .. } = &batch else {
        panic!("Deliver")
    };
    let at = sent.as_ptr();
    rig.tell(batch);
    let shared = rig
        .outputs
        .iter()
        .all(|output| matches!(output, Output::Send { frame, .. } if frame.as_ptr() == at));
    assert!(shared && rig.outputs.len() == 3);
    assert_eq!(rig.fx.counters.events_delivered, 9);
}

#[test]
fn news_that_was_left_out_on_the_way_is_read_from_the_log() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 3);
    let conn = rig.connect("ann");
    rig.follow(conn, &mut log, None);
    log.append(2, 20);
    rig.tell(ToEdge::missed(log.conversation, log.head().seq));
    let read = rig.ask();
    assert!(
        matches!(read, ToOwner::CatchUp { from: Seq(4), .. }),
        "{read:?}"
    );
    let answer = log.answer(read).expect("a read is answered");
    rig.tell(answer);
    assert_eq!(seqs(&rig.frames(conn)), [4, 5]);
    let live = log.append(1, 20);
    rig.tell(live);
    assert_eq!(seqs(&rig.frames(conn)), [6]);
    // What it has been told of before.
    rig.tell(ToEdge::missed(log.conversation, Seq(5)));
    assert!(rig.asked.is_empty() && rig.frames(conn).is_empty());
}

#[test]
fn of_very_many_readers_whose_news_was_left_out_some_read_on_at_a_time() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 3);
    let conns: Vec<ConnId> = (0..300)
        .map(|number| rig.connect(&format!("user {number}")))
        .collect();
    for conn in &conns {
        rig.follow(*conn, &mut log, None);
    }
    log.append(2, 20);
    rig.tell(ToEdge::missed(log.conversation, log.head().seq));
    assert_eq!(rig.fx.counters.readers_fallen_behind, 300);
    let mut reads = Vec::new();
    for asked in [128, 128, 44] {
        assert_eq!(rig.asked.len(), asked);
        reads.extend(rig.asked.drain(..));
        rig.pass_ms(6);
    }
    assert!(rig.asked.is_empty() && rig.edge.lagging.due_us().is_none());
    for read in reads {
        rig.tell(log.answer(read).unwrap());
    }
    let live = log.append(1, 20);
    rig.tell(live);
    for conn in conns {
        assert_eq!(seqs(&rig.frames(conn)), [4, 5, 6]);
    }
}

#[test]
fn a_slow_reader_falls_behind_alone_and_comes_back_without_a_gap() {
    let mut rig = Rig::with(small_queues());
    let mut log = Log::new(1, 0);
    let (slow, quick) = (rig.connect("slow"), rig.connect("quick"));
    rig.follow(slow, &mut log, None);
    rig.follow(quick, &mut log, None);
    let queued = rig.edge.conns.queued_bytes(quick).unwrap();
    rig.input(Input::Written {
        conn: quick,
        bytes: queued,
    });
    let mut received = Vec::new();
    for _ in 0..30 {
        let batch = log.append(2, 200);
        rig.tell(batch);
        let queued = rig.edge.conns.queued_bytes(quick).unwrap();
        rig.input(Input::Written {
            conn: quick,
            bytes: queued,
        });
        received.extend(seqs(&rig.frames(quick)));
    }
    assert_eq!(received, (1..=60).collect::<Vec<_>>());
    assert_eq!(rig.fx.counters.readers_fallen_behind, 1);
    assert!(
        rig.asked.is_empty(),
        "nothing is read for a client that takes nothing in"
    );
    let mut received = seqs(&rig.frames(slow));
    assert!(received.len() < 20);
    while received.len() < 60 {
        let queued = rig.edge.conns.queued_bytes(slow).unwrap();
        rig.input(Input::Written {
            conn: slow,
            bytes: queued,
        });
        let read = rig.ask();
        assert!(rig.asked.is_empty(), "one read at a time");
        rig.tell(log.answer(read).unwrap());
        received.extend(seqs(&rig.frames(slow)));
    }
    let queued = rig.edge.conns.queued_bytes(slow).unwrap();
    rig.input(Input::Written {
        conn: slow,
        bytes: queued,
    });
    let batch = log.append(1, 10);
    rig.tell(batch);
    received.extend(seqs(&rig.frames(slow)));
    assert_eq!(received, (1..=61).collect::<Vec<_>>());
    assert!(
        rig.edge
            .conns
            .get_mut(slow)
            .unwrap()
            .work_if_any()
            .is_none()
    );
}

#[test]
fn a_batch_that_does_not_follow_sends_everybody_to_the_log() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 2);
    let conn = rig.connect("ann");
    rig.follow(conn, &mut log, None);
    log.append(2, 5);
    let batch = log.append(2, 5);
    rig.tell(batch);
    assert!(rig.frames(conn).is_empty());
    let read = rig.ask();
    rig.tell(log.answer(read).unwrap());
    let batch = log.append(1, 5);
    rig.tell(batch.clone());
    rig.tell(batch);
    assert_eq!(
        seqs(&rig.frames(conn)),
        [3, 4, 5, 6, 7],
        "and what comes twice is told once"
    );
}

#[test]
fn a_session_catches_up_in_few_reads_at_once_and_its_subscriptions_take_turns() {
    let mut rig = Rig::with(CoreConfig {
        catch_up_bytes_max: 100,
        ..CoreConfig::default()
    });
    let conn = rig.connect("ann");
    let mut logs: Vec<Log> = (0..5).map(|number| Log::new(number, 2)).collect();
    for log in &mut logs {
        rig.send(
            conn,
            FrameKind::Subscribe,
            2,
            &super::rig::subscribe(&[(log.conversation, Some(Cursor::default()))]),
        );
        let ask = rig.asked.pop_back().unwrap();
        rig.tell(log.answer(ask).unwrap());
    }
    let mut order = Vec::new();
    while let Some(read) = rig.asked.pop_front() {
        assert!(rig.asked.len() < 2);
        let ToOwner::CatchUp { conversation, .. } = &read else {
            panic!("CatchUp")
        };
        let log = logs
            .iter_mut()
            .find(|log| log.conversation == *conversation)
            .unwrap();
        order.push(log.handle.0 - 100);
        rig.tell(log.answer(read).unwrap());
    }
    assert_eq!(order, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
}

#[test]
fn stored_events_arrive_compressed_on_a_stream_of_their_own_where_agreed() {
    let mut rig = Rig::new();
    let both = [v1::Capability::Zstd, v1::Capability::CatchUpStreams];
    let conn = rig.connect_as(
        "ann",
        Transport {
            catch_up_streams: true,
            datagrams: true,
            ..Transport::default()
        },
        &both,
        false,
    );
    let mut log = Log::new(1, 100);
    rig.follow(conn, &mut log, Some(Cursor::default()));
    let read = rig.ask();
    rig.tell(log.answer(read).unwrap());
    let frames = rig.frames_via(conn);
    assert!(frames.iter().all(|(frame, via)| {
        frame.flags.contains(Flags::COMPRESSED) && *via == Via::CatchUp(log.conversation)
    }));
    let frames: Vec<_> = frames.into_iter().map(|(frame, _)| frame).collect();
    assert_eq!(seqs(&frames), (1..=100).collect::<Vec<_>>());
    let batch = log.append(1, 5);
    rig.tell(batch);
    assert_eq!(rig.frames_via(conn)[0].1, Via::Main);
}

#[test]
fn stored_events_are_split_by_the_frame_limit() {
    let config = CoreConfig {
        frame_bytes_max: 4_000,
        ..CoreConfig::default()
    };
    let mut rig = Rig::with(config);
    let conn = rig.connect("ann");
    let mut log = Log::new(1, 0);
    log.append(50, 500);
    rig.follow(conn, &mut log, Some(Cursor::default()));
    let read = rig.ask();
    rig.tell(log.answer(read).unwrap());
    let frames = rig.frames(conn);
    assert!(
        frames.len() > 6
            && frames
                .iter()
                .all(|frame| frame.body.len() + frame::HEADER_BYTES <= 4_000)
    );
    assert_eq!(seqs(&frames), (1..=50).collect::<Vec<_>>());
}

#[test]
fn a_read_that_is_ahead_of_the_live_events_is_cut_at_them() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let mut log = Log::new(1, 4);
    rig.follow(conn, &mut log, Some(Cursor::default()));
    let read = rig.ask();
    let batch = log.append(2, 5);
    rig.tell(log.answer(read).unwrap());
    rig.tell(batch);
    assert_eq!(seqs(&rig.frames(conn)), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_read_that_fails_or_leaves_events_out_ends_the_subscription() {
    type Make = fn(&Log) -> Result<Vec<Bytes>, ErrorCode>;
    let cases: [(Make, ErrorCode); 5] = [
        (|_| Err(ErrorCode::NotAMember), ErrorCode::NotAMember),
        (|_| Ok(Vec::new()), ErrorCode::StorageUnavailable),
        (
            |log| Ok(log.events[2..].to_vec()),
            ErrorCode::StorageUnavailable,
        ),
        (
            |log| Ok(vec![log.events[0].clone(), log.events[2].clone()]),
            ErrorCode::InternalError,
        ),
        (
            |_| Ok(vec![Bytes::from_static(b"no event")]),
            ErrorCode::Damaged,
        ),
    ];
    for (make, code) in cases {
        let mut rig = Rig::new();
        let conn = rig.connect("ann");
        let mut log = Log::new(1, 4);
        rig.follow(conn, &mut log, Some(Cursor::default()));
        rig.answer_read(make(&log));
        let frames = rig.frames(conn);
        assert_eq!((ended(&frames), seqs(&frames)), (Some(code), vec![]));
        assert!(matches!(rig.ask(), ToOwner::Detach { .. }));
    }
}

#[test]
fn signals_reach_others_and_markers_reach_all() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 5);
    let (ann, ann_too, bob) = (rig.connect("ann"), rig.connect("ann"), rig.connect("bob"));
    rig.follow(ann, &mut log, None);
    rig.follow(ann_too, &mut log, None);
    rig.follow(
        bob,
        &mut log,
        Some(Cursor {
            epoch: Epoch(3),
            seq: Seq(2),
        }),
    );
    rig.tell(signalled(&log, "ann", typing()));
    assert!(rig.frames(ann).is_empty() && rig.frames(ann_too).is_empty());
    let told: v1::Signalled = decode(&rig.frame(bob));
    assert_eq!((told.handle, told.user), (101, user("ann").to_proto()));
    rig.tell(signalled(
        &log,
        "ann",
        v1::signalled::Signal::Marker(v1::Marker::default()),
    ));
    for conn in [ann, ann_too, bob] {
        assert_eq!(rig.frame(conn).kind, FrameKind::Signalled);
    }
}

#[test]
fn signals_are_datagrams_where_agreed_and_are_dropped_and_counted_when_the_queue_is_full() {
    let mut rig = Rig::with(small_queues());
    let mut log = Log::new(1, 0);
    let transport = Transport {
        catch_up_streams: false,
        datagrams: true,
        ..Transport::default()
    };
    let bob = rig.connect_as("bob", transport, &[v1::Capability::SignalDatagrams], false);
    rig.follow(bob, &mut log, None);
    rig.tell(signalled(&log, "ann", typing()));
    assert_eq!(rig.frames_via(bob)[0].1, Via::Datagram);
    let batch = log.append(10, 250);
    rig.tell(batch);
    rig.frames(bob);
    rig.tell(signalled(&log, "ann", typing()));
    assert!(rig.frames(bob).is_empty());
    assert_eq!(rig.shed("signals", "queue_full"), 1);
}

#[test]
fn a_crowd_is_called_for_signals_and_those_that_follow_too_soon_are_dropped() {
    let mut rig = Rig::new();
    let mut log = Log::new(1, 0);
    let by_datagram = Transport {
        datagrams: true,
        ..Transport::default()
    };
    let conns: Vec<_> = (0..65)
        .map(|number| {
            let user = format!("user {number}");
            let signals = [v1::Capability::SignalDatagrams];
            // A crowd is called whatever carries it.
            let conn = match number {
                0..10 => rig.connect(&user),
                _ => rig.connect_as(&user, by_datagram, &signals, false),
            };
            rig.follow(conn, &mut log, None);
            conn
        })
        .collect();
    rig.tell(signalled(&log, "ann", typing()));
    rig.tell(signalled(&log, "ann", typing()));
    for conn in &conns {
        let frames = rig.frames_via(*conn);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].1, Via::Crowd);
    }
    assert_eq!(rig.shed("signals", "crowd"), 1);
    rig.pass_ms(3);
    rig.tell(signalled(&log, "ann", typing()));
    assert_eq!(rig.frames(conns[0]).len(), 1);

    // One less is no crowd.
    rig.close(conns[64]);
    rig.outputs.clear();
    for _ in 0..2 {
        rig.tell(signalled(&log, "ann", typing()));
    }
    let frames = rig.frames_via(conns[0]);
    assert_eq!(frames.len(), 2);
    assert!(frames.iter().all(|(_, via)| *via == Via::Main));
}

/// A client with a queue of its own that takes frames in when told to.
struct Client {
    conn: ConnId,
    queue: VecDeque<usize>,
    received: Vec<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Append { count: u64, bytes: usize },
    Write { client: usize, frames: usize },
    Answer { place: usize },
    Resubscribe { client: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..5_u64, 1..600_usize).prop_map(|(count, bytes)| Step::Append { count, bytes }),
        3 => (0..3_usize, 1..6_usize).prop_map(|(client, frames)| Step::Write { client, frames }),
        3 => (0..4_usize).prop_map(|place| Step::Answer { place }),
        1 => (0..3_usize).prop_map(|client| Step::Resubscribe { client }),
    ]
}

fn collect(rig: &mut Rig, clients: &mut [Client]) {
    for client in clients {
        let frames = rig.frames(client.conn);
        client.queue.extend(
            frames
                .iter()
                .map(|frame| frame.body.len() + frame::HEADER_BYTES),
        );
        client.received.extend(seqs(&frames));
    }
}

fn take_step(rig: &mut Rig, log: &mut Log, clients: &mut [Client], step: &Step) {
    match *step {
        Step::Append { count, bytes } => {
            let batch = log.append(count, bytes);
            rig.tell(batch);
        }
        Step::Write { client, frames } => {
            for _ in 0..frames {
                if let Some(bytes) = clients[client].queue.pop_front() {
                    rig.input(Input::Written {
                        conn: clients[client].conn,
                        bytes,
                    });
                }
            }
        }
        // Reads are answered in any order, Subscribe where it stands.
        Step::Answer { place } => {
            if let Some(ask) = rig.asked.remove(place) {
                rig.tell(log.answer(ask).unwrap());
            }
        }
        Step::Resubscribe { client } => {
            let client = &mut clients[client];
            // One that does not read its answers is not read.
            if !rig.edge.may_read(client.conn) {
                return;
            }
            let last = client.received.last().copied().unwrap_or(0);
            let cursor = if last == 0 {
                Cursor::default()
            } else {
                log.cursor(last)
            };
            rig.send(
                client.conn,
                FrameKind::Subscribe,
                3,
                &super::rig::subscribe(&[(log.conversation, Some(cursor))]),
            );
            let ask = rig.asked.pop_back().unwrap();
            rig.tell(log.answer(ask).unwrap());
        }
    }
    collect(rig, clients);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_reader_gets_every_event_once_and_in_order(steps in prop::collection::vec(step(), 1..120)) {
        let mut rig = Rig::with(CoreConfig { requests_per_s: 0, ..small_queues() });
        let mut log = Log::new(1, 0);
        let mut clients: Vec<Client> = ["ann", "bob", "eve"]
            .map(|name| Client { conn: rig.connect(name), queue: VecDeque::new(), received: Vec::new() })
            .into_iter()
            .collect();
        for client in 0..3 {
            take_step(&mut rig, &mut log, &mut clients, &Step::Resubscribe { client });
        }
        for step in &steps {
            take_step(&mut rig, &mut log, &mut clients, step);
            for client in &clients {
                let queued: usize = client.queue.iter().sum();
                // Limit, one shared batch or two reads on top, and answers to Subscribe.
                prop_assert!(queued < 2_000 + 5 * 700 + 120 * 150, "{queued} bytes are queued");
            }
        }
        while !rig.asked.is_empty() || clients.iter().any(|client| !client.queue.is_empty()) {
            take_step(&mut rig, &mut log, &mut clients, &Step::Answer { place: 0 });
            for client in 0..3 {
                take_step(&mut rig, &mut log, &mut clients, &Step::Write { client, frames: 100 });
            }
        }
        let all: Vec<u64> = (1..=log.head().seq.0).collect();
        for client in &clients {
            prop_assert_eq!(&client.received, &all);
        }
    }
}
