//! What sessions that are gone have left: subscriptions, and the lists of those they watched. They are taken apart some at a time, so
//! that nobody waits while thousands of sessions end together. Until then a reader or watcher that is gone keeps its place among
//! the others; it is passed over wherever it stands, because its connection is in use no more, and no other ever has its id.

use std::collections::VecDeque;

use rialto_protocol::ids::UserId;

use super::{
    Edge,
    session::{SubRef, Work},
};
use crate::{
    effects::Effects,
    io::{ConnId, Now},
};

/// Subscriptions and watched users that are taken apart at once: some 0.2 to 0.7 ms.
const ENTRIES_AT_ONCE: usize = 1_024;
/// How long the next are away, for each of them, microseconds: some four times as long as taking it apart takes, so that the others
/// have the most of a shard's time.
const ENTRY_US: u64 = 2;

/// Those that are not taken apart yet.
#[derive(Debug, Default)]
pub(super) struct Estates {
    /// In the order in which the sessions ended.
    waiting: VecDeque<Estate>,
    /// Subscriptions in them.
    subs: usize,
    /// When the next may be taken apart, monotonic microseconds.
    next_us: u64,
}

/// What one session has left.
#[derive(Debug)]
struct Estate {
    conn: ConnId,
    subs: Vec<SubRef>,
    watched: Vec<UserId>,
    /// What it had under way, which lists the subscriptions that were behind: freed with the last of them.
    _work: Option<Box<Work>>,
}

impl Estates {
    /// Takes in what a session leaves.
    pub(super) fn add(
        &mut self,
        conn: ConnId,
        subs: Vec<SubRef>,
        watched: Box<[UserId]>,
        work: Option<Box<Work>>,
    ) {
        if subs.is_empty() && watched.is_empty() {
            return;
        }
        self.subs += subs.len();
        self.waiting.push_back(Estate {
            conn,
            subs,
            watched: watched.into_vec(),
            _work: work,
        });
    }

    /// Subscriptions that nobody has any more.
    pub(super) fn subs(&self) -> usize {
        self.subs
    }

    /// When some are to be taken apart, monotonic microseconds; `None`: there are none.
    pub(super) fn due_us(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then_some(self.next_us)
    }

    /// The next few of one session, so many at most.
    fn take(&mut self, count: usize) -> Option<Estate> {
        let estate = self.waiting.front_mut()?;
        let conn = estate.conn;
        let subs = take_last(&mut estate.subs, count);
        let watched = take_last(&mut estate.watched, count - subs.len());
        if estate.subs.is_empty() && estate.watched.is_empty() {
            self.waiting.pop_front();
        }
        self.subs -= subs.len();
        Some(Estate {
            conn,
            subs,
            watched,
            _work: None,
        })
    }

    /// Takes in that so many were taken apart.
    fn spend(&mut self, now: Now, entries: usize) {
        self.next_us = now.mono_us + entries as u64 * ENTRY_US;
        if self.waiting.is_empty() {
            // The memory of a time in which very many left.
            self.waiting.shrink_to_fit();
        }
    }
}

impl Edge {
    /// Takes the next few apart, if it is time.
    pub(super) fn take_apart(&mut self, now: Now, fx: &mut Effects) {
        if self
            .estates
            .due_us()
            .is_none_or(|due_us| now.mono_us < due_us)
        {
            return;
        }
        let mut left = ENTRIES_AT_ONCE;
        while left > 0
            && let Some(part) = self.estates.take(left)
        {
            left -= part.subs.len() + part.watched.len();
            self.drop_subs(&part.subs, fx);
            self.unwatch(part.conn, &part.watched, fx);
        }
        self.estates.spend(now, ENTRIES_AT_ONCE - left);
    }
}

/// The last of the entries, so many at most.
fn take_last<T>(entries: &mut Vec<T>, count: usize) -> Vec<T> {
    let first = entries.len().saturating_sub(count);
    if first == 0 {
        std::mem::take(entries)
    } else {
        entries.split_off(first)
    }
}
