//! The owner half: lanes, the conversations in them, and the rules of both.
//!
//! A piece of work (a message for a conversation) runs when everything it needs is in memory. What is missing is asked of
//! storage, and the work waits among those of its user; the work of everybody else goes on. What the work decides is
//! numbered at once, becomes an entry of the lane, and is shown to nobody before that entry is durable.

mod append;
mod attachments;
mod conversation;
mod create;
mod deliver;
mod describe;
mod desk;
mod entry;
mod inbox;
mod lane;
mod mark;
mod member;
mod membership;
mod numbering;
mod outbox;
mod page;
mod parked;
mod plain;
mod profile;
mod read;
mod remains;
mod retries;
mod rules;
mod subscribe;
mod work;

use std::sync::Arc;

use hashlink::LruCache;
use rialto_protocol::{
    error::ErrorCode,
    ids::{ConversationId, UserId},
};

use crate::{
    advice::read_failure,
    config::CoreConfig,
    counters::Counters,
    effects::Effects,
    io::{Answer, Input, LaneClaim, Now, Query, StoredConversation, Ticket},
    message::{Message, ToEdge, ToOwner},
    topology::{ShardId, Topology},
};

use conversation::{Conversation, Slot};
use desk::Desk;
use profile::Profile;
use remains::FREED_AT_ONCE;
use work::{Load, Work};

/// How many conversations are looked at for one that can be dropped when there are too many.
const EVICTION_TRIES: usize = 8;

/// Owns lanes and everything in them.
#[derive(Debug)]
pub struct Owner {
    conversations: LruCache<ConversationId, Slot, ahash::RandomState>,
    /// One that has too many members in memory, until those that nobody waits for are forgotten.
    cooling: Option<ConversationId>,
    desk: Desk,
}

impl Owner {
    /// An owner of the claimed lanes. What they still have to pass on leaves at once, or with the next ticks where it is much.
    pub fn new(
        id: ShardId,
        topology: Topology,
        config: Arc<CoreConfig>,
        claims: Vec<LaneClaim>,
        fx: &mut Effects,
    ) -> Self {
        let hasher = config.hasher();
        let mut desk = Desk::new(id, topology, config, claims);
        desk.resume_outboxes(fx);
        Self {
            conversations: LruCache::with_hasher(usize::MAX, hasher),
            cooling: None,
            desk,
        }
    }

    /// Takes a message in.
    pub fn take(&mut self, now: Now, message: ToOwner, fx: &mut Effects) {
        match message {
            ToOwner::Detach { edge, conversation } => {
                self.desk.attachments.detach(&conversation, edge);
            }
            ToOwner::AppendPlain(batch) => {
                self.append_plain(now, &batch, fx);
                fx.take_back(batch);
            }
            ToOwner::PassedOn { lane, item, kept } => self.desk.passed_on(now, lane, item, kept),
            message => self.start(now, Work::new(message), fx),
        }
        self.evict();
    }

    /// A lane's entries are durable, or are not.
    pub fn handle_append(&mut self, now: Now, input: &Input, fx: &mut Effects) {
        let lane = match *input {
            Input::Appended { lane, through } => {
                let entries = self.desk.lanes.durable(lane, through);
                for mut entry in entries {
                    self.desk.receipts.append(&mut entry.receipts);
                    for touched in &entry.touched {
                        if let Some(Slot::Present(conversation)) =
                            self.conversations.peek_mut(&touched.conversation)
                        {
                            self.desk.deliver(conversation, &entry, touched, fx);
                        }
                    }
                    self.desk.pass_on(now, lane, &mut entry, fx);
                    self.desk.lanes.take_back(entry);
                }
                self.release(now, lane, fx);
                lane
            }
            Input::AppendFailed {
                lane,
                position,
                failure,
            } => {
                self.desk.lanes.failed(lane, position, failure);
                lane
            }
            _ => return,
        };
        self.desk.lanes.note_failing(lane);
    }

    /// Whether this ticket is one of the owner's.
    #[must_use]
    pub fn awaits(&self, ticket: Ticket) -> bool {
        self.desk.loads.contains_key(&ticket)
    }

    /// A read came back.
    pub fn handle_loaded(
        &mut self,
        now: Now,
        ticket: Ticket,
        answer: Option<Answer>,
        fx: &mut Effects,
    ) {
        let Some((conversation, load)) = self.desk.loads.remove(&ticket) else {
            return;
        };
        match load {
            Load::Conversation(drops) => {
                self.conversation_loaded(now, conversation, drops, answer, fx);
            }
            Load::For { user, need } => {
                let Some(Slot::Present(slot)) = self.conversations.get_mut(&conversation) else {
                    return;
                };
                slot.learn(user, &need, answer, &mut self.desk);
                self.desk.run_queue(now, slot, user, fx);
                self.cool(&conversation);
            }
            Load::Read(read) => {
                let slot = match self.conversations.get_mut(&conversation) {
                    Some(Slot::Present(slot)) => Some(&mut **slot),
                    _ => None,
                };
                self.desk.finish_read(slot, conversation, read, answer, fx);
            }
        }
        self.evict();
    }

    /// Storage has dropped events: the oldest of each conversation is read again before somebody goes by it.
    pub fn handle_dropped(&mut self) {
        self.desk.drops += 1;
    }

    /// Time passed: outboxes go on, and are retried.
    pub fn handle_tick(&mut self, now: Now, fx: &mut Effects) {
        self.desk.retry_outboxes(now, fx);
    }

    /// What inputs have left to be done once for all of them, or some at a time: lanes that failed begin anew, and memory is given
    /// back of conversations that had very many members.
    pub fn clear_up(&mut self, now: Now, fx: &mut Effects) {
        self.reset_failed(now, fx);
        self.cool_on();
        self.desk.remains.free_some();
    }

    /// Every lane's open entry goes to the journal, as far as the lane may have more on their way.
    pub fn close_entries(&mut self, fx: &mut Effects) {
        self.desk.lanes.flush(fx);
    }

    /// Receipts that may leave do, one message an edge.
    pub fn flush_receipts(&mut self, fx: &mut Effects) {
        let mut receipts = std::mem::take(&mut self.desk.receipts);
        // Most often they are all for one edge, or for two in runs.
        while let Some((edge, _)) = receipts.first().copied() {
            let mut of_edge = fx.spare_receipts();
            receipts.retain(|(of, receipted)| {
                let is_ours = *of == edge;
                if is_ours {
                    of_edge.push(*receipted);
                }
                !is_ours
            });
            fx.send(edge, Message::ToEdge(ToEdge::Receipts(of_edge)));
        }
        self.desk.receipts = receipts;
    }

    /// When the outboxes want to be looked at again.
    #[must_use]
    pub fn deadline_us(&self) -> Option<u64> {
        self.desk.retries.deadline_us()
    }

    /// Fills in what is now.
    pub fn gauges(&self, counters: &mut Counters) {
        counters.conversations = self.conversations.len() as u64;
        counters.parked = self.desk.parked.count() as u64;
    }

    /// Nothing is on its way to the disk, and nothing waits for a read.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.desk.lanes.is_idle() && self.desk.loads.is_empty() && self.desk.parked.count() == 0
    }

    fn start(&mut self, now: Now, work: Work, fx: &mut Effects) {
        let id = work.conversation();
        if self.desk.lanes.is_lost(self.desk.topology.lane_of(&id)) {
            self.desk.refuse(&work, ErrorCode::StorageUnavailable, fx);
            return;
        }
        match self.conversations.get_mut(&id) {
            Some(Slot::Present(conversation)) => self.desk.offer(now, conversation, work, fx),
            Some(Slot::Loading(waiting)) => {
                if let Some(work) = self.desk.may_park(work, fx) {
                    waiting.push(work);
                }
            }
            None => {
                let Some(work) = self.desk.may_park(work, fx) else {
                    return;
                };
                let user = work.user();
                self.conversations.insert(id, Slot::Loading(vec![work]));
                let drops = self.desk.drops;
                self.desk.load(
                    user,
                    id,
                    Load::Conversation(drops),
                    Query::Conversation { conversation: id },
                    fx,
                );
            }
        }
    }

    fn conversation_loaded(
        &mut self,
        now: Now,
        id: ConversationId,
        drops: u64,
        answer: Option<Answer>,
        fx: &mut Effects,
    ) {
        let Some(Slot::Loading(waiting)) = self.conversations.get_mut(&id) else {
            return;
        };
        let waiting = std::mem::take(waiting);
        let stored = match stored(answer) {
            Ok(stored) => stored,
            Err(code) => {
                self.conversations.remove(&id);
                for work in waiting {
                    self.desk.parked.remove(&work);
                    self.desk.refuse(&work, code, fx);
                }
                return;
            }
        };
        let lane = self.desk.topology.lane_of(&id);
        let durable = self.desk.lanes.durable_position(lane);
        let mut conversation = Box::new(Conversation::new(
            id,
            lane,
            stored,
            drops,
            durable,
            self.desk.config.hasher(),
        ));
        // What has waited for this keeps its room for whatever else it waits for.
        let users: Vec<UserId> = waiting.iter().map(Work::user).collect();
        for work in waiting {
            conversation.enqueue(work);
        }
        for user in users {
            self.desk.run_queue(now, &mut conversation, user, fx);
        }
        if conversation.exists() || conversation.is_busy(&self.desk) {
            self.conversations.insert(id, Slot::Present(conversation));
        } else {
            self.conversations.remove(&id);
        }
    }

    /// Answers that rested on what is durable now may leave.
    fn release(&mut self, now: Now, lane: rialto_protocol::ids::LaneId, fx: &mut Effects) {
        for waiting in self.desk.lanes.released(lane) {
            match waiting {
                entry::Waiting::Message(shard, message) => fx.send(shard, message),
                entry::Waiting::Receipt(edge, receipted) => {
                    self.desk.receipts.push((edge, receipted));
                }
                entry::Waiting::Subscribed(joining) => {
                    match self.conversations.peek(&joining.conversation) {
                        Some(Slot::Present(conversation))
                            if conversation.member(&joining.user).is_some() =>
                        {
                            self.desk.answer_subscribed(conversation, &joining, fx);
                        }
                        // The reader has left memory meanwhile.
                        _ => self.start(now, Work::new(joining.into_ask()), fx),
                    }
                }
            }
        }
    }

    /// Undurable entries of lanes that failed are gone: whoever waits for them is told, and the conversations are read again. All
    /// lanes fail together as a rule, and those of one stand among those of all.
    fn reset_failed(&mut self, now: Now, fx: &mut Effects) {
        let lanes = self.desk.lanes.take_failed();
        if lanes.is_empty() {
            return;
        }
        for lane in &lanes {
            for waiting in self.desk.lanes.reset(*lane) {
                self.desk.refuse_waiting(waiting, fx);
            }
        }
        let topology = self.desk.topology;
        let has_failed = |id: &ConversationId| lanes.binary_search(&topology.lane_of(id)).is_ok();
        // What these bring is asked for again; it could stand beside newer state then.
        self.desk.loads.retain(|_, (conversation, load)| {
            !matches!(load, Load::For { .. }) || !has_failed(conversation)
        });
        let ids: Vec<ConversationId> = self
            .conversations
            .iter()
            .filter(|(id, slot)| matches!(slot, Slot::Present(_)) && has_failed(id))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            if let Some(Slot::Present(conversation)) = self.conversations.remove(&id) {
                let queued = self.desk.abandon(*conversation);
                for work in queued {
                    self.start(now, work, fx);
                }
            }
        }
    }

    /// A conversation that alone has most of the members in memory gives them up, before others have to leave for it.
    fn cool(&mut self, id: &ConversationId) {
        let members_max = self.desk.config.members_max;
        if self.desk.members <= members_max {
            return;
        }
        if let Some(Slot::Present(conversation)) = self.conversations.peek_mut(id)
            && conversation.members_in_memory() > members_max / 2
        {
            self.desk.trim(conversation);
            self.cooling = Some(*id);
        }
    }

    /// The next of them.
    fn cool_on(&mut self) {
        let Some(id) = self.cooling else {
            return;
        };
        let goes_on = match self.conversations.peek_mut(&id) {
            Some(Slot::Present(conversation)) => self.desk.trim(conversation) == FREED_AT_ONCE,
            _ => false,
        };
        if !goes_on {
            self.cooling = None;
        }
    }

    fn evict(&mut self) {
        let mut tries = EVICTION_TRIES;
        while tries > 0
            && (self.conversations.len() > self.desk.config.conversations_max
                || self.desk.members > self.desk.config.members_max)
        {
            tries -= 1;
            let Some((id, slot)) = self.conversations.remove_lru() else {
                return;
            };
            match slot {
                // Writing does not bring it to the front of the list: it has a second chance instead.
                Slot::Present(mut conversation) if conversation.in_use => {
                    conversation.in_use = false;
                    self.conversations.insert(id, Slot::Present(conversation));
                }
                Slot::Present(conversation)
                    if !conversation.is_busy(&self.desk) && !self.conversations.is_empty() =>
                {
                    self.desk.let_go(*conversation);
                }
                Slot::Present(mut conversation) => {
                    // It stays, without the members that nobody waits for.
                    if self.desk.members > self.desk.config.members_max {
                        self.desk.trim(&mut conversation);
                    }
                    self.conversations.insert(id, Slot::Present(conversation));
                }
                slot @ Slot::Loading(_) => {
                    self.conversations.insert(id, slot);
                }
            }
        }
    }
}

/// A conversation as it was read; `None`: there is none. One whose profile cannot be read is not taken for none: whoever named it
/// could open it anew, as his own.
fn stored(answer: Option<Answer>) -> Result<Option<(StoredConversation, Profile)>, ErrorCode> {
    match answer {
        Some(Answer::Conversation(None)) => Ok(None),
        Some(Answer::Conversation(Some(stored))) => match Profile::from_row(&stored.profile) {
            Some(profile) => Ok(Some((stored, profile))),
            None => Err(ErrorCode::Damaged),
        },
        answer => Err(read_failure(answer.as_ref())),
    }
}

#[cfg(test)]
mod tests;
