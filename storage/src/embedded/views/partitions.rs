//! Keyspaces by windows of journal time: which there are, which are kept, and which go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, PoisonError,
        atomic::Ordering::{Relaxed, SeqCst},
    },
};

use fjall::Keyspace;

use super::{
    Doing, EVENTS, Fault, SENT, SENT_KEEP_MS, ViewStore, open_keyspace, separated, trickle,
};

/// Keyspaces by the number of their window. Who reads from one or writes to it holds it: a window that leaves waits for them.
pub(super) type Windows = BTreeMap<u32, Arc<Keyspace>>;

#[derive(Default)]
pub(super) struct Partitions {
    pub(super) events: Windows,
    pub(super) sent: Windows,
}

/// Window that a time belongs to.
pub(super) fn window(time_ms: u64, width_ms: u64) -> u32 {
    u32::try_from(time_ms / width_ms.max(1)).unwrap_or(u32::MAX)
}

/// Whether sent ids of this window may be needed, by journal time.
pub(super) fn sent_is_kept(window: u32, width_ms: u64, newest_time_ms: u64) -> bool {
    let end_ms = (u64::from(window) + 1).saturating_mul(width_ms);
    end_ms.saturating_add(SENT_KEEP_MS) >= newest_time_ms
}

/// The window in the name of a keyspace.
pub(super) fn numbered(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

impl ViewStore {
    pub(super) fn with_partitions<T>(&self, read: impl FnOnce(&Partitions) -> T) -> T {
        read(
            &self
                .partitions
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Windows of events that exist.
    pub(in crate::embedded) fn existing_windows(&self) -> Vec<u32> {
        self.with_partitions(|partitions| partitions.events.keys().copied().collect())
    }

    /// Windows of sent ids that exist and may be needed, by journal time.
    pub(in crate::embedded) fn kept_sent_windows(&self, newest_time_ms: u64) -> Vec<u32> {
        self.with_partitions(|partitions| {
            let windows = partitions.sent.keys().copied();
            windows
                .filter(|window| sent_is_kept(*window, self.sent_window_ms, newest_time_ms))
                .collect()
        })
    }

    /// Opens these windows, making those that are new.
    pub(super) fn open_windows(
        &self,
        events: &BTreeSet<u32>,
        sent: &BTreeSet<u32>,
    ) -> Result<(Windows, Windows), Fault> {
        let (events, sent) = (
            self.made(EVENTS, events, |partitions| &partitions.events)?,
            self.made(SENT, sent, |partitions| &partitions.sent)?,
        );
        let are_known = self.with_partitions(|partitions| {
            let events_are = events.keys().all(|own| partitions.events.contains_key(own));
            events_are && sent.keys().all(|own| partitions.sent.contains_key(own))
        });
        if !are_known {
            trickle::sync_folder_of(&self.devices)?;
        }
        let mut partitions = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for (window, keyspace) in &events {
            partitions.events.insert(*window, Arc::clone(keyspace));
        }
        for (window, keyspace) in &sent {
            partitions.sent.insert(*window, Arc::clone(keyspace));
        }
        Ok((events, sent))
    }

    /// These windows: those that are known, and all others as the database has them or makes them.
    fn made(
        &self,
        prefix: &str,
        windows: &BTreeSet<u32>,
        known: impl Fn(&Partitions) -> &Windows,
    ) -> Result<Windows, Fault> {
        let windows = windows.iter().map(|window| {
            if let Some(keyspace) = self.with_partitions(|all| known(all).get(window).cloned()) {
                return Ok((*window, keyspace));
            }
            let name = format!("{prefix}{window}");
            let keyspace = open_keyspace(&self.db, &self.compaction, &name, separated)?;
            Ok((*window, Arc::new(keyspace)))
        });
        windows
            .collect::<Result<Windows, fjall::Error>>()
            .doing("making a window of the views")
    }

    /// First window whose events are kept, by the greatest journal time that there is, when they are for so long. Never goes back.
    pub(in crate::embedded) fn first_kept(&self, retention_ms: Option<u64>) -> u32 {
        let before = self.events_from();
        let Some(retention_ms) = retention_ms else {
            return before;
        };
        let newest_time_ms = self.newest_time_ms.load(SeqCst);
        before.max(window(
            newest_time_ms.saturating_sub(retention_ms),
            self.events_window_ms,
        ))
    }

    /// From now on events before this window are neither read nor written, and merges leave out that they were there; a checkpoint
    /// has said so. [`ViewStore::drop_windows`] removes them.
    pub(in crate::embedded) fn keep_from(&self, window: u32) {
        self.events_from.fetch_max(window, Relaxed);
    }

    /// Has windows leave that are not kept any more, sent ids by this journal time. See [`ViewStore::leave`].
    pub(in crate::embedded) fn drop_windows(&self, newest_time_ms: u64) {
        let first = self.events_from();
        let old = |window: u32| !sent_is_kept(window, self.sent_window_ms, newest_time_ms);
        let mut partitions = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let Partitions { events, sent } = &mut *partitions;
        let events = events.extract_if(..first, |_, _| true);
        let sent = sent.extract_if(.., |window, _| old(*window));
        for (_, keyspace) in events.chain(sent) {
            tracing::info!(
                window = &**keyspace.name(),
                "dropping a window of the views"
            );
            self.leaving.drop_window(keyspace);
        }
    }
}
