//! Conversations that somebody here follows, or is about to.

use std::collections::HashMap;

use ahash::RandomState;
use rialto_protocol::ids::{ConversationId, Handle, Seq};
use slab::Slab;

use super::subscription::SubKey;
use crate::{io::ConnId, message::Standing};

/// Names a topic while it lives; used again afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TopicKey(u32);

/// A reader who has everything so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveReader {
    pub(super) conn: ConnId,
    pub(super) sub: SubKey,
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) conversation: ConversationId,
    /// As its owner named it; meaningful once attached.
    pub(super) handle: Handle,
    /// The next event that the owner will tell of; what every live reader waits for.
    pub(super) next_live: Seq,
    pub(super) live: Vec<LiveReader>,
    pub(super) behind: Vec<SubKey>,
    /// Subscribe messages that the owner has not answered.
    pub(super) asked: u32,
    /// The owner tells this edge of new events.
    pub(super) attached: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Topics {
    slab: Slab<Topic>,
    by_conversation: HashMap<ConversationId, TopicKey, RandomState>,
    by_handle: HashMap<Handle, TopicKey, RandomState>,
    /// Subscribe messages that owners have not answered.
    asked: usize,
}

impl Topics {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            slab: Slab::new(),
            by_conversation: HashMap::with_hasher(hasher.clone()),
            by_handle: HashMap::with_hasher(hasher),
            asked: 0,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// How many subscriptions owners have not answered.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    pub(super) fn key(&self, conversation: ConversationId) -> Option<TopicKey> {
        self.by_conversation.get(&conversation).copied()
    }

    pub(super) fn key_of_handle(&self, handle: Handle) -> Option<TopicKey> {
        self.by_handle.get(&handle).copied()
    }

    /// The topic of a conversation, made if there is none.
    pub(super) fn key_or_insert(&mut self, conversation: ConversationId) -> TopicKey {
        let slab = &mut self.slab;
        *self.by_conversation.entry(conversation).or_insert_with(|| {
            let index = slab.insert(Topic {
                conversation,
                handle: Handle(0),
                next_live: Seq(0),
                live: Vec::new(),
                behind: Vec::new(),
                asked: 0,
                attached: false,
            });
            TopicKey(
                u32::try_from(index)
                    .expect("conversations of one shard are far fewer than 4 billion"),
            )
        })
    }

    /// A topic by a key that is known to live: whoever has a subscription, or asked for one, keeps it.
    pub(super) fn at(&self, key: TopicKey) -> &Topic {
        &self.slab[key.0 as usize]
    }

    pub(super) fn at_mut(&mut self, key: TopicKey) -> &mut Topic {
        &mut self.slab[key.0 as usize]
    }

    /// The owner is asked for a subscription: the topic stays until it has answered.
    pub(super) fn ask(&mut self, key: TopicKey) {
        self.at_mut(key).asked += 1;
        self.asked += 1;
    }

    /// It has.
    pub(super) fn answered(&mut self, key: TopicKey) {
        let topic = self.at_mut(key);
        if topic.asked > 0 {
            topic.asked -= 1;
            self.asked -= 1;
        }
    }

    /// Takes in that the owner has attached the edge.
    pub(super) fn attach(&mut self, key: TopicKey, standing: &Standing) {
        let topic = &mut self.slab[key.0 as usize];
        if !topic.attached {
            topic.attached = true;
            topic.next_live = standing.head.seq.next();
        }
        if topic.handle != standing.handle {
            self.by_handle.remove(&topic.handle);
            topic.handle = standing.handle;
        }
        self.by_handle.insert(standing.handle, key);
    }

    /// Removes the topic if nobody needs it; returns it if its owner has to be told.
    pub(super) fn release(&mut self, key: TopicKey) -> Option<ConversationId> {
        let topic = self.slab.get(key.0 as usize)?;
        if !topic.live.is_empty() || !topic.behind.is_empty() || topic.asked > 0 {
            return None;
        }
        let topic = self.slab.remove(key.0 as usize);
        self.by_conversation.remove(&topic.conversation);
        if self.by_handle.get(&topic.handle) == Some(&key) {
            self.by_handle.remove(&topic.handle);
        }
        topic.attached.then_some(topic.conversation)
    }
}
