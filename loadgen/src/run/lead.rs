//! The coordinator: leads the crew through the stages, and takes samples while the load lasts.

use std::sync::Arc;
use std::time::Duration;

use super::clock::micros;
use super::crew::{Crew, Done};
use super::interval::Interval;
use super::ledger::Ledger;
use super::samples::Sample;
use super::{RunError, Shared, Stage};
use crate::broker_process::{BrokerProcess, Usage};
use crate::checker::Violations;

/// From the word to the first message: every thread has heard it by then.
const LEAD_TIME: Duration = Duration::from_millis(50);
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
) -> Result<Measured, RunError> {
    let spec = &shared.spec;
    let mut crew = Crew::start(shared)?;
    eprintln!(
        "{} conversations for {} publishers",
        spec.conversations, spec.publishers
    );
    crew.all().await?;
    crew.begin(Stage::Join);
    crew.all().await?;
    eprintln!(
        "{} readers, {} connections in all",
        spec.readers, spec.connections
    );
    crew.begin(Stage::Follow);
    crew.all().await?;
    let mut measured = Measured {
        total: crew.take(),
        ..Measured::default()
    };
    let start_us = shared.clock.now_us() + micros(LEAD_TIME);
    crew.begin(Stage::Load(start_us));
    let mut published = sample(shared, broker, &mut crew, start_us, &mut measured).await?;
    eprintln!("waiting for what is under way");
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
    let ledger = Ledger::new(spec.conversations, accounts);
    crew.begin(Stage::Drain(Arc::new(ledger)));
    for done in crew.all().await? {
        if let Done::Judged(violations) = done {
            measured.violations.add(&violations);
        }
    }
    measured.total.add(&crew.take());
    Ok(measured)
}

/// Takes samples until the last phase has ended; gives what threads said meanwhile.
async fn sample(
    shared: &Shared,
    broker: Option<&BrokerProcess>,
    crew: &mut Crew,
    start_us: u64,
    measured: &mut Measured,
) -> Result<Vec<Done>, RunError> {
    let usage = || broker.map(BrokerProcess::usage).transpose();
    let mut said = Vec::new();
    wait_until(shared, start_us, crew, &mut said).await?;
    let own = BrokerProcess::of(std::process::id()).ok();
    let own_usage = || own.as_ref().and_then(|own| own.usage().ok());
    let own_before = own_usage();
    let mut before = usage()?;
    let mut from_us = shared.clock.now_us();
    let mut phase_start_us = start_us;
    for phase in &shared.spec.phases {
        let phase_end_us = phase_start_us + micros(phase.duration);
        let mut whole = MeasuredPhase::default();
        let mut next_us = phase_start_us;
        while next_us < phase_end_us {
            next_us = (next_us + micros(SAMPLE)).min(phase_end_us);
            wait_until(shared, next_us, crew, &mut said).await?;
            let (interval, now_us, after) = (crew.take(), shared.clock.now_us(), usage()?);
            let used = after.zip(before).map(|(after, before)| after.since(before));
            let seconds = (now_us - from_us) as f64 / 1e6;
            let at_s = (now_us - start_us) as f64 / 1e6;
            measured
                .samples
                .push(Sample::of(&interval, &phase.name, at_s, seconds, used));
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
    shared: &Shared,
    at_us: u64,
    crew: &mut Crew,
    said: &mut Vec<Done>,
) -> Result<(), RunError> {
    let sleep = tokio::time::sleep(shared.clock.until(at_us));
    tokio::pin!(sleep);
    loop {
        tokio::select! {
            () = &mut sleep => return Ok(()),
            done = crew.next() => said.push(done?),
        }
    }
}
