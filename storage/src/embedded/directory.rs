//! The embedded directory: when users were last seen. Kept in memory first, written by the views' worker every few seconds.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;
use rialto_protocol::ids::UserId;

use super::views::{Fault, ViewStore};
use crate::directory::Seen;

/// With so many users waiting, the next write does not wait for its time.
const USERS_WAITING: usize = 16_384;
/// So many wait while nothing can be written, some 40 MiB; no others are taken in.
#[cfg(not(test))]
const USERS_MAX: usize = 1 << 20;
#[cfg(test)]
const USERS_MAX: usize = USERS_WAITING + 2;

/// How many users wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    Few,
    /// They should be written now.
    Many,
    /// And some were not taken in.
    TooMany,
}

/// What is not written yet.
#[derive(Default)]
pub(super) struct SeenBuffer {
    users: Mutex<AHashMap<UserId, u64>>,
}

impl SeenBuffer {
    fn lock(&self) -> MutexGuard<'_, AHashMap<UserId, u64>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes times in, as far as there is room.
    pub(super) fn record(&self, seen: &[Seen]) -> Waiting {
        let mut users = self.lock();
        let mut refused = false;
        for Seen { user, time_ms } in seen {
            if let Some(time) = users.get_mut(user) {
                *time = (*time).max(*time_ms);
            } else if users.len() < USERS_MAX {
                users.insert(*user, *time_ms);
            } else {
                refused = true;
            }
        }
        match users.len() {
            _ if refused => Waiting::TooMany,
            USERS_WAITING.. => Waiting::Many,
            _ => Waiting::Few,
        }
    }

    /// Writes what waits. It stays readable all the while, and goes on waiting when the write fails.
    pub(super) fn flush(&self, views: &ViewStore) -> Result<(), Fault> {
        let waiting: Vec<(UserId, u64)> = self
            .lock()
            .iter()
            .map(|(user, time_ms)| (*user, *time_ms))
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        views.write_seen(&waiting)?;
        let mut users = self.lock();
        for (user, written_ms) in waiting {
            if users
                .get(&user)
                .is_some_and(|time_ms| *time_ms <= written_ms)
            {
                users.remove(&user);
            }
        }
        Ok(())
    }

    /// When users were last seen, written or not.
    pub(super) fn last_seen(
        &self,
        users: &[UserId],
        views: &ViewStore,
    ) -> Result<Vec<Option<u64>>, Fault> {
        let waiting: Vec<Option<u64>> = {
            let buffer = self.lock();
            users.iter().map(|user| buffer.get(user).copied()).collect()
        };
        users
            .iter()
            .zip(waiting)
            .map(|(user, waiting)| Ok(waiting.max(views.read_seen(*user)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_nothing_is_written_a_bounded_number_of_users_wait() {
        let buffer = SeenBuffer::default();
        let seen = |number: usize, time_ms| Seen {
            user: UserId::from_bytes((number as u128).to_be_bytes()),
            time_ms,
        };
        let all: Vec<Seen> = (0..USERS_WAITING).map(|number| seen(number, 5)).collect();
        assert_eq!(buffer.record(&all[1..]), Waiting::Few);
        assert_eq!(buffer.record(&all[..1]), Waiting::Many);
        let more: Vec<Seen> = (0..5).map(|more| seen(USERS_WAITING + more, 5)).collect();
        assert_eq!(buffer.record(&more), Waiting::TooMany);
        assert_eq!(buffer.lock().len(), USERS_MAX);
        // Of those who wait the later time counts.
        assert_eq!(buffer.record(&[seen(0, 7), seen(1, 3)]), Waiting::Many);
        let times = [0, 1].map(|number| buffer.lock()[&seen(number, 0).user]);
        assert_eq!(times, [7, 5]);
    }
}
