//! What all tasks of a shard share: the core, the connections, and what the shell counts. One thread: cells, no locks.
//!
//! Tasks tell the core what happened through [`Engine::handle`]; the pump carries out what the core decides. What a connection's
//! task holds of it stands in [`registration`].

mod registration;

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rialto_core::{
    Shard,
    io::{ConnId, Identity, Input, Now, TakenIn, Transport, Via},
    topology::ShardId,
};
use rialto_protocol::error::ErrorCode;
use rialto_storage::{Store, directory::Seen};
use slab::Slab;

pub(crate) use self::registration::Registration;
use super::{
    bell::Bell,
    complaints::Complaints,
    figures::{Carrier, ShardFigures, ShellFigures, Stage},
    kept::KeptBytes,
    link::Link,
    loads::Loads,
    lookup::LookupError,
    mailbox::Mailbox,
    turns::Turns,
};
use crate::{
    Authenticator,
    admission::{Admission, Permit, Stranger, Strangers, UserPermit},
    clock::Clock,
    config::BrokerConfig,
    fate::Fate,
    transport::quic::{self, CatchUps},
};

/// The read buffer of all connections of a shard: large enough that a busy connection fills one with many frames.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Least room to read into: that of a TLS record.
const READ_ROOM_MIN: usize = 16 << 10;

/// How long a short message is taken to be, for what is read at once; and what is read in any case.
const SHORT_MESSAGE_BYTES: usize = 128;
const TURN_BYTES_MIN: usize = 4 << 10;

/// "Last seen" notes that wait for the next write of them.
const SEEN_MAX: usize = 65_536;

/// What every shard of a broker has in common.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) mailboxes: Arc<[Mailbox]>,
    pub(crate) fate: Fate,
}

/// See the module.
pub(crate) struct Engine {
    id: ShardId,
    node: Node,
    core: RefCell<Shard>,
    links: RefCell<Slab<Rc<Link>>>,
    /// Given to the next connection; never the same again.
    generation: Cell<u32>,
    read_buffer: RefCell<BytesMut>,
    figures: RefCell<ShellFigures>,
    strangers: Strangers,
    /// Who waits while others have their turn.
    turns: Turns,
    /// What connections keep between their turns.
    kept: KeptBytes,
    /// Reads of storage.
    loads: Loads,
    /// To be written to the directory.
    seen: RefCell<Vec<Seen>>,
    /// Rings when the core was told something.
    turn: Bell,
    /// Rings when the last connection is gone.
    emptied: Bell,
    /// Of users whose connections are gone, while something is under way that they asked for.
    unsettled: RefCell<HashMap<ConnId, UserPermit, ahash::RandomState>>,
    /// Whether connections are not read, because another shard's mailbox is full or because the broker stops.
    stalled: Cell<bool>,
    stopping: Cell<bool>,
    /// Connections are refused where refusing is what tells a client.
    refusing: Cell<bool>,
    /// Connections that would have read meanwhile.
    waiting: RefCell<Vec<Rc<Link>>>,
    /// The pump holds messages back that another shard refused.
    overflowing: Cell<bool>,
    /// The core has panicked: it is not called any more.
    dead: Cell<bool>,
    append_complaints: Complaints,
    load_complaints: Complaints,
}

/// What became of bytes; nothing, once the core is gone.
struct Received(Result<TakenIn, ErrorCode>);

impl Default for Received {
    fn default() -> Self {
        Self(Err(ErrorCode::InternalError))
    }
}

impl Engine {
    pub(crate) fn new(id: ShardId, node: Node, core: Shard) -> Rc<Self> {
        let shard_bytes_max = node.config.core.shard_bytes_max;
        Rc::new(Self {
            id,
            node,
            core: RefCell::new(core),
            links: RefCell::default(),
            generation: Cell::new(0),
            read_buffer: RefCell::default(),
            figures: RefCell::default(),
            strangers: Strangers::default(),
            turns: Turns::default(),
            kept: KeptBytes::new(shard_bytes_max),
            loads: Loads::default(),
            seen: RefCell::default(),
            turn: Bell::default(),
            emptied: Bell::default(),
            unsettled: RefCell::default(),
            stalled: Cell::new(false),
            stopping: Cell::new(false),
            refusing: Cell::new(false),
            waiting: RefCell::default(),
            overflowing: Cell::new(false),
            dead: Cell::new(false),
            append_complaints: Complaints::default(),
            load_complaints: Complaints::default(),
        })
    }

    pub(crate) fn id(&self) -> ShardId {
        self.id
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn admission(&self) -> &Arc<Admission> {
        &self.node.admission
    }

    pub(crate) fn turn(&self) -> &Bell {
        &self.turn
    }

    pub(crate) fn emptied(&self) -> &Bell {
        &self.emptied
    }

    /// Tells the core, and has the pump carry out what follows.
    pub(crate) fn handle(&self, input: Input) {
        self.with_core(|core, now| core.handle(now, input));
        self.turn.ring();
    }

    /// Hands what was read to the core; see [`Shard::receive`].
    pub(crate) fn receive(&self, conn: ConnId, bytes: &[u8]) -> Result<TakenIn, ErrorCode> {
        let work_max = self.turns.work();
        let result = self.with_core(|core, now| Received(core.receive(now, conn, bytes, work_max)));
        self.turn.ring();
        result.0
    }

    /// Calls the core. Should it panic, its state is not to be trusted any more, and the process has to end.
    pub(crate) fn with_core<T: Default>(&self, call: impl FnOnce(&mut Shard, Now) -> T) -> T {
        if self.dead.replace(true) {
            return T::default();
        }
        let guard = self.node.fate.guard(self.id);
        let result = call(&mut self.core.borrow_mut(), self.node.clock.now());
        drop(guard);
        self.dead.set(false);
        result
    }

    /// Takes a connection in whose handshake is done.
    pub(crate) fn open(
        self: &Rc<Self>,
        carrier: Carrier,
        (permit, stranger): (Permit, Stranger),
        transport: Transport,
        catch_ups: Option<CatchUps>,
    ) -> Registration {
        let mut links = self.links.borrow_mut();
        let entry = links.vacant_entry();
        let index = u32::try_from(entry.key()).expect("connections are limited far below 2^32");
        let generation = self.generation.get();
        self.generation.set(generation.wrapping_add(1));
        let conn = ConnId { index, generation };
        let link = Rc::clone(entry.insert(Rc::new(Link::new(conn, catch_ups, stranger))));
        drop(links);
        // Nobody reads what it says: it would only be waited for.
        if self.stopping.get() {
            link.close();
        }
        let mut figures = self.figures.borrow_mut();
        figures.open[carrier as usize] += 1;
        figures.opened[carrier as usize] += 1;
        drop(figures);
        self.handle(Input::Opened { conn, transport });
        Registration {
            engine: Rc::clone(self),
            link,
            carrier,
            _permit: permit,
        }
    }

    /// Whether there still is somebody at the connection.
    pub(crate) fn serves(&self, conn: ConnId) -> bool {
        self.link(conn).is_some_and(|link| !link.is_closing())
    }

    /// The connection, unless it is gone.
    pub(crate) fn link(&self, conn: ConnId) -> Option<Rc<Link>> {
        let links = self.links.borrow();
        links
            .get(conn.index as usize)
            .filter(|link| link.id() == conn)
            .map(Rc::clone)
    }

    /// Queues a frame of the core on a connection.
    pub(crate) fn send(self: &Rc<Self>, conn: ConnId, frame: Bytes, via: Via) {
        let Some(link) = self.link(conn) else { return };
        match (via, link.catch_ups()) {
            (Via::Crowd, _) => self.turns.send_to_crowd(link, frame),
            (Via::Main, _) | (_, None) => link.push(frame),
            (Via::CatchUp(conversation), Some(streams)) => {
                streams.send(self, &link, conversation, frame);
            }
            (Via::Datagram, Some(streams)) => {
                let bytes = frame.len();
                if let Err(reason) = quic::send_datagram(streams.connection(), frame) {
                    self.shed(Stage::Datagram, reason);
                }
                // Sent or dropped: either way it waits no longer.
                self.handle(Input::Written { conn, bytes });
            }
        }
    }

    /// Who waits while others have their turn.
    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Resolves when it is the turn of a TLS handshake to be read.
    pub(crate) async fn tls_handshake_turn(&self) {
        self.turns.tls_handshakes().take().await;
        // The next round is for those who wait.
        self.turn.ring();
    }

    /// Resolves when it is the turn of a connection over QUIC in the middle of its handshake.
    pub(crate) async fn quic_handshake_turn(&self) {
        self.turns.quic_handshakes().take().await;
        self.turn.ring();
    }

    /// Resolves when it is the turn of an answer of storage.
    pub(crate) async fn answer_turn(&self) {
        self.turns.answers().take().await;
        self.turn.ring();
    }

    /// What connections keep between their turns.
    pub(crate) fn kept(&self) -> &KeptBytes {
        &self.kept
    }

    /// Reads of storage.
    pub(crate) fn loads(&self) -> &Loads {
        &self.loads
    }

    /// Bytes to be read of a connection at once.
    pub(crate) fn turn_bytes(&self) -> usize {
        if self.kept.is_much_held() || self.core.borrow().is_crowded() {
            TURN_BYTES_MIN
        } else {
            (self.turns.work() * SHORT_MESSAGE_BYTES).max(TURN_BYTES_MIN)
        }
    }

    /// Where connections read into, empty. What they leave in it they take out again.
    pub(crate) fn read_buffer(&self) -> RefMut<'_, BytesMut> {
        let mut buffer = self.read_buffer.borrow_mut();
        // One that has panicked has not: nobody is to be taken for having said it.
        buffer.clear();
        if buffer.capacity() - buffer.len() < READ_ROOM_MIN {
            buffer.reserve(READ_BUFFER_BYTES);
        }
        buffer
    }

    /// Stops or restarts reading from all connections, because messages for another shard have to wait.
    pub(crate) fn set_overflowing(&self, overflowing: bool) {
        if overflowing && !self.overflowing.get() {
            self.figures.borrow_mut().stalls += 1;
        }
        self.overflowing.set(overflowing);
        self.set_stalled();
    }

    /// Stops reading for good: the broker stops.
    pub(crate) fn stop_reading(&self) {
        self.stopping.set(true);
        self.set_stalled();
    }

    /// Takes no connections any more.
    pub(crate) fn refuse_connections(&self) {
        self.refusing.set(true);
    }

    pub(crate) fn refuses_connections(&self) -> bool {
        self.refusing.get()
    }

    fn set_stalled(&self) {
        let stalled = self.overflowing.get() || self.stopping.get();
        if self.stalled.replace(stalled) && !stalled {
            for link in self.waiting.take() {
                link.waits_for_shard().set(false);
                link.bell().ring();
            }
        }
    }

    /// Has every connection write what is queued and end.
    pub(crate) fn close_all(&self) {
        for (_, link) in &*self.links.borrow() {
            link.close();
        }
    }

    /// Connections now.
    pub(crate) fn open_count(&self) -> usize {
        self.links.borrow().len()
    }

    /// Notes that a user was connected, for the next write of such notes.
    pub(crate) fn note_seen(&self, note: Seen) {
        let mut seen = self.seen.borrow_mut();
        if seen.len() < SEEN_MAX {
            seen.push(note);
        } else {
            self.shed(Stage::Seen, "full");
        }
    }

    pub(crate) fn has_seen(&self) -> bool {
        !self.seen.borrow().is_empty()
    }

    /// Writes what was noted. A failure makes "last seen" older than it is, and no more.
    pub(crate) async fn write_seen(&self) {
        let seen = self.seen.take();
        if let Err(error) = self.node.store.record_seen(seen).await {
            tracing::warn!(%error, "when users were last seen could not be noted");
        }
    }

    /// Nothing waits for the disk, for storage or for another shard.
    pub(crate) fn is_idle(&self) -> bool {
        let mailbox = &self.node.mailboxes[usize::from(self.id.0)];
        self.core.borrow().is_idle()
            && !self.overflowing.get()
            && mailbox.is_empty()
            && !self.turns.holds_answers()
    }

    pub(crate) fn figures(&self) -> ShardFigures {
        ShardFigures {
            core: self.core.borrow().counters(),
            shell: self.figures.borrow().clone(),
            idle: self.is_idle(),
        }
    }

    pub(crate) fn shed(&self, stage: Stage, reason: &'static str) {
        self.figures.borrow_mut().shed(stage, reason);
    }

    pub(crate) fn count_read(&self, bytes: usize) {
        self.figures.borrow_mut().bytes_in += bytes as u64;
    }

    pub(crate) fn count_accept_error(&self) {
        self.figures.borrow_mut().accept_errors += 1;
    }

    pub(crate) fn count_retry(&self) {
        self.figures.borrow_mut().retries += 1;
    }

    /// Gives what says so in the log.
    pub(crate) fn count_append_failure(&self) -> &Complaints {
        self.figures.borrow_mut().append_failures += 1;
        &self.append_complaints
    }

    /// A read of storage has failed.
    pub(crate) fn note_load_failure(&self, error: &LookupError) {
        self.figures.borrow_mut().load_failures += 1;
        if let Some(failures) = self.load_complaints.note() {
            tracing::error!(%error, failures, "reads fail");
        }
    }

    /// For the handshake of a transport, and again for the Hello after it, which the core waits for.
    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.node.config.core.handshake_timeout_ms.into())
    }

    pub(crate) fn close_timeout(&self) -> Duration {
        Duration::from_millis(self.node.config.close_timeout_ms.into())
    }

    /// Room for a connection that has not shown who it is; a refusal is counted.
    pub(crate) fn admit_stranger(&self, address: IpAddr) -> Option<Stranger> {
        let places = self.node.config.handshakes_max;
        self.strangers
            .admit(address, places)
            .map_err(|refusal| self.shed(Stage::Handshake, refusal.reason()))
            .ok()
    }

    /// Ends the sessions with tokens of keys that are not trusted any more.
    pub(crate) fn end_untrusted(&self) {
        let keys = &self.node.authenticator;
        self.with_core(|core, now| core.withdraw(now, |key| keys.trusts(key)));
        self.turn.ring();
    }

    /// Whether so many are strangers that a QUIC client has to prove its address first.
    pub(crate) fn wants_proof(&self) -> bool {
        self.strangers.count() >= self.node.config.quic_retry_above
    }

    /// A connection has shown who it is. Whether there is room for one more of that user.
    pub(crate) fn identify(&self, conn: ConnId, identity: &Identity) -> bool {
        let Some(link) = self.link(conn) else {
            return true;
        };
        let has_room = link.identify(|| {
            if identity.service {
                Some(None)
            } else {
                self.node.admission.admit_user(identity.user).map(Some)
            }
        });
        if has_room && let Some(streams) = link.catch_ups() {
            let connection = streams.connection();
            connection.set_receive_window(quic::RECEIVE_WINDOW);
        }
        has_room
    }

    /// A connection is gone. It counts as one of its user's until all is answered that it asked for: who leaves and comes again
    /// has no more under way than who stays.
    fn remember(&self, link: &Link) {
        let conn = link.id();
        if self.with_core(|core, _| core.awaits_answers(conn))
            && let Some(permit) = link.take_permit()
        {
            self.unsettled.borrow_mut().insert(conn, permit);
        }
    }

    /// All is answered.
    pub(crate) fn forget(&self, conn: ConnId) {
        self.unsettled.borrow_mut().remove(&conn);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use rialto_core::topology::Topology;
    use rialto_protocol::{
        error::ErrorCode,
        frame::{self, FrameKind},
        ids::{RequestId, UserId},
        v1,
    };
    use rialto_storage::memory::MemoryStore;

    use super::*;
    use crate::fate::StopReason;

    struct Nobody;

    impl Authenticator for Nobody {
        fn verify(&self, _: &str, _: u64) -> Result<Identity, ErrorCode> {
            Err(ErrorCode::TokenMalformed)
        }
    }

    pub(crate) fn admitted(engine: &Engine) -> (Permit, Stranger) {
        let address = [127, 0, 0, 1].into();
        let permit = engine.admission().admit(address).unwrap();
        (permit, engine.admit_stranger(address).unwrap())
    }

    pub(crate) fn engine() -> Rc<Engine> {
        let config = BrokerConfig::default();
        let core = Shard::new(
            ShardId(0),
            Topology {
                shards: 1,
                lanes: 1,
            },
            Arc::new(config.core.clone()),
            Vec::new(),
        );
        let node = Node {
            clock: Clock::start(),
            store: Arc::new(MemoryStore::new(1)),
            authenticator: Arc::new(Nobody),
            admission: Admission::new(10, 10, 10),
            mailboxes: Mailbox::all(1, 1),
            fate: Fate::new(),
            config: Arc::new(config),
        };
        Engine::new(ShardId(0), node, core)
    }

    #[test]
    fn a_panic_in_the_core_ends_the_broker_and_the_core_is_left_alone_from_then_on() {
        let engine = engine();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            engine.with_core(|_, _| -> () { panic!("a planted mistake") });
        }));
        assert!(panicked.is_err());
        assert_eq!(
            engine.node().fate.reason(),
            Some(StopReason::ShardPanicked(ShardId(0)))
        );
        assert_eq!(engine.with_core(|_, _| 1), 0);
    }

    #[test]
    fn a_panic_of_a_connection_takes_that_connection_and_no_more() {
        let engine = engine();
        let admit = || admitted(&engine);
        let registration = engine.open(Carrier::Tcp, admit(), Transport::default(), None);
        let other = engine.open(Carrier::Tcp, admit(), Transport::default(), None);
        let conn = registration.link().id();
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _registration = registration;
            panic!("a planted mistake");
        }));
        assert!(panicked.is_err());
        assert!(engine.link(conn).is_none() && engine.link(other.link().id()).is_some());
        assert_eq!(
            (engine.node().fate.reason(), engine.admission().open()),
            (None, 1)
        );
    }

    /// A session of a user's, opened by hand: nobody answers what it asks for.
    fn session(engine: &Rc<Engine>) -> Registration {
        let registration = engine.open(Carrier::Tcp, admitted(engine), Transport::default(), None);
        let conn = registration.link().id();
        let hello = v1::Hello {
            token: "token".to_owned(),
            device: vec![1; 16].into(),
            ..v1::Hello::default()
        };
        let hello = frame::encode(FrameKind::Hello, RequestId(1), &hello);
        assert!(engine.receive(conn, &hello).is_ok());
        let identity = Identity {
            user: UserId::from_name("ann"),
            expires_ms: u64::MAX,
            service: false,
            key: None,
        };
        assert!(engine.identify(conn, &identity));
        let result = Ok(identity);
        engine.handle(Input::Authenticated { conn, result });
        registration
    }

    #[test]
    fn a_connection_that_is_gone_counts_as_one_of_its_users_until_it_is_answered() {
        let engine = engine();
        drop(session(&engine));
        assert!(engine.unsettled.borrow().is_empty());
        let registration = session(&engine);
        let conn = registration.link().id();
        let watch = v1::Watch {
            users: vec![UserId::from_name("bob").to_proto()],
        };
        let watch = frame::encode(FrameKind::Watch, RequestId(2), &watch);
        assert!(engine.receive(conn, &watch).is_ok());
        drop(registration);
        assert!(engine.unsettled.borrow().contains_key(&conn));
        engine.forget(conn);
        assert!(engine.unsettled.borrow().is_empty());
    }

    #[test]
    fn a_connection_whose_handshake_ends_while_the_broker_stops_is_closed_at_once() {
        let engine = engine();
        engine.stop_reading();
        engine.close_all();
        let late = engine.open(Carrier::Tls, admitted(&engine), Transport::default(), None);
        assert!(late.link().is_closing());
    }

    #[test]
    fn a_connection_that_is_gone_keeps_nothing_though_it_waited_for_another_shard() {
        let engine = engine();
        let registration = engine.open(Carrier::Tcp, admitted(&engine), Transport::default(), None);
        let link = engine.link(registration.link().id()).unwrap();
        link.push(Bytes::from_static(b"news"));
        engine.set_overflowing(true);
        assert!(!registration.may_read());
        drop(registration);
        assert!(engine.strangers.count() == 0 && link.outbox().is_empty());
    }

    #[test]
    fn a_slot_is_used_again_under_another_name() {
        let engine = engine();
        let open = || engine.open(Carrier::Tcp, admitted(&engine), Transport::default(), None);
        let first = open().link().id();
        let second = open();
        assert_eq!(first.index, second.link().id().index);
        assert!(engine.link(first).is_none());
    }
}
