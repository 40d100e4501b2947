//! Threads of other processes: the coordinator sends the load and each stage, a worker sends what its threads say. JSON lines
//! over TCP, a few a second.
//!
//! A worker chooses by its own command line where the load goes and as whom; whoever reaches its port can only start it, once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::clock::Clock;
use super::crew::{Crew, Done, Reports};
use super::interval::{Interval, Tally};
use super::ledger::Ledger;
use super::{RunError, Shared, Spec, Stage, make_room};
use crate::target::Target;
use crate::tokens::Tokens;
use rialto_sdk::Roots;

/// How often a worker tells what has happened, counted from the beginning of the load: samples end then too.
const TELL_EVERY_US: u64 = 100_000;
/// How far clocks may be apart: a worker has to hear in time when the load begins.
const APART_MAX_US: u64 = 250_000;
/// How long the coordinator tries to reach a worker that is only starting.
const REACH_MAX: Duration = Duration::from_secs(10);
const REACH_AGAIN: Duration = Duration::from_millis(50);
/// How long it waits for what a worker says first.
const FIRST_WORD_MAX: Duration = Duration::from_secs(30);
/// Bytes of the first line, by which both sides know each other, and of those behind it: accounts of millions of conversations.
const FIRST_LINE_BYTES_MAX: usize = 1 << 20;
const LINE_BYTES_MAX: usize = 1 << 30;
/// How often a thread says that it has come to the end of a stage: before it joins, follows, and carries the load.
const STAGES: usize = 3;
/// Both sides have to be of one version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the coordinator sends.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// The load, and which process the worker is.
    Begin {
        version: String,
        spec: Box<Spec>,
        process: usize,
    },
    /// See [`Stage`].
    Join,
    Follow,
    Load(u64),
    Stop {
        start_us: u64,
        over_us: u64,
    },
    Drain(Ledger),
}

/// What a worker sends.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// It has the load, and its clock says this.
    Begun(u64),
    /// What has happened since the last time, up to a time of its clock.
    Interval(u64, Box<Interval>),
    /// What one of its threads said.
    Done(Done),
    /// Why there will be no more.
    Failed(String),
}

/// A connection to a worker.
pub(crate) struct Link {
    address: SocketAddr,
    threads: usize,
    conversations: usize,
    lines: Lines,
    writer: OwnedWriteHalf,
}

/// Lines of JSON, none of which takes all memory.
struct Lines {
    reader: BufReader<OwnedReadHalf>,
    /// What has come of the next one.
    line: Vec<u8>,
    bytes_max: usize,
}

impl Lines {
    fn new(reader: OwnedReadHalf) -> Self {
        Self {
            reader: BufReader::new(reader),
            line: Vec::new(),
            bytes_max: FIRST_LINE_BYTES_MAX,
        }
    }

    /// The next one; cancel safe.
    async fn next<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        loop {
            let more = self.reader.fill_buf().await;
            let more = more.map_err(|error| error.to_string())?;
            if more.is_empty() {
                return Err("it has ended".into());
            }
            let end = more.iter().position(|byte| *byte == b'\n');
            let part = &more[..end.unwrap_or(more.len())];
            let taken = part.len() + usize::from(end.is_some());
            if self.line.len() + part.len() > self.bytes_max {
                return Err(format!("it says {} bytes and more", self.bytes_max));
            }
            self.line.extend_from_slice(part);
            self.reader.consume(taken);
            if end.is_some() {
                self.bytes_max = LINE_BYTES_MAX;
                let line = std::mem::take(&mut self.line);
                return serde_json::from_slice(&line)
                    .map_err(|error| format!("it does not speak as this loadgen does: {error}"));
            }
        }
    }
}

/// What the threads of a worker have said. Each says everything once, and the coordinator takes no step before all have said what
/// leads to it; so more, or something else, comes from no worker.
#[derive(Debug, Default)]
struct Heard {
    stages: usize,
    published: usize,
    judged: usize,
}

impl Heard {
    /// Takes in what one of so many threads says, in a load of so many conversations.
    fn take(&mut self, done: &Done, threads: usize, conversations: usize) -> Result<(), String> {
        let (heard, most) = match done {
            Done::Stage => (&mut self.stages, STAGES * threads),
            Done::Published(accounts, _) => {
                let may = self.stages == STAGES * threads
                    && accounts.iter().all(|one| one.conversation < conversations);
                (&mut self.published, if may { threads } else { 0 })
            }
            Done::Judged(_) => {
                let may = self.published == threads;
                (&mut self.judged, if may { threads } else { 0 })
            }
        };
        if *heard >= most {
            return Err("it says what none of its threads has to say now".into());
        }
        *heard += 1;
        Ok(())
    }
}

async fn say(writer: &mut OwnedWriteHalf, what: &impl Serialize) -> Result<(), String> {
    let mut line = serde_json::to_vec(what).map_err(|error| error.to_string())?;
    line.push(b'\n');
    writer
        .write_all(&line)
        .await
        .map_err(|error| error.to_string())
}

impl Link {
    /// Gives the worker its part of the load, and sees that its clock is like ours.
    pub(super) async fn open(
        address: SocketAddr,
        shared: &Shared,
        process: usize,
    ) -> Result<Self, RunError> {
        let (spec, clock) = (&shared.spec, shared.clock);
        let failed = |problem: String| RunError::Worker(address, problem);
        let begun = tokio::time::Instant::now();
        let stream = loop {
            match timeout(REACH_MAX, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => break stream,
                Ok(Err(error)) if begun.elapsed() > REACH_MAX => {
                    return Err(failed(error.to_string()));
                }
                Ok(Err(_)) => tokio::time::sleep(REACH_AGAIN).await,
                Err(_) => return Err(failed("nobody answers there".into())),
            }
        };
        stream
            .set_nodelay(true)
            .map_err(|error| failed(error.to_string()))?;
        let (reader, mut writer) = stream.into_split();
        let begin = Order::Begin {
            version: VERSION.to_owned(),
            spec: Box::new(spec.clone()),
            process,
        };
        let before_us = clock.now_us();
        say(&mut writer, &begin).await.map_err(failed)?;
        let mut lines = Lines::new(reader);
        let word = first_word(&mut lines, FIRST_WORD_MAX).await;
        let told_us = match word.map_err(failed)? {
            Word::Begun(now_us) => now_us,
            Word::Failed(problem) => return Err(failed(problem)),
            _ => return Err(failed("it did not begin".into())),
        };
        check_clock(before_us, told_us, clock.now_us()).map_err(failed)?;
        Ok(Self {
            address,
            threads: spec.threads.max(1),
            conversations: shared.plan.conversations(),
            lines,
            writer,
        })
    }
}

/// What a worker says first, unless it is none.
async fn first_word(lines: &mut Lines, within: Duration) -> Result<Word, String> {
    let word = timeout(within, lines.next()).await;
    word.unwrap_or_else(|_| Err("it says nothing: is it `loadgen run --worker`?".into()))
}

/// Whether a clock that said `told_us` between two times of ours is like ours, for all that can be known.
fn check_clock(before_us: u64, told_us: u64, after_us: u64) -> Result<(), String> {
    let (behind_us, ahead_us) = (
        before_us.saturating_sub(told_us),
        told_us.saturating_sub(after_us),
    );
    let (apart_us, way) = if behind_us > 0 {
        (behind_us, "behind")
    } else {
        (ahead_us, "ahead of")
    };
    if apart_us > APART_MAX_US {
        return Err(format!(
            "its clock is {} ms {way} this one, which would be taken for latency: set both by NTP",
            apart_us / 1000
        ));
    }
    Ok(())
}

/// When a worker tells next what has happened, in a load that begins at `start_us`.
const fn next_telling(now_us: u64, start_us: u64) -> u64 {
    let since_us = now_us.saturating_sub(start_us);
    let next_us = start_us + (since_us / TELL_EVERY_US + 1) * TELL_EVERY_US;
    if now_us < start_us && next_us - now_us > TELL_EVERY_US {
        now_us + TELL_EVERY_US
    } else {
        next_us
    }
}

/// Leads a worker through the stages, on a task of its own. `told` hears up to when it has told what happened.
pub(super) fn lead(
    link: Link,
    mut stage: watch::Receiver<Stage>,
    tally: Tally,
    told: watch::Sender<u64>,
    reports: Reports,
) {
    let Link {
        address,
        threads,
        conversations,
        mut lines,
        mut writer,
    } = link;
    tokio::spawn(async move {
        let mut heard = Heard::default();
        let failure = loop {
            tokio::select! {
                word = lines.next() => match word {
                    Ok(Word::Interval(until_us, interval)) => {
                        tally.current().add(&interval);
                        told.send_replace(until_us);
                    }
                    Ok(Word::Begun(_)) => break "it began twice".into(),
                    Ok(Word::Done(done)) => {
                        if let Err(problem) = heard.take(&done, threads, conversations) {
                            break problem;
                        }
                        let _ = reports.send(Ok(done));
                        // It ends by itself then.
                        if heard.judged == threads {
                            return;
                        }
                    }
                    Ok(Word::Failed(problem)) | Err(problem) => break problem,
                },
                changed = stage.changed() => {
                    // When the coordinator is gone, nobody waits for the worker.
                    let Ok(()) = changed else { return };
                    let order = match &*stage.borrow_and_update() {
                        Stage::Open => continue,
                        Stage::Join => Order::Join,
                        Stage::Follow => Order::Follow,
                        Stage::Load(start_us) => Order::Load(*start_us),
                        Stage::Stop { start_us, over_us } => Order::Stop {
                            start_us: *start_us,
                            over_us: *over_us,
                        },
                        Stage::Drain(ledger) => Order::Drain(ledger.as_ref().clone()),
                    };
                    if let Err(problem) = say(&mut writer, &order).await {
                        break problem;
                    }
                }
            }
        };
        let _ = reports.send(Err(RunError::Worker(address, failure)));
    });
}

/// Waits for a coordinator, and carries its part of one load. `listening` hears the address.
///
/// # Errors
/// When the address cannot be had, the coordinator goes away, or the load fails.
pub async fn serve(
    listen: SocketAddr,
    target: Target,
    tokens: Tokens,
    roots: Roots,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), RunError> {
    let system = |error: std::io::Error| RunError::System(format!("{listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(system)?;
    listening(listener.local_addr().map_err(system)?);
    let (stream, coordinator) = listener.accept().await.map_err(system)?;
    drop(listener);
    stream.set_nodelay(true).map_err(system)?;
    let failed = |problem| RunError::Worker(coordinator, problem);
    let (reader, mut writer) = stream.into_split();
    let mut lines = Lines::new(reader);
    let (spec, process) = match lines.next().await.map_err(failed)? {
        Order::Begin {
            version,
            spec,
            process,
        } if version == VERSION => (spec, process),
        Order::Begin { version, .. } => {
            let problem = format!("this is loadgen {VERSION}, the coordinator is {version}");
            let _ = say(&mut writer, &Word::Failed(problem.clone())).await;
            return Err(failed(problem));
        }
        _ => return Err(failed("it did not begin with a load".into())),
    };
    let carried = async {
        spec.check()?;
        make_room(&spec, &target)?;
        let shared = Arc::new(Shared::new(target, tokens, roots, *spec, process));
        let begun = Word::Begun(shared.clock.now_us());
        say(&mut writer, &begun).await.map_err(failed)?;
        let mut crew = Crew::start(&shared, Vec::new())?;
        carry(&mut crew, shared.clock, &mut lines, &mut writer)
            .await
            .map_err(|error| match error {
                Ok(error) => error,
                Err(problem) => failed(problem),
            })
    };
    let carried = carried.await;
    if let Err(error) = &carried {
        // The coordinator may be what is gone.
        let _ = say(&mut writer, &Word::Failed(error.to_string())).await;
    }
    carried
}

/// Passes on orders and words until the crew has judged.
async fn carry(
    crew: &mut Crew,
    clock: Clock,
    lines: &mut Lines,
    writer: &mut OwnedWriteHalf,
) -> Result<(), Result<RunError, String>> {
    let (mut start_us, mut judged) = (0, 0);
    let mut next_us = next_telling(clock.now_us(), start_us);
    while judged < crew.len() {
        let interval = |crew: &Crew| Word::Interval(clock.now_us(), Box::new(crew.take()));
        tokio::select! {
            order = lines.next() => crew.begin(match order.map_err(Err)? {
                Order::Begin { .. } => return Err(Err("it began twice".into())),
                Order::Join => Stage::Join,
                Order::Follow => Stage::Follow,
                Order::Load(at_us) => {
                    start_us = at_us;
                    next_us = next_telling(clock.now_us(), start_us);
                    Stage::Load(start_us)
                }
                Order::Stop { start_us, over_us } => Stage::Stop { start_us, over_us },
                Order::Drain(ledger) => Stage::Drain(Arc::new(ledger)),
            }),
            done = crew.next() => {
                let done = done.map_err(Ok)?;
                judged += usize::from(matches!(done, Done::Judged(_)));
                // First what the thread has counted.
                say(writer, &interval(crew)).await.map_err(Err)?;
                say(writer, &Word::Done(done)).await.map_err(Err)?;
            }
            () = tokio::time::sleep(clock.until(next_us)) => {
                say(writer, &interval(crew)).await.map_err(Err)?;
                next_us = next_telling(clock.now_us(), start_us);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::ledger::Account;
    use super::super::numbers::Numbers;
    use super::*;
    use crate::checker::Violations;

    #[test]
    fn clocks_that_are_surely_apart_are_told() {
        let (before, after) = (1_000_000, 5_000_000);
        for told in [750_000, 1_000_000, 3_000_000, 5_000_000, 5_250_000] {
            check_clock(before, told, after).unwrap();
        }
        let behind = check_clock(before, 700_000, after).unwrap_err();
        assert!(behind.contains("300 ms behind"), "{behind}");
        let ahead = check_clock(before, 7_000_000, after).unwrap_err();
        assert!(ahead.contains("2000 ms ahead of"), "{ahead}");
    }

    #[tokio::test]
    async fn whoever_says_nothing_is_no_worker() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (reader, _writer) = stream.into_split();
        let word = first_word(&mut Lines::new(reader), Duration::from_millis(10)).await;
        assert!(word.unwrap_err().contains("says nothing"));
    }

    #[tokio::test]
    async fn a_line_that_does_not_end_is_not_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut worker = TcpStream::connect(address).await.unwrap();
        let (reader, _writer) = listener.accept().await.unwrap().0.into_split();
        let mut lines = Lines::new(reader);
        lines.bytes_max = 12;
        worker.write_all(b"{\"Begun\":77}\n").await.unwrap();
        let first: Result<Word, String> = lines.next().await;
        assert!(matches!(first, Ok(Word::Begun(77))), "{first:?}");
        assert_eq!(lines.bytes_max, LINE_BYTES_MAX);
        lines.bytes_max = 12;
        worker.write_all(b"{\"Begun\":77777").await.unwrap();
        let endless: Result<Word, String> = lines.next().await;
        assert!(endless.unwrap_err().contains("12 bytes and more"));
    }

    #[test]
    fn the_threads_of_a_worker_say_everything_once_and_in_turn() {
        let published = |conversation| {
            let account = Account {
                conversation,
                publisher: 0,
                numbers: 0,
                refused: Numbers::default(),
                unanswered: Numbers::default(),
                repeated: BTreeMap::new(),
                seq_max: 0,
                digest: 0,
            };
            Done::Published(vec![account], Vec::new())
        };
        let judged = || Done::Judged(Violations::default());
        let mut heard = Heard::default();
        let mut take = |done: Done| heard.take(&done, 2, 5).is_ok();
        assert!(!take(published(4)), "it carries no load yet");
        for _ in 0..2 * STAGES {
            assert!(take(Done::Stage));
        }
        assert!(!take(Done::Stage), "once more than there are threads");
        assert!(!take(published(5)), "a conversation that there is not");
        assert!(take(published(4)));
        assert!(!take(judged()), "one of them still publishes");
        assert!(take(published(0)) && !take(published(1)));
        assert!(take(judged()) && take(judged()) && !take(judged()));
    }

    #[test]
    fn a_worker_tells_when_samples_end() {
        let start_us = 2_050_000;
        let mut now_us = 0;
        let mut told = Vec::new();
        while now_us < start_us + 2_000_000 {
            let next_us = next_telling(now_us, start_us);
            assert!(next_us > now_us && next_us - now_us <= 2 * TELL_EVERY_US);
            told.push(next_us);
            now_us = next_us;
        }
        for sample in [start_us + 1_000_000, start_us + 2_000_000] {
            assert!(told.contains(&sample), "{told:?}");
        }
    }
}
