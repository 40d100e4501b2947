//! What the halves of a shard leave behind while they handle an input: outputs, messages, counts.

use std::collections::VecDeque;

use crate::{counters::Counters, io::Output, message::Message, topology::ShardId};

/// What the halves of a shard write to while they handle an input.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the shell.
    pub outputs: Vec<Output>,
    /// For any shard of the node, this one included; in order for each receiver.
    pub messages: VecDeque<(ShardId, Message)>,
    /// Counted along the way.
    pub counters: Counters,
}

impl Effects {
    /// Sends a message to a shard, be it this one.
    pub fn send(&mut self, shard: ShardId, message: Message) {
        self.messages.push_back((shard, message));
    }
}
