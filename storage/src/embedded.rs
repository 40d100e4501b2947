//! Everything on one machine, below one directory: a write-ahead log of our own, and views made from it.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `log` | the journal: segments, group commit, recovery |
//! | `tail` | what is durable but not in the views yet, findable |
//! | `views` | the fjall database and reads over both |
//! | `worker` | the thread that brings segments into the views |
//! | `readers` | the threads that reads run on |
//! | `directory` | when users were last seen |
//! | `threads` | what the threads are, for whoever shares out the processors |
//! | `format`, `lock` | what a data directory is, and whose |
//!
//! The journal is the only truth. Views that are lost or damaged are made again from it as long as its first segment is
//! there; after that a backup is needed, and the error says so.

mod directory;
mod format;
mod lock;
mod log;
mod options;
mod readers;
mod start;
mod tail;
mod threads;
mod views;
mod worker;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use bytes::Bytes;
use rialto_protocol::{
    ids::{ClientId, ConversationId, DeviceId, LaneId, UserId},
    record::Table,
};

use self::{
    directory::Waiting,
    readers::{Readers, Refused},
    views::merge,
    worker::Work,
};
pub use self::{
    lock::DirectoryLock,
    options::EmbeddedOptions,
    threads::{StoreThread, ThreadHook},
    views::Step,
    worker::StepHook,
};
use crate::{
    StoreFuture,
    directory::{Directory, DirectoryError, Seen},
    journal::{AppendError, Claim, Entry, Journal, JournalError, JournalStatus},
    promise::promise,
    views::{Head, Range, Scan, SentDevices, SentEvent, Views, ViewsError},
};

/// The store of one machine. Clones are handles to the same one; it is closed with the last of them.
#[derive(Clone)]
pub struct EmbeddedStore(Arc<Handle>);

struct Handle {
    work: Arc<Work>,
    readers: Readers,
    worker: Mutex<Option<JoinHandle<()>>>,
    lanes: u16,
    data_set: u128,
    created_ms: u64,
    /// Last, so that the directory is let go of when all else is closed.
    _lock: DirectoryLock,
}

impl EmbeddedStore {
    /// Opens the data directory, or makes it (its parent must exist).
    ///
    /// # Errors
    /// [`JournalError::Locked`] when another process has it, `Format` for data of a newer version or options out of range,
    /// `Damaged` when durable bytes are bad, `Io` for what the operating system says. Each names the place and what to do.
    pub fn open(dir: &Path, options: EmbeddedOptions) -> Result<Self, JournalError> {
        options.check()?;
        Self::open_locked(DirectoryLock::take(dir)?, options)
    }

    /// The same for a directory that was locked before, so that its owner could do something in it first.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn open_locked(
        lock: DirectoryLock,
        options: EmbeddedOptions,
    ) -> Result<Self, JournalError> {
        start::open(lock, options)
    }

    /// Tells this data set from every other; 128 random bits, made with the directory.
    #[must_use]
    pub fn data_set(&self) -> u128 {
        self.0.data_set
    }

    /// When the data set was made, milliseconds since 1970.
    #[must_use]
    pub fn created_ms(&self) -> u64 {
        self.0.created_ms
    }

    /// Finishes what was appended and the segment that is on its way into the views, writes the directory, and ends all
    /// threads. Other clones get errors from then on; the data directory is free once the last of them is gone.
    pub fn close(self) {
        self.0.close();
    }

    /// Ends the way a killed process does, for tests: what is durable stays, all else is given up where it stands.
    #[doc(hidden)]
    pub fn abandon(self) {
        self.0.work.abandon();
        self.0.close();
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Work) -> Result<T, ViewsError> + Send + 'static,
    ) -> StoreFuture<T, ViewsError> {
        let work = Arc::clone(&self.0.work);
        let answer = self.0.readers.read(move || read(&work));
        Box::pin(async move {
            match answer {
                Ok(answer) => answer.await.unwrap_or(Err(ViewsError::Closed)),
                Err(Refused::Busy) => Err(ViewsError::Busy),
                Err(Refused::Closed) => Err(ViewsError::Closed),
            }
        })
    }
}

impl Handle {
    fn close(&self) {
        self.readers.close();
        self.work.stop();
        self.work.log.close();
        let worker = self
            .worker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if worker.is_some_and(|worker| worker.join().is_err()) {
            tracing::error!("the thread behind the views has panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

fn closed() -> JournalError {
    JournalError::Locked("the store is closed".to_owned())
}

impl Journal for EmbeddedStore {
    fn lanes(&self) -> u16 {
        self.0.lanes
    }

    fn claim(&self, lanes: Vec<LaneId>) -> StoreFuture<Vec<Claim>, JournalError> {
        let (resolver, answer) = promise();
        self.0
            .work
            .log
            .claim(lanes, |claims| resolver.resolve(claims));
        Box::pin(async move { answer.await.unwrap_or_else(|| Err(closed())) })
    }

    fn append(&self, entries: Vec<Entry>) -> StoreFuture<(), AppendError> {
        let (resolver, answer) = promise();
        self.0
            .work
            .log
            .append(entries, |outcome| resolver.resolve(outcome));
        Box::pin(async move {
            answer
                .await
                .unwrap_or_else(|| Err(AppendError::Poisoned("the store is closed".to_owned())))
        })
    }

    fn settle(&self) -> StoreFuture<(), JournalError> {
        let (resolver, answer) = promise();
        let work = Arc::clone(&self.0.work);
        self.0.work.log.seal(move |sealed| match sealed {
            Ok(segment) => work.when_viewed(segment, resolver),
            Err(error) => resolver.resolve(Err(error)),
        });
        Box::pin(async move { answer.await.unwrap_or_else(|| Err(closed())) })
    }

    fn status(&self) -> JournalStatus {
        self.0.work.log.status()
    }
}

impl Views for EmbeddedStore {
    fn head(&self, conversation: ConversationId) -> StoreFuture<Option<Head>, ViewsError> {
        self.read(move |work| merge::head(work, conversation))
    }

    fn events(&self, range: Range) -> StoreFuture<Vec<Bytes>, ViewsError> {
        self.read(move |work| merge::events(work, &range))
    }

    fn drops(&self) -> u64 {
        self.0.work.views.events_from().into()
    }

    fn rows(
        &self,
        conversation: ConversationId,
        table: Table,
        keys: Vec<Bytes>,
    ) -> StoreFuture<Vec<Option<Bytes>>, ViewsError> {
        self.read(move |work| merge::rows(work, conversation, table, &keys))
    }

    fn scan(&self, scan: Scan) -> StoreFuture<Vec<(Bytes, Bytes)>, ViewsError> {
        self.read(move |work| merge::scan(work, &scan))
    }

    fn sent(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> StoreFuture<SentDevices, ViewsError> {
        self.read(move |work| merge::sent(work, conversation, user))
    }

    fn find_sent(
        &self,
        conversation: ConversationId,
        user: UserId,
        device: DeviceId,
        client_id: ClientId,
    ) -> StoreFuture<Option<SentEvent>, ViewsError> {
        self.read(move |work| merge::find_sent(work, conversation, user, device, client_id))
    }

    fn sent_as_of_ms(&self) -> u64 {
        self.0.work.views.newest_time_ms()
    }
}

impl Directory for EmbeddedStore {
    fn record_seen(&self, seen: Vec<Seen>) -> StoreFuture<(), DirectoryError> {
        let waiting = self.0.work.seen.record(&seen);
        if waiting != Waiting::Few {
            self.0.work.flush_seen();
        }
        let recorded = match waiting {
            Waiting::Few | Waiting::Many => Ok(()),
            Waiting::TooMany => Err(DirectoryError::Busy),
        };
        Box::pin(std::future::ready(recorded))
    }

    fn last_seen(&self, users: Vec<UserId>) -> StoreFuture<Vec<Option<u64>>, DirectoryError> {
        let answer = self.read(move |work| Ok(work.seen.last_seen(&users, &work.views)?));
        Box::pin(async move {
            answer.await.map_err(|error| match error {
                ViewsError::Busy => DirectoryError::Busy,
                error => DirectoryError::Io {
                    what: "reading when users were last seen".to_owned(),
                    cause: error.to_string(),
                },
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::promise::wait;

    #[test]
    fn a_read_of_the_directory_that_has_no_room_says_that_it_may_be_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions {
            reader_threads: 1,
            reads_waiting_max: 1,
            ..EmbeddedOptions::default()
        };
        let store = EmbeddedStore::open(dir.path(), options).unwrap();
        let (started, has_started) = channel();
        let (go, may_go) = channel::<()>();
        let reading = store.read(move |_| {
            started.send(()).unwrap();
            may_go.recv().unwrap();
            Ok(())
        });
        has_started.recv().unwrap();
        let users = || vec![UserId::from_name("ann")];
        let waiting = store.last_seen(users());
        let refused = wait(store.last_seen(users()));
        assert!(matches!(refused, Err(DirectoryError::Busy)));
        go.send(()).unwrap();
        wait(reading).unwrap();
        assert_eq!(wait(waiting).unwrap(), [None]);
        store.close();
    }
}
