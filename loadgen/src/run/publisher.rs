//! One connection that publishes.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use rialto_protocol::ids::{ConversationId, UserId};
use rialto_sdk::{Client, Content, Create, PublishError, Publishing, Receipt};
use tokio::sync::watch;

use super::body::Bodies;
use super::pacer::Due;
use super::{RunError, Shared, Stage};
use crate::counters::Counters;
use crate::dial::Dialer;
use crate::latency::Latencies;

/// What a publisher measured.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) count: u64,
    pub(super) acks: Latencies,
    pub(super) problems: Vec<String>,
}

/// Refusals in words that a publisher keeps.
const PROBLEMS_MAX: usize = 3;
/// Conversations that a publisher opens at the same time.
const OPENING_AT_ONCE: usize = 64;

pub(super) struct Publisher {
    shared: Arc<Shared>,
    client: Client,
    conversations: Vec<ConversationId>,
    /// Conversations that another publisher opens.
    foreign: bool,
    bodies: Bodies,
    turn: usize,
    under_way: FuturesUnordered<Sent>,
    published: Published,
}

/// A message that is not acknowledged yet.
struct Sent {
    publishing: Publishing,
    due: Instant,
}

impl Future for Sent {
    type Output = (Instant, Result<Receipt, PublishError>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let due = self.due;
        Pin::new(&mut self.publishing)
            .poll(context)
            .map(|receipt| (due, receipt))
    }
}

impl Publisher {
    /// Connects, and opens the conversations that are this publisher's.
    pub(super) async fn open(
        shared: Arc<Shared>,
        dialer: &Dialer,
        index: usize,
    ) -> Result<Self, RunError> {
        let client = dialer
            .connect_writer(UserId::from_name(&format!("run publisher {index}")))
            .await?;
        let (conversations, foreign) =
            share(&shared.conversations, index, shared.options.publishers);
        if !foreign {
            let opening = conversations
                .iter()
                .map(|conversation| client.create(channel(*conversation)));
            stream::iter(opening)
                .buffered(OPENING_AT_ONCE)
                .try_for_each(|_| ready(Ok(())))
                .await?;
        }
        let bodies = Bodies::new(shared.options.size, index as u64);
        let (under_way, published) = (FuturesUnordered::new(), Published::default());
        Ok(Self {
            shared,
            client,
            conversations,
            foreign,
            bodies,
            turn: 0,
            under_way,
            published,
        })
    }

    /// Enters what others opened.
    pub(super) async fn join(&self) -> Result<(), RunError> {
        if self.foreign {
            for conversation in &self.conversations {
                self.client
                    .publish(*conversation, Content::join())
                    .await?
                    .await?;
            }
        }
        Ok(())
    }

    /// Publishes until the load is to settle, then waits for the last acknowledgement.
    pub(super) async fn publish(
        mut self,
        mut stage: watch::Receiver<Stage>,
        due: Option<Due>,
    ) -> Published {
        match due {
            None => self.as_fast_as_acknowledged(&stage).await,
            Some(due) => self.at_a_rate(&mut stage, due).await,
        }
        while let Some((due, receipt)) = self.under_way.next().await {
            self.answered(due, receipt);
        }
        self.client.close().await;
        self.published
    }

    async fn as_fast_as_acknowledged(&mut self, stage: &watch::Receiver<Stage>) {
        while *stage.borrow() < Stage::Settle {
            while self.under_way.len() < self.shared.options.in_flight {
                if !self.send(Instant::now()).await {
                    return;
                }
            }
            let Some((due, receipt)) = self.under_way.next().await else {
                return;
            };
            self.answered(due, receipt);
            self.answered_already();
        }
    }

    async fn at_a_rate(&mut self, stage: &mut watch::Receiver<Stage>, mut queue: Due) {
        loop {
            tokio::select! {
                Some((due, receipt)) = self.under_way.next() => {
                    self.answered(due, receipt);
                    self.answered_already();
                }
                due = queue.recv() => match due {
                    Some(due) => if !self.send(due).await { return },
                    None => return,
                },
                settle = stage.wait_for(|stage| *stage >= Stage::Settle) => {
                    drop(settle);
                    // What was due is sent, however late.
                    while let Ok(due) = queue.try_recv() {
                        if !self.send(due).await { return }
                    }
                    return;
                }
            }
        }
    }

    /// Sends one. Whether more can be sent.
    async fn send(&mut self, due: Instant) -> bool {
        let conversation = self.conversations[self.turn];
        self.turn = (self.turn + 1) % self.conversations.len();
        let due_us = u64::try_from(due.saturating_duration_since(self.shared.start).as_micros())
            .unwrap_or(u64::MAX);
        let body = self.bodies.next(due_us);
        match self
            .client
            .publish(conversation, Content::message(body))
            .await
        {
            Ok(publishing) => {
                self.under_way.push(Sent { publishing, due });
                true
            }
            Err(error) => {
                self.failed(&error);
                !matches!(error, PublishError::Closed { .. })
            }
        }
    }

    /// Takes the answers that are there without waiting.
    fn answered_already(&mut self) {
        while let Some(Some((due, receipt))) = self.under_way.next().now_or_never() {
            self.answered(due, receipt);
        }
    }

    fn answered(&mut self, due: Instant, receipt: Result<Receipt, PublishError>) {
        match receipt {
            Ok(_) => {
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                Counters::add(&self.shared.counters.published, 1);
                if self.shared.measuring.load(Ordering::Relaxed) {
                    self.published.count += 1;
                    self.published.acks.record(due.elapsed());
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &PublishError) {
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        if self.published.problems.len() < PROBLEMS_MAX {
            self.published.problems.push(error.to_string());
        }
    }
}

/// A public channel with this id.
pub(crate) fn channel(conversation: ConversationId) -> Create {
    Create::channel("load").id(conversation)
}

/// The conversations of a publisher, and whether somebody else opens them: every conversation has a publisher, and every
/// publisher one conversation at least.
fn share(
    conversations: &[ConversationId],
    index: usize,
    publishers: usize,
) -> (Vec<ConversationId>, bool) {
    if index < conversations.len() {
        (
            conversations
                .iter()
                .skip(index)
                .step_by(publishers)
                .copied()
                .collect(),
            false,
        )
    } else {
        (vec![conversations[index % conversations.len()]], true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u8) -> Vec<ConversationId> {
        (0..count)
            .map(|id| ConversationId::from_bytes([id; 16]))
            .collect()
    }

    #[test]
    fn every_conversation_is_opened_once_and_every_publisher_has_one() {
        for (conversations, publishers) in [(1, 1), (10, 3), (3, 10), (4, 4)] {
            let ids = ids(conversations);
            let shares: Vec<_> = (0..publishers)
                .map(|index| share(&ids, index, publishers))
                .collect();
            assert!(shares.iter().all(|(share, _)| !share.is_empty()));
            let mut opened: Vec<_> = shares
                .iter()
                .filter(|(_, foreign)| !foreign)
                .flat_map(|(share, _)| share.clone())
                .collect();
            opened.sort_unstable();
            assert_eq!(opened, ids);
        }
    }
}
