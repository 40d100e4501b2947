//! One thread of the load: a runtime of its own, its connections, and its way through the stages.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use rialto_protocol::ids::UserId;
use rialto_sdk::Client;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet};

use super::pacer::Due;
use super::publisher::{Published, Publisher};
use super::reader::{self, Read, Reader};
use super::{Done, IDLE_SUBSCRIPTIONS, RunError, Shared, Stage};
use crate::checker::Violations;
use crate::dial::Dialer;
use crate::latency::Latencies;

/// Connections that are closed at the same time.
const CLOSING_MAX: usize = 64;

/// What a thread is to carry.
pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) stage: watch::Receiver<Stage>,
    /// Publishers by index, each with its queue when there is a rate.
    pub(super) publishers: Vec<(usize, Option<Due>)>,
    /// Readers by index.
    pub(super) readers: Vec<usize>,
    /// Connections that do nothing, by index.
    pub(super) idle: Vec<usize>,
    pub(super) report: mpsc::UnboundedSender<Result<Done, RunError>>,
}

/// What the connections of a thread measured.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) acks: Latencies,
    pub(super) deliveries: Latencies,
    pub(super) violations: Violations,
    pub(super) problems: Vec<String>,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.delivered += other.delivered;
        self.acks.add(&other.acks);
        self.deliveries.add(&other.deliveries);
        self.violations.add(&other.violations);
        self.problems.extend(other.problems.iter().cloned());
    }

    fn add_published(&mut self, published: Published) {
        self.published += published.count;
        self.acks.add(&published.acks);
        self.problems.extend(published.problems);
    }

    fn add_read(&mut self, read: &Read) {
        self.delivered += read.count;
        self.deliveries.add(&read.deliveries);
        self.violations.add(&read.violations);
    }
}

/// Runs a thread to its end; what becomes of it is reported.
pub(super) fn run(task: Task) {
    let report = task.report.clone();
    let result = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| RunError::System(error.to_string()));
    let result = result.and_then(|runtime| LocalSet::new().block_on(&runtime, stages(task)));
    // Nobody listens any more when another thread has failed.
    let _ = report.send(result.map(|tally| Done::All(Box::new(tally))));
}

async fn stages(mut task: Task) -> Result<Tally, RunError> {
    let dialer = task.shared.dialer();
    let mut publishers = Vec::with_capacity(task.publishers.len());
    for (index, due) in std::mem::take(&mut task.publishers) {
        publishers.push((
            Publisher::open(task.shared.clone(), &dialer, index).await?,
            due,
        ));
    }
    task.next(Stage::Join).await?;
    for (publisher, _) in &publishers {
        publisher.join().await?;
    }
    task.next(Stage::Follow).await?;
    let mut readers = Vec::with_capacity(task.readers.len());
    for index in &task.readers {
        readers
            .push(Reader::follow(task.shared.clone(), &dialer, *index, task.stage.clone()).await?);
    }
    let idle = idle(&task, &dialer).await?;
    task.next(Stage::Warm).await?;
    let publishing: Vec<JoinHandle<Published>> = publishers
        .into_iter()
        .map(|(publisher, due)| {
            tokio::task::spawn_local(publisher.publish(task.stage.clone(), due))
        })
        .collect();
    let mut tally = Tally::default();
    for published in publishing {
        tally.add_published(published.await.map_err(|error| failed(&error))?);
    }
    task.reach(Stage::Settle).await?;
    task.next(Stage::Drain(0)).await?;
    for reader in readers {
        tally.add_read(&reader.finish().await.map_err(|error| failed(&error))?);
    }
    stream::iter(&idle)
        .for_each_concurrent(CLOSING_MAX, Client::close)
        .await;
    Ok(tally)
}

fn failed(error: &tokio::task::JoinError) -> RunError {
    RunError::System(format!("a task failed: {error}"))
}

/// Connections that are there, and subscribed to a few conversations, and say nothing.
async fn idle(task: &Task, dialer: &Dialer) -> Result<Vec<Client>, RunError> {
    let conversations = &task.shared.conversations;
    let few = &conversations[..conversations.len().min(IDLE_SUBSCRIPTIONS)];
    let mut clients = Vec::with_capacity(task.idle.len());
    for index in &task.idle {
        let client = dialer
            .connect_writer(UserId::from_name(&format!("run bystander {index}")))
            .await?;
        reader::subscribe(&client, few).await?;
        clients.push(client);
    }
    Ok(clients)
}

impl Task {
    /// Says that this thread has done its part, and waits for a stage.
    async fn next(&mut self, stage: Stage) -> Result<(), RunError> {
        let _ = self.report.send(Ok(Done::Stage));
        self.reach(stage).await
    }

    async fn reach(&mut self, stage: Stage) -> Result<(), RunError> {
        let reached = self.stage.wait_for(|now| *now >= stage).await;
        reached
            .map(drop)
            .map_err(|_| RunError::System("the coordinator is gone".into()))
    }
}
