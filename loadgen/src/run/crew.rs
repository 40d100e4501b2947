//! The threads at work, as the coordinator sees them: it names the stage, they say when they have done with it.

use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, watch};

use super::interval::{Interval, Tally};
use super::ledger::Account;
use super::worker::{self, Task};
use super::{RunError, Shared, Stage};
use crate::checker::Violations;

/// What a thread says.
pub(crate) enum Done {
    /// It has come to the end of a stage.
    Stage,
    /// Its publishers have ended.
    Published(Vec<Account>, Vec<String>),
    /// Its readers have judged.
    Judged(Violations),
}

/// Where a thread says it.
pub(crate) type Reports = mpsc::UnboundedSender<Result<Done, RunError>>;

/// All threads.
pub(crate) struct Crew {
    stage: watch::Sender<Stage>,
    done: mpsc::UnboundedReceiver<Result<Done, RunError>>,
    tallies: Vec<Tally>,
}

impl Crew {
    /// Starts them; they connect at once.
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self, RunError> {
        let (stage, _) = watch::channel(Stage::Open);
        let (reports, done) = mpsc::unbounded_channel();
        let threads = shared.spec.threads.max(1);
        let tallies = vec![(); threads]
            .into_iter()
            .map(|()| Tally::default())
            .collect::<Vec<_>>();
        for (thread, tally) in tallies.iter().enumerate() {
            let spec = &shared.spec;
            let mine = |count: usize| (thread..count).step_by(threads).collect();
            let task = Task {
                shared: shared.clone(),
                stage: stage.subscribe(),
                publishers: mine(spec.publishers),
                readers: mine(spec.readers),
                idle: mine(spec.connections - spec.publishers - spec.readers),
                tally: tally.clone(),
                reports: reports.clone(),
            };
            thread::Builder::new()
                .name(format!("load {thread}"))
                .spawn(move || worker::run(task))
                .map_err(|error| RunError::System(format!("no thread: {error}")))?;
        }
        Ok(Self {
            stage,
            done,
            tallies,
        })
    }

    /// Begins a stage.
    pub(crate) fn begin(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// What one of them says next.
    pub(crate) async fn next(&mut self) -> Result<Done, RunError> {
        match self.done.recv().await {
            Some(done) => done,
            None => Err(RunError::System("a thread ended too early".into())),
        }
    }

    /// Waits until each has said something.
    pub(crate) async fn all(&mut self) -> Result<Vec<Done>, RunError> {
        let mut all = Vec::with_capacity(self.tallies.len());
        while all.len() < self.tallies.len() {
            all.push(self.next().await?);
        }
        Ok(all)
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.tallies.len()
    }

    /// What has happened since the last time.
    pub(crate) fn take(&self) -> Interval {
        let mut all = Interval::default();
        for tally in &self.tallies {
            all.add(&tally.take());
        }
        all
    }
}
