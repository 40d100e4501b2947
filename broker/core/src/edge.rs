//! The edge half of a shard: connections and their sessions, subscriptions, and presence as its sessions see it.
//!
//! A frame's way in: `requests` (whose turn, which kind) → `check` (form) → a message to the conversation's owner. The
//! way out: an owner's answer → `publish`, `subscribe` or a plain answer → the connection's queue. What an owner tells
//! all its readers goes by `deliver`; who falls behind there reads on by `catch_up`, and who may read no more ends by
//! `parting`. Where very many fall behind together they read on in turns by `lagging`. What sessions that are gone have left is
//! taken apart by `estates`.

mod catch_up;
mod check;
mod conns;
mod deliver;
mod drain;
mod estates;
mod handshake;
mod held;
mod home;
mod lagging;
mod life;
mod orphans;
mod pages;
mod parting;
mod presence;
mod publish;
mod rate;
mod requests;
mod rest;
mod session;
mod subscribe;
mod subscription;
mod telling;
mod timers;
mod topic;
mod unread;
mod window;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc};

use bytes::BytesMut;
use rialto_protocol::{ids::UserId, limits, v1};
use slab::Slab;

use crate::{
    config::CoreConfig,
    counters::Counters,
    effects::Effects,
    io::{Answer, ConnId, Input, Now, Ticket},
    message::{PlainBatch, Receipted, ToEdge, ToHome},
    topology::{ShardId, Topology},
};
use conns::Conns;
use drain::Leaving;
use estates::Estates;
use home::Home;
use lagging::Lagging;
use life::Toil;
use presence::Presence;
use rate::{Rate, UserRates};
use session::State;
use subscription::Sub;
use timers::Timers;
use topic::Topics;
use unread::Unread;

/// Connections and what they follow.
#[derive(Debug)]
pub struct Edge {
    id: ShardId,
    topology: Topology,
    config: Arc<CoreConfig>,
    conns: Conns,
    topics: Topics,
    subs: Slab<Sub>,
    /// What sessions that are gone have left of them, and of watches.
    estates: Estates,
    /// Who fell behind with many others, and is to read on.
    lagging: Lagging,
    timers: Timers,
    /// Of requests other than messages: what keeps a session, by session, and the others, by user.
    request_rate: Rate,
    request_rates: UserRates,
    /// Of messages.
    user_rates: UserRates,
    presence: Presence,
    home: Home,
    /// Receipts of the batch that is being handled, sent by [`Edge::flush`].
    receipts: Vec<Receipted>,
    /// Room to put them in order.
    receipt_order: Vec<(u32, u32)>,
    /// Frames of receipts are written here.
    receipt_buf: BytesMut,
    /// Messages of the read that is being handled, by the shard that they are for.
    batches: Vec<Option<PlainBatch>>,
    /// What came with frames of the read that is being handled, and is not seen from outside.
    toil: Toil,
    /// Connections that are not read for a while, and until when, monotonic microseconds; rising.
    resting: VecDeque<(u64, ConnId)>,
    /// Who does not read.
    unread: Unread,
    /// When a crowd may be passed the next signal, monotonic microseconds.
    crowd_signal_us: u64,
    /// Sessions that are open.
    open: u64,
    draining: bool,
    leaving: Option<Leaving>,
}

impl Edge {
    /// An edge without connections.
    #[must_use]
    pub fn new(id: ShardId, topology: Topology, config: Arc<CoreConfig>) -> Self {
        let request_rate = Rate::new(config.requests_per_s, config.requests_burst);
        Self {
            id,
            topology,
            conns: Conns::new(&config),
            topics: Topics::new(config.hasher()),
            subs: Slab::new(),
            estates: Estates::default(),
            lagging: Lagging::new(config.hasher()),
            timers: Timers::default(),
            request_rate,
            request_rates: UserRates::new(request_rate, config.hasher()),
            user_rates: UserRates::new(
                Rate::new(config.publish_per_s, config.publish_burst),
                config.hasher(),
            ),
            presence: Presence::new(&config),
            home: Home::new(&config),
            receipts: Vec::new(),
            receipt_order: Vec::new(),
            receipt_buf: BytesMut::new(),
            batches: (0..topology.shards).map(|_| None).collect(),
            toil: Toil::default(),
            resting: VecDeque::new(),
            unread: Unread::default(),
            crowd_signal_us: 0,
            open: 0,
            draining: false,
            leaving: None,
            config,
        }
    }

    /// Whether connections hold so much that each has a small share, and little is to be read at once.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.conns.are_crowded()
    }

    /// Takes in what happened to a connection, or to the node.
    pub fn handle(&mut self, now: Now, input: Input, fx: &mut Effects) {
        match input {
            Input::Opened { conn, transport } => self.opened(now, conn, transport, fx),
            Input::Broken { conn, code } => self.fail(now, conn, code, fx),
            Input::Held { conn, bytes } => self.conns.hold(conn, bytes),
            Input::Written { conn, bytes } => self.written(conn, bytes, fx),
            Input::Closed { conn } => self.closed(now, conn, fx),
            Input::Authenticated { conn, result } => self.authenticated(now, conn, result, fx),
            Input::Drain { window_ms } => self.drain(now, window_ms, fx),
            // The shard routes these to the owner, or to methods of their own.
            Input::Messages { .. }
            | Input::Appended { .. }
            | Input::AppendFailed { .. }
            | Input::Loaded { .. }
            | Input::Dropped
            | Input::Tick => {}
        }
    }

    /// Takes in what an owner or a presence home says.
    pub fn take(&mut self, now: Now, message: ToEdge, fx: &mut Effects) {
        match message {
            ToEdge::Appended {
                origin,
                first,
                receipts,
            } => self.appended(origin, first, &receipts, fx),
            ToEdge::Receipts(receipts) => self.receipts(receipts, fx),
            ToEdge::Answered { origin, kind, body } => self.answered(origin, kind, &body, fx),
            ToEdge::Refused {
                origin,
                code,
                retry_after_ms,
            } => self.refused(origin, code, retry_after_ms, fx),
            ToEdge::Subscribed {
                origin,
                slot,
                conversation,
                cursor,
                result,
                user: _,
            } => {
                self.subscribed(origin, slot, conversation, cursor, result, fx);
                self.read_on(now, fx);
            }
            ToEdge::CaughtUp {
                conn,
                conversation,
                from,
                result,
            } => self.caught_up(conn, conversation, from, result, fx),
            ToEdge::Deliver {
                conversation,
                first,
                last,
                frame,
                ended,
            } => {
                self.deliver(conversation, (first, last), &frame, &ended, fx);
                self.read_on(now, fx);
            }
            ToEdge::Signalled {
                conversation,
                user,
                frame,
            } => self.signalled(now, conversation, user, &frame, fx),
            ToEdge::Presence { origin, presences } => {
                self.presences(now, origin, &presences, fx);
            }
        }
    }

    /// Takes in what concerns users whose presence this shard keeps.
    pub fn take_home(&mut self, _now: Now, message: ToHome, fx: &mut Effects) {
        match message {
            ToHome::Report {
                edge,
                user,
                state,
                time_ms,
            } => self.home.report(edge, user, state, time_ms, fx),
            ToHome::Watch { origin, users } => self.home.watch(origin, users, fx),
            ToHome::Unwatch { edge, users } => self.home.unwatch(edge, &users),
        }
    }

    /// Takes in what storage found for the presence home.
    pub fn handle_loaded(
        &mut self,
        _now: Now,
        ticket: Ticket,
        answer: Option<Answer>,
        fx: &mut Effects,
    ) {
        self.home.loaded(ticket, answer, fx);
    }

    /// Closes what has been silent, or without a valid token, for too long; sends away whose turn it is; takes apart what is left
    /// of those who are gone; lets those read on who fell behind together.
    pub fn handle_tick(&mut self, now: Now, fx: &mut Effects) {
        self.end_overdue(now, fx);
        self.end_rests(now, fx);
        self.tell_watchers(now, fx);
        self.close_unread(now, fx);
        self.send_away(now, fx);
        self.take_apart(now, fx);
        self.read_on(now, fx);
    }

    /// Sends the receipts gathered since the last time.
    pub fn flush(&mut self, now: Now, fx: &mut Effects) {
        self.flush_receipts(fx);
        self.conns.look(now.mono_us);
        self.watch_unread(now);
    }

    /// When [`Edge::handle_tick`] is due, monotonic microseconds.
    #[must_use]
    pub fn deadline_us(&self) -> Option<u64> {
        let timers = self.timers.next_us().into_iter();
        let rests = self.resting.front().map(|(until_us, _)| *until_us);
        let telling = self.presence.telling.due_us();
        timers
            .chain(self.next_leave_us())
            .chain(rests)
            .chain(telling)
            .chain(self.unread.due_us())
            .chain(self.estates.due_us())
            .chain(self.lagging.due_us())
            .min()
    }

    /// Largest frame that the connection may send now, header included.
    #[must_use]
    pub fn frame_bytes_max(&self, conn: ConnId) -> usize {
        match self.conns.get(conn) {
            Some(session) if session.state == State::Open => self.config.frame_bytes_max,
            _ => limits::FRAME_BYTES_MAX_UNAUTHENTICATED,
        }
    }

    /// Whether the connection has byte credit.
    #[must_use]
    pub fn may_read(&self, conn: ConnId) -> bool {
        self.conns.may_read(conn)
    }

    /// Whether something that the connection asked for is not answered, though it is gone. [`crate::io::Output::Settled`] tells
    /// of the end of that.
    #[must_use]
    pub fn awaits_answers(&self, conn: ConnId) -> bool {
        self.conns.has_left_behind(conn)
    }

    /// Fills in what there is now.
    pub fn gauges(&self, counters: &mut Counters) {
        counters.sessions = self.open;
        counters.subscriptions = (self.subs.len() - self.estates.subs()) as u64;
    }

    /// Tells a user's presence home what the sessions here add up to now.
    fn report(&self, now: Now, user: UserId, state: Option<v1::PresenceState>, fx: &mut Effects) {
        if let Some(state) = state {
            let report = ToHome::Report {
                edge: self.id,
                user,
                state,
                time_ms: now.unix_ms,
            };
            fx.send(
                self.topology.home_of(&user),
                crate::message::Message::ToHome(report),
            );
        }
    }
}
