//! Who owns what on this node: lanes to shards, conversations and users to lanes.

use rialto_protocol::ids::{ConversationId, LaneId, UserId};

/// One thread with one core; a number below [`Topology::shards`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// How lanes are spread over the shards of the node. Lanes are fixed with the data set, shards with the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Shards of the node, at least 1.
    pub shards: u16,
    /// Lanes of the data set, at least 1.
    pub lanes: u16,
}

impl Topology {
    /// The lane that a conversation belongs to.
    #[must_use]
    pub fn lane_of(&self, conversation: &ConversationId) -> LaneId {
        LaneId::of(conversation, self.lanes)
    }

    /// The shard that owns a lane.
    #[must_use]
    pub fn shard_of_lane(&self, lane: LaneId) -> ShardId {
        ShardId(lane.0 % self.shards)
    }

    /// The shard that owns a conversation.
    #[must_use]
    pub fn shard_of(&self, conversation: &ConversationId) -> ShardId {
        // The usual one of a small machine need not be looked for.
        if self.shards == 1 {
            return ShardId(0);
        }
        self.shard_of_lane(self.lane_of(conversation))
    }

    /// The shard that keeps a user's presence: the one that owns the user's inbox.
    #[must_use]
    pub fn home_of(&self, user: &UserId) -> ShardId {
        self.shard_of(&ConversationId::of_inbox(*user))
    }

    /// The lanes of one shard, in rising order.
    pub fn lanes_of(&self, shard: ShardId) -> impl Iterator<Item = LaneId> + use<> {
        let Self { shards, lanes } = *self;
        (0..lanes)
            .map(LaneId)
            .filter(move |lane| lane.0 % shards == shard.0)
    }
}
