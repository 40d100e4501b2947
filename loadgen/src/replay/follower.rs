//! Readers: connections that follow conversations and write down what comes, without a thought about whether it is right.

use std::sync::Arc;
use std::time::Duration;

use ahash::{AHashMap, AHashSet};
use rialto_protocol::ids::{ConversationId, Seq, UserId};
use rialto_sdk::{Client, Event, Events, HistoryQuery, Start, SubscribeStatus};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Clock, ReplayError};
use crate::checker::{Observed, Reading};
use crate::counters::Counters;
use crate::dial::{Dialer, Line};

/// Conversations that one connection follows.
pub(super) const CONVERSATIONS_MAX: usize = 500;
/// Events of a page of history.
const PAGE: u32 = 1_000;
/// Events that are taken at once.
const BATCH: usize = 256;
/// How long a reader that has everything listens on for what it should not get.
const LINGER: Duration = Duration::from_millis(100);

/// The last seq of each conversation, once it is known.
pub(super) type Heads = Option<Arc<AHashMap<ConversationId, Seq>>>;

/// What came of one conversation.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// The events.
    pub(super) reading: Reading,
    /// When each came, microseconds of the replay's clock.
    pub(super) at_us: Vec<u64>,
}

/// What came, by conversation.
pub(super) type Followed = AHashMap<ConversationId, Arrivals>;

/// What all readers of a replay share.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    /// Where to.
    pub(super) dialer: Arc<Dialer>,
    /// The replay's time.
    pub(super) clock: Clock,
    /// How long nothing may come before a reader stops to wait for what is missing.
    pub(super) settle: Duration,
}

/// A reader on its connection.
#[derive(Debug)]
pub(super) struct Follower {
    task: JoinHandle<Followed>,
    client: Client,
}

impl Readers {
    /// Follows conversations from their first event on, until the heads are known and have come.
    ///
    /// # Errors
    /// When the connection or one of the subscriptions is refused.
    pub(super) async fn follow(
        &self,
        reader: &str,
        user: UserId,
        conversations: &[ConversationId],
        heads: watch::Receiver<Heads>,
    ) -> Result<Follower, ReplayError> {
        let (client, events) = self.dialer.connect(user).await?;
        let followed = conversations.iter().map(|id| {
            (
                *id,
                Arrivals {
                    reading: Reading::new(reader),
                    at_us: Vec::new(),
                },
            )
        });
        let recording = Recording {
            readers: self.clone(),
            line: Line::new(self.dialer.counters().clone()),
            followed: followed.collect(),
            missing: AHashSet::new(),
        };
        let task = tokio::spawn(recording.run(events, heads));
        let wanted = conversations
            .iter()
            .map(|id| (*id, Start::Beginning))
            .collect();
        for outcome in client.subscribe(wanted).await? {
            if let SubscribeStatus::Denied(error) = outcome.status {
                return Err(ReplayError::Denied {
                    conversation: outcome.conversation,
                    error,
                });
            }
        }
        Ok(Follower { task, client })
    }

    /// Reads conversations page by page, from their first event to their last.
    ///
    /// # Errors
    /// When the connection or a request is refused.
    pub(super) async fn read_history(
        &self,
        reader: &str,
        user: UserId,
        conversations: &[ConversationId],
    ) -> Result<Followed, ReplayError> {
        let client = self.dialer.connect_writer(user).await?;
        let mut followed = Followed::default();
        for &conversation in conversations {
            let events = history(&client, conversation).await?;
            let mut arrivals = Arrivals {
                reading: Reading::new(reader),
                at_us: Vec::new(),
            };
            let now_us = self.clock.now_us();
            arrivals.at_us.resize(events.len(), now_us);
            arrivals.reading.events = events.iter().map(Observed::of).collect();
            Counters::add(
                &self.dialer.counters().delivered,
                arrivals.reading.messages() as u64,
            );
            followed.insert(conversation, arrivals);
        }
        client.close().await;
        Ok(followed)
    }
}

impl Follower {
    /// Waits until it has everything, or nothing has come for too long.
    ///
    /// # Errors
    /// When its task failed.
    pub(super) async fn finish(self) -> Result<Followed, ReplayError> {
        let followed = self.task.await?;
        self.client.close().await;
        Ok(followed)
    }
}

/// The whole log of a conversation by pages of history.
///
/// # Errors
/// When a request is refused.
pub(super) async fn history(
    client: &Client,
    conversation: ConversationId,
) -> Result<Vec<rialto_protocol::v1::Event>, ReplayError> {
    let mut events = Vec::new();
    let mut from = Seq(1);
    loop {
        let page = client
            .history(conversation, HistoryQuery::from(from).limit(PAGE))
            .await?;
        let last = page.events.last().map(|event| Seq(event.seq));
        events.extend(page.events);
        match last {
            Some(last) if !page.end => from = last.next(),
            _ => return Ok(events),
        }
    }
}

/// A reader at work.
struct Recording {
    readers: Readers,
    line: Line,
    followed: Followed,
    /// Conversations whose head is known and has not come.
    missing: AHashSet<ConversationId>,
}

impl Recording {
    async fn run(mut self, mut events: Events, mut heads: watch::Receiver<Heads>) -> Followed {
        let mut known: Heads = None;
        let mut batch = Vec::with_capacity(BATCH);
        let mut patience = Instant::now() + self.readers.settle;
        loop {
            if known.is_none() {
                known.clone_from(&heads.borrow_and_update());
                if let Some(heads) = &known {
                    self.expect(heads);
                    patience = Instant::now() + self.readers.settle;
                }
            }
            if known.is_some() && self.missing.is_empty() {
                break;
            }
            tokio::select! {
                count = events.next_batch(&mut batch, BATCH) => {
                    if count == 0 {
                        return self.followed;
                    }
                    self.take(&mut batch, known.as_deref());
                    patience = Instant::now() + self.readers.settle;
                }
                changed = heads.changed(), if known.is_none() => {
                    if changed.is_err() {
                        return self.followed;
                    }
                }
                () = sleep_until(patience), if known.is_some() => return self.followed,
            }
        }
        while timeout(LINGER, events.next_batch(&mut batch, BATCH))
            .await
            .is_ok_and(|count| count > 0)
        {
            self.take(&mut batch, known.as_deref());
        }
        self.followed
    }

    /// From now on, waits for these heads.
    fn expect(&mut self, heads: &AHashMap<ConversationId, Seq>) {
        let missing = self.followed.iter().filter(|(id, arrivals)| {
            let last = arrivals
                .reading
                .events
                .iter()
                .map(|event| event.seq)
                .max()
                .unwrap_or_default();
            heads.get(id).is_some_and(|head| last < *head)
        });
        self.missing = missing.map(|(id, _)| *id).collect();
    }

    fn take(&mut self, batch: &mut Vec<Event>, heads: Option<&AHashMap<ConversationId, Seq>>) {
        let now_us = self.readers.clock.now_us();
        for event in batch.drain(..) {
            self.line.note(&event);
            let Event::Delivered {
                conversation,
                events,
            } = event
            else {
                continue;
            };
            let arrivals = self.followed.entry(conversation).or_default();
            let before = arrivals.reading.events.len();
            arrivals
                .reading
                .events
                .extend(events.iter().map(Observed::of));
            let new = &arrivals.reading.events[before..];
            arrivals.at_us.resize(before + new.len(), now_us);
            let messages = new.iter().filter(|event| event.said.is_some()).count();
            Counters::add(&self.readers.dialer.counters().delivered, messages as u64);
            if heads
                .and_then(|heads| heads.get(&conversation))
                .is_some_and(|head| new.iter().any(|event| event.seq >= *head))
            {
                self.missing.remove(&conversation);
            }
        }
    }
}
