//! The way from shard to shard: whole batches, one lock and at most one wake-up for each.
//!
//! A full mailbox refuses a batch; its sender keeps it, stops reading from its own connections, and is woken once there is
//! room. Receiving never depends on sending, so two shards cannot wait for each other.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use futures_util::task::AtomicWaker;
use rialto_core::{message::Message, topology::ShardId};

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
    pub(crate) fn offer(&self, from: ShardId, batch: &mut Vec<Message>) -> Delivery {
        let bytes = batch.iter().map(weight).sum::<usize>();
        let mut post = self.post();
        if post.bytes >= self.bytes_max {
            if !post.refused.contains(&from) {
                post.refused.push(from);
            }
            return Delivery::Refused;
        }
        post.bytes += bytes;
        post.messages.append(batch);
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

/// Bytes that a message holds in memory, near enough to bound a queue: the large parts are payloads.
fn weight(message: &Message) -> usize {
    size_of::<Message>() + message.payload_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_core::{
        io::ConnId,
        message::{Author, Origin, ToEdge, ToOwner},
    };
    use rialto_protocol::{
        ids::{ConversationId, DeviceId, RequestId, UserId},
        v1,
    };

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
        let mut batch = vec![message(1), message(2)];
        assert_eq!(all[1].offer(ShardId(0), &mut batch), Delivery::Taken);
        assert!(batch.is_empty());
        batch.push(message(3));
        assert_eq!(all[1].offer(ShardId(0), &mut batch), Delivery::Refused);
        assert_eq!(batch.len(), 1);
        assert_eq!(all[1].take(&all).len(), 2);
        assert_eq!(all[1].offer(ShardId(0), &mut batch), Delivery::Taken);
        assert_eq!(all[1].take(&all).len(), 1);
        assert!(all[1].take(&all).is_empty() && all[1].is_empty());
    }

    #[test]
    fn signals_and_requests_weigh_what_they_hold() {
        let origin = Origin {
            edge: ShardId(0),
            conn: ConnId {
                index: 0,
                generation: 0,
            },
            request: RequestId(1),
            cost: 1_000,
        };
        let (user, conversation) = (UserId::SYSTEM, ConversationId::from_bytes([1; 16]));
        let custom = bytes::Bytes::from(vec![0; 1_000]);
        let signal = ToOwner::Signal {
            origin,
            user,
            conversation,
            signal: v1::signalled::Signal::Custom(custom),
        };
        let create = ToOwner::Create {
            origin,
            author: Author {
                user,
                device: DeviceId::from_bytes([1; 16]),
            },
            conversation,
            create: v1::Create::default(),
        };
        let describe = ToOwner::Describe {
            origin,
            user,
            conversation,
        };
        let weight_of = |message: ToOwner| weight(&Message::ToOwner(message));
        assert_eq!(
            weight_of(signal.clone()),
            weight_of(describe.clone()) + 1_000
        );
        assert_eq!(weight_of(create), weight_of(describe) + 1_000);
    }
}
