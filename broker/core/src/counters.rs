//! What a shard counts; the shell shows them as metrics.

use rialto_protocol::error::ErrorCode;

/// In [`SHED`] the reason that stands for the name of any error code.
pub const ANY_ERROR: &str = "an error code";

/// Every queue and reason that the core counts. docs/OPERATIONS.md is checked against it.
pub const SHED: &[(&str, &str)] = &[
    ("last_seen", "full"),
    ("notices", "full"),
    ("notices", "user"),
    ("owner", ANY_ERROR),
    ("parked", "full"),
    ("presence", "queue_full"),
    ("queue", "shard_budget"),
    ("queue", "unread"),
    ("session", ANY_ERROR),
    ("signals", "crowd"),
    ("signals", "queue_full"),
    ("subscription", ANY_ERROR),
];

fn is_listed(queue: &str, reason: &str) -> bool {
    let is_error = || ErrorCode::ALL.iter().any(|code| code.name() == reason);
    SHED.iter()
        .any(|&(known, why)| known == queue && (why == reason || (why == ANY_ERROR && is_error())))
}

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
        debug_assert!(is_listed(queue, reason), "{queue}/{reason} is in no table");
        let what = Shed { queue, reason };
        match self.shed.iter_mut().find(|(shed, _)| *shed == what) {
            Some((_, count)) => *count += 1,
            None => self.shed.push((what, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_those_of_the_table_or_error_codes_where_it_says_so() {
        assert!(is_listed("parked", "full") && is_listed("session", "rate_limited"));
        assert!(!is_listed("parked", "rate_limited") && !is_listed("session", "full"));
    }
}
