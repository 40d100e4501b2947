//! When notices are sent: new ones at once as far as there is time for them and then by and by, those that were refused again
//! after a while, some at a time.

use std::collections::VecDeque;

use rialto_protocol::{ids::LaneId, limits};

use super::outbox::ItemId;
use crate::io::Now;

/// New notices that are sent at once: all of one Create, however many members it has.
const SENT_AT_ONCE: usize = 512;
/// How long the next ones wait behind them, for each, microseconds: about as long as an inbox takes to keep it, and some more for
/// whatever else the shard has to do.
const SENT_US: u64 = 8;
/// How long an item that could not be kept waits before it is sent again.
const RETRY_US: u64 = 1_000_000;
/// So many of them are sent at once, and how long the next wait behind them.
const RETRIES_AT_ONCE: usize = 1_000;
const RETRY_STEP_US: u64 = 100_000;

const _: () = assert!(
    SENT_AT_ONCE > limits::MEMBERS_PER_CREATE_MAX,
    "a Create tells its members and its creator at once"
);

/// What is to be sent, for the first time and again, and when.
#[derive(Debug, Default)]
pub(super) struct Retries {
    /// Lanes with notices that have not been sent yet, and how many of an entry, in the order in which the entries became durable.
    unsent: VecDeque<(LaneId, usize)>,
    /// Until then the shard is taken to be busy with those that were sent, monotonic microseconds.
    busy_until_us: u64,
    /// Items that were refused, those refused longest ago first, and when their time has come, monotonic microseconds.
    refused: VecDeque<(u64, LaneId, ItemId)>,
    /// Not before that: others were sent again just now.
    not_before_us: u64,
    /// When what is done is to be written down.
    pub(super) write_us: Option<u64>,
}

impl Retries {
    fn next_us(&self) -> Option<u64> {
        let (due_us, ..) = self.refused.front()?;
        Some(self.not_before_us.max(*due_us))
    }

    /// When [`super::desk::Desk::retry_outboxes`] is due, monotonic microseconds.
    pub(super) fn deadline_us(&self) -> Option<u64> {
        let unsent_us = (!self.unsent.is_empty()).then_some(self.busy_until_us);
        let due = self.next_us().into_iter().chain(unsent_us);
        due.chain(self.write_us).min()
    }

    /// So many notices of an entry of the lane are to be sent, behind those that are.
    pub(super) fn add(&mut self, lane: LaneId, count: usize) {
        if count > 0 {
            self.unsent.push_back((lane, count));
        }
    }

    /// The lane whose next notice is sent now; `None`: there is none, or no time.
    pub(super) fn next_to_send(&mut self, now: Now) -> Option<LaneId> {
        if self.busy_until_us >= now.mono_us + SENT_AT_ONCE as u64 * SENT_US {
            return None;
        }
        let (lane, count) = self.unsent.front_mut()?;
        let lane = *lane;
        *count -= 1;
        if *count == 0 {
            self.unsent.pop_front();
        }
        self.busy_until_us = self.busy_until_us.max(now.mono_us) + SENT_US;
        if self.unsent.is_empty() {
            // The memory of a time in which very many waited.
            self.unsent.shrink_to_fit();
        }
        Some(lane)
    }

    /// What is left over from before a start is sent again as soon as may be.
    pub(super) fn resume(&mut self, lane: LaneId, item: ItemId) {
        self.refused.push_back((0, lane, item));
    }

    pub(super) fn refuse(&mut self, now: Now, lane: LaneId, item: ItemId) {
        self.refused.push_back((now.mono_us + RETRY_US, lane, item));
    }

    /// Those whose time has come, as many as are sent at once.
    pub(super) fn take_due(&mut self, now_us: u64) -> Vec<(LaneId, ItemId)> {
        let mut due = Vec::new();
        while due.len() < RETRIES_AT_ONCE
            && self.next_us().is_some_and(|due_us| due_us <= now_us)
            && let Some((_, lane, item)) = self.refused.pop_front()
        {
            due.push((lane, item));
        }
        if due.len() == RETRIES_AT_ONCE {
            self.not_before_us = now_us + RETRY_STEP_US;
        }
        due
    }
}
