//! One connection that reads: counts what comes, and checks that the seqs of each conversation follow each other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ahash::AHashMap;
use rialto_protocol::ids::{ConversationId, UserId};
use rialto_protocol::v1::event::Content;
use rialto_sdk::{Client, Event, Events, Start, SubscribeStatus};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};

use super::body::sent_us;
use super::{RunError, Shared, Stage};
use crate::checker::Violations;
use crate::counters::Counters;
use crate::dial::{Dialer, Line};
use crate::latency::Latencies;

/// Events that are taken at once.
const BATCH: usize = 1024;

/// What a reader measured.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// While it counted.
    pub(super) count: u64,
    pub(super) deliveries: Latencies,
    pub(super) violations: Violations,
}

/// A reader at work. A client whose handles are gone is closed, so they are kept as long.
pub(super) struct Reader {
    task: JoinHandle<Read>,
    client: Client,
}

/// Subscribes a client to what comes from now on in conversations.
pub(crate) async fn subscribe(
    client: &Client,
    conversations: &[ConversationId],
) -> Result<(), RunError> {
    for outcome in client
        .subscribe(conversations.iter().map(|id| (*id, Start::Live)).collect())
        .await?
    {
        if let SubscribeStatus::Denied(error) = outcome.status {
            return Err(RunError::Denied(error));
        }
    }
    Ok(())
}

impl Reader {
    /// Connects and follows all conversations from now on.
    pub(super) async fn follow(
        shared: Arc<Shared>,
        dialer: &Dialer,
        index: usize,
        stage: watch::Receiver<Stage>,
    ) -> Result<Self, RunError> {
        let (client, events) = dialer
            .connect(UserId::from_name(&format!("run reader {index}")))
            .await?;
        let line = Line::new(shared.counters.clone());
        let conversations = shared.conversations.clone();
        let reading = Reading {
            shared,
            line,
            next: AHashMap::new(),
            messages: 0,
            read: Read::default(),
        };
        let task = tokio::task::spawn_local(reading.run(events, stage));
        subscribe(&client, &conversations).await?;
        Ok(Self { task, client })
    }

    /// Waits until it has everything, or nothing has come for too long.
    pub(super) async fn finish(self) -> Result<Read, JoinError> {
        let read = self.task.await?;
        self.client.close().await;
        Ok(read)
    }
}

struct Reading {
    shared: Arc<Shared>,
    line: Line,
    /// The seq that comes next, by conversation.
    next: AHashMap<ConversationId, u64>,
    messages: u64,
    read: Read,
}

impl Reading {
    async fn run(mut self, mut events: Events, mut stage: watch::Receiver<Stage>) -> Read {
        let mut batch = Vec::with_capacity(BATCH);
        let mut expected = None;
        let mut patience = Instant::now();
        while expected.is_none_or(|expected| self.messages < expected) {
            tokio::select! {
                count = events.next_batch(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.take(&mut batch);
                    patience = Instant::now() + self.shared.options.settle;
                }
                drain = stage.wait_for(|stage| matches!(stage, Stage::Drain(_))), if expected.is_none() => {
                    let Ok(Stage::Drain(messages)) = drain.map(|stage| *stage) else { break };
                    expected = Some(messages);
                    patience = Instant::now() + self.shared.options.settle;
                }
                () = sleep_until(patience), if expected.is_some() => break,
            }
        }
        self.read.violations.lost = expected.unwrap_or_default().saturating_sub(self.messages);
        self.read
    }

    fn take(&mut self, batch: &mut Vec<Event>) {
        let now_us = self.shared.now_us();
        let measuring = self.shared.measuring.load(Ordering::Relaxed);
        let before = self.messages;
        for event in batch.drain(..) {
            self.line.note(&event);
            let Event::Delivered {
                conversation,
                events,
            } = event
            else {
                continue;
            };
            let next = self
                .next
                .entry(conversation)
                .or_insert_with(|| events.first().map_or(0, |event| event.seq));
            for event in events {
                if event.seq < *next {
                    self.read.violations.duplicated += 1;
                    continue;
                }
                self.read.violations.gapped += event.seq - *next;
                *next = event.seq + 1;
                let Some(Content::Message(message)) = &event.content else {
                    continue;
                };
                self.messages += 1;
                if measuring {
                    self.read.count += 1;
                    match sent_us(&message.body) {
                        Some(sent_us) => self
                            .read
                            .deliveries
                            .record_us(now_us.saturating_sub(sent_us)),
                        None => self.read.violations.altered += 1,
                    }
                }
            }
        }
        Counters::add(&self.shared.counters.delivered, self.messages - before);
    }
}
