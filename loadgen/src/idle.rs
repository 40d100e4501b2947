//! Connections that do nothing, and what the broker pays for each of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rialto_sdk::Roots;
use serde::Serialize;

use crate::broker_process::BrokerProcess;
use crate::open_files;
use crate::run::crew::{Crew, Done};
use crate::run::lead::connected;
use crate::run::ledger::Ledger;
use crate::run::{IDLE_SUBSCRIPTIONS, Part, RunError, Shape, Shared, Spec, Stage};
use crate::target::Target;
use crate::tokens::Tokens;
use crate::watch::Watch;

/// How often memory is looked at until it stands still.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks without a change worth mentioning after which memory stands still.
const STILL_LOOKS: u32 = 3;
/// Looks after which it will not.
const LOOKS_MAX: u32 = 60;
/// A change of memory between two looks that is worth mentioning, bytes.
const CHANGE_BYTES: u64 = 64 * 1024;

/// How many connections, and where.
#[derive(Debug)]
pub struct Options {
    /// The broker.
    pub target: Target,
    /// Tokens of the users.
    pub tokens: Tokens,
    /// What the broker's certificate is checked against.
    pub roots: Roots,
    /// Connections, each of a user of its own.
    pub connections: usize,
    /// The broker's process.
    pub broker: BrokerProcess,
    /// How long processor time is measured while nothing happens.
    pub duration: Duration,
    /// How long a connection may take to come about.
    pub patience: Duration,
    /// Threads that carry the connections.
    pub threads: usize,
}

/// The report, as it is written in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where to.
    pub target: String,
    /// Connections, authenticated and subscribed.
    pub connections: usize,
    /// Subscriptions of each.
    pub subscriptions: usize,
    /// Until all were there, seconds.
    pub connect_s: f64,
    /// Resident memory of the broker before, bytes.
    pub resident_bytes_before: u64,
    /// And with them, once it stood still, bytes.
    pub resident_bytes_after: u64,
    /// The difference by connections, bytes.
    pub resident_bytes_per_connection: f64,
    /// Processor time of the broker while nothing happened, as a share of one processor.
    pub idle_cpu: f64,
    /// Connections that were lost and came back.
    pub reconnects: u64,
    /// Connections that were lost and did not come back.
    pub lost: u64,
}

/// Opens the connections and measures.
///
/// # Errors
/// When a connection is refused, or the broker's process ends.
pub async fn idle(options: Options) -> Result<Report, RunError> {
    if options.connections == 0 {
        return Err(RunError::Options(
            "--connections has to be 1 at least".into(),
        ));
    }
    open_files::make_room_for(open_files::files_of(
        options.connections as u64 + 1,
        options.target.transport(),
    ))?;
    let broker = options.broker;
    let target = options.target.to_string();
    let spec = Spec {
        connections: options.connections + 1,
        // Opens what the others follow, and is there before memory is measured.
        publishers: 1,
        parts: vec![Part::of(Shape::Channels {
            count: IDLE_SUBSCRIPTIONS,
        })],
        patience: options.patience,
        threads: options.threads.min(options.connections),
        ..Spec::now()?
    };
    let shared = Arc::new(Shared::new(
        options.target,
        options.tokens,
        options.roots,
        spec,
        0,
    ));
    let mut crew = Crew::start(&shared, Vec::new())?;
    crew.all().await?;
    crew.begin(Stage::Join);
    crew.all().await?;
    let before = still(&broker).await?;
    let begun = Instant::now();
    crew.begin(Stage::Follow);
    let mut counted = crew.take();
    let all = options.connections + 1;
    connected(&mut crew, &mut counted, all, &Watch::plain()).await?;
    let connect_s = begun.elapsed().as_secs_f64();
    eprintln!("connected; waiting until the broker's memory stands still");
    let after = still(&broker).await?;
    let (start, usage) = (Instant::now(), broker.usage()?);
    tokio::time::sleep(options.duration).await;
    let idle_cpu = broker.usage()?.since(usage).cpu_s / start.elapsed().as_secs_f64();
    counted.add(&crew.take());
    // Nothing was published, so there is nothing to wait for.
    let nothing = Ledger::new(IDLE_SUBSCRIPTIONS, []);
    crew.begin(Stage::Drain(Arc::new(nothing)));
    let mut ended = 0;
    while ended < crew.len() {
        if let Done::Judged(_) = crew.next().await? {
            ended += 1;
        }
    }
    let grown = after.saturating_sub(before) as f64;
    Ok(Report {
        target,
        connections: options.connections,
        subscriptions: IDLE_SUBSCRIPTIONS,
        connect_s,
        resident_bytes_before: before,
        resident_bytes_after: after,
        resident_bytes_per_connection: grown / options.connections as f64,
        idle_cpu,
        reconnects: counted.reconnects,
        lost: counted.failed,
    })
}

/// Resident memory once it stands still, or after a minute, which is told.
async fn still(broker: &BrokerProcess) -> Result<u64, RunError> {
    let mut before = broker.usage()?.resident_bytes;
    let mut still = 0;
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = broker.usage()?.resident_bytes;
        still = if now.abs_diff(before) < CHANGE_BYTES {
            still + 1
        } else {
            0
        };
        before = now;
        if still == STILL_LOOKS {
            return Ok(before);
        }
    }
    eprintln!(
        "loadgen: the broker's memory did not stand still within {} s: what it is now is taken",
        LOOKS_MAX * u32::try_from(LOOK_EVERY.as_secs()).unwrap_or(1)
    );
    Ok(before)
}
