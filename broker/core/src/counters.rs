//! What a shard counts; the shell shows them as metrics.

/// Where something was dropped or refused (the queue), and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shed {
    /// The queue or stage.
    pub queue: &'static str,
    /// The reason.
    pub reason: &'static str,
}

/// Monotonic counters and gauges of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames read.
    pub frames_in: u64,
    /// Frames queued for connections.
    pub frames_out: u64,
    /// Bytes queued for connections.
    pub bytes_out: u64,
    /// Events appended and durable.
    pub events_appended: u64,
    /// Drafts answered from an earlier append.
    pub duplicates: u64,
    /// Events queued for readers, catch-up included.
    pub events_delivered: u64,
    /// Times a reader was switched from live to reading from the log.
    pub readers_fallen_behind: u64,
    /// Entries handed to the journal.
    pub entries: u64,
    /// Reads asked of storage.
    pub loads: u64,
    /// Messages to other shards.
    pub forwarded: u64,
    /// Sessions that are authenticated now.
    pub sessions: u64,
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Conversations in memory now.
    pub conversations: u64,
    /// Inputs waiting for a read now.
    pub parked: u64,
    /// Drops and refusals by (queue, reason), in the order they first happened.
    pub shed: Vec<(Shed, u64)>,
}

impl Counters {
    /// Counts a drop or refusal.
    pub fn shed(&mut self, queue: &'static str, reason: &'static str) {
        let what = Shed { queue, reason };
        match self.shed.iter_mut().find(|(shed, _)| *shed == what) {
            Some((_, count)) => *count += 1,
            None => self.shed.push((what, 1)),
        }
    }
}
