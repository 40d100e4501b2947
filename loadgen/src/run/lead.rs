//! The coordinator: leads the crew through the stages, and takes samples while the load lasts.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::clock::micros;
use super::crew::{Crew, Done};
use super::interval::Interval;
use super::ledger::Ledger;
use super::remote::Link;
use super::samples::Sample;
use super::schedule::Phase;
use super::{RunError, Shared, Stage};
use crate::broker_process::{BrokerProcess, Usage};
use crate::checker::Violations;
use crate::standstill::{Standstills, StoodStill};
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
    /// Those that have begun.
    pub(super) phases: Vec<MeasuredPhase>,
    pub(super) samples: Vec<Sample>,
    /// Over the whole run, the wait for the last answers included.
    pub(super) total: Interval,
    /// None: the run ended before readers had judged.
    pub(super) violations: Option<Violations>,
    pub(super) problems: Vec<String>,
    pub(super) client: Option<Usage>,
    /// While the load lasted.
    pub(super) stood_still: StoodStill,
    /// Why the run did not come to its end.
    pub(super) ended_early: Option<String>,
}

/// A phase, in the order of [`super::Spec::phases`].
#[derive(Debug, Default)]
pub(super) struct MeasuredPhase {
    pub(super) interval: Interval,
    pub(super) seconds: f64,
    pub(super) broker: Option<Usage>,
}

/// The wish that a run should end sooner, such as by Ctrl-C: the first time what is under way is still waited for and judged, the
/// second time it is not.
#[derive(Debug)]
pub struct Interrupts(mpsc::Receiver<()>);

impl Interrupts {
    /// One for each that is received.
    #[must_use]
    pub const fn from(receiver: mpsc::Receiver<()>) -> Self {
        Self(receiver)
    }

    /// None.
    #[must_use]
    pub fn never() -> Self {
        Self(mpsc::channel(1).1)
    }

    /// The next one.
    async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            pending::<()>().await;
        }
    }
}

/// Leads a run to its end. Once the load has begun what was measured is given in any case.
pub(super) async fn lead(
    shared: &Arc<Shared>,
    broker: Option<BrokerProcess>,
    workers: &[SocketAddr],
    mut interrupts: Interrupts,
    watch: Watch,
) -> Result<Measured, RunError> {
    let mut total = Interval::default();
    let crew = tokio::select! {
        crew = build_up(shared, workers, &mut total, &watch) => crew?,
        () = interrupts.next() => return Err(RunError::Interrupted),
    };
    let lead_time = if workers.is_empty() {
        LEAD_TIME
    } else {
        LEAD_TIME_AFAR
    };
    let mut load = Load {
        shared,
        crew,
        interrupts,
        watch,
        watched: Watched::new(broker),
        standstills: Standstills::begin(),
        start_us: shared.clock.now_us() + micros(lead_time),
        said: Vec::new(),
        measured: Measured {
            total,
            ..Measured::default()
        },
    };
    let ended = load.run().await;
    let mut measured = load.measured;
    measured.total.add(&load.crew.take());
    if let Err(error) = ended {
        measured.ended_early.get_or_insert(error.to_string());
    }
    Ok(measured)
}

/// Everybody connects, and conversations are opened and followed.
async fn build_up(
    shared: &Arc<Shared>,
    workers: &[SocketAddr],
    total: &mut Interval,
    watch: &Watch,
) -> Result<Crew, RunError> {
    let spec = &shared.spec;
    let mut links = Vec::new();
    for (process, worker) in (1..).zip(workers) {
        links.push(Link::open(*worker, shared, process).await?);
    }
    let mut crew = Crew::start(shared, links)?;
    watch.stage(&format!(
        "{} conversations for {} publishers",
        shared.plan.conversations(),
        spec.publishers
    ));
    connected(&mut crew, total, spec.publishers, watch).await?;
    crew.begin(Stage::Join);
    crew.all().await?;
    watch.stage(&format!(
        "{} readers, {} connections in all",
        spec.readers, spec.connections
    ));
    crew.begin(Stage::Follow);
    connected(&mut crew, total, spec.connections, watch).await?;
    Ok(crew)
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

/// The broker's process, as long as there is one.
struct Watched {
    process: Option<BrokerProcess>,
    before: Option<Usage>,
}

impl Watched {
    fn new(process: Option<BrokerProcess>) -> Self {
        Self {
            process,
            before: None,
        }
    }

    /// What it has used since the last time; none the first time, and once it is gone, which `problems` hears.
    fn used(&mut self, problems: &mut Vec<String>) -> Option<Usage> {
        let now = self.process.as_ref()?.usage();
        let now = now
            .inspect_err(|error| {
                problems.push(format!("the broker was watched no longer: {error}"));
                self.process = None;
            })
            .ok()?;
        let before = self.before.replace(now)?;
        Some(now.since(before))
    }
}

/// The load, and what is measured of it.
struct Load<'a> {
    shared: &'a Shared,
    crew: Crew,
    interrupts: Interrupts,
    watch: Watch,
    watched: Watched,
    standstills: Standstills,
    start_us: u64,
    /// What threads have said meanwhile.
    said: Vec<Done>,
    measured: Measured,
}

impl Load<'_> {
    /// From the first message to the verdict.
    async fn run(&mut self) -> Result<(), RunError> {
        let own = BrokerProcess::of(std::process::id()).ok();
        let own_usage = || own.as_ref().and_then(|own| own.usage().ok());
        let before = own_usage();
        self.crew.begin(Stage::Load(self.start_us));
        let sampled = self.samples().await;
        self.measured.client = own_usage()
            .zip(before)
            .map(|(after, before)| after.since(before));
        sampled?;
        while self.said.len() < self.crew.len() {
            self.hear().await?;
        }
        let mut accounts = Vec::new();
        for done in self.said.drain(..) {
            if let Done::Published(more, problems) = done {
                accounts.extend(more);
                self.measured.problems.extend(problems);
            }
        }
        let ledger = Ledger::new(self.shared.plan.conversations(), accounts);
        self.crew.begin(Stage::Drain(Arc::new(ledger)));
        while self.said.len() < self.crew.len() {
            self.hear().await?;
        }
        let mut violations = Violations::default();
        for done in &self.said {
            if let Done::Judged(more) = done {
                violations.add(more);
            }
        }
        self.measured.violations = Some(violations);
        Ok(())
    }

    /// Waits for what a thread says next. None says more than it has to: of those in other processes that is seen to where it
    /// comes in.
    async fn hear(&mut self) -> Result<(), RunError> {
        tokio::select! {
            done = self.crew.next() => self.said.push(done?),
            () = self.interrupts.next() => return Err(RunError::Interrupted),
        }
        Ok(())
    }

    /// Takes samples until the last phase has ended.
    async fn samples(&mut self) -> Result<(), RunError> {
        let shared = self.shared;
        let phases = &shared.spec.phases;
        let mut goes_on = self.wait_until(self.start_us).await?;
        let _ = self.watched.used(&mut self.measured.problems);
        let _ = self.standstills.take();
        let mut from_us = shared.clock.now_us();
        let mut end_us = self.start_us;
        for (index, phase) in phases.iter().enumerate() {
            if !goes_on {
                break;
            }
            let mut next_us = end_us;
            end_us += micros(phase.duration);
            self.measured.phases.push(MeasuredPhase::default());
            while goes_on && next_us < end_us {
                next_us = (next_us + micros(SAMPLE)).min(end_us);
                let waited = self.wait_until(next_us).await;
                if let Ok(true) = waited {
                    self.crew.told(next_us).await;
                }
                // Also of what came until something went wrong.
                from_us = self.sample(index, phase, from_us);
                goes_on = waited?;
            }
        }
        if goes_on {
            self.watch.stage("waiting for what is under way");
        } else {
            self.stop(end_us);
        }
        Ok(())
    }

    /// What has happened in this phase since `from_us`; when that ended.
    fn sample(&mut self, index: usize, phase: &Phase, from_us: u64) -> u64 {
        let (interval, now_us) = (self.crew.take(), self.shared.clock.now_us());
        let measured = &mut self.measured;
        let used = self.watched.used(&mut measured.problems);
        let stood_still = self.standstills.take();
        let seconds = (now_us - from_us) as f64 / 1e6;
        let at_s = (now_us - self.start_us) as f64 / 1e6;
        let sample = Sample::of(&interval, phase, at_s, seconds, used, stood_still);
        self.watch.sample(&self.shared.spec.phases, index, &sample);
        measured.samples.push(sample);
        measured.total.add(&interval);
        measured.stood_still.add(stood_still);
        if let Some(whole) = measured.phases.last_mut() {
            whole.interval.add(&interval);
            whole.seconds += seconds;
            whole.broker = Usage::both(whole.broker, used);
        }
        now_us
    }

    /// Nothing more is published than was due up to now.
    fn stop(&mut self, end_us: u64) {
        let over_us = self.shared.clock.now_us();
        let second = |at_us: u64| at_us.saturating_sub(self.start_us) as f64 / 1e6;
        self.measured.ended_early = Some(format!(
            "interrupted after {:.1} s of load",
            second(over_us.min(end_us))
        ));
        self.watch
            .stage("interrupted: waiting for what is under way; once more to end at once");
        self.crew.begin(Stage::Stop {
            start_us: self.start_us,
            over_us,
        });
    }

    /// Waits for a time; whether nobody has interrupted. What threads say meanwhile is kept, and a failure ends the wait.
    async fn wait_until(&mut self, at_us: u64) -> Result<bool, RunError> {
        let sleep = tokio::time::sleep(self.shared.clock.until(at_us));
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return Ok(true),
                () = self.interrupts.next() => return Ok(false),
                done = self.crew.next() => self.said.push(done?),
            }
        }
    }
}
