//! The one task of a shard that carries out what the core decides: once a turn, in batches.
//!
//! A turn: what storage and other shards have answered goes into the core, the core's outputs come out, frames go to the
//! connections' outboxes, entries to the journal as one append, messages to other shards as one batch each.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use futures_util::{StreamExt, stream::FuturesOrdered};
use rialto_core::{
    effects::room_kept,
    io::{Identity, Input, Output, Query, Ticket},
};
use rialto_protocol::{error::ErrorCode, ids::UserId};
use rialto_storage::{directory::Seen, views::ViewsError};
use tokio::time::{Instant, Sleep};

use super::{
    answers,
    appends::{self, Appending},
    engine::Engine,
    figures::Stage,
    loads::{self, Admitted, Load},
    lookup::LookupError,
    mailbox::{Delivery, Mailbox},
    outgoing::Outgoing,
    tokens::Tokens,
};

/// Rounds of a turn before the shard's other tasks have theirs.
const ROUNDS_MAX: usize = 8;
/// Appends of a shard on their way to the disk. What comes meanwhile gathers into larger entries.
const APPENDS_IN_FLIGHT_MAX: usize = 1;
/// Tokens that are verified in a turn; each takes some 0.1 ms, in which nobody else is served.
const VERIFIED_AT_ONCE: usize = 4;
/// Reads of storage under way and waiting, for each piece of work that the core lets wait for a read: most need one, and pages
/// are read for others.
const LOADS_PER_PARKED: usize = 2;
/// How often "last seen" notes are written, microseconds: what a crash may cost.
const SEEN_EVERY_US: u64 = 1_000_000;

/// Runs until the runtime ends. A panic here is the core's or ours, and ends the process.
pub(crate) async fn run(engine: Rc<Engine>) {
    let _guard = engine.node().fate.guard(engine.id());
    let mut pump = Pump::new(Rc::clone(&engine));
    poll_fn(|cx| pump.poll(cx)).await;
}

pub(super) struct Pump {
    engine: Rc<Engine>,
    outputs: Vec<Output>,
    entries: Vec<rialto_core::io::Entry>,
    appending: FuturesOrdered<Appending>,
    /// Tokens to be verified, and whose they are.
    tokens: Tokens,
    /// By shard: gathered in this turn, or refused before.
    outgoing: Vec<Outgoing>,
    seen_due_us: u64,
    /// How often storage had dropped events when the core was last told.
    drops: u64,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to, monotonic microseconds.
    armed_us: u64,
}

impl Pump {
    pub(super) fn new(engine: Rc<Engine>) -> Self {
        let shards = engine.node().mailboxes.len();
        let bytes_max = engine.node().config.forward_bytes_max;
        let drops = engine.node().store.drops();
        Self {
            engine,
            outputs: Vec::new(),
            entries: Vec::new(),
            appending: FuturesOrdered::new(),
            tokens: Tokens::default(),
            outgoing: (0..shards).map(|_| Outgoing::new(bytes_max)).collect(),
            drops,
            seen_due_us: 0,
            timer: Box::pin(tokio::time::sleep_until(Instant::now())),
            armed_us: 0,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.engine.turn().listen(cx);
        self.mailbox().pump().register(cx.waker());
        self.verify_some();
        self.note_drops();
        for _ in 0..ROUNDS_MAX {
            let mut worked = self.take_appended(cx);
            worked |= self.take_messages();
            worked |= self.load_waiting();
            worked |= self.take_time(cx);
            worked |= self.carry_out();
            self.append();
            self.deliver();
            if !worked {
                let more = self.engine.turns().call();
                if more || !self.tokens.is_empty() {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        }
        self.engine.turns().call();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Verifies the next few tokens.
    fn verify_some(&mut self) {
        for _ in 0..VERIFIED_AT_ONCE {
            let Some((conn, token)) = self.tokens.next(|conn| self.engine.serves(conn)) else {
                break;
            };
            let result = self.verify(&token).and_then(|identity| {
                if self.engine.identify(conn, &identity) {
                    Ok(identity)
                } else {
                    Err(ErrorCode::TooManyConnections)
                }
            });
            self.tell(Input::Authenticated { conn, result });
        }
    }

    fn mailbox(&self) -> &Mailbox {
        &self.engine.node().mailboxes[usize::from(self.engine.id().0)]
    }

    fn tell(&self, input: Input) {
        self.engine.with_core(|core, now| core.handle(now, input));
    }

    /// Tells the core when storage has dropped events. While nothing else happens, this is looked at as often as notes are written.
    fn note_drops(&mut self) {
        let drops = self.engine.node().store.drops();
        if drops != self.drops {
            self.drops = drops;
            self.tell(Input::Dropped);
        }
    }

    /// What became durable, in the order it was appended.
    fn take_appended(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(done)) = self.appending.poll_next_unpin(cx) {
            any = true;
            let inputs = done.into_inputs(&self.engine);
            self.engine.with_core(|core, now| {
                for input in inputs {
                    core.handle(now, input);
                }
            });
        }
        any
    }

    pub(super) fn take_messages(&mut self) -> bool {
        let mut messages = self.mailbox().take(&self.engine.node().mailboxes);
        let any = !messages.is_empty();
        for answer in messages.extract_if(.., |message| answers::is_long(message)) {
            answers::pass_on(&self.engine, answer);
        }
        if !messages.is_empty() {
            self.tell(Input::Messages { messages });
        }
        any
    }

    /// A tick, if one is due; then the timer is set to the next.
    fn take_time(&mut self, cx: &mut Context<'_>) -> bool {
        let mono_us = self.engine.node().clock.now().mono_us;
        if mono_us >= self.seen_due_us {
            self.write_seen();
            self.seen_due_us = mono_us + SEEN_EVERY_US;
        }
        let deadline_us = self.engine.with_core(|core, _| core.deadline_us());
        let ticked = deadline_us.is_some_and(|deadline_us| mono_us >= deadline_us);
        if ticked {
            self.tell(Input::Tick);
            return true;
        }
        let mut next_us = deadline_us.unwrap_or(u64::MAX).min(self.seen_due_us);
        if let Some(due_us) = self.engine.loads().due_us() {
            next_us = next_us.min(due_us);
        }
        // Setting it costs more than a turn too many: it is only brought forward, or set anew once it went off.
        if (next_us < self.armed_us || self.timer.is_elapsed())
            && let Some(instant) = self.engine.node().clock.instant(next_us)
        {
            self.timer.as_mut().reset(instant);
            self.armed_us = next_us;
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    /// Closes the batch and acts on what the core put out.
    fn carry_out(&mut self) -> bool {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.engine.with_core(|core, now| {
            if self.appending.len() < APPENDS_IN_FLIGHT_MAX {
                core.flush(now);
            } else {
                core.flush_answers(now);
            }
            core.take_outputs(&mut outputs);
        });
        let any = !outputs.is_empty();
        let used = outputs.len();
        for output in outputs.drain(..) {
            self.act(output);
        }
        outputs.shrink_to(room_kept(used));
        self.outputs = outputs;
        any
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Send { conn, frame, via } => self.engine.send(conn, frame, via),
            Output::Resume { conn } => {
                if let Some(link) = self.engine.link(conn) {
                    link.resume();
                }
            }
            Output::Close { conn } => {
                if let Some(link) = self.engine.link(conn) {
                    link.close();
                }
            }
            Output::Settled { conn } => self.engine.forget(conn),
            Output::Authenticate { conn, token } => {
                let engine = &self.engine;
                self.tokens
                    .push(conn, token, engine.open_count(), |conn| engine.serves(conn));
            }
            Output::Forward { shard, message } => {
                if let Some(left_out) = self.outgoing[usize::from(shard.0)].push(message) {
                    self.engine.shed(Stage::Forward, left_out.reason());
                }
            }
            Output::Append(entry) => self.entries.push(entry),
            Output::Load {
                ticket,
                user,
                query,
            } => self.load(ticket, user, query),
            Output::Seen { user, time_ms } => self.engine.note_seen(Seen { user, time_ms }),
        }
    }

    /// A token that makes the verifier panic is refused like any other that cannot be read.
    fn verify(&self, token: &str) -> Result<Identity, ErrorCode> {
        let node = self.engine.node();
        let unix_ms = node.clock.now().unix_ms;
        catch_unwind(AssertUnwindSafe(|| {
            node.authenticator.verify(token, unix_ms)
        }))
        .unwrap_or(Err(ErrorCode::TokenMalformed))
    }

    fn load(&self, ticket: Ticket, user: UserId, query: Query) {
        let count_max = self.engine.node().config.core.parked_max * LOADS_PER_PARKED;
        match self.engine.loads().admit(ticket, user, query, count_max) {
            Admitted::Now(load) => self.read(load),
            Admitted::Later => {}
            Admitted::Refused => loads::tell(
                &self.engine,
                ticket,
                Err(LookupError::Views(ViewsError::Busy)),
            ),
        }
    }

    fn read(&self, load: Load) {
        tokio::task::spawn_local(loads::read(Rc::clone(&self.engine), load));
    }

    /// Tries reads again that storage was too busy for.
    fn load_waiting(&self) -> bool {
        let loads = self.engine.loads();
        if !loads.are_waiting() {
            return false;
        }
        let mono_us = self.engine.node().clock.now().mono_us;
        let due = std::iter::from_fn(|| loads.next(mono_us));
        due.map(|load| self.read(load)).count() > 0
    }

    /// Everything that this turn decided, as one append.
    fn append(&mut self) {
        if !self.entries.is_empty() {
            let entries = std::mem::take(&mut self.entries);
            self.appending
                .push_back(appends::start(&*self.engine.node().store, entries));
        }
    }

    fn deliver(&mut self) {
        let from = self.engine.id();
        let mut overflowing = false;
        for (mailbox, batch) in self.engine.node().mailboxes.iter().zip(&mut self.outgoing) {
            if !batch.is_empty() {
                overflowing |= mailbox.offer(from, batch) == Delivery::Refused;
            }
        }
        self.engine.set_overflowing(overflowing);
    }

    fn write_seen(&mut self) {
        let engine = Rc::clone(&self.engine);
        if engine.has_seen() {
            tokio::task::spawn_local(async move { engine.write_seen().await });
        }
    }
}
