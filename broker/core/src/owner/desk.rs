//! What all conversations of an owner share: lanes, attachments, the recent window, reads under way, and the ways to answer.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    frame::FrameKind,
    ids::{ConversationId, LaneId, Position, UserId},
    record::Table,
};
use smallvec::SmallVec;

use crate::{
    advice::retry_hint_ms,
    config::CoreConfig,
    effects::Effects,
    io::{LaneClaim, Now, Output, Query, Ticket},
    message::{Message, Origin, Receipted, ToEdge, ToOwner},
    topology::{ShardId, Topology},
};

use super::{
    attachments::Attachments,
    conversation::Conversation,
    entry::Waiting,
    lane::Lanes,
    outbox::notices_max,
    parked::Parked,
    remains::Remains,
    retries::Retries,
    work::{Load, Need, Outcome, Work},
};

/// Shared by all conversations of an owner.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) id: ShardId,
    pub(super) topology: Topology,
    pub(super) config: Arc<CoreConfig>,
    pub(super) lanes: Lanes,
    pub(super) attachments: Attachments,
    pub(super) loads: HashMap<Ticket, (ConversationId, Load), ahash::RandomState>,
    next_ticket: u64,
    /// Receipts that may leave, in order for each edge.
    pub(super) receipts: Vec<(ShardId, Receipted)>,
    /// Pieces of work that wait for a read.
    pub(super) parked: Parked,
    /// Members in memory, all conversations together.
    pub(super) members: usize,
    /// Those of conversations that have left it, as far as they are not freed.
    pub(super) remains: Remains,
    /// How often storage has dropped events.
    pub(super) drops: u64,
    /// How many notices may be on their way to inboxes.
    pub(super) notices_max: usize,
    /// What of them is to be sent, for the first time or again.
    pub(super) retries: Retries,
}

impl Desk {
    pub(super) fn new(
        id: ShardId,
        topology: Topology,
        config: Arc<CoreConfig>,
        claims: Vec<LaneClaim>,
    ) -> Self {
        Self {
            id,
            topology,
            lanes: Lanes::new(topology.lanes, &config, claims),
            attachments: Attachments::new(id, topology, config.hasher()),
            loads: HashMap::with_hasher(config.hasher()),
            next_ticket: 0,
            receipts: Vec::new(),
            parked: Parked::new(&config),
            members: 0,
            remains: Remains::default(),
            drops: 0,
            notices_max: notices_max(config.shard_bytes_max),
            retries: Retries::default(),
            config,
        }
    }

    /// Runs a piece of work, or lets it wait: behind what its user asked before, or for what it needs.
    pub(super) fn offer(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        mut work: Work,
        fx: &mut Effects,
    ) {
        if conversation.has_queue(&work.user()) {
            if let Some(work) = self.may_park(work, fx) {
                conversation.enqueue(work);
            }
            return;
        }
        if let Outcome::Needs(needs) = self.run(now, conversation, &mut work, fx) {
            let user = work.user();
            if self.may_wait(&work, fx) {
                self.ask(conversation.id, user, &mut work, needs, fx);
                conversation.enqueue(work);
            } else {
                // Drafts before the one that needs a read may be on their way to the disk.
                self.refuse_after(conversation, &work, ErrorCode::Overloaded, fx);
            }
        }
    }

    /// Goes on with a user's work, as far as it comes.
    pub(super) fn run_queue(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        user: UserId,
        fx: &mut Effects,
    ) {
        while conversation.first_is_ready(&user) {
            let Some(mut work) = conversation.dequeue(&user) else {
                return;
            };
            match self.run(now, conversation, &mut work, fx) {
                Outcome::Done => self.parked.remove(&work),
                Outcome::Needs(needs) => {
                    self.ask(conversation.id, user, &mut work, needs, fx);
                    conversation.enqueue_front(user, work);
                }
            }
        }
    }

    fn run(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        work: &mut Work,
        fx: &mut Effects,
    ) -> Outcome {
        if self.lanes.is_lost(conversation.lane) {
            // Of what was decided nobody knows whether it will be kept.
            work.receipts.clear();
            self.refuse(work, ErrorCode::StorageUnavailable, fx);
            return Outcome::Done;
        }
        if let Some(code) = work.failed {
            self.refuse_after(conversation, work, code, fx);
            return Outcome::Done;
        }
        if work.receipts.is_empty() && work.ask.may_be_refused() && self.lanes.are_full() {
            self.refuse(work, ErrorCode::Overloaded, fx);
            return Outcome::Done;
        }
        if !conversation.exists()
            && !matches!(work.ask, ToOwner::Create { .. })
            && let Err(code) = self.open_if_own(now, conversation, work.user(), fx)
        {
            self.refuse_after(conversation, work, code, fx);
            return Outcome::Done;
        }
        let result = match &work.ask {
            ToOwner::Append { .. } => return self.append(now, conversation, work, fx),
            ToOwner::Create { .. } => self.create(now, conversation, work, fx),
            ToOwner::Subscribe { .. } => self.subscribe(conversation, work, fx),
            ToOwner::CatchUp { .. }
            | ToOwner::History { .. }
            | ToOwner::Describe { .. }
            | ToOwner::Members { .. } => self.read(conversation, work, fx),
            ToOwner::Conversations { .. } => self.conversations(conversation, work, fx),
            ToOwner::Mark { .. } => self.mark(now, conversation, work, fx),
            ToOwner::Prefer { .. } => self.prefer(now, conversation, work, fx),
            ToOwner::Signal { .. } => self.signal(conversation, work, fx),
            ToOwner::Notify { .. } => self.keep_notice(now, conversation, work, fx),
            ToOwner::Detach { .. } | ToOwner::PassedOn { .. } | ToOwner::AppendPlain(_) => Ok(()),
        };
        match result {
            Ok(()) => Outcome::Done,
            Err(Stop::Needs(needs)) => Outcome::Needs(needs),
            Err(Stop::Refused(code)) => {
                self.refuse_after(conversation, work, code, fx);
                Outcome::Done
            }
        }
    }

    /// Asks storage for what a piece of work needs.
    fn ask(
        &mut self,
        conversation: ConversationId,
        user: UserId,
        work: &mut Work,
        needs: SmallVec<[Need; 2]>,
        fx: &mut Effects,
    ) {
        for need in needs {
            let query = match &need {
                Need::Member(user) => Query::Member {
                    conversation,
                    user: *user,
                },
                Need::Rows(users) => Query::Rows {
                    conversation,
                    table: Table::Member,
                    keys: users.iter().map(UserId::to_proto).collect(),
                },
                Need::Sent(device, client_id) => Query::FindSent {
                    conversation,
                    user,
                    device: *device,
                    client_id: *client_id,
                },
                Need::Target(seq) => Query::Events {
                    conversation,
                    from: *seq,
                    to: *seq,
                    bytes_max: 1,
                    backward: false,
                },
                Need::Oldest(_) => Query::Conversation { conversation },
            };
            match &need {
                Need::Member(member) => work.known.wanted.push(*member),
                Need::Rows(members) => work.known.wanted.extend_from_slice(members),
                Need::Target(seq) => work.known.asked.push(*seq),
                Need::Sent(..) | Need::Oldest(_) => {}
            }
            work.outstanding += 1;
            self.load(user, conversation, Load::For { user, need }, query, fx);
        }
    }

    /// Puts a read out, for a user.
    pub(super) fn load(
        &mut self,
        user: UserId,
        conversation: ConversationId,
        load: Load,
        query: Query,
        fx: &mut Effects,
    ) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        fx.counters.loads += 1;
        self.loads.insert(ticket, (conversation, load));
        fx.outputs.push(Output::Load {
            ticket,
            user,
            query,
        });
    }

    /// Counts a piece of work as waiting; when too much waits, it is refused and `None` comes back. To be called before
    /// anything of it is decided.
    pub(super) fn may_park(&mut self, work: Work, fx: &mut Effects) -> Option<Work> {
        if self.may_wait(&work, fx) {
            return Some(work);
        }
        self.refuse(&work, ErrorCode::Overloaded, fx);
        None
    }

    /// Counts one more piece of work as waiting, unless too much waits.
    fn may_wait(&mut self, work: &Work, fx: &mut Effects) -> bool {
        let may = self.parked.add(work);
        if !may {
            fx.counters.shed("parked", "full");
        }
        may
    }

    /// Refuses at once.
    pub(super) fn refuse(&mut self, work: &Work, code: ErrorCode, fx: &mut Effects) {
        if let Some((shard, message)) = work.refusal(code) {
            fx.send(shard, message);
        }
    }

    /// Refuses once everything is durable that the refusal may rest on.
    fn refuse_after(
        &mut self,
        conversation: &Conversation,
        work: &Work,
        code: ErrorCode,
        fx: &mut Effects,
    ) {
        if let Some((shard, message)) = work.refusal(code) {
            self.reply(conversation, shard, message, fx);
        }
    }

    /// Sends once everything is durable that the conversation's state rests on.
    pub(super) fn reply(
        &mut self,
        conversation: &Conversation,
        shard: ShardId,
        message: Message,
        fx: &mut Effects,
    ) {
        if conversation.last_position > self.lanes.durable_position(conversation.lane) {
            let waiting = Waiting::Message(shard, message);
            self.lanes
                .wait(conversation.lane, conversation.last_position, waiting);
        } else {
            fx.send(shard, message);
        }
    }

    /// Answers a request, likewise.
    pub(super) fn answer<M: prost::Message>(
        &mut self,
        conversation: &Conversation,
        origin: Origin,
        kind: FrameKind,
        body: &M,
        fx: &mut Effects,
    ) {
        let body = Bytes::from(body.encode_to_vec());
        self.reply(
            conversation,
            origin.edge,
            Message::ToEdge(ToEdge::Answered { origin, kind, body }),
            fx,
        );
    }

    /// What waited for an entry that was not kept.
    pub(super) fn refuse_waiting(&mut self, waiting: Waiting, fx: &mut Effects) {
        let code = ErrorCode::StorageUnavailable;
        match waiting {
            Waiting::Receipt(edge, receipted) => self.refuse_receipt(edge, receipted),
            Waiting::Subscribed(joining) => {
                fx.send(joining.origin.edge, Message::ToEdge(joining.refused(code)));
            }
            Waiting::Message(shard, message) => match message {
                Message::ToEdge(ToEdge::Appended {
                    origin,
                    first,
                    receipts,
                }) => {
                    let refused = crate::message::Receipt::Refused {
                        code,
                        retry_after_ms: retry_hint_ms(code),
                    };
                    let receipts = receipts.iter().map(|_| refused).collect();
                    fx.send(
                        shard,
                        Message::ToEdge(ToEdge::Appended {
                            origin,
                            first,
                            receipts,
                        }),
                    );
                }
                Message::ToEdge(
                    ToEdge::Answered { origin, .. } | ToEdge::Refused { origin, .. },
                ) => {
                    let retry_after_ms = retry_hint_ms(code);
                    fx.send(
                        shard,
                        Message::ToEdge(ToEdge::Refused {
                            origin,
                            code,
                            retry_after_ms,
                        }),
                    );
                }
                Message::ToOwner(ToOwner::PassedOn { lane, item, .. }) => {
                    fx.send(
                        shard,
                        Message::ToOwner(ToOwner::PassedOn {
                            lane,
                            item,
                            kept: false,
                        }),
                    );
                }
                Message::ToEdge(ToEdge::Subscribed {
                    origin,
                    slot,
                    user,
                    conversation,
                    cursor,
                    ..
                }) => {
                    let result = Err(code);
                    let refused = ToEdge::Subscribed {
                        origin,
                        slot,
                        user,
                        conversation,
                        cursor,
                        result,
                    };
                    fx.send(shard, Message::ToEdge(refused));
                }
                Message::ToEdge(ToEdge::CaughtUp {
                    conn,
                    conversation,
                    from,
                    ..
                }) => {
                    let result = Err(code);
                    fx.send(
                        shard,
                        Message::ToEdge(ToEdge::CaughtUp {
                            conn,
                            conversation,
                            from,
                            result,
                        }),
                    );
                }
                // Markers that did not move after all: nothing is told. Nothing else waits for the disk.
                Message::ToEdge(
                    ToEdge::Signalled { .. }
                    | ToEdge::Deliver { .. }
                    | ToEdge::Presence { .. }
                    | ToEdge::Receipts(_),
                )
                | Message::ToOwner(_)
                | Message::ToHome(_) => {}
            },
        }
    }

    /// Lets go of a conversation whose state is no longer true; its waiting work comes back, to be done from its start:
    /// drafts that were decided may have been lost, and those that were kept are found again by their ids.
    pub(super) fn abandon(&mut self, mut conversation: Conversation) -> Vec<Work> {
        let queued = conversation.take_queues();
        self.let_go(conversation);
        queued
            .into_iter()
            .map(|work| {
                self.parked.remove(&work);
                work.anew()
            })
            .collect()
    }

    /// Lets go of a conversation that leaves memory. To be called only when nothing of it is wanted any more.
    pub(super) fn let_go(&mut self, conversation: Conversation) {
        self.members -= conversation.members_in_memory();
        self.remains.add(conversation.into_members());
    }

    /// Forgets members of a conversation that nobody waits for, some at a time; returns how many.
    pub(super) fn trim(&mut self, conversation: &mut Conversation) -> usize {
        let durable = self.lanes.durable_position(conversation.lane);
        let forgotten = conversation.trim_members(durable);
        self.members -= forgotten;
        forgotten
    }

    /// Whether an entry is durable.
    pub(super) fn is_durable(&self, lane: LaneId, position: Position) -> bool {
        position <= self.lanes.durable_position(lane)
    }
}

/// Why a piece of work did not run to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// It needs these first.
    Needs(SmallVec<[Need; 2]>),
    /// It is refused.
    Refused(ErrorCode),
}

impl From<ErrorCode> for Stop {
    fn from(code: ErrorCode) -> Self {
        Self::Refused(code)
    }
}

impl From<Need> for Stop {
    fn from(need: Need) -> Self {
        Self::Needs(SmallVec::from_iter([need]))
    }
}

/// The member must be in memory.
pub(super) fn require_member(conversation: &Conversation, user: &UserId) -> Result<(), Stop> {
    match conversation.member(user) {
        Some(_) => Ok(()),
        None => Err(Need::Member(*user).into()),
    }
}
