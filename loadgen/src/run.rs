//! Made load: publishers and readers on their own threads, at a constant rate or as fast as acknowledged.
//!
//! Each thread has a runtime of its own and keeps its connections, so that nothing is handed between threads while it
//! counts. A coordinator leads all of them through the same stages.

mod body;
mod pacer;
pub(crate) mod publisher;
pub(crate) mod reader;
mod report;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rialto_protocol::ids::ConversationId;
use rialto_sdk::{ConnectError, PublishError, RequestError, Roots};
use tokio::sync::{mpsc, watch};

use crate::broker_process::{BrokerProcess, BrokerProcessError, Usage};
use crate::counters::{Counted, Counters};
use crate::dial::Dialer;
use crate::open_files::{self, OpenFilesError};
use crate::progress::Progress;
use crate::target::Target;
use crate::tokens::Tokens;
use pacer::Pacer;
use worker::{Tally, Task};

pub use body::{BODY_BYTES_MIN, Size, SizeError};
pub use report::Report;

/// Subscriptions of an idle connection.
pub const IDLE_SUBSCRIPTIONS: usize = 5;

/// What load, and for how long.
#[derive(Debug)]
pub struct Options {
    /// The broker.
    pub target: Target,
    /// Tokens of the users.
    pub tokens: Tokens,
    /// What the broker's certificate is checked against.
    pub roots: Roots,
    /// All connections; those that neither publish nor read are idle.
    pub connections: usize,
    /// Connections that publish, each as a user of its own to its share of the conversations.
    pub publishers: usize,
    /// Connections that read, each all conversations.
    pub readers: usize,
    /// Public channels.
    pub conversations: usize,
    /// Messages a second of all publishers together; none: as fast as acknowledged.
    pub rate: Option<f64>,
    /// Messages of a publisher that wait for acknowledgement, when there is no rate.
    pub in_flight: usize,
    /// Bytes of a message's body.
    pub size: Size,
    /// How long is measured.
    pub duration: Duration,
    /// How long the load lasts before that.
    pub warm_up: Duration,
    /// Threads that carry the connections.
    pub threads: usize,
    /// The broker's process, if it is on this machine and to be watched.
    pub broker: Option<BrokerProcess>,
    /// How long readers wait for what is missing when nothing comes.
    pub settle: Duration,
    /// How long a connection may take to come about.
    pub patience: Duration,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The numbers do not fit each other.
    #[error("{0}")]
    Options(&'static str),
    /// Too few files may be open.
    #[error(transparent)]
    OpenFiles(#[from] OpenFilesError),
    /// The broker cannot be reached, or refuses.
    #[error("no connection: {0}")]
    Connect(#[from] ConnectError),
    /// A request was refused.
    #[error("a request failed: {0}")]
    Request(#[from] RequestError),
    /// A publisher may not enter a conversation.
    #[error("entering a conversation failed: {0}")]
    Join(#[from] PublishError),
    /// A subscription was denied.
    #[error("a subscription was denied: {0}")]
    Denied(rialto_sdk::ServerError),
    /// The broker's process is gone.
    #[error(transparent)]
    Broker(#[from] BrokerProcessError),
    /// The operating system gave no thread, socket or random bytes.
    #[error("{0}")]
    System(String),
}

/// What everybody does at one time, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Publishers connect and open their conversations.
    Open,
    /// Publishers enter those that others opened.
    Join,
    /// Readers and idle connections connect and subscribe.
    Follow,
    /// Load that does not count yet.
    Warm,
    /// Load that counts.
    Measure,
    /// Publishers wait for their last acknowledgements.
    Settle,
    /// Readers wait for what is still missing: so many messages in all.
    Drain(u64),
}

/// What all threads share.
#[derive(Debug)]
struct Shared {
    options: Options,
    counters: Arc<Counters>,
    conversations: Vec<ConversationId>,
    start: Instant,
    measuring: std::sync::atomic::AtomicBool,
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

impl Shared {
    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn dialer(&self) -> Dialer {
        let options = &self.options;
        Dialer::new(
            options.target.clone(),
            options.tokens.clone(),
            options.roots.clone(),
            options.patience,
            self.counters.clone(),
        )
    }
}

/// Runs the load and measures it.
///
/// # Errors
/// When the load cannot be built up, or the broker goes away for good.
pub async fn run(options: Options) -> Result<Report, RunError> {
    check(&options)?;
    open_files::make_room_for(options.connections as u64)?;
    let counters = Arc::new(Counters::default());
    let conversations = conversation_ids(options.conversations)?;
    let shared = Arc::new(Shared {
        options,
        counters: counters.clone(),
        conversations,
        start: Instant::now(),
        measuring: false.into(),
        acknowledged: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    let progress = Progress::show(counters, 0);
    let mut crew = Crew::start(&shared)?;
    let result = lead(&shared, &mut crew, &progress).await;
    drop(progress);
    let (measured, tallies) = result?;
    Ok(report::report(&shared, &measured, &tallies))
}

fn check(options: &Options) -> Result<(), RunError> {
    if options.publishers == 0 || options.conversations == 0 || options.in_flight == 0 {
        return Err(RunError::Options(
            "there must be a publisher, a conversation and a message in flight",
        ));
    }
    if options.publishers + options.readers > options.connections {
        return Err(RunError::Options(
            "--connections is less than publishers and readers together",
        ));
    }
    if options
        .rate
        .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
    {
        return Err(RunError::Options(
            "--rate is no number of messages a second above 0",
        ));
    }
    Ok(())
}

pub(crate) fn conversation_ids(count: usize) -> Result<Vec<ConversationId>, RunError> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let time_ms = u64::try_from(now.as_millis()).unwrap_or(0);
    (0..count)
        .map(|_| {
            let mut entropy = [0; 10];
            getrandom::fill(&mut entropy).map_err(|error| RunError::System(error.to_string()))?;
            Ok(ConversationId::v7(time_ms, entropy))
        })
        .collect()
}

/// The threads at work.
struct Crew {
    stage: watch::Sender<Stage>,
    done: mpsc::UnboundedReceiver<Result<Done, RunError>>,
    threads: usize,
    pacer: Option<Pacer>,
}

/// A thread has reached the end of a stage.
enum Done {
    Stage,
    All(Box<Tally>),
}

/// What was measured beside the tallies.
struct Measured {
    duration: Duration,
    broker: Option<Usage>,
    counted: Counted,
}

impl Crew {
    fn start(shared: &Arc<Shared>) -> Result<Self, RunError> {
        let threads = shared.options.threads.max(1);
        let (stage, _) = watch::channel(Stage::Open);
        let (report, done) = mpsc::unbounded_channel();
        let (pacer, mut queues) = Pacer::new(&shared.options);
        for thread in 0..threads {
            let mine = |index: &usize| index % threads == thread;
            let task = Task {
                shared: shared.clone(),
                stage: stage.subscribe(),
                publishers: (0..shared.options.publishers)
                    .filter(mine)
                    .map(|index| (index, queues[index].take()))
                    .collect(),
                readers: (0..shared.options.readers).filter(mine).collect(),
                idle: (0..shared.options.connections
                    - shared.options.publishers
                    - shared.options.readers)
                    .filter(mine)
                    .collect(),
                report: report.clone(),
            };
            thread::Builder::new()
                .name(format!("load {thread}"))
                .spawn(move || worker::run(task))
                .map_err(|error| RunError::System(format!("no thread: {error}")))?;
        }
        Ok(Self {
            stage,
            done,
            threads,
            pacer,
        })
    }

    /// Begins a stage, and waits until all threads have done with it.
    async fn through(&mut self, stage: Stage) -> Result<Vec<Tally>, RunError> {
        self.stage.send_replace(stage);
        self.all().await
    }

    async fn all(&mut self) -> Result<Vec<Tally>, RunError> {
        let mut tallies = Vec::new();
        for _ in 0..self.threads {
            match self.done.recv().await {
                Some(Ok(Done::Stage)) => {}
                Some(Ok(Done::All(tally))) => tallies.push(*tally),
                Some(Err(error)) => return Err(error),
                None => return Err(RunError::System("a thread ended too early".into())),
            }
        }
        Ok(tallies)
    }
}

async fn lead(
    shared: &Shared,
    crew: &mut Crew,
    progress: &Progress,
) -> Result<(Measured, Vec<Tally>), RunError> {
    let options = &shared.options;
    progress.stage(&format!(
        "{} conversations for {} publishers",
        options.conversations, options.publishers
    ));
    crew.all().await?;
    crew.through(Stage::Join).await?;
    progress.stage(&format!(
        "{} readers, {} connections in all",
        options.readers, options.connections
    ));
    crew.through(Stage::Follow).await?;
    progress.stage("warming up");
    crew.stage.send_replace(Stage::Warm);
    let pacing = crew
        .pacer
        .take()
        .map(Pacer::start)
        .transpose()
        .map_err(|error| RunError::System(format!("no thread: {error}")))?;
    tokio::time::sleep(options.warm_up).await;

    let usage = || {
        options
            .broker
            .as_ref()
            .map(BrokerProcess::usage)
            .transpose()
    };
    let (before, begun) = (usage()?, Instant::now());
    shared.measuring.store(true, Ordering::Relaxed);
    crew.stage.send_replace(Stage::Measure);
    progress.stage("measuring");
    tokio::time::sleep(options.duration).await;
    shared.measuring.store(false, Ordering::Relaxed);
    let duration = begun.elapsed();
    let broker = usage()?
        .zip(before)
        .map(|(after, before)| after.since(before));
    drop(pacing);
    progress.stage("waiting for what is under way");
    crew.through(Stage::Settle).await?;
    let tallies = crew
        .through(Stage::Drain(shared.acknowledged.load(Ordering::Relaxed)))
        .await?;
    Ok((
        Measured {
            duration,
            broker,
            counted: shared.counters.now(),
        },
        tallies,
    ))
}
