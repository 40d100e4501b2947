//! One shard: an edge and an owner, and the way between them.

use std::sync::Arc;

use rialto_protocol::error::ErrorCode;

use crate::{
    config::CoreConfig,
    counters::Counters,
    edge::Edge,
    effects::Effects,
    io::{ConnId, Input, KeyTag, LaneClaim, Now, Output, TakenIn},
    message::Message,
    owner::Owner,
    topology::{ShardId, Topology},
};

/// The state machine of one shard.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    edge: Edge,
    owner: Owner,
    effects: Effects,
}

impl Shard {
    /// A shard that owns the claimed lanes, which must be those of `topology`.
    #[must_use]
    pub fn new(
        id: ShardId,
        topology: Topology,
        config: Arc<CoreConfig>,
        claims: Vec<LaneClaim>,
    ) -> Self {
        let mut effects = Effects::default();
        let edge = Edge::new(id, topology, Arc::clone(&config));
        let owner = Owner::new(id, topology, config, claims, &mut effects);
        Self {
            id,
            edge,
            owner,
            effects,
        }
    }

    /// Takes one input in.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Appended { .. } | Input::AppendFailed { .. } => {
                self.owner.handle_append(now, &input, &mut self.effects);
            }
            Input::Loaded { ticket, answer } => {
                if self.owner.awaits(ticket) {
                    self.owner
                        .handle_loaded(now, ticket, answer, &mut self.effects);
                } else {
                    self.edge
                        .handle_loaded(now, ticket, answer, &mut self.effects);
                }
            }
            Input::Messages { messages } => {
                for message in messages {
                    self.take(now, message);
                }
            }
            Input::Dropped => self.owner.handle_dropped(),
            Input::Tick => {
                self.edge.handle_tick(now, &mut self.effects);
                self.owner.handle_tick(now, &mut self.effects);
            }
            input => self.edge.handle(now, input, &mut self.effects),
        }
        self.settle(now);
    }

    /// Takes in what was read from a connection: whole frames, in order, as long as it has credit and its turn lasts, which is
    /// for `work_max` short messages or less that takes more. The rest is to be brought again, with what follows it: when its
    /// next turn comes if the connection may be read, else once [`Output::Resume`] tells.
    ///
    /// # Errors
    /// What arrived is no frame. The connection was told so and will be closed; nothing more is to be read from it.
    pub fn receive(
        &mut self,
        now: Now,
        conn: ConnId,
        bytes: &[u8],
        work_max: usize,
    ) -> Result<TakenIn, ErrorCode> {
        let result = self
            .edge
            .receive(now, conn, bytes, work_max, &mut self.effects);
        self.settle(now);
        result
    }

    /// Ends the sessions whose tokens were signed with keys that are not trusted any more, a few at a time.
    pub fn withdraw(&mut self, now: Now, is_trusted: impl Fn(KeyTag) -> bool) {
        self.edge.withdraw(now, is_trusted);
    }

    /// Ends a batch of inputs: closes the lanes' open entries and the edge's gathered answers. To be called before the
    /// outputs are acted upon.
    pub fn flush(&mut self, now: Now) {
        self.owner.clear_up(now, &mut self.effects);
        self.owner.close_entries(&mut self.effects);
        self.send_answers(now);
    }

    /// The same without the entries: they go on filling, because enough is on its way to the disk.
    pub fn flush_answers(&mut self, now: Now) {
        self.owner.clear_up(now, &mut self.effects);
        self.send_answers(now);
    }

    fn send_answers(&mut self, now: Now) {
        self.owner.flush_receipts(&mut self.effects);
        self.settle(now);
        self.edge.flush(now, &mut self.effects);
    }

    /// What is to be done, in order; the vector is emptied.
    pub fn take_outputs(&mut self, into: &mut Vec<Output>) {
        self.effects.take_outputs(into);
    }

    /// When [`Input::Tick`] is due, monotonic microseconds; `None`: never.
    #[must_use]
    pub fn deadline_us(&self) -> Option<u64> {
        match (self.edge.deadline_us(), self.owner.deadline_us()) {
            (Some(edge), Some(owner)) => Some(edge.min(owner)),
            (edge, owner) => edge.or(owner),
        }
    }

    /// Largest frame that the connection may send now.
    #[must_use]
    pub fn frame_bytes_max(&self, conn: ConnId) -> usize {
        self.edge.frame_bytes_max(conn)
    }

    /// Whether the connection has byte credit; when not, [`Output::Resume`] will tell.
    #[must_use]
    pub fn may_read(&self, conn: ConnId) -> bool {
        self.edge.may_read(conn)
    }

    /// Whether something is under way that a connection asked for which is gone; when not any more, [`Output::Settled`] tells.
    #[must_use]
    pub fn awaits_answers(&self, conn: ConnId) -> bool {
        self.edge.awaits_answers(conn)
    }

    /// Whether connections hold so much that little is to be read of each at once.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.edge.is_crowded()
    }

    /// What was counted so far, gauges included.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.effects.counters.clone();
        self.edge.gauges(&mut counters);
        self.owner.gauges(&mut counters);
        counters
    }

    /// Nothing waits for the disk or for storage: what was accepted is answered.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.owner.is_idle()
    }

    /// Messages between the halves go round until none is left; those for other shards become outputs.
    fn settle(&mut self, now: Now) {
        while let Some((shard, message)) = self.effects.messages.pop_front() {
            if shard == self.id {
                self.take(now, message);
            } else {
                self.effects.counters.forwarded += 1;
                self.effects
                    .outputs
                    .push(Output::Forward { shard, message });
            }
        }
    }

    fn take(&mut self, now: Now, message: Message) {
        match message {
            Message::ToOwner(message) => self.owner.take(now, message, &mut self.effects),
            Message::ToEdge(message) => self.edge.take(now, message, &mut self.effects),
            Message::ToHome(message) => self.edge.take_home(now, message, &mut self.effects),
        }
    }
}
