//! Which edges follow which conversation, and under what handle. Kept apart from the conversations, so that a quiet one
//! can leave memory while somebody still follows it.

use std::collections::HashMap;

use rialto_protocol::ids::{ConversationId, Handle};
use smallvec::SmallVec;

use crate::topology::{ShardId, Topology};

/// One followed conversation.
#[derive(Debug)]
pub(super) struct Attachment {
    /// Its name in frames, the same for all connections of the node.
    pub(super) handle: Handle,
    /// Who follows.
    pub(super) edges: SmallVec<[ShardId; 4]>,
}

/// All that are followed.
#[derive(Debug)]
pub(super) struct Attachments {
    followed: HashMap<ConversationId, Attachment, ahash::RandomState>,
    next_handle: u32,
    step: u32,
}

impl Attachments {
    pub(super) fn new(id: ShardId, topology: Topology, hasher: ahash::RandomState) -> Self {
        let followed = HashMap::with_hasher(hasher);
        // Handles of different shards never meet: each counts in steps of the number of shards.
        Self { followed, next_handle: u32::from(id.0) + 1, step: u32::from(topology.shards) }
    }

    pub(super) fn get(&self, conversation: &ConversationId) -> Option<&Attachment> {
        self.followed.get(conversation)
    }

    /// Adds an edge; the handle stays the same as long as any edge follows.
    pub(super) fn attach(&mut self, conversation: ConversationId, edge: ShardId) -> Handle {
        if let Some(attachment) = self.followed.get_mut(&conversation) {
            if !attachment.edges.contains(&edge) {
                attachment.edges.push(edge);
            }
            return attachment.handle;
        }
        let handle = Handle(self.next_handle);
        // Four thousand million conversations followed one after the other use all handles up; by then the early ones are free.
        self.next_handle = self.next_handle.checked_add(self.step).unwrap_or(self.next_handle % self.step + self.step);
        self.followed.insert(conversation, Attachment { handle, edges: SmallVec::from_iter([edge]) });
        handle
    }

    pub(super) fn detach(&mut self, conversation: &ConversationId, edge: ShardId) {
        if let Some(attachment) = self.followed.get_mut(conversation) {
            attachment.edges.retain(|known| *known != edge);
            if attachment.edges.is_empty() {
                self.followed.remove(conversation);
            }
        }
    }
}
