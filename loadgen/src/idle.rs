//! Connections that do nothing, and what the broker pays for each of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use rialto_protocol::ids::UserId;
use rialto_sdk::{Client, Roots};
use serde::Serialize;

use crate::broker_process::BrokerProcess;
use crate::counters::Counters;
use crate::dial::Dialer;
use crate::open_files;
use crate::progress::Progress;
use crate::run::publisher::channel;
use crate::run::reader::subscribe;
use crate::run::{IDLE_SUBSCRIPTIONS, RunError, conversation_ids};
use crate::target::Target;
use crate::tokens::Tokens;

/// Connections that are opened, or closed, at the same time.
const OPENING_MAX: usize = 64;
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
}

/// Opens the connections and measures.
///
/// # Errors
/// When a connection is refused, or the broker's process ends.
pub async fn idle(options: Options) -> Result<Report, RunError> {
    if options.connections == 0 {
        return Err(RunError::Options("there must be a connection"));
    }
    open_files::make_room_for(options.connections as u64 + 1)?;
    let counters = Arc::new(Counters::default());
    let dialer = Dialer::new(
        options.target.clone(),
        options.tokens,
        options.roots,
        options.patience,
        counters.clone(),
    );
    let progress = Progress::show(counters.clone(), 0);
    let conversations = conversation_ids(IDLE_SUBSCRIPTIONS)?;
    let keeper = dialer
        .connect_writer(UserId::from_name("idle keeper"))
        .await?;
    for conversation in &conversations {
        keeper.create(channel(*conversation)).await?;
    }
    let before = still(&options.broker).await?;
    let begun = Instant::now();
    let opening = (0..options.connections).map(|index| {
        let (dialer, conversations) = (&dialer, &conversations);
        async move {
            let client = dialer
                .connect_writer(UserId::from_name(&format!("idle user {index}")))
                .await?;
            subscribe(&client, conversations).await?;
            Ok::<Client, RunError>(client)
        }
    });
    let clients: Vec<Client> = stream::iter(opening)
        .buffer_unordered(OPENING_MAX)
        .try_collect()
        .await?;
    let connect_s = begun.elapsed().as_secs_f64();
    progress.stage("connected; waiting until the broker's memory stands still");
    let after = still(&options.broker).await?;
    let (start, usage) = (Instant::now(), options.broker.usage()?);
    tokio::time::sleep(options.duration).await;
    let idle_cpu = options.broker.usage()?.since(usage).cpu_s / start.elapsed().as_secs_f64();
    stream::iter(&clients)
        .for_each_concurrent(OPENING_MAX, Client::close)
        .await;
    keeper.close().await;
    let grown = after.saturating_sub(before) as f64;
    Ok(Report {
        target: options.target.to_string(),
        connections: clients.len(),
        subscriptions: IDLE_SUBSCRIPTIONS,
        connect_s,
        resident_bytes_before: before,
        resident_bytes_after: after,
        resident_bytes_per_connection: grown / clients.len() as f64,
        idle_cpu,
        reconnects: counters.now().reconnects,
    })
}

/// Resident memory once it stands still, or after a minute.
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
            break;
        }
    }
    Ok(before)
}
