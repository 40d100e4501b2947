//! Who publishes where, and who follows what: made anew by every thread from the same few numbers.

use rialto_protocol::ids::{ConversationId, UserId};
use rialto_protocol::v1::{ConversationKind, Create, Visibility};

use super::body::mix;

/// The conversations of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    run: u64,
    epoch_us: u64,
    publishers: usize,
    conversations: usize,
}

/// What a publisher does before the load: conversations by their place in the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Duties {
    /// Conversations that it opens.
    pub(super) opens: Vec<usize>,
    /// Those that another one opens, and it enters.
    pub(super) joins: Vec<usize>,
}

impl Plan {
    /// Of the run with this number and epoch.
    pub(super) const fn new(
        run: u64,
        epoch_us: u64,
        publishers: usize,
        conversations: usize,
    ) -> Self {
        Self {
            run,
            epoch_us,
            publishers,
            conversations,
        }
    }

    /// How many conversations there are.
    pub(super) const fn conversations(&self) -> usize {
        self.conversations
    }

    /// The id of a conversation.
    pub(super) fn id(&self, place: usize) -> ConversationId {
        let mut entropy = [0; 10];
        entropy[..8].copy_from_slice(&mix(mix(self.run) ^ place as u64).to_le_bytes());
        entropy[8..].copy_from_slice(&mix(self.run ^ !(place as u64)).to_le_bytes()[..2]);
        ConversationId::v7(self.epoch_us / 1000, entropy)
    }

    /// What a publisher opens and enters: every conversation has a publisher, and every publisher one conversation at least.
    pub(super) fn duties(&self, publisher: usize) -> Duties {
        if publisher < self.conversations {
            Duties {
                opens: (publisher..self.conversations)
                    .step_by(self.publishers)
                    .collect(),
                joins: Vec::new(),
            }
        } else {
            Duties {
                opens: Vec::new(),
                joins: vec![publisher % self.conversations],
            }
        }
    }

    /// The conversations that a publisher writes to.
    pub(super) fn outlets(&self, publisher: usize) -> Vec<usize> {
        let Duties { mut opens, joins } = self.duties(publisher);
        opens.extend(joins);
        opens
    }

    /// The conversations that a reader follows.
    pub(super) fn follows(&self, _reader: usize) -> Vec<usize> {
        (0..self.conversations).collect()
    }

    /// The request that opens a conversation.
    pub(super) fn create(&self, place: usize) -> Create {
        Create {
            conversation: self.id(place).to_proto(),
            kind: ConversationKind::Channel.into(),
            visibility: Visibility::Public.into(),
            title: "load".to_owned(),
            ..Create::default()
        }
    }
}

/// The user that a publisher is.
pub(super) fn publisher_user(index: usize) -> UserId {
    UserId::from_name(&format!("run publisher {index}"))
}

/// The user that a reader is.
pub(super) fn reader_user(index: usize) -> UserId {
    UserId::from_name(&format!("run reader {index}"))
}

/// The user of a connection that does nothing.
pub(super) fn idle_user(index: usize) -> UserId {
    UserId::from_name(&format!("run bystander {index}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_conversation_is_opened_once_and_every_publisher_has_one() {
        for (conversations, publishers) in [(1, 1), (10, 3), (3, 10), (4, 4)] {
            let plan = Plan::new(7, 0, publishers, conversations);
            let mut opened = Vec::new();
            for publisher in 0..publishers {
                assert!(!plan.outlets(publisher).is_empty());
                opened.extend(plan.duties(publisher).opens);
            }
            opened.sort_unstable();
            assert_eq!(opened, (0..conversations).collect::<Vec<_>>());
        }
    }

    #[test]
    fn conversations_of_all_runs_differ() {
        let ids: BTreeSet<_> = (0..4)
            .flat_map(|run| {
                let plan = Plan::new(run, 1_700_000_000_000_000, 1, 100);
                (0..100).map(move |place| plan.id(place))
            })
            .collect();
        assert_eq!(ids.len(), 400);
        assert!(ids.iter().all(ConversationId::is_v7));
    }
}
