//! The threads at work, as the coordinator sees them: it names the stage, they say when they have done with it.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use serde::{Deserialize, Serialize};

use super::interval::{Interval, Tally};
use super::ledger::Account;
use super::remote::{self, Link};
use super::worker::{self, Task};
use super::{RunError, Shared, Stage};
use crate::checker::Violations;

/// Longest wait for what other processes tell of a sample.
const TOLD_MAX: Duration = Duration::from_millis(250);

/// What a thread says.
#[derive(Debug, Serialize, Deserialize)]
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

/// All threads, those of other processes included.
pub(crate) struct Crew {
    stage: watch::Sender<Stage>,
    done: mpsc::UnboundedReceiver<Result<Done, RunError>>,
    tallies: Vec<Tally>,
    /// Up to when each other process has told what happened.
    told: Vec<watch::Receiver<u64>>,
    threads: usize,
}

impl Crew {
    /// Starts those of this process, and leads those behind the links; they connect at once.
    pub(crate) fn start(shared: &Arc<Shared>, links: Vec<Link>) -> Result<Self, RunError> {
        let (stage, _) = watch::channel(Stage::Open);
        let (reports, done) = mpsc::unbounded_channel();
        let threads = shared.spec.threads.max(1);
        let mut tallies: Vec<Tally> = std::iter::repeat_with(Tally::default)
            .take(threads)
            .collect();
        let spec = &shared.spec;
        let all = threads * spec.processes;
        for (thread, tally) in tallies.iter().enumerate() {
            let first = shared.process * threads + thread;
            let mine = |count: usize| (first..count).step_by(all).collect();
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
        let remote = links.len() * threads;
        let mut told = Vec::new();
        for link in links {
            let tally = Tally::default();
            tallies.push(tally.clone());
            let (telling, hearing) = watch::channel(0);
            told.push(hearing);
            remote::lead(link, stage.subscribe(), tally, telling, reports.clone());
        }
        Ok(Self {
            stage,
            done,
            tallies,
            told,
            threads: threads + remote,
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
        let mut all = Vec::with_capacity(self.threads);
        while all.len() < self.threads {
            all.push(self.next().await?);
        }
        Ok(all)
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.threads
    }

    /// Waits until other processes have told what happened up to this time, a little at most: what they tell later counts as
    /// later.
    pub(crate) async fn told(&mut self, at_us: u64) {
        let all = async {
            for told in &mut self.told {
                // One that is gone is heard of elsewhere.
                let _ = told.wait_for(|until_us| *until_us >= at_us).await;
            }
        };
        let _ = timeout(TOLD_MAX, all).await;
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
