//! Readers: connections that follow conversations and write down what comes, without a thought about whether it is right.

use std::sync::Arc;
use std::time::Duration;

use ahash::{AHashMap, AHashSet};
use rialto_protocol::ids::{ConversationId, Seq, UserId};
use rialto_sdk::{
    Client, CloseReason, EndReason, Event, Events, HistoryQuery, RequestError, Retry, Start,
    SubscribeStatus,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

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
/// Wait before a subscription that was refused for now is asked for again.
const AGAIN: Duration = Duration::from_millis(100);

/// The last seq of each conversation, once it is known.
pub(super) type Heads = Option<Arc<AHashMap<ConversationId, Seq>>>;

/// What came of one conversation.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// The events.
    pub(super) reading: Reading,
    /// When each came, microseconds of the replay's clock.
    pub(super) at_us: Vec<u64>,
    /// How often the broker said that its log does not hold what had come. The reader read it from its beginning then.
    pub(super) diverged: u64,
    /// How his subscription ended before its time, in words.
    pub(super) ends: Vec<String>,
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
            let reading = Reading::new(reader);
            (
                *id,
                Arrivals {
                    reading,
                    ..Arrivals::default()
                },
            )
        });
        let recording = Recording {
            readers: self.clone(),
            line: Line::new(self.dialer.counters().clone()),
            followed: followed.collect(),
            missing: AHashSet::new(),
            anew: Vec::new(),
        };
        let task = tokio::spawn(recording.run(client.clone(), events, heads));
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
                ..Arrivals::default()
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
    /// Those that are to be followed once more, from their beginning.
    anew: Vec<ConversationId>,
}

impl Recording {
    async fn run(
        mut self,
        client: Client,
        mut events: Events,
        mut heads: watch::Receiver<Heads>,
    ) -> Followed {
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
            for conversation in self.anew.drain(..) {
                tokio::spawn(follow_anew(client.clone(), conversation));
            }
            if known.is_some() && self.missing.is_empty() {
                let more = timeout(LINGER, events.next_batch(&mut batch, BATCH)).await;
                if !more.is_ok_and(|count| count > 0) {
                    return self.followed;
                }
                self.take(&mut batch, known.as_deref());
                patience = Instant::now() + self.readers.settle;
                continue;
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
            let (conversation, events) = match event {
                Event::Delivered {
                    conversation,
                    events,
                } => (conversation, events),
                Event::SubscriptionEnded {
                    conversation,
                    reason,
                } => {
                    self.ended(conversation, &reason, heads);
                    continue;
                }
                _ => continue,
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

    /// A subscription ended by itself. That its log is another one than was read is a fault; what was read of it counts no more, and
    /// it is read from its beginning. Where nothing was read there is nothing to begin anew: what is missing is found.
    fn ended(
        &mut self,
        conversation: ConversationId,
        reason: &EndReason,
        heads: Option<&AHashMap<ConversationId, Seq>>,
    ) {
        let arrivals = self.followed.entry(conversation).or_default();
        let read = arrivals.reading.events.len();
        let words = match reason {
            EndReason::Diverged { .. } => {
                format!("was told that the log diverged, {read} events on")
            }
            EndReason::Refused(error) => format!("was refused after {read} events: {error}"),
        };
        arrivals.ends.push(words);
        if !matches!(reason, EndReason::Diverged { .. }) || read == 0 {
            return;
        }
        arrivals.diverged += 1;
        arrivals.reading.events.clear();
        arrivals.at_us.clear();
        self.anew.push(conversation);
        if heads.is_some_and(|heads| heads.get(&conversation) > Some(&Seq(0))) {
            self.missing.insert(conversation);
        }
    }
}

/// Follows a conversation from its first event on, for as long as that is refused for now.
async fn follow_anew(client: Client, conversation: ConversationId) {
    loop {
        let wanted = vec![(conversation, Start::Beginning)];
        let retry = match client.subscribe(wanted).await {
            Ok(outcomes) => outcomes
                .into_iter()
                .find_map(|outcome| match outcome.status {
                    SubscribeStatus::Denied(error) => Some(error.retry()),
                    _ => None,
                }),
            Err(RequestError::Closed {
                reason: CloseReason::Asked,
                ..
            }) => None,
            Err(error) => Some(error.retry()),
        };
        // What is refused for good is missing, which is found.
        if retry.is_none_or(|retry| retry == Retry::Never) {
            return;
        }
        sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::error::ErrorCode;
    use rialto_protocol::v1;

    use super::*;
    use crate::dial::to_nowhere;

    const ROOM: ConversationId = ConversationId::from_bytes([1; 16]);

    fn recording() -> Recording {
        let counters = Arc::new(Counters::default());
        let dialer = to_nowhere(counters.clone());
        Recording {
            readers: Readers {
                dialer: Arc::new(dialer),
                clock: Clock::start(),
                settle: Duration::ZERO,
            },
            line: Line::new(counters),
            followed: [(ROOM, Arrivals::default())].into_iter().collect(),
            missing: AHashSet::new(),
            anew: Vec::new(),
        }
    }

    fn delivered(seqs: std::ops::RangeInclusive<u64>) -> Event {
        let event = |seq| v1::Event {
            seq,
            ..v1::Event::default()
        };
        Event::Delivered {
            conversation: ROOM,
            events: seqs.map(event).collect(),
        }
    }

    fn ended(reason: EndReason) -> Event {
        Event::SubscriptionEnded {
            conversation: ROOM,
            reason,
        }
    }

    #[test]
    fn what_stands_behind_a_divergence_is_read_from_the_beginning() {
        let mut recording = recording();
        let heads: AHashMap<ConversationId, Seq> = [(ROOM, Seq(3))].into_iter().collect();
        recording.expect(&heads);
        let diverged = || ended(EndReason::Diverged { head: None });
        recording.take(&mut vec![delivered(1..=3)], Some(&heads));
        assert!(recording.missing.is_empty());
        recording.take(&mut vec![diverged()], Some(&heads));
        assert_eq!(recording.anew, [ROOM]);
        assert!(recording.missing.contains(&ROOM), "it is waited for again");
        recording.take(&mut vec![delivered(1..=2)], Some(&heads));
        let arrivals = &recording.followed[&ROOM];
        assert_eq!((arrivals.diverged, arrivals.at_us.len()), (1, 2));
        assert_eq!(arrivals.reading.events.len(), 2);
        recording.take(&mut vec![delivered(3..=3)], Some(&heads));
        assert!(recording.missing.is_empty());
        assert!(recording.followed[&ROOM].ends[0].contains("diverged, 3 events on"));
    }

    #[test]
    fn what_is_refused_for_good_or_never_began_is_not_followed_again() {
        let mut recording = recording();
        recording.take(&mut vec![ended(EndReason::Diverged { head: None })], None);
        recording.take(&mut vec![delivered(1..=1)], None);
        let refused = EndReason::Refused(ErrorCode::NotAMember.to_proto(0).into());
        recording.take(&mut vec![ended(refused)], None);
        let arrivals = &recording.followed[&ROOM];
        assert!(recording.anew.is_empty() && arrivals.diverged == 0);
        assert_eq!((arrivals.ends.len(), arrivals.reading.events.len()), (2, 1));
    }
}
