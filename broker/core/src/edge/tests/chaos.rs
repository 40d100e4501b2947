//! Clients that come, go, subscribe and unsubscribe in any order, against owners that answer late: what each is told has
//! no gap and no repeat, and nothing is left over when all are gone.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use rialto_protocol::{
    frame::{self, Frame, FrameKind, HEADER_BYTES},
    ids::{ConversationId, Cursor, RequestId},
    v1,
};

use super::rig::{Log, Rig, decode, seqs, subscribe};
use crate::{
    config::CoreConfig,
    io::{ConnId, Input},
    message::ToOwner,
};

const CLIENTS: usize = 3;
const LOGS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Subscribe {
        client: usize,
        logs: Vec<usize>,
        back: Option<u64>,
    },
    Unsubscribe {
        client: usize,
        log: usize,
    },
    Reconnect {
        client: usize,
    },
    Append {
        log: usize,
        count: u64,
        bytes: usize,
    },
    Write {
        client: usize,
    },
    Answer {
        log: usize,
    },
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    let logs = prop::collection::vec(0..LOGS, 1..3);
    prop_oneof![
        3 => (0..CLIENTS, logs, prop::option::of(0..20_u64))
            .prop_map(|(client, logs, back)| Step::Subscribe { client, logs, back }),
        2 => (0..CLIENTS, 0..LOGS).prop_map(|(client, log)| Step::Unsubscribe { client, log }),
        1 => (0..CLIENTS).prop_map(|client| Step::Reconnect { client }),
        4 => (0..LOGS, 1..4_u64, 1..500_usize)
            .prop_map(|(log, count, bytes)| Step::Append { log, count, bytes }),
        4 => (0..CLIENTS).prop_map(|client| Step::Write { client }),
        8 => (0..LOGS).prop_map(|log| Step::Answer { log }),
        1 => Just(Step::Pass),
    ]
}

/// What a client knows.
struct Client {
    conn: ConnId,
    requests: u32,
    /// Of each Subscribe: where it begins.
    asked: BTreeMap<u32, Vec<Option<Cursor>>>,
    /// Of each Unsubscribe: what of.
    dropped: BTreeMap<u32, ConversationId>,
    /// Of each subscription: the next event, by handle.
    expected: BTreeMap<u32, u64>,
    queue: VecDeque<usize>,
    /// What it sent while it was not read.
    unread: VecDeque<Bytes>,
}

struct World {
    rig: Rig,
    logs: Vec<Log>,
    /// What each owner was asked, in order.
    asked: Vec<VecDeque<ToOwner>>,
    clients: Vec<Client>,
}

fn conversation_of(ask: &ToOwner) -> ConversationId {
    match ask {
        ToOwner::Subscribe { conversation, .. }
        | ToOwner::CatchUp { conversation, .. }
        | ToOwner::Detach { conversation, .. } => *conversation,
        other => panic!("{other:?}"),
    }
}

impl World {
    fn new() -> Self {
        let mut rig = Rig::with(CoreConfig {
            queue_bytes_max: 2_000,
            catch_up_bytes_max: 1_000,
            requests_per_s: 0,
            ..CoreConfig::default()
        });
        let clients = (0..CLIENTS).map(|_| Client::new(&mut rig)).collect();
        let logs = (1..).take(LOGS).map(|number| Log::new(number, 5)).collect();
        Self {
            rig,
            logs,
            asked: vec![VecDeque::new(); LOGS],
            clients,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Subscribe { client, logs, back } => self.subscribe(*client, logs, *back),
            Step::Unsubscribe { client, log } => {
                let conversation = self.logs[*log].conversation;
                let client = &mut self.clients[*client];
                client.requests += 1;
                client.dropped.insert(client.requests, conversation);
                let body = v1::Unsubscribe {
                    conversations: vec![conversation.to_proto()],
                };
                client.send(&mut self.rig, FrameKind::Unsubscribe, &body);
            }
            Step::Reconnect { client } => {
                self.rig.close(self.clients[*client].conn);
                self.clients[*client] = Client::new_keeping(&mut self.rig);
            }
            Step::Append { log, count, bytes } => {
                let log = &mut self.logs[*log];
                let batch = log.append(*count, *bytes);
                if log.attached {
                    self.rig.tell(batch);
                }
            }
            Step::Write { client } => {
                let client = &mut self.clients[*client];
                if let Some(bytes) = client.queue.pop_front() {
                    self.rig.input(Input::Written {
                        conn: client.conn,
                        bytes,
                    });
                }
            }
            Step::Answer { log } => {
                if let Some(ask) = self.asked[*log].pop_front()
                    && let Some(answer) = self.logs[*log].answer(ask)
                {
                    self.rig.tell(answer);
                }
            }
            // What those who are gone have left is taken apart.
            Step::Pass => self.rig.pass_ms(1),
        }
        self.look();
    }

    fn subscribe(&mut self, client: usize, logs: &[usize], back: Option<u64>) {
        let items: Vec<(ConversationId, Option<Cursor>)> = logs
            .iter()
            .map(|log| {
                let log = &self.logs[*log];
                let cursor = back.map(|back| log.cursor(log.head().seq.0.saturating_sub(back)));
                (log.conversation, cursor)
            })
            .collect();
        let client = &mut self.clients[client];
        client.requests += 1;
        client.asked.insert(
            client.requests,
            items.iter().map(|(_, cursor)| *cursor).collect(),
        );
        client.send(&mut self.rig, FrameKind::Subscribe, &subscribe(&items));
    }

    /// Reads on from clients that may be read again, sorts what the edge asked, and lets clients see what they were sent.
    fn look(&mut self) {
        for client in &mut self.clients {
            if self.rig.was_resumed(client.conn) {
                client.read_on(&mut self.rig);
            }
        }
        for ask in self.rig.asked.drain(..) {
            let conversation = conversation_of(&ask);
            let log = self
                .logs
                .iter()
                .position(|log| log.conversation == conversation);
            self.asked[log.expect("one of the logs")].push_back(ask);
        }
        for client in &mut self.clients {
            for frame in self.rig.frames(client.conn) {
                client.queue.push_back(frame.body.len() + HEADER_BYTES);
                client.see(&frame, &self.logs);
            }
        }
    }

    fn settle(&mut self) {
        while self.asked.iter().any(|asked| !asked.is_empty())
            || self.clients.iter().any(|client| !client.queue.is_empty())
        {
            for log in 0..LOGS {
                self.take(&Step::Answer { log });
            }
            for client in 0..CLIENTS {
                self.take(&Step::Write { client });
            }
        }
    }
}

impl Client {
    fn new(rig: &mut Rig) -> Self {
        Self::of(rig.connect("ann"))
    }

    /// As [`Client::new`], with what others were sent left alone.
    fn new_keeping(rig: &mut Rig) -> Self {
        let kept = std::mem::take(&mut rig.outputs);
        let conn = rig.connect("ann");
        rig.outputs.extend(kept);
        Self::of(conn)
    }

    fn of(conn: ConnId) -> Self {
        Self {
            conn,
            requests: 1,
            asked: BTreeMap::new(),
            dropped: BTreeMap::new(),
            expected: BTreeMap::new(),
            queue: VecDeque::new(),
            unread: VecDeque::new(),
        }
    }

    fn send<M: prost::Message>(&mut self, rig: &mut Rig, kind: FrameKind, body: &M) {
        let frame = frame::wrap(kind, RequestId(self.requests), &body.encode_to_vec());
        self.unread.push_back(frame);
        if self.unread.len() == 1 {
            self.read_on(rig);
        }
    }

    /// Has the broker read what it has not, until it is told to wait; then only `Resume` goes on.
    fn read_on(&mut self, rig: &mut Rig) {
        while let Some(frame) = self.unread.front()
            && rig.receive(self.conn, frame) > 0
        {
            self.unread.pop_front();
        }
    }

    fn see(&mut self, frame: &Frame, logs: &[Log]) {
        match frame.kind {
            FrameKind::Subscribed => {
                let cursors = self
                    .asked
                    .remove(&frame.request_id.0)
                    .expect("answered once");
                let results = decode::<v1::Subscribed>(frame).results;
                assert_eq!(results.len(), cursors.len());
                for (result, cursor) in results.into_iter().zip(cursors) {
                    let from = cursor.map_or(result.head.unwrap().seq, |cursor| cursor.seq.0);
                    self.expected.insert(result.handle, from + 1);
                }
            }
            FrameKind::Done => {
                let conversation = self
                    .dropped
                    .remove(&frame.request_id.0)
                    .expect("answered once");
                let log = logs
                    .iter()
                    .find(|log| log.conversation == conversation)
                    .unwrap();
                self.expected.remove(&log.handle.0);
            }
            FrameKind::Deliver => {
                let handle = decode::<v1::Deliver>(frame).handle;
                for seq in seqs(std::slice::from_ref(frame)) {
                    let expected = self.expected.get_mut(&handle).expect("a subscription");
                    assert_eq!(seq, *expected);
                    *expected += 1;
                }
            }
            other => panic!("{other}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_misses_or_repeats_an_event_and_nothing_is_left_over(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.settle();
        for client in &world.clients {
            prop_assert!(client.asked.is_empty() && client.dropped.is_empty(), "every request is answered");
            for log in &world.logs {
                let follows = world.rig.edge.sub_of(client.conn, log.conversation).is_some();
                let next = client.expected.get(&log.handle.0).copied();
                prop_assert_eq!(next, follows.then_some(log.head().seq.0 + 1));
            }
            let session = world.rig.edge.conns.get_mut(client.conn).unwrap();
            prop_assert_eq!(session.in_flight_bytes, 0);
            prop_assert!(session.work_if_any().is_none(), "work that is done is dropped");
        }
        for client in 0..CLIENTS {
            world.rig.close(world.clients[client].conn);
        }
        world.rig.pass_ms(1);
        world.look();
        world.settle();
        prop_assert!(world.logs.iter().all(|log| !log.attached));
        prop_assert_eq!((world.rig.edge.subs.len(), world.rig.edge.topics.len()), (0, 0));
        prop_assert_eq!(world.rig.edge.conns.held_bytes(), 0);
    }
}
