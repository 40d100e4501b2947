//! The embedded directory: when users were last seen. Kept in memory first, written by the views' worker every few seconds.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;
use rialto_protocol::ids::UserId;

use super::views::{Fault, ViewStore};
use crate::directory::Seen;

/// With so many users waiting, the next write does not wait for its time.
const USERS_WAITING: usize = 16_384;

/// What is not written yet.
#[derive(Default)]
pub(super) struct SeenBuffer {
    users: Mutex<AHashMap<UserId, u64>>,
}

impl SeenBuffer {
    fn lock(&self) -> MutexGuard<'_, AHashMap<UserId, u64>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes times in; true: so many wait that they should be written now.
    pub(super) fn record(&self, seen: &[Seen]) -> bool {
        let mut users = self.lock();
        for Seen { user, time_ms } in seen {
            let time = users.entry(*user).or_insert(*time_ms);
            *time = (*time).max(*time_ms);
        }
        users.len() >= USERS_WAITING
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
