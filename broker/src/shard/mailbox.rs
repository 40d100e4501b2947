//! The way from shard to shard: whole batches, one lock and at most one wake-up for each.
//!
//! A full mailbox refuses a batch; its sender keeps it ([`super::outgoing`]), stops reading from its own connections, and is woken
//! once there is room. Receiving never depends on sending, so two shards cannot wait for each other.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use futures_util::task::AtomicWaker;
use rialto_core::{message::Message, topology::ShardId};

use super::outgoing::Outgoing;

/// What waits for one shard.
#[derive(Debug)]
pub(crate) struct Mailbox {
    bytes_max: usize,
    /// Wakes the shard's pump.
    pump: AtomicWaker,
    /// Saves the lock when there is nothing.
    filled: AtomicBool,
    post: Mutex<Post>,
}

#[derive(Debug, Default)]
struct Post {
    messages: Vec<Message>,
    bytes: usize,
    /// Shards that were refused and wait for room.
    refused: Vec<ShardId>,
}

impl Mailbox {
    /// One for each shard, which take `bytes_max` each before they refuse.
    pub(crate) fn all(shards: u16, bytes_max: usize) -> Arc<[Self]> {
        let mailbox = |_| Self {
            bytes_max,
            pump: AtomicWaker::new(),
            filled: AtomicBool::new(false),
            post: Mutex::default(),
        };
        (0..shards).map(mailbox).collect()
    }

    /// What wakes the pump of the shard that reads this mailbox.
    pub(crate) fn pump(&self) -> &AtomicWaker {
        &self.pump
    }

    /// Hands a batch over, in order. It stays with the sender when there is no room; the sender's pump is woken once there is.
    pub(crate) fn offer(&self, from: ShardId, batch: &mut Outgoing) -> Delivery {
        let mut post = self.post();
        if post.bytes >= self.bytes_max {
            if !post.refused.contains(&from) {
                post.refused.push(from);
            }
            drop(post);
            batch.refuse();
            return Delivery::Refused;
        }
        post.bytes += batch.move_to(&mut post.messages);
        drop(post);
        if !self.filled.swap(true, Ordering::AcqRel) {
            self.pump.wake();
        }
        Delivery::Taken
    }

    /// Everything that waits. `all` are the mailboxes of the node: those who were refused are woken.
    pub(crate) fn take(&self, all: &[Self]) -> Vec<Message> {
        if !self.filled.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let Post {
            messages, refused, ..
        } = std::mem::take(&mut *self.post());
        for shard in refused {
            if let Some(mailbox) = all.get(usize::from(shard.0)) {
                mailbox.pump.wake();
            }
        }
        messages
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.post().messages.is_empty()
    }

    fn post(&self) -> MutexGuard<'_, Post> {
        // A panic of another shard ends the process; until then its batches are whole.
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It is on its way.
    Taken,
    /// There was no room.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_core::message::ToEdge;
    use rialto_protocol::ids::{ConversationId, UserId};

    fn message(number: u64) -> Message {
        let user = UserId::SYSTEM;
        let frame = bytes::Bytes::from(vec![0; 1_000]);
        let conversation = ConversationId::from_bytes([u8::try_from(number).unwrap(); 16]);
        Message::ToEdge(ToEdge::Signalled {
            conversation,
            user,
            frame,
        })
    }

    #[test]
    fn a_full_mailbox_leaves_the_batch_with_its_sender_and_takes_it_after_it_was_emptied() {
        let all = Mailbox::all(2, 1_500);
        let mut batch = Outgoing::new(10_000);
        let _ = (batch.push(message(1)), batch.push(message(2)));
        assert_eq!(all[1].offer(ShardId(0), &mut batch), Delivery::Taken);
        assert!(batch.is_empty());
        assert_eq!(batch.push(message(3)), None);
        assert_eq!(all[1].offer(ShardId(0), &mut batch), Delivery::Refused);
        assert!(!batch.is_empty());
        assert_eq!(all[1].take(&all).len(), 2);
        assert_eq!(all[1].offer(ShardId(0), &mut batch), Delivery::Taken);
        assert_eq!(all[1].take(&all).len(), 1);
        assert!(all[1].take(&all).is_empty() && all[1].is_empty());
    }
}
