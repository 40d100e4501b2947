//! A store in memory, for simulation and tests: faithful to the conditional insert, and as deterministic as its callers.
//!
//! It reads no clock and no randomness: time comes from the entries, an epoch is the last one + 1. When an append becomes
//! durable is up to the simulation ([`Durability::Stepped`], [`MemoryStore::step`]), and so is whether it fails. The
//! methods ending in `_now` do without an executor.

mod state;
mod tables;

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use rialto_protocol::{
    ids::{ClientId, ConversationId, DeviceId, LaneId, UserId},
    record::Table,
};

use crate::{
    StoreFuture,
    directory::{Directory, DirectoryError, Seen},
    journal::{AppendError, Claim, Entry, Journal, JournalError, JournalStatus},
    promise::promise,
    views::{Head, Range, Scan, SentDevices, SentEvent, Views, ViewsError},
};
use state::State;

/// When appends become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Within the call.
    AtOnce,
    /// One by one, each when [`MemoryStore::step`] says so.
    Stepped,
}

/// One call of append, numbered from 1 in the order of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub u64);

/// The store. Clones are handles to the same one, as several brokers have to one cluster.
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    seen: Arc<Mutex<BTreeMap<UserId, u64>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed_text() -> String {
    "the store has crashed".to_owned()
}

impl MemoryStore {
    /// An empty store whose appends are durable at once.
    #[must_use]
    pub fn new(lanes: u16) -> Self {
        Self::from_state(State::new(lanes))
    }

    fn from_state(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            seen: Arc::default(),
        }
    }

    /// Chooses when appends become durable; those that wait go on waiting.
    pub fn set_durability(&self, durability: Durability) {
        lock(&self.state).durability = durability;
    }

    /// While set, appends fail with [`AppendError::Full`] and nothing is kept.
    pub fn set_full(&self, full: bool) {
        lock(&self.state).full = full;
    }

    /// Makes the oldest append that waits durable, resolves its future and says how it went; `None`: nothing waits.
    pub fn step(&self) -> Option<(AppendId, Result<(), AppendError>)> {
        lock(&self.state).step()
    }

    /// How many appends wait to become durable.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.state).waiting()
    }

    /// A sync fails: every append that waits and every later one is [`AppendError::Poisoned`]. Which ones those were.
    pub fn poison(&self, reason: &str) -> Vec<AppendId> {
        lock(&self.state).poison(reason)
    }

    /// A store of its own with what is durable now; this one goes on.
    #[must_use]
    pub fn durable_snapshot(&self) -> Self {
        let copy = Self::from_state(lock(&self.state).durable(0));
        lock(&copy.seen).clone_from(&lock(&self.seen));
        copy
    }

    /// The process dies. Of what was not yet durable the first `kept` entries are found on the disk all the same, the
    /// rest is lost. Every handle to the old store gets errors from now on; the new one is durable at once.
    #[must_use]
    pub fn crash(&self, kept: usize) -> Self {
        let mut state = lock(&self.state);
        let copy = Self::from_state(state.durable(kept));
        state.poison(&closed_text());
        state.closed = true;
        drop(state);
        lock(&copy.seen).clone_from(&lock(&self.seen));
        copy
    }

    /// [`Journal::claim`], without waiting.
    ///
    /// # Errors
    /// When a lane does not exist, or the store has crashed.
    pub fn claim_now(&self, lanes: &[LaneId]) -> Result<Vec<Claim>, JournalError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(JournalError::Locked(closed_text()));
        }
        lanes
            .iter()
            .map(|lane| {
                state
                    .claim(*lane)
                    .ok_or_else(|| JournalError::Format(format!("there is no lane {lane}")))
            })
            .collect()
    }

    /// [`Journal::append`], without waiting: durable on return, or once [`MemoryStore::step`] returns this number.
    ///
    /// # Errors
    /// As [`Journal::append`]; nothing of the call was kept.
    pub fn append_now(&self, entries: Vec<Entry>) -> Result<AppendId, AppendError> {
        lock(&self.state)
            .append(entries, None)
            .map_err(|(error, _)| error)
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, ViewsError> {
        let state = lock(&self.state);
        if state.closed {
            Err(ViewsError::Closed)
        } else {
            Ok(read(&state))
        }
    }

    /// [`Views::head`], without waiting.
    ///
    /// # Errors
    /// When the store has crashed, as with every read.
    pub fn head_now(&self, conversation: ConversationId) -> Result<Option<Head>, ViewsError> {
        self.read(|state| state.tables.head(conversation))
    }

    /// [`Views::events`], without waiting.
    ///
    /// # Errors
    /// As [`MemoryStore::head_now`].
    pub fn read_now(&self, range: &Range) -> Result<Vec<Bytes>, ViewsError> {
        self.read(|state| state.tables.events(range))
    }

    /// [`Views::rows`], without waiting.
    ///
    /// # Errors
    /// As [`MemoryStore::head_now`].
    pub fn rows_now(
        &self,
        conversation: ConversationId,
        table: Table,
        keys: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, ViewsError> {
        self.read(|state| {
            keys.iter()
                .map(|key| state.tables.row(conversation, table, key))
                .collect()
        })
    }

    /// [`Views::scan`], without waiting.
    ///
    /// # Errors
    /// As [`MemoryStore::head_now`].
    pub fn scan_now(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, ViewsError> {
        self.read(|state| state.tables.scan(scan))
    }

    /// [`Views::sent`], without waiting.
    ///
    /// # Errors
    /// As [`MemoryStore::head_now`].
    pub fn sent_now(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<SentDevices, ViewsError> {
        self.read(|state| state.tables.sent(conversation, user))
    }

    /// [`Views::find_sent`], without waiting. Kept for good.
    ///
    /// # Errors
    /// As [`MemoryStore::head_now`].
    pub fn find_sent_now(
        &self,
        conversation: ConversationId,
        user: UserId,
        device: DeviceId,
        client_id: ClientId,
    ) -> Result<Option<SentEvent>, ViewsError> {
        self.read(|state| {
            state
                .tables
                .find_sent(conversation, user, device, client_id)
        })
    }

    /// [`Directory::record_seen`], without waiting.
    pub fn record_seen_now(&self, seen: &[Seen]) {
        let mut times = lock(&self.seen);
        for Seen { user, time_ms } in seen {
            let time = times.entry(*user).or_insert(*time_ms);
            *time = (*time).max(*time_ms);
        }
    }

    /// [`Directory::last_seen`], without waiting.
    #[must_use]
    pub fn last_seen_now(&self, users: &[UserId]) -> Vec<Option<u64>> {
        let times = lock(&self.seen);
        users.iter().map(|user| times.get(user).copied()).collect()
    }
}

impl Journal for MemoryStore {
    fn lanes(&self) -> u16 {
        lock(&self.state).lanes()
    }

    fn claim(&self, lanes: Vec<LaneId>) -> StoreFuture<Vec<Claim>, JournalError> {
        Box::pin(ready(self.claim_now(&lanes)))
    }

    fn append(&self, entries: Vec<Entry>) -> StoreFuture<(), AppendError> {
        let (resolver, outcome) = promise();
        if let Err((error, Some(resolver))) = lock(&self.state).append(entries, Some(resolver)) {
            resolver.resolve(Err(error));
        }
        Box::pin(async move {
            outcome
                .await
                .unwrap_or_else(|| Err(AppendError::Poisoned(closed_text())))
        })
    }

    fn settle(&self) -> StoreFuture<(), JournalError> {
        Box::pin(ready(Ok(())))
    }

    fn status(&self) -> JournalStatus {
        lock(&self.state).status()
    }
}

impl Views for MemoryStore {
    fn head(&self, conversation: ConversationId) -> StoreFuture<Option<Head>, ViewsError> {
        Box::pin(ready(self.head_now(conversation)))
    }

    fn events(&self, range: Range) -> StoreFuture<Vec<Bytes>, ViewsError> {
        Box::pin(ready(self.read_now(&range)))
    }

    fn drops(&self) -> u64 {
        0
    }

    fn rows(
        &self,
        conversation: ConversationId,
        table: Table,
        keys: Vec<Bytes>,
    ) -> StoreFuture<Vec<Option<Bytes>>, ViewsError> {
        Box::pin(ready(self.rows_now(conversation, table, &keys)))
    }

    fn scan(&self, scan: Scan) -> StoreFuture<Vec<(Bytes, Bytes)>, ViewsError> {
        Box::pin(ready(self.scan_now(&scan)))
    }

    fn sent(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> StoreFuture<SentDevices, ViewsError> {
        Box::pin(ready(self.sent_now(conversation, user)))
    }

    fn find_sent(
        &self,
        conversation: ConversationId,
        user: UserId,
        device: DeviceId,
        client_id: ClientId,
    ) -> StoreFuture<Option<SentEvent>, ViewsError> {
        Box::pin(ready(self.find_sent_now(
            conversation,
            user,
            device,
            client_id,
        )))
    }

    fn sent_as_of_ms(&self) -> u64 {
        0
    }
}

impl Directory for MemoryStore {
    fn record_seen(&self, seen: Vec<Seen>) -> StoreFuture<(), DirectoryError> {
        self.record_seen_now(&seen);
        Box::pin(ready(Ok(())))
    }

    fn last_seen(&self, users: Vec<UserId>) -> StoreFuture<Vec<Option<u64>>, DirectoryError> {
        Box::pin(ready(Ok(self.last_seen_now(&users))))
    }
}
