//! Readers: live ones that follow over every restart, and cold ones that read a log from its first event to its last, by
//! subscription and by pages of history.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rialto_loadgen::checker::{Observed, Reading};
use rialto_protocol::ids::{ConversationId, Cursor, Seq};
use rialto_protocol::v1;
use rialto_sdk::{
    Client, CloseReason, EndReason, Event, Events, HistoryQuery, RequestError, Retry, Start,
    SubscribeStatus,
};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::ledger::Ledger;
use crate::patience::Patience;

/// Events that are taken at once.
const BATCH: usize = 256;
/// Events of a page of history.
const PAGE: u32 = 1_000;
/// Wait before a read that was refused for now is tried again.
const AGAIN: Duration = Duration::from_millis(50);

type Seen = Arc<Mutex<HashMap<ConversationId, Reading>>>;

/// A reader on its connection.
#[derive(Debug)]
pub(super) struct Follower {
    name: String,
    client: Client,
    seen: Seen,
    ledger: Arc<Ledger>,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn locked(seen: &Seen) -> MutexGuard<'_, HashMap<ConversationId, Reading>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Follower {
    /// Takes whatever this client gets from now on.
    pub(super) fn start(name: String, client: Client, events: Events, ledger: Arc<Ledger>) -> Self {
        Self::start_noting(name, client, events, ledger, |_| {})
    }

    /// The same, and has each event noted at its arrival.
    pub(super) fn start_noting(
        name: String,
        client: Client,
        events: Events,
        ledger: Arc<Ledger>,
        note: impl Fn(&v1::Event) + Send + 'static,
    ) -> Self {
        let seen = Seen::default();
        let task = tokio::spawn(record(
            name.clone(),
            client.clone(),
            events,
            seen.clone(),
            ledger.clone(),
            note,
        ));
        Self {
            name,
            client,
            seen,
            ledger,
            task,
        }
    }

    /// Follows these from their first event on.
    pub(super) async fn follow(&self, conversations: &[ConversationId]) {
        for &conversation in conversations {
            locked(&self.seen)
                .entry(conversation)
                .or_insert_with(|| Reading::new(self.name.clone()));
        }
        let wanted = conversations
            .iter()
            .map(|id| (*id, Start::Beginning))
            .collect();
        subscribe(&self.client, &self.name, wanted, &self.ledger).await;
    }

    /// Waits until everything up to these heads has come; says whether it has.
    pub(super) async fn has_read_to(
        &self,
        heads: &HashMap<ConversationId, Seq>,
        patience: Duration,
    ) -> bool {
        let mut patience = Patience::of(patience);
        loop {
            let missing = {
                let seen = locked(&self.seen);
                heads.iter().any(|(conversation, head)| {
                    seen.get(conversation)
                        .is_some_and(|reading| last(reading) < *head)
                })
            };
            if !missing {
                return true;
            }
            if !patience.wait().await {
                return false;
            }
        }
    }

    /// What it got of a conversation that it follows.
    pub(super) fn reading(&self, conversation: ConversationId) -> Option<Reading> {
        locked(&self.seen).get(&conversation).cloned()
    }

    /// Events that it got.
    pub(super) fn count(&self) -> u64 {
        locked(&self.seen)
            .values()
            .map(|reading| reading.events.len() as u64)
            .sum()
    }

    /// Ends the connection.
    pub(super) async fn close(self) {
        self.client.close().await;
    }
}

fn last(reading: &Reading) -> Seq {
    let seqs = reading.events.iter().rev().take(BATCH);
    seqs.map(|event| event.seq).max().unwrap_or_default()
}

async fn record(
    name: String,
    client: Client,
    mut events: Events,
    seen: Seen,
    ledger: Arc<Ledger>,
    note: impl Fn(&v1::Event) + Send + 'static,
) {
    let mut cursors: HashMap<ConversationId, Cursor> = HashMap::new();
    let mut batch = Vec::with_capacity(BATCH);
    while events.next_batch(&mut batch, BATCH).await > 0 {
        for event in batch.drain(..) {
            match event {
                Event::Delivered {
                    conversation,
                    events,
                } => {
                    events.iter().for_each(&note);
                    if let Some(newest) = events.last() {
                        cursors.insert(conversation, cursor(newest));
                    }
                    let mut seen = locked(&seen);
                    let reading = seen
                        .entry(conversation)
                        .or_insert_with(|| Reading::new(name.clone()));
                    reading.events.extend(events.iter().map(Observed::of));
                }
                Event::SubscriptionEnded {
                    conversation,
                    reason: EndReason::Refused(error),
                } if error.retry() != Retry::Never => {
                    // The broker's own trouble, such as a disk that cannot be read: from where it broke off.
                    ledger.pages().figures.add("subscribed again", 1);
                    let start = cursors
                        .get(&conversation)
                        .map_or(Start::Beginning, |cursor| Start::After(*cursor));
                    let (client, name, ledger) = (client.clone(), name.clone(), ledger.clone());
                    tokio::spawn(async move {
                        sleep(AGAIN).await;
                        subscribe(&client, &name, vec![(conversation, start)], &ledger).await;
                    });
                }
                Event::SubscriptionEnded {
                    conversation,
                    reason,
                } => ledger.violation(
                    "subscription ended",
                    format!("{name}: {conversation}: {reason:?}"),
                ),
                Event::Truncated {
                    conversation,
                    oldest,
                } => ledger.violation(
                    "truncated",
                    format!("{name}: {conversation} begins at {oldest}"),
                ),
                _ => {}
            }
        }
    }
}

fn cursor(event: &v1::Event) -> Cursor {
    Cursor {
        epoch: rialto_protocol::ids::Epoch(event.epoch),
        seq: Seq(event.seq),
    }
}

async fn subscribe(
    client: &Client,
    name: &str,
    mut wanted: Vec<(ConversationId, Start)>,
    ledger: &Ledger,
) {
    while !wanted.is_empty() {
        let outcomes = match client.subscribe(wanted.clone()).await {
            Ok(outcomes) => outcomes,
            // Nobody reads any more.
            Err(RequestError::Closed {
                reason: CloseReason::Asked,
                ..
            }) => return,
            Err(error) if error.retry() != Retry::Never => {
                sleep(AGAIN).await;
                continue;
            }
            Err(error) => {
                ledger.violation("no subscription", format!("{name}: {error}"));
                return;
            }
        };
        wanted.retain(|(conversation, _)| {
            let outcome = outcomes
                .iter()
                .find(|outcome| outcome.conversation == *conversation);
            match outcome.map(|outcome| &outcome.status) {
                Some(SubscribeStatus::Denied(error)) if error.retry() != Retry::Never => true,
                Some(SubscribeStatus::Following) => false,
                other => {
                    ledger.violation(
                        "no subscription",
                        format!("{name}: {conversation}: {other:?}"),
                    );
                    false
                }
            }
        });
        if !wanted.is_empty() {
            sleep(AGAIN).await;
        }
    }
}

/// A whole log by pages of history.
///
/// # Errors
/// When a request is refused for good.
pub(super) async fn history(
    client: &Client,
    conversation: ConversationId,
) -> Result<Vec<v1::Event>, RequestError> {
    history_noting(client, conversation, |_| {}).await
}

/// What came of reading a whole log within some time.
#[derive(Debug)]
pub(crate) enum Read {
    /// All of it.
    Whole(Vec<v1::Event>),
    /// It was refused for now, until the time was over.
    Refused(RequestError),
    /// It was refused for good, as though nobody had to find it there.
    Denied(RequestError),
    /// Nobody said anything.
    Unanswered,
}

/// As [`history`], not longer than `patience`; one that is refused for now is given up after `refused_max`.
pub(crate) async fn read(
    client: &Client,
    conversation: ConversationId,
    patience: Duration,
    refused_max: Duration,
) -> Read {
    let refusal = Mutex::new(None);
    let refused = || refusal.lock().unwrap_or_else(PoisonError::into_inner);
    let mut reading = Box::pin(history_noting(client, conversation, |error| {
        *refused() = Some(error);
    }));
    let mut read = Patience::of(refused_max).with(&mut reading).await;
    if read.is_none() && refused().is_none() {
        let left = patience.saturating_sub(refused_max);
        read = Patience::of(left).with(&mut reading).await;
    }
    match read {
        Some(Ok(events)) => Read::Whole(events),
        Some(Err(error)) => Read::Denied(error),
        None => refused().take().map_or(Read::Unanswered, Read::Refused),
    }
}

/// As [`history`], and has each refusal noted that is for now.
async fn history_noting(
    client: &Client,
    conversation: ConversationId,
    mut note: impl FnMut(RequestError),
) -> Result<Vec<v1::Event>, RequestError> {
    let mut events = Vec::new();
    let mut from = Seq(1);
    loop {
        let query = HistoryQuery::from(from).limit(PAGE);
        let page = match client.history(conversation, query).await {
            Ok(page) => page,
            Err(error) if error.retry() != Retry::Never => {
                if error.refusal().is_some() {
                    note(error);
                }
                sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let last = page.events.last().map(|event| Seq(event.seq));
        events.extend(page.events);
        match last {
            Some(last) if !page.end => from = last.next(),
            _ => return Ok(events),
        }
    }
}
