//! The coordinator: leads the crew through the stages, and takes samples while the load lasts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::clock::micros;
use super::crew::{Crew, Done};
use super::interval::Interval;
use super::ledger::Ledger;
use super::remote::Link;
use super::samples::Sample;
use super::{RunError, Shared, Stage};
use crate::broker_process::{BrokerProcess, Usage};
use crate::checker::Violations;
use crate::watch::Watch;

/// From the word to the first message: every thread has heard it by then.
const LEAD_TIME: Duration = Duration::from_millis(50);
/// The same when some of them are in other processes.
const LEAD_TIME_AFAR: Duration = Duration::from_millis(500);
/// How often it is told how many have connected.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How long a sample is.
const SAMPLE: Duration = Duration::from_secs(1);

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) phases: Vec<MeasuredPhase>,
    pub(super) samples: Vec<Sample>,
    /// Over the whole run, the wait for the last answers included.
    pub(super) total: Interval,
    pub(super) violations: Violations,
    pub(super) problems: Vec<String>,
    pub(super) client: Option<Usage>,
}

/// A phase, in the order of [`super::Spec::phases`].
#[derive(Debug, Default)]
pub(super) struct MeasuredPhase {
    pub(super) interval: Interval,
    pub(super) seconds: f64,
    pub(super) broker: Option<Usage>,
}

/// Leads a run to its end.
pub(super) async fn lead(
    shared: &Arc<Shared>,
    broker: Option<&BrokerProcess>,
    workers: &[SocketAddr],
    mut watch: Watch,
) -> Result<Measured, RunError> {
    let spec = &shared.spec;
    let mut links = Vec::new();
    for (process, worker) in (1..).zip(workers) {
        links.push(Link::open(*worker, spec, process).await?);
    }
    let mut crew = Crew::start(shared, links)?;
    let conversations = shared.plan.conversations();
    watch.stage(&format!(
        "{conversations} conversations for {} publishers",
        spec.publishers
    ));
    crew.all().await?;
    crew.begin(Stage::Join);
    crew.all().await?;
    watch.stage(&format!(
        "{} readers, {} connections in all",
        spec.readers, spec.connections
    ));
    crew.begin(Stage::Follow);
    let mut total = crew.take();
    connected(&mut crew, &mut total, spec.connections, &watch).await?;
    let mut measured = Measured {
        total,
        ..Measured::default()
    };
    let lead_time = if workers.is_empty() {
        LEAD_TIME
    } else {
        LEAD_TIME_AFAR
    };
    let start_us = shared.clock.now_us() + micros(lead_time);
    crew.begin(Stage::Load(start_us));
    let sampling = Sampling {
        shared,
        broker,
        start_us,
    };
    let mut published = sampling.run(&mut crew, &mut watch, &mut measured).await?;
    watch.stage("waiting for what is under way");
    while published.len() < crew.len() {
        published.push(crew.next().await?);
    }
    let mut accounts = Vec::new();
    for done in published {
        if let Done::Published(more, problems) = done {
            accounts.extend(more);
            measured.problems.extend(problems);
        }
    }
    let ledger = Ledger::new(conversations, accounts);
    crew.begin(Stage::Drain(Arc::new(ledger)));
    for done in crew.all().await? {
        if let Done::Judged(violations) = done {
            measured.violations.add(&violations);
        }
    }
    measured.total.add(&crew.take());
    Ok(measured)
}

/// Waits until all threads have their connections, and tells how many there are.
pub(crate) async fn connected(
    crew: &mut Crew,
    counted: &mut Interval,
    connections: usize,
    watch: &Watch,
) -> Result<(), RunError> {
    let mut told = tokio::time::interval(TELL_EVERY);
    told.reset();
    let mut threads = 0;
    while threads < crew.len() {
        tokio::select! {
            done = crew.next() => {
                done?;
                threads += 1;
            }
            _ = told.tick() => {
                counted.add(&crew.take());
                watch.stage(&format!("{} of {connections} connected", counted.connected));
            }
        }
    }
    counted.add(&crew.take());
    Ok(())
}

/// Taking of samples.
struct Sampling<'a> {
    shared: &'a Shared,
    broker: Option<&'a BrokerProcess>,
    start_us: u64,
}

impl Sampling<'_> {
    /// Until the last phase has ended; gives what threads said meanwhile.
    async fn run(
        &self,
        crew: &mut Crew,
        watch: &mut Watch,
        measured: &mut Measured,
    ) -> Result<Vec<Done>, RunError> {
        let usage = || self.broker.map(BrokerProcess::usage).transpose();
        let clock = self.shared.clock;
        let mut said = Vec::new();
        self.wait_until(self.start_us, crew, &mut said).await?;
        let own = BrokerProcess::of(std::process::id()).ok();
        let own_usage = || own.as_ref().and_then(|own| own.usage().ok());
        let own_before = own_usage();
        let (mut before, mut from_us) = (usage()?, clock.now_us());
        let mut phase_start_us = self.start_us;
        for (index, phase) in self.shared.spec.phases.iter().enumerate() {
            let phase_end_us = phase_start_us + micros(phase.duration);
            let mut whole = MeasuredPhase::default();
            let mut next_us = phase_start_us;
            while next_us < phase_end_us {
                next_us = (next_us + micros(SAMPLE)).min(phase_end_us);
                self.wait_until(next_us, crew, &mut said).await?;
                let (interval, now_us, after) = (crew.take(), clock.now_us(), usage()?);
                let used = after.zip(before).map(|(after, before)| after.since(before));
                let seconds = (now_us - from_us) as f64 / 1e6;
                let at_s = (now_us - self.start_us) as f64 / 1e6;
                let sample = Sample::of(&interval, phase, at_s, seconds, used);
                watch.sample(&self.shared.spec.phases, index, &sample);
                measured.samples.push(sample);
                whole.interval.add(&interval);
                whole.seconds += seconds;
                whole.broker = used.map(|used| used.after(whole.broker));
                (before, from_us) = (after, now_us);
            }
            measured.total.add(&whole.interval);
            measured.phases.push(whole);
            phase_start_us = phase_end_us;
        }
        measured.client = own_usage()
            .zip(own_before)
            .map(|(after, before)| after.since(before));
        Ok(said)
    }

    /// Waits for a time; what threads say meanwhile is kept, and a failure ends the wait.
    async fn wait_until(
        &self,
        at_us: u64,
        crew: &mut Crew,
        said: &mut Vec<Done>,
    ) -> Result<(), RunError> {
        let sleep = tokio::time::sleep(self.shared.clock.until(at_us));
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return Ok(()),
                done = crew.next() => said.push(done?),
            }
        }
    }
}
