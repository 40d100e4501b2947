//! The world around the shards: network, disk, clock and chance.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use rialto_broker::lookup;
use rialto_core::{
    Shard,
    config::CoreConfig,
    io::{
        AppendFailure, ConnId, Entry, Identity, Input, LaneClaim, Now, OutboxItem, Output, Query,
        Ticket, Transport,
    },
    message::{Message, ToEdge},
    topology::{ShardId, Topology},
};
use rialto_protocol::{
    body,
    frame::{self, FrameKind},
    ids::{ConversationId, LaneId, RequestId, UserId},
    v1::{self, draft::Content},
};
use rialto_storage::{
    journal::AppendError,
    memory::{Durability, MemoryStore},
};

use super::{
    client::Client,
    oracle::{Oracle, Violation},
    plant::Plant,
    random::Random,
};

const SHARDS: u16 = 2;
/// Short frames of a turn.
const TURN_WORK: usize = 4;
const LANES: u16 = 5;
const CLIENTS: usize = 5;
const CONVERSATIONS: usize = 3;
/// So small that slow readers fall behind all the time.
const QUEUE_BYTES_MAX: usize = 600;
/// What a queue of that limit can come to: pages that were on their way when it filled, and answers.
const QUEUE_BYTES_BOUND: usize = 12_000;
/// Rounds within which a healed world has come to rest.
const HEALING_ROUNDS: usize = 4_000;

/// What a run showed.
pub(crate) struct Report {
    pub(crate) trace: u64,
    pub(crate) violations: Vec<Violation>,
    pub(crate) appended: u64,
    pub(crate) crashes: u64,
    pub(crate) duplicates: u64,
    pub(crate) fallen_behind: u64,
}

/// A connection: what is on its way each way. Cut, it loses all of it.
struct Conn {
    client: usize,
    shard: usize,
    up: VecDeque<Bytes>,
    down: VecDeque<Bytes>,
    queued: usize,
}

struct Append {
    shard: usize,
    entry: Entry,
    /// Handed over by a process that is no more: nobody hears how it went.
    orphan: bool,
}

struct World {
    random: Random,
    plant: Option<Plant>,
    now: Now,
    store: MemoryStore,
    shards: Vec<Shard>,
    appends: VecDeque<Append>,
    loads: Vec<(usize, Ticket, Query)>,
    links: BTreeMap<(usize, usize), VecDeque<Message>>,
    conns: BTreeMap<usize, Conn>,
    next_conn: usize,
    clients: Vec<Client>,
    conversations: Vec<ConversationId>,
    oracle: Oracle,
    violations: Vec<Violation>,
    trace: DefaultHasher,
    crashes: u64,
    duplicates: u64,
    fallen_behind: u64,
    healing: bool,
}

/// Lives through one seed.
pub(crate) fn run(seed: u64, steps: usize, plant: Option<Plant>) -> Report {
    let mut world = World::new(seed, plant);
    world.heal();
    world.create_groups();
    world.heal();
    world.everybody_follows();
    world.heal();
    world.healing = false;
    for _ in 0..steps {
        world.step();
        if !world.violations.is_empty() {
            break;
        }
    }
    if world.violations.is_empty() {
        world.heal();
        world.check_end();
    }
    world.count();
    Report {
        duplicates: world.duplicates,
        fallen_behind: world.fallen_behind,
        trace: world.trace.finish(),
        appended: world.oracle.appended,
        crashes: world.crashes,
        violations: world.violations,
    }
}

fn config() -> Arc<CoreConfig> {
    Arc::new(CoreConfig {
        queue_bytes_max: QUEUE_BYTES_MAX,
        catch_up_bytes_max: 500,
        in_flight_bytes_max: 4_000,
        publish_per_s: 0,
        requests_per_s: 0,
        conversations_max: 4,
        members_max: 8,
        recent_events_max: 2,
        hash_seed: 1,
        ..CoreConfig::default()
    })
}

fn shards_over(store: &MemoryStore) -> Vec<Shard> {
    store.set_durability(Durability::Stepped);
    let topology = Topology {
        shards: SHARDS,
        lanes: LANES,
    };
    let shard = |id| {
        let lanes: Vec<LaneId> = topology.lanes_of(ShardId(id)).collect();
        let claims = store
            .claim_now(&lanes)
            .expect("lanes can be claimed")
            .into_iter()
            .map(|claim| LaneClaim {
                lane: claim.lane,
                epoch: claim.epoch,
                tail: claim.tail,
                time_ms: claim.time_ms,
                outbox: claim
                    .outbox
                    .into_iter()
                    .map(|item| OutboxItem {
                        position: item.position,
                        index: item.index,
                        time_ms: item.time_ms,
                        user: item.user,
                        notice: item.notice,
                    })
                    .collect(),
            });
        Shard::new(ShardId(id), topology, config(), claims.collect())
    };
    (0..SHARDS).map(shard).collect()
}

impl World {
    fn new(seed: u64, plant: Option<Plant>) -> Self {
        let mut random = Random::new(seed);
        let store = MemoryStore::new(LANES);
        let conversations: Vec<ConversationId> = (0..CONVERSATIONS)
            .map(|_| ConversationId::v7(1_800_000_000_000, random.bytes()))
            .collect();
        Self {
            plant,
            now: Now {
                mono_us: 1,
                unix_ms: 1_800_000_000_000,
            },
            shards: shards_over(&store),
            store,
            appends: VecDeque::new(),
            loads: Vec::new(),
            links: BTreeMap::new(),
            conns: BTreeMap::new(),
            next_conn: 0,
            clients: (0..CLIENTS)
                .map(|number| Client::new(number, &[]))
                .collect(),
            conversations,
            oracle: Oracle::default(),
            violations: Vec::new(),
            trace: DefaultHasher::new(),
            crashes: 0,
            duplicates: 0,
            fallen_behind: 0,
            healing: true,
            random,
        }
    }

    /// The first client opens the groups that everybody is in.
    fn create_groups(&mut self) {
        let members: Vec<Bytes> = self
            .clients
            .iter()
            .map(|client| client.user.to_proto())
            .collect();
        for (number, id) in (1_000..).zip(self.conversations.clone()) {
            let create = v1::Create {
                conversation: id.to_proto(),
                kind: v1::ConversationKind::Group as i32,
                members: members.clone(),
                client_id: id.to_proto(),
                ..v1::Create::default()
            };
            let frame = frame::encode(FrameKind::Create, RequestId(number), &create);
            self.say(0, frame);
        }
        for client in &mut self.clients {
            for id in &self.conversations {
                client.follows.entry(*id).or_default();
            }
            client
                .follows
                .entry(ConversationId::of_inbox(client.user))
                .or_default();
        }
    }

    fn everybody_follows(&mut self) {
        for number in 0..CLIENTS {
            if let Some(frame) = self.clients[number].subscribe() {
                self.say(number, frame);
            }
        }
    }

    /// One thing happens.
    fn step(&mut self) {
        match self.random.below(100) {
            0..20 => self.some_client_talks(),
            20..38 => self.some_frames_arrive(),
            38..56 => self.some_frames_are_taken(),
            56..68 => self.disk_syncs(),
            68..78 => self.some_load_answers(),
            78..88 => self.some_messages_cross(),
            88..93 => self.time_passes(),
            93 => self.some_connection_breaks(),
            94..97 => self.some_reader_stalls(),
            97 => {
                let full = self.random.chance(30);
                self.store.set_full(full);
            }
            98 if self.random.chance(20) => self.process_dies(),
            99 if self.random.chance(20) => self.lanes_are_taken_over(),
            _ => self.some_frames_arrive(),
        }
        self.connect_all(30);
    }

    fn some_client_talks(&mut self) {
        let number = self.random.below(CLIENTS);
        if !self.clients[number].is_ready() {
            return;
        }
        let conversation = self.conversations[self.random.below(CONVERSATIONS)];
        let frame = match self.random.below(20) {
            0 | 1 => self.clients[number].repeat(&mut self.random),
            2 => self.clients[number].mark(conversation),
            3 => self.clients[number].subscribe(),
            4..=7 if number == 0 || number == CLIENTS - 1 => {
                Some(self.membership(number, conversation))
            }
            _ => {
                let content = self.message();
                Some(self.clients[number].publish(self.now.unix_ms, conversation, content))
            }
        };
        if let Some(frame) = frame {
            self.say(number, frame);
        }
    }

    fn message(&mut self) -> Content {
        let body: [u8; 24] = self.random.bytes();
        let mut message = v1::Message {
            body: Bytes::from(body.map(|byte| b'a' + byte % 26).to_vec()),
            ..v1::Message::default()
        };
        if self.random.chance(20) {
            message
                .mentions
                .push(self.clients[self.random.below(CLIENTS)].user.to_proto());
        }
        Content::Message(message)
    }

    /// The owner sends the last client away and lets it in again; the last client accepts.
    fn membership(&mut self, number: usize, conversation: ConversationId) -> Bytes {
        use v1::MembershipAction::{Invite, Join, Remove};
        let last = self.clients[CLIENTS - 1].user.to_proto();
        let (action, user) = match number {
            0 if self.random.chance(50) => (Remove, last),
            0 => (Invite, last),
            _ => (Join, Bytes::new()),
        };
        let content = Content::Membership(v1::Membership {
            action: action as i32,
            user,
            ..v1::Membership::default()
        });
        self.clients[number].publish(self.now.unix_ms, conversation, content)
    }

    fn say(&mut self, number: usize, frame: Bytes) {
        if let Some(conn) = self.clients[number]
            .conn
            .and_then(|conn| self.conns.get_mut(&conn))
        {
            conn.up.push_back(frame);
        }
    }

    fn some_conn(&mut self) -> Option<usize> {
        let ids: Vec<usize> = self.conns.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[self.random.below(ids.len())])
    }

    fn some_frames_arrive(&mut self) {
        if let Some(conn) = self.some_conn() {
            let count = 1 + self.random.below(4);
            self.frames_arrive(conn, count);
        }
    }

    fn frames_arrive(&mut self, id: usize, count: usize) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let (shard, key) = (conn.shard, conn_id(id));
        if !self.shards[shard].may_read(key) {
            return;
        }
        let count = count.min(conn.up.len());
        let mut bytes: BytesMut = BytesMut::new();
        conn.up
            .drain(..count)
            .for_each(|frame| bytes.extend_from_slice(&frame));
        if !bytes.is_empty() {
            self.receive(shard, key, &bytes);
        }
    }

    fn some_frames_are_taken(&mut self) {
        if let Some(conn) = self.some_conn() {
            let client = self.conns[&conn].client;
            if !self.clients[client].stalled {
                let count = 1 + self.random.below(6);
                self.frames_are_taken(conn, count);
            }
        }
    }

    fn frames_are_taken(&mut self, id: usize, count: usize) {
        for _ in 0..count {
            let Some(conn) = self.conns.get_mut(&id) else {
                return;
            };
            let Some(bytes) = conn.down.pop_front() else {
                return;
            };
            conn.queued -= bytes.len();
            let (client, shard, written) = (conn.client, conn.shard, bytes.len());
            if !matches!(self.plant, Some(Plant::WakeUpLost | Plant::QueueUnbounded)) {
                self.input(
                    shard,
                    Input::Written {
                        conn: conn_id(id),
                        bytes: written,
                    },
                );
            }
            let mut buf = BytesMut::from(&bytes[..]);
            let frame = frame::split(&mut buf, 1 << 20)
                .expect("a frame")
                .expect("a whole one");
            bytes.hash(&mut self.trace);
            let answers = self.clients[client].take(&frame, &self.oracle, &mut self.violations);
            for answer in answers {
                self.say(client, answer);
            }
        }
    }

    /// The oldest entries become durable.
    fn disk_syncs(&mut self) {
        for _ in 0..1 + self.random.below(3) {
            let Some(append) = self.appends.pop_front() else {
                return;
            };
            let (_, result) = self.store.step().expect("what was handed over waits");
            self.append_ends(append, &result);
        }
    }

    fn append_ends(&mut self, append: Append, result: &Result<(), AppendError>) {
        let Append {
            shard,
            entry,
            orphan,
        } = append;
        if result.is_ok() {
            self.oracle.learn(&entry, &mut self.violations);
        }
        if orphan {
            return;
        }
        let (lane, position) = (entry.lane, entry.position);
        let input = match result {
            Ok(()) => Input::Appended {
                lane,
                through: position,
            },
            Err(AppendError::Full | AppendError::Refused(_)) => Input::AppendFailed {
                lane,
                position,
                failure: AppendFailure::NothingKept,
            },
            Err(_) if self.plant == Some(Plant::FenceIgnored) => Input::Appended {
                lane,
                through: position,
            },
            Err(_) => Input::AppendFailed {
                lane,
                position,
                failure: AppendFailure::Lost,
            },
        };
        self.input(shard, input);
    }

    fn some_load_answers(&mut self) {
        if self.loads.is_empty() {
            return;
        }
        let index = self.random.below(self.loads.len());
        self.load_answers(index);
    }

    fn load_answers(&mut self, index: usize) {
        let (shard, ticket, query) = self.loads.remove(index);
        let skipped = self.plant == Some(Plant::DedupeSkipped);
        let answer = match &query {
            Query::FindSent { .. } if skipped => Some(rialto_core::io::Answer::Sent {
                event: None,
                as_of_ms: 0,
            }),
            _ => {
                let store = Arc::new(self.store.clone());
                lookup::answer(store, query.clone())
                    .now_or_never()
                    .expect("memory answers at once")
                    .ok()
            }
        };
        self.input(shard, Input::Loaded { ticket, answer });
    }

    fn some_messages_cross(&mut self) {
        let pairs: Vec<(usize, usize)> = self.links.keys().copied().collect();
        if !pairs.is_empty() {
            let pair = pairs[self.random.below(pairs.len())];
            let count = 1 + self.random.below(5);
            self.messages_cross(pair, count);
        }
    }

    fn messages_cross(&mut self, pair: (usize, usize), count: usize) {
        let Some(link) = self.links.get_mut(&pair) else {
            return;
        };
        let count = count.min(link.len());
        let mut messages: Vec<Message> = link.drain(..count).collect();
        if self.plant == Some(Plant::RemovalIgnored) {
            for message in &mut messages {
                if let Message::ToEdge(ToEdge::Deliver { ended, .. }) = message {
                    ended.clear();
                }
            }
        }
        if !messages.is_empty() {
            self.input(pair.1, Input::Messages { messages });
        }
    }

    fn time_passes(&mut self) {
        let ms = self.random.below(400) as u64;
        self.now.mono_us += ms * 1_000;
        // The wall clock is set back now and then.
        self.now.unix_ms = if self.random.chance(10) {
            self.now.unix_ms - 50
        } else {
            self.now.unix_ms + ms
        };
        for shard in 0..self.shards.len() {
            self.input(shard, Input::Tick);
        }
    }

    fn some_connection_breaks(&mut self) {
        if let Some(conn) = self.some_conn() {
            self.cut(conn);
        }
    }

    fn cut(&mut self, id: usize) {
        let Some(conn) = self.conns.remove(&id) else {
            return;
        };
        self.clients[conn.client].cut();
        self.input(conn.shard, Input::Closed { conn: conn_id(id) });
    }

    fn some_reader_stalls(&mut self) {
        let number = self.random.below(CLIENTS);
        self.clients[number].stalled = !self.clients[number].stalled;
    }

    /// The process is killed; of what was on its way to the disk some may have arrived.
    fn process_dies(&mut self) {
        self.crashes += 1;
        // What a former owner left behind is fenced, and never arrives.
        let on_their_way: Vec<Append> = self
            .appends
            .drain(..)
            .filter(|append| !append.orphan)
            .collect();
        let kept = self.random.below(on_their_way.len() + 1);
        let arrived = on_their_way.into_iter().take(kept);
        self.store = self.store.crash(kept);
        for append in arrived.collect::<Vec<_>>() {
            self.oracle.learn(&append.entry, &mut self.violations);
        }
        self.start_again();
    }

    /// Another process takes the lanes over while this one still writes.
    fn lanes_are_taken_over(&mut self) {
        self.crashes += 1;
        let successors = shards_over(&self.store);
        // The former owner goes on for a moment, and may not be told yes.
        let count = self.appends.len().min(1 + self.random.below(3));
        for _ in 0..count {
            let Some(append) = self.appends.pop_front() else {
                break;
            };
            let (_, result) = self.store.step().expect("what was handed over waits");
            self.append_ends(append, &result);
        }
        for append in &mut self.appends {
            append.orphan = true;
        }
        self.forget_process();
        self.shards = successors;
        self.pump_all();
    }

    fn start_again(&mut self) {
        self.appends.clear();
        self.forget_process();
        self.shards = shards_over(&self.store);
        self.pump_all();
    }

    /// Adds up what the shards of this process counted.
    fn count(&mut self) {
        for counters in self.shards.iter().map(Shard::counters) {
            self.duplicates += counters.duplicates;
            self.fallen_behind += counters.readers_fallen_behind;
        }
    }

    fn forget_process(&mut self) {
        self.count();
        self.loads.clear();
        self.links.clear();
        for (_, conn) in std::mem::take(&mut self.conns) {
            self.clients[conn.client].cut();
        }
    }

    fn connect_all(&mut self, percent: u64) {
        for number in 0..CLIENTS {
            if self.clients[number].conn.is_none() && self.random.chance(percent) {
                self.connect(number);
            }
        }
    }

    fn connect(&mut self, number: usize) {
        let id = self.next_conn;
        self.next_conn += 1;
        let shard = self.random.below(self.shards.len());
        let up = VecDeque::from([self.clients[number].hello()]);
        self.conns.insert(
            id,
            Conn {
                client: number,
                shard,
                up,
                down: VecDeque::new(),
                queued: 0,
            },
        );
        self.clients[number].conn = Some(id);
        self.input(
            shard,
            Input::Opened {
                conn: conn_id(id),
                transport: Transport::default(),
            },
        );
    }

    fn receive(&mut self, shard: usize, conn: ConnId, bytes: &[u8]) {
        let taken = self.shards[shard].receive(self.now, conn, bytes, TURN_WORK);
        let taken = taken.expect("clients send whole frames").bytes;
        // The rest has to wait for credit, or for the next turn.
        if taken < bytes.len()
            && let Some(conn) = self.conns.get_mut(&(conn.index as usize))
        {
            conn.up.push_front(Bytes::copy_from_slice(&bytes[taken..]));
        }
        self.after_input(shard);
    }

    fn input(&mut self, shard: usize, input: Input) {
        self.shards[shard].handle(self.now, input);
        self.after_input(shard);
    }

    fn after_input(&mut self, shard: usize) {
        if self.healing || self.random.chance(60) {
            self.shards[shard].flush(self.now);
        }
        self.pump(shard);
    }

    fn pump_all(&mut self) {
        for shard in 0..self.shards.len() {
            self.shards[shard].flush(self.now);
            self.pump(shard);
        }
    }

    fn pump(&mut self, shard: usize) {
        let mut outputs = Vec::new();
        self.shards[shard].take_outputs(&mut outputs);
        for output in outputs {
            match output {
                Output::Send { conn, frame, .. } => self.sent(conn, &frame),
                Output::Close { conn } => self.cut(conn.index as usize),
                Output::Authenticate { conn, token } => {
                    let identity = Identity {
                        user: UserId::from_name(&token),
                        expires_ms: u64::MAX,
                        service: false,
                        key: None,
                    };
                    self.input(
                        shard,
                        Input::Authenticated {
                            conn,
                            result: Ok(identity),
                        },
                    );
                }
                Output::Forward { shard: to, message } => {
                    self.links
                        .entry((shard, usize::from(to.0)))
                        .or_default()
                        .push_back(message);
                }
                Output::Append(entry) => self.append(shard, entry),
                Output::Load { ticket, query, .. } => self.loads.push((shard, ticket, query)),
                Output::Resume { .. } | Output::Settled { .. } | Output::Seen { .. } => {}
            }
        }
    }

    fn append(&mut self, shard: usize, entry: Entry) {
        entry.records.hash(&mut self.trace);
        let stored = rialto_storage::journal::Entry {
            lane: entry.lane,
            epoch: entry.epoch,
            position: entry.position,
            time_ms: entry.time_ms,
            records: entry.records.clone(),
        };
        let early = matches!(
            self.plant,
            Some(Plant::AckBeforeSync | Plant::DeliveredBeforeSync)
        );
        let (lane, through) = (entry.lane, entry.position);
        match self.store.append_now(vec![stored]) {
            Ok(_) => {
                self.appends.push_back(Append {
                    shard,
                    entry,
                    orphan: false,
                });
                if early {
                    self.input(shard, Input::Appended { lane, through });
                }
            }
            Err(error) => self.append_ends(
                Append {
                    shard,
                    entry,
                    orphan: false,
                },
                &Err(error),
            ),
        }
    }

    /// A frame is queued for a client: what it says must be durable, and the queue bounded.
    fn sent(&mut self, conn: ConnId, bytes: &Bytes) {
        let mut buf = BytesMut::from(&bytes[..]);
        let frame = frame::split(&mut buf, 1 << 20)
            .expect("the core writes frames")
            .expect("whole ones");
        let id = conn.index as usize;
        let Some(connection) = self.conns.get_mut(&id) else {
            return;
        };
        connection.queued += bytes.len();
        let overtakes =
            self.plant == Some(Plant::FramesReordered) && frame.kind == FrameKind::Deliver;
        let at = if overtakes {
            connection.down.len().saturating_sub(1)
        } else {
            connection.down.len()
        };
        connection.down.insert(at, bytes.clone());
        if connection.queued > QUEUE_BYTES_BOUND {
            self.violations.push(Violation::new(
                "G8",
                format!("{} bytes wait for one connection", connection.queued),
            ));
        }
        let (client, shard) = (connection.client, connection.shard);
        match frame.kind {
            FrameKind::Deliver => self.check_delivered(client, &frame.body),
            FrameKind::Published => self.check_acknowledged(&frame.body),
            _ => {}
        }
        if self.plant == Some(Plant::QueueUnbounded) {
            self.input(
                shard,
                Input::Written {
                    conn,
                    bytes: bytes.len(),
                },
            );
        }
    }

    fn check_acknowledged(&mut self, bytes: &Bytes) {
        let published = body::decode::<v1::Published>(bytes).expect("a body");
        for receipt in published
            .receipts
            .iter()
            .filter(|receipt| receipt.error.is_none())
        {
            let durable = self.oracle.logs.keys().any(|id| {
                let truth = self.oracle.event(id, receipt.seq);
                truth.is_some_and(|(head, _)| {
                    head.epoch.0 == receipt.epoch && head.time_ms == receipt.time_ms
                })
            });
            if !durable {
                let guarantee = if self.plant == Some(Plant::FenceIgnored) {
                    "G6"
                } else {
                    "G1"
                };
                self.violations.push(Violation::new(
                    guarantee,
                    format!("acknowledged and not durable: {receipt:?}"),
                ));
            }
        }
    }

    fn check_delivered(&mut self, client: usize, bytes: &Bytes) {
        let deliver = body::decode::<v1::Deliver>(bytes).expect("a body");
        let user = self.clients[client].user;
        for event in &deliver.events {
            let of = self.oracle.logs.keys().find(|id| {
                let known = self.oracle.event(id, event.seq);
                known.is_some_and(|(head, _)| {
                    head.client_id.to_proto() == event.client_id && head.epoch.0 == event.epoch
                })
            });
            let Some(id) = of else {
                self.violations.push(Violation::new(
                    "G5",
                    format!(
                        "delivered and not durable: {} of {}",
                        event.seq, event.epoch
                    ),
                ));
                continue;
            };
            if self
                .oracle
                .gone_at(id, &user)
                .is_some_and(|gone| event.seq > gone.0)
            {
                self.violations.push(Violation::new(
                    "G7",
                    format!("{user} is out of {id} and gets {}", event.seq),
                ));
            }
        }
    }

    /// All faults end; the world comes to rest.
    fn heal(&mut self) {
        self.healing = true;
        self.store.set_full(false);
        for client in &mut self.clients {
            client.stalled = false;
        }
        let mut quiet = 0;
        let mut asked_again = false;
        for _ in 0..HEALING_ROUNDS {
            self.connect_all(100);
            let busy = self.everything_moves();
            self.now.mono_us += 1_000;
            self.now.unix_ms += 1;
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet > 3 && !self.wake() {
                if asked_again {
                    return;
                }
                // Who was refused asks once more, now that everything works.
                asked_again = true;
                quiet = 0;
                self.everybody_follows();
            }
        }
    }

    /// What only time moves: outboxes are retried, clients subscribe and publish again. `false`: nothing is left to be done.
    fn wake(&mut self) -> bool {
        self.now.mono_us += 20_000_000;
        for shard in 0..self.shards.len() {
            self.input(shard, Input::Tick);
        }
        let mut woken = !self.appends.is_empty() || !self.links.values().all(VecDeque::is_empty);
        for number in 0..CLIENTS {
            let client = &mut self.clients[number];
            let mut frames = vec![client.ping()];
            if client.conn.is_none() || !client.is_ready() {
                woken = true;
            } else if !client.is_settled() {
                frames.extend(client.repeat(&mut self.random));
                woken = true;
            }
            for frame in frames {
                self.say(number, frame);
            }
        }
        woken
    }

    fn everything_moves(&mut self) -> bool {
        let mut busy = !self.appends.is_empty() || !self.loads.is_empty();
        let conns: Vec<usize> = self.conns.keys().copied().collect();
        for conn in conns {
            busy |= self
                .conns
                .get(&conn)
                .is_some_and(|conn| !conn.up.is_empty() || !conn.down.is_empty());
            self.frames_arrive(conn, usize::MAX);
            self.frames_are_taken(conn, usize::MAX >> 1);
        }
        while !self.appends.is_empty() {
            self.disk_syncs();
        }
        while !self.loads.is_empty() {
            self.load_answers(0);
        }
        let pairs: Vec<(usize, usize)> = self.links.keys().copied().collect();
        for pair in pairs {
            busy |= !self.links[&pair].is_empty();
            self.messages_cross(pair, usize::MAX);
        }
        busy
    }

    /// At rest every follower has the whole log, and everything that was to be passed on has arrived.
    fn check_end(&mut self) {
        for client in &self.clients {
            if !client.is_settled() {
                self.violations.push(Violation::new(
                    "G4",
                    format!("{} still waits for receipts", client.name),
                ));
            }
            for (id, following) in &client.follows {
                let Some(log) = self.oracle.logs.get(id) else {
                    continue;
                };
                let own_inbox = *id == ConversationId::of_inbox(client.user);
                if !own_inbox && !log.members.contains(&client.user) {
                    continue;
                }
                let (have, all) = (following.cursor.seq.0, log.events.len() as u64);
                if have != all {
                    let what = format!("{} has {have} of {all} events of {id}", client.name);
                    self.violations.push(Violation::new("G4", what));
                }
            }
        }
        self.oracle.check_mentions(&mut self.violations);
    }
}

fn conn_id(id: usize) -> ConnId {
    ConnId {
        index: u32::try_from(id).expect("few connections"),
        generation: 0,
    }
}
