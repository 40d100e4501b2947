//! Plays real chat against a broker, and judges what its readers got.
//!
//! Each day of a channel is a conversation, each nick a user. Readers follow every conversation live; at the end others read
//! it again, by subscription and by pages of history. A broker that goes away meanwhile is waited for.

mod crowd;
mod follower;
mod names;
mod player;
mod report;
mod resume;
mod schedule;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use rialto_protocol::ids::{ConversationId, UserId};
use rialto_protocol::limits::TITLE_BYTES_MAX;
use rialto_sdk::{
    Client, CloseReason, ConnectError, Create, PublishError, RequestError, Roots, ServerError,
};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::corpus::{Corpus, CorpusError, Limit};
use crate::counters::Counters;
use crate::dial::Dialer;
use crate::open_files::{self, OpenFilesError};
use crate::progress::Progress;
use crate::target::{Target, Transport};
use crate::tokens::Tokens;
use crowd::Crowd;
use follower::{CONVERSATIONS_MAX, Followed, Follower, Heads, Readers};
use player::{Play, Stage};

pub use crowd::Sharing;
pub use report::Report;
pub use resume::OtherLog;

/// Requests that open conversations, or read what stands there, at the same time.
const SETUP_AT_ONCE: usize = 64;
/// Readers of each conversation that read it again at the end: by subscription, and by pages of history.
const COLD_READERS: usize = 2;
/// Characters of a title; however long their UTF-8 is, it fits.
const TITLE_CHARACTERS_MAX: usize = TITLE_BYTES_MAX / 4;

/// What to play, where, and how.
#[derive(Debug)]
pub struct Options {
    /// JSON lines, gzip or plain.
    pub file: PathBuf,
    /// How much of it.
    pub limit: Limit,
    /// The broker.
    pub target: Target,
    /// Tokens of the users.
    pub tokens: Tokens,
    /// What the broker's certificate is checked against.
    pub roots: Roots,
    /// Who has a connection.
    pub sharing: Sharing,
    /// So many times real time; none: as fast as acknowledged.
    pub speed: Option<f64>,
    /// Live readers of each conversation; at least 1.
    pub readers: usize,
    /// Names the conversations; the same name continues an earlier replay.
    pub run: String,
    /// Shuffles the order in which conversations begin.
    pub seed: u64,
    /// Conversations that are played at the same time.
    pub at_once: usize,
    /// Messages of one conversation that may wait for acknowledgement.
    pub window: usize,
    /// How long readers wait for what is missing when nothing comes.
    pub settle: Duration,
    /// How long nothing at all may happen.
    pub patience: Duration,
    /// Where to count while it lasts; fresh ones, or those of somebody who watches.
    pub counters: Arc<Counters>,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be played.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// Too few files may be open.
    #[error(transparent)]
    OpenFiles(#[from] OpenFilesError),
    /// The broker cannot be reached, or refuses.
    #[error("no connection: {0}")]
    Connect(#[from] ConnectError),
    /// A request was refused.
    #[error("a request failed: {0}")]
    Request(#[from] RequestError),
    /// A publish could not even be sent.
    #[error("publishing failed: {0}")]
    Publish(#[from] PublishError),
    /// A reader may not read.
    #[error("reading {conversation} was denied: {error}")]
    Denied {
        /// What.
        conversation: ConversationId,
        /// Why.
        error: ServerError,
    },
    /// A connection was closed for good.
    #[error("a connection was closed: {0}")]
    Closed(CloseReason),
    /// The run holds something else.
    #[error(transparent)]
    OtherLog(#[from] OtherLog),
    /// Nothing happened any more.
    #[error("nothing was acknowledged, delivered or connected for {} s: is the broker gone?", .0.as_secs())]
    Standstill(Duration),
    /// A task of our own failed.
    #[error("a task failed: {0}")]
    Task(String),
}

impl From<JoinError> for ReplayError {
    fn from(error: JoinError) -> Self {
        Self::Task(error.to_string())
    }
}

/// The time of one run.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Since it began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Microseconds since it began; never 0.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}

/// Plays a file and judges what came of it.
///
/// # Errors
/// When there is no verdict: the file or the broker cannot be used. Violations are no error.
pub async fn replay(options: Options) -> Result<Report, ReplayError> {
    let started = Instant::now();
    let (file, limit) = (options.file.clone(), options.limit);
    let corpus = Arc::new(tokio::task::spawn_blocking(move || Corpus::read(&file, limit)).await??);
    let counters = options.counters.clone();
    // With a name for a host each QUIC connection has a socket of its own.
    let carrier = if options.target.udp_from().is_some() {
        Transport::Quic
    } else {
        Transport::Tcp
    };
    open_files::make_room_for(open_files::files_of(
        connections(&corpus, &options),
        carrier,
    ))?;
    let progress = Progress::show(counters.clone(), report::count(corpus.messages));
    progress.stage(&format!(
        "run {}: {} messages of {} users in {} conversations to {}",
        options.run,
        corpus.messages,
        corpus.nicks.len(),
        corpus.logs.len(),
        options.target
    ));
    // A log at real time may hold pauses; they are no standstill.
    let pause = longest_pause(&corpus, options.speed);
    let patience = options.patience + pause;
    let house = House::open(options, corpus, counters.clone()).await?;
    tokio::select! {
        report = house.run(&progress, started) => report,
        () = counters.standstill(patience) => Err(ReplayError::Standstill(patience)),
    }
}

fn connections(corpus: &Corpus, options: &Options) -> u64 {
    let speakers = match options.sharing {
        Sharing::None => corpus.nicks.len(),
        Sharing::Among(connections) => connections,
    };
    let a_reader = corpus.logs.len().div_ceil(CONVERSATIONS_MAX);
    report::count(1 + speakers + (options.readers + COLD_READERS) * a_reader)
}

fn longest_pause(corpus: &Corpus, speed: Option<f64>) -> Duration {
    let Some(speed) = speed else {
        return Duration::ZERO;
    };
    let pauses = corpus.logs.iter().flat_map(|log| {
        let due = schedule::due(&log.messages, speed);
        due.windows(2)
            .map(|pair| pair[1] - pair[0])
            .collect::<Vec<_>>()
    });
    pauses.max().unwrap_or_default()
}

/// A replay with its conversations.
struct House {
    options: Options,
    corpus: Arc<Corpus>,
    counters: Arc<Counters>,
    keeper: Client,
    readers: Readers,
    stage: Arc<Stage>,
    ids: Vec<ConversationId>,
}

impl House {
    async fn open(
        options: Options,
        corpus: Arc<Corpus>,
        counters: Arc<Counters>,
    ) -> Result<Self, ReplayError> {
        let (target, tokens, roots) = (
            options.target.clone(),
            options.tokens.clone(),
            options.roots.clone(),
        );
        let dialer = Arc::new(Dialer::new(
            target,
            tokens,
            roots,
            options.patience,
            counters.clone(),
        ));
        // Whoever named the wrong target is told at once.
        let (first, _events) = dialer.connect_at_once(names::staff("keeper")).await?;
        first.close().await;
        let keeper = dialer.connect_writer(names::staff("keeper")).await?;
        let clock = Clock::start();
        let stage = Stage {
            crowd: Crowd::new(dialer.clone(), &corpus.nicks, options.sharing),
            counters: counters.clone(),
            clock,
            window: options.window.max(1),
        };
        let ids = corpus
            .logs
            .iter()
            .map(|log| names::conversation(&options.run, &log.channel, &log.day))
            .collect();
        let readers = Readers {
            dialer,
            clock,
            settle: options.settle,
        };
        Ok(Self {
            options,
            corpus,
            counters,
            keeper,
            readers,
            stage: Arc::new(stage),
            ids,
        })
    }

    async fn run(self, progress: &Progress, started: Instant) -> Result<Report, ReplayError> {
        let mut plays = self.open_conversations().await?;
        let resumed: usize = plays.iter().map(|play| play.resumed).sum();
        if resumed > 0 {
            progress.stage(&format!(
                "{resumed} messages of an earlier replay are there already"
            ));
        }
        let (heads, known) = watch::channel(None);
        let live = self.live_readers(&known).await?;
        let played = Instant::now();
        shuffle(&mut plays, self.options.seed);
        let mut plays = self.play(plays).await?;
        let play = played.elapsed();
        plays.sort_by_key(|play| play.log);
        heads.send_replace(Some(Arc::new(
            plays
                .iter()
                .map(|play| (play.conversation, play.head))
                .collect(),
        )));
        progress.stage("everything is acknowledged; reading it again from the start");
        let mut readings = finish(live).await?;
        let live_readers = readings.len();
        readings.extend(self.cold_readers(&known).await?);
        let found = verdict::judge(&plays, readings, live_readers).await?;
        self.stage.crowd.close().await;
        self.keeper.close().await;
        let elapsed = started.elapsed();
        Ok(verdict::report(&self, &plays, found, play, elapsed))
    }

    /// Opens every conversation, or finds what an earlier replay left there.
    async fn open_conversations(&self) -> Result<Vec<Play>, ReplayError> {
        let opening = self
            .corpus
            .logs
            .iter()
            .enumerate()
            .map(|(index, log)| async move {
                let user = |nick| -> UserId { self.stage.crowd.user(nick) };
                let mut play = resume::new_play(index, log, self.ids[index], user);
                let title: String = play
                    .script
                    .name
                    .chars()
                    .take(TITLE_CHARACTERS_MAX)
                    .collect();
                let created = self
                    .keeper
                    .create(Create::channel(title).id(self.ids[index]))
                    .await?;
                play.head = created.head.seq;
                if created.existed {
                    let events = follower::history(&self.keeper, self.ids[index]).await?;
                    resume::adopt(&mut play, log, &events, user)?;
                }
                Ok(play)
            });
        stream::iter(opening)
            .buffered(SETUP_AT_ONCE)
            .try_collect()
            .await
    }

    async fn live_readers(
        &self,
        known: &watch::Receiver<Heads>,
    ) -> Result<Vec<Follower>, ReplayError> {
        let mut live = Vec::new();
        for reader in 0..self.options.readers.max(1) {
            live.extend(self.follow(&format!("live reader {reader}"), known).await?);
        }
        Ok(live)
    }

    /// One reader of all conversations, on as many connections as that takes.
    async fn follow(
        &self,
        reader: &str,
        known: &watch::Receiver<Heads>,
    ) -> Result<Vec<Follower>, ReplayError> {
        let mut followers = Vec::new();
        for conversations in self.ids.chunks(CONVERSATIONS_MAX) {
            followers.push(
                self.readers
                    .follow(reader, names::staff(reader), conversations, known.clone())
                    .await?,
            );
        }
        Ok(followers)
    }

    async fn play(&self, plays: Vec<Play>) -> Result<Vec<Play>, ReplayError> {
        let mut waiting = plays.into_iter();
        let mut playing = JoinSet::new();
        let mut done = Vec::new();
        loop {
            while playing.len() < self.options.at_once.max(1) {
                let Some(play) = waiting.next() else { break };
                let (stage, corpus, speed) =
                    (self.stage.clone(), self.corpus.clone(), self.options.speed);
                playing.spawn(async move {
                    let log = &corpus.logs[play.log];
                    let due =
                        speed.map_or_else(Vec::new, |speed| schedule::due(&log.messages, speed));
                    player::play(&stage, log, play, &due).await
                });
            }
            match playing.join_next().await {
                Some(play) => done.push(play??),
                None => return Ok(done),
            }
        }
    }

    async fn cold_readers(
        &self,
        known: &watch::Receiver<Heads>,
    ) -> Result<Vec<Followed>, ReplayError> {
        let by_subscription =
            async { finish(self.follow("reader from the start", known).await?).await };
        let by_history =
            self.readers
                .read_history("reader of history", names::staff("historian"), &self.ids);
        let (mut followed, history) = tokio::try_join!(by_subscription, by_history)?;
        followed.push(history);
        Ok(followed)
    }
}

async fn finish(followers: Vec<Follower>) -> Result<Vec<Followed>, ReplayError> {
    let mut followed = Vec::with_capacity(followers.len());
    for follower in followers {
        followed.push(follower.finish().await?);
    }
    Ok(followed)
}

/// Fisher and Yates, by SplitMix64: the same order for the same seed.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        // Below `last + 1`, which is a usize.
        #[allow(clippy::cast_possible_truncation)]
        items.swap(last, (word % (last as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_order_and_another_seed_another() {
        let order = |seed| {
            let mut items: Vec<usize> = (0..20).collect();
            shuffle(&mut items, seed);
            items
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let mut sorted = order(3);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }
}
