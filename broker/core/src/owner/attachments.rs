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
    /// All handles have been given out once.
    wrapped: bool,
}

impl Attachments {
    pub(super) fn new(id: ShardId, topology: Topology, hasher: ahash::RandomState) -> Self {
        let followed = HashMap::with_hasher(hasher);
        // Handles of different shards never meet: each counts in steps of the number of shards.
        Self {
            followed,
            next_handle: u32::from(id.0) + 1,
            step: u32::from(topology.shards),
            wrapped: false,
        }
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
        let handle = self.free_handle();
        self.followed.insert(
            conversation,
            Attachment {
                handle,
                edges: SmallVec::from_iter([edge]),
            },
        );
        handle
    }

    /// A handle that names nothing else.
    fn free_handle(&mut self) -> Handle {
        loop {
            let handle = Handle(self.next_handle);
            // Some of the early ones may still be in use when all have been.
            let is_taken = self.wrapped
                && self
                    .followed
                    .values()
                    .any(|attachment| attachment.handle == handle);
            match self.next_handle.checked_add(self.step) {
                Some(next) => self.next_handle = next,
                None => {
                    self.next_handle = (self.next_handle - 1) % self.step + 1;
                    self.wrapped = true;
                }
            }
            if !is_taken {
                return handle;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_in_use_is_not_given_out_again() {
        let topology = Topology {
            shards: 3,
            lanes: 3,
        };
        let mut attachments =
            Attachments::new(ShardId(2), topology, ahash::RandomState::with_seed(1));
        let id = |number| ConversationId::from_bytes([number; 16]);
        assert_eq!(attachments.attach(id(1), ShardId(0)), Handle(3));
        attachments.next_handle = u32::MAX;
        assert_eq!(attachments.attach(id(2), ShardId(0)), Handle(u32::MAX));
        assert_eq!(attachments.attach(id(3), ShardId(0)), Handle(6));
    }
}
