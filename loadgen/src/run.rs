//! Made load: publishers and readers on their own threads, at a constant rate or as fast as acknowledged.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `check` | whether a load can be |
//! | `schedule`, `clock`, `ticker` | when each message is due |
//! | `shape`, `plan`, `choice` | conversations: who publishes where, and who follows what |
//! | `body` | what stands in a message |
//! | `publisher`, `window`, `entrance`, `patience` | a connection that publishes |
//! | `reader`, `followed`, `ledger`, `numbers` | a connection that reads, and what is judged |
//! | `crew`, `worker`, `local` | threads, led through the same stages |
//! | `remote` | threads of other processes |
//! | `lead`, `interval`, `samples`, `growth`, `report` | the coordinator, and what it tells |

mod body;
mod check;
mod choice;
mod clock;
pub(crate) mod crew;
mod entrance;
mod followed;
mod growth;
mod interval;
pub(crate) mod lead;
pub(crate) mod ledger;
mod local;
mod numbers;
mod patience;
mod plan;
mod publisher;
mod reader;
mod remote;
mod report;
mod samples;
mod schedule;
mod shape;
mod ticker;
mod window;
mod worker;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::ids::UserId;
use rialto_sdk::Roots;
use serde::{Deserialize, Serialize};

use crate::broker_process::{BrokerProcess, BrokerProcessError};
use crate::open_files::{self, OpenFilesError};
use crate::target::Target;
use crate::tokens::Tokens;
use crate::watch::Watch;
use crate::wire::lost::Lost;
use body::Bodies;
use clock::Clock;
use ledger::Ledger;
use plan::Plan;

pub use body::{BODY_BYTES_MIN, Size, SizeError};
pub use growth::Growth;
pub use lead::Interrupts;
pub use remote::serve;
pub use report::{PhaseReport, Report};
pub use samples::{BrokerSample, Sample};
pub use schedule::{Pace, Phase, PhaseKind};
pub use shape::{CONVERSATIONS_MAX, Part, Shape, ShapeError, ZIPF_DEFAULT};

/// Subscriptions of an idle connection.
pub const IDLE_SUBSCRIPTIONS: usize = 5;

/// Where to, and as whom.
#[derive(Debug)]
pub struct Options {
    /// The broker.
    pub target: Target,
    /// Tokens of the users.
    pub tokens: Tokens,
    /// What the broker's certificate is checked against.
    pub roots: Roots,
    /// The broker's process, if it is on this machine and to be watched.
    pub broker: Option<BrokerProcess>,
    /// The load.
    pub spec: Spec,
    /// Processes that wait for their part of the load (`loadgen run --worker`).
    pub workers: Vec<SocketAddr>,
    /// What is told while it lasts.
    pub watch: Watch,
    /// Whether it is to end sooner.
    pub interrupts: Interrupts,
}

/// How much of what readers get is examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// Everything.
    Full,
    /// Every n-th conversation of each reader; of the others, that seqs follow each other.
    Sampled(usize),
    /// Nothing: messages are counted.
    Off,
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "off" => Ok(Self::Off),
            _ => text
                .strip_prefix("sampled=")
                .and_then(|n| n.parse().ok())
                .filter(|n| *n > 0)
                .map(Self::Sampled)
                .ok_or_else(|| format!("`{text}` is neither full nor sampled=N nor off")),
        }
    }
}

/// What load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Tells this run from every other.
    pub run: u64,
    /// When its clock began, microseconds since 1970.
    pub epoch_us: u64,
    /// All connections; those that neither publish nor read are idle.
    pub connections: usize,
    /// Connections that publish, each as a user of its own to its share of the conversations.
    pub publishers: usize,
    /// Connections that read.
    pub readers: usize,
    /// Conversations by shape.
    pub parts: Vec<Part>,
    /// Bytes of a message's body.
    pub size: Size,
    /// What is published when.
    pub phases: Vec<Phase>,
    /// At a rate, messages that a publisher sends together when its turn comes.
    pub burst: usize,
    /// How much is examined.
    pub check: Check,
    /// How long readers wait for what is missing when nothing comes, and publishers for an answer.
    pub settle: Duration,
    /// How long a connection may take to come about.
    pub patience: Duration,
    /// Threads of each process that carry the connections.
    pub threads: usize,
    /// Processes, this one included.
    pub processes: usize,
}

impl Spec {
    /// A load on a clock that begins now.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn now() -> Result<Self, RunError> {
        Ok(Self {
            run: u64::from_le_bytes(local::random()?),
            epoch_us: clock::unix_us(),
            connections: 1,
            publishers: 1,
            readers: 0,
            parts: vec![Part::of(Shape::Channels { count: 1 })],
            size: Size::of(100),
            phases: Vec::new(),
            burst: 1,
            check: Check::Full,
            settle: Duration::from_secs(10),
            patience: Duration::from_secs(120),
            threads: 1,
            processes: 1,
        })
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The numbers do not fit each other.
    #[error("{0}")]
    Options(String),
    /// A shape of conversations cannot be.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Another process of the load is not there, or fails.
    #[error("worker {0}: {1}")]
    Worker(SocketAddr, String),
    /// Too few files may be open.
    #[error(transparent)]
    OpenFiles(#[from] OpenFilesError),
    /// The broker cannot be reached, or refuses what the load rests on.
    #[error("no connection: {0}")]
    Connect(#[from] Lost),
    /// The broker's process is gone.
    #[error(transparent)]
    Broker(#[from] BrokerProcessError),
    /// Somebody wanted it to end before the load had begun, or did not want to wait for its end.
    #[error("interrupted")]
    Interrupted,
    /// The operating system gave no thread, socket or random bytes.
    #[error("{0}")]
    System(String),
}

/// What everybody does at one time, in this order.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Publishers connect and open their conversations.
    Open,
    /// Publishers enter those that others opened.
    Join,
    /// Readers and idle connections connect and subscribe.
    Follow,
    /// Load, whose phases begin at this time.
    Load(u64),
    /// The end of a load that began at one time, of which nothing more is published than was due up to the other.
    Stop { start_us: u64, over_us: u64 },
    /// Readers wait for what is still missing, and judge.
    Drain(Arc<Ledger>),
}

impl Stage {
    const JOIN: u8 = 1;
    const FOLLOW: u8 = 2;
    const LOAD: u8 = 3;
    const STOP: u8 = 4;
    const DRAIN: u8 = 5;

    /// Its place in the order.
    const fn order(&self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Join => Self::JOIN,
            Self::Follow => Self::FOLLOW,
            Self::Load(_) => Self::LOAD,
            Self::Stop { .. } => Self::STOP,
            Self::Drain(_) => Self::DRAIN,
        }
    }

    /// When the load begins, once that is known. Without any load there is none.
    const fn load_start_us(&self) -> Option<u64> {
        match self {
            Self::Load(start_us) | Self::Stop { start_us, .. } => Some(*start_us),
            Self::Drain(_) => Some(0),
            _ => None,
        }
    }
}

/// What all threads of a process share.
#[derive(Debug)]
pub(crate) struct Shared {
    target: Target,
    tokens: Tokens,
    roots: Roots,
    spec: Spec,
    phases: Arc<[Phase]>,
    clock: Clock,
    plan: Plan,
    bodies: Bodies,
    /// The users of all publishers.
    senders: Vec<UserId>,
    /// Number of this process, from 0.
    process: usize,
}

impl Shared {
    pub(crate) fn new(
        target: Target,
        tokens: Tokens,
        roots: Roots,
        spec: Spec,
        process: usize,
    ) -> Self {
        Self {
            target,
            tokens,
            roots,
            phases: spec.phases.clone().into(),
            clock: Clock::since(spec.epoch_us),
            plan: Plan::new(
                spec.run,
                spec.epoch_us,
                spec.publishers,
                spec.readers,
                &spec.parts,
            ),
            bodies: Bodies::of(spec.run),
            senders: (0..spec.publishers).map(plan::publisher_user).collect(),
            spec,
            process,
        }
    }
}

/// Runs the load and measures it. What ends it once it has begun stands in the report.
///
/// # Errors
/// When the load cannot be built up.
pub async fn run(options: Options) -> Result<Report, RunError> {
    let Options {
        target,
        tokens,
        roots,
        broker,
        mut spec,
        workers,
        watch,
        interrupts,
    } = options;
    spec.processes = 1 + workers.len();
    spec.check()?;
    make_room(&spec, &target)?;
    let shared = Arc::new(Shared::new(target, tokens, roots, spec, 0));
    let measured = lead::lead(&shared, broker, &workers, interrupts, watch).await?;
    Ok(report::report(&shared, measured))
}

/// Files for this process's part of the connections.
fn make_room(spec: &Spec, target: &Target) -> Result<(), OpenFilesError> {
    let mine = spec.connections.div_ceil(spec.processes);
    open_files::make_room_for(open_files::files_of(mine as u64, target.transport()))
}
