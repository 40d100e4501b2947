//! The broker's process: started on ports that stay the same, killed, stopped, and started again on the same data.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lives::{Asked, Lives};
use crate::patience::Patience;
use crate::random::Dice;

/// Lines of its log that are told when something goes wrong.
const LOG_LINES: usize = 12;
/// What stands in its log when a task has panicked, and the lines that say where and why.
const PANICKED: &str = "panicked at";
const PANIC_LINES: usize = 2;
/// Below the range from which the kernel takes ports of outgoing connections: a client that looks for a broker which is away
/// would else be given that very port, and be connected to itself.
const PORTS: std::ops::RangeInclusive<u64> = 12_000..=31_000;

/// Where a broker listens, on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Plain TCP.
    pub tcp: u16,
    /// TCP with TLS.
    pub tls: u16,
    /// QUIC.
    pub quic: u16,
    /// Operations.
    pub ops: u16,
}

impl Ports {
    /// Four that nobody uses at the moment, and that this process was not given before: whose they are may be starting again.
    #[must_use]
    pub fn free(dice: &mut Dice) -> Self {
        static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
        let given = || GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = || loop {
            let port = u16::try_from(dice.between(*PORTS.start(), *PORTS.end())).unwrap_or(12_000);
            let address = ("127.0.0.1", port);
            let unused = TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok();
            if unused && given().insert(port) {
                return port;
            }
        };
        Self {
            tcp: free(),
            tls: free(),
            quic: free(),
            ops: free(),
        }
    }
}

/// How it is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The binary `rialto`.
    pub binary: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// Where its output goes; outside of the data directory, which may be full or away.
    pub log: PathBuf,
    /// Where it listens.
    pub ports: Ports,
    /// Settings such as `storage.segment_bytes=4194304`.
    pub settings: Vec<String>,
    /// Variables of its environment.
    pub environment: BTreeMap<String, OsString>,
    /// How long it may take to serve.
    pub start_max: Duration,
    /// Where its end is judged.
    pub lives: Lives,
}

/// How a start went.
#[derive(Debug)]
pub enum Started {
    /// It serves, after this time.
    Serving(Broker, Duration),
    /// It ended before it served.
    Ended(Ending),
    /// It neither served nor ended in time, and was killed.
    Hung,
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Its status.
    pub status: ExitStatus,
    /// What it wrote since it was started.
    pub log: String,
}

impl Ending {
    /// Whether it ended by itself with a status that means failure, and said why: not by a signal, not by a panic.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.status.code().is_some_and(|code| code != 0)
            && self.log.contains("rialto: ")
            && !self.has_panicked()
    }

    /// Whether a mistake of the program ended it, or one of its tasks.
    #[must_use]
    pub fn has_panicked(&self) -> bool {
        self.log.contains(PANICKED) || self.status.signal() == Some(Signal::ABORT.as_raw())
    }

    /// How it ended, its first panic, and its last words.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = format!("{}\n", self.status);
        let panic = self.log.lines().skip_while(|line| !line.contains(PANICKED));
        for line in panic.take(PANIC_LINES) {
            words.push_str(line);
            words.push('\n');
        }
        words + &last_lines(&self.log, LOG_LINES)
    }
}

/// A process that serves; killed when it is dropped. How it ended is judged when that is noticed.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    launch: Launch,
    log_from: u64,
    asked: Asked,
    ending: Option<Box<Ending>>,
}

impl Broker {
    fn begin(launch: &Launch) -> anyhow::Result<Self> {
        let log_from = fs::metadata(&launch.log).map_or(0, |log| log.len());
        Ok(Self {
            child: spawn(launch)?,
            launch: launch.clone(),
            log_from,
            asked: Asked::Nothing,
            ending: None,
        })
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// When the binary cannot be started at all.
    pub async fn start(launch: &Launch) -> anyhow::Result<Started> {
        let mut broker = Self::begin(launch)?;
        let begun = Instant::now();
        let mut patience = Patience::of(launch.start_max);
        loop {
            if serves(&launch.data, broker.child.id()) {
                return Ok(Started::Serving(broker, begun.elapsed()));
            }
            if let Some(ending) = broker.ended() {
                return Ok(Started::Ended(ending));
            }
            if !patience.wait().await {
                return Ok(Started::Hung);
            }
        }
    }

    /// As [`Broker::start`], where nothing stands in the way of serving.
    ///
    /// # Errors
    /// When it does not serve. The text has the end of its log.
    pub async fn must_start(launch: &Launch) -> anyhow::Result<(Self, Duration)> {
        match Self::start(launch).await? {
            Started::Serving(broker, took) => Ok((broker, took)),
            Started::Ended(ending) => bail!("the broker did not start: {}", ending.words()),
            Started::Hung => bail!(
                "the broker neither served nor ended within {} s",
                launch.start_max.as_secs()
            ),
        }
    }

    /// Starts it and kills it after this time, wherever it stands then.
    ///
    /// # Errors
    /// When the binary cannot be started at all.
    pub async fn start_and_kill(launch: &Launch, after: Duration) -> anyhow::Result<()> {
        let broker = Self::begin(launch)?;
        tokio::time::sleep(after).await;
        broker.kill();
        Ok(())
    }

    /// How it is started.
    #[must_use]
    pub const fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a process that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<Ending> {
        if self.ending.is_none() {
            let status = self.child.try_wait().ok().flatten()?;
            // Now: the next one writes into the same file.
            let log = self.log();
            let ending = Ending { status, log };
            self.launch.lives.over(&ending, self.asked);
            self.ending = Some(Box::new(ending));
        }
        self.ending.as_deref().cloned()
    }

    /// Waits for its end, not longer than this.
    pub async fn wait(&mut self, most: Duration) -> Option<Ending> {
        let mut patience = Patience::of(most);
        loop {
            if let Some(ending) = self.ended() {
                return Some(ending);
            }
            if !patience.wait().await {
                return None;
            }
        }
    }

    /// What it wrote since it was started.
    #[must_use]
    pub fn log(&self) -> String {
        let mut bytes = Vec::new();
        // What cannot be read was not written.
        let _ = File::open(&self.launch.log).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.log_from))?;
            log.read_to_end(&mut bytes)
        });
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// SIGTERM, and waits for its end. After this time it hangs, and is killed.
    pub async fn stop(mut self, most: Duration) {
        if self.ended().is_none() {
            self.asked = Asked::ToStop;
            self.signal(Signal::TERM);
        }
        if self.wait(most).await.is_none() {
            let words = format!("it did not stop within {} s", most.as_secs());
            self.launch.lives.hangs(&words);
        }
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.ended().is_none() && self.child.kill().is_ok() {
            let status = self.child.wait().ok();
            if status.and_then(|status| status.signal()) == Some(Signal::KILL.as_raw()) {
                self.asked = Asked::ToDie;
            }
        }
        self.ended();
        let _ = fs::remove_file(addresses(&self.launch.data));
    }
}

fn spawn(launch: &Launch) -> anyhow::Result<Child> {
    let _ = fs::remove_file(addresses(&launch.data));
    let log = File::options()
        .create(true)
        .append(true)
        .open(&launch.log)
        .with_context(|| format!("{} cannot be written", launch.log.display()))?;
    let mut command = Command::new("setpriv");
    command
        // However we end, it is killed (prctl(2), `PR_SET_PDEATHSIG`); more exactly, when the thread ends that is here. Campaigns
        // stay on the thread that waits for them, to its end.
        .args(["--pdeathsig", "KILL", "--"])
        .arg(&launch.binary)
        .arg("serve")
        .arg("--data")
        .arg(&launch.data)
        .env_clear()
        .envs(&launch.environment)
        // Ctrl-C is for the campaign alone.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let Ports {
        tcp,
        tls,
        quic,
        ops,
    } = launch.ports;
    for (flag, port) in [
        ("--tcp", tcp),
        ("--tls", tls),
        ("--quic", quic),
        ("--ops", ops),
    ] {
        command.arg(flag).arg(format!("127.0.0.1:{port}"));
    }
    let always = ["broker.shards=2", "broker.pin=off"].map(str::to_owned);
    for setting in always.iter().chain(&launch.settings) {
        command.arg("--set").arg(setting);
    }
    command
        .spawn()
        .context("the broker cannot be started by setpriv (of util-linux 2.36 or newer)")
}

fn addresses(data: &Path) -> PathBuf {
    data.join("addresses.json")
}

/// The file is written once all listeners are there, and whole or not at all.
fn serves(data: &Path, pid: u32) -> bool {
    let read = fs::read(addresses(data)).ok();
    let value: Option<Value> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    value.is_some_and(|value| value["pid"].as_u64() == Some(pid.into()))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lives::OwnEnd;

    fn ending(code: i32, log: &str) -> Ending {
        Ending {
            status: ExitStatus::from_raw(code),
            log: log.to_owned(),
        }
    }

    #[test]
    fn only_an_end_with_a_failing_status_and_a_reason_is_clear() {
        assert!(ending(1 << 8, "rialto: the journal is poisoned").is_clear());
        assert!(!ending(1 << 8, "").is_clear(), "without a reason");
        assert!(!ending(0, "rialto: all is well").is_clear(), "a success");
        assert!(!ending(9, "rialto: killed").is_clear(), "a signal");
        let panic = ending(101 << 8, "thread panicked at x\nrialto: sorry");
        assert!(!panic.is_clear() && panic.has_panicked());
    }

    /// Serves, as far as one can see from outside, then goes on with this script; `$3` is its data directory.
    fn scripted(folder: &Path, script: &str) -> Launch {
        let binary = folder.join("scripted");
        let serve = r#"mkdir -p "$3"; echo "{\"pid\": $$}" > "$3/addresses.json""#;
        // Not by ourselves: no child of another test may have it open when it is run.
        let write = Command::new("sh")
            .args(["-c", r#"printf %s "$1" > "$0" && chmod +x "$0""#])
            .arg(&binary)
            .arg(format!("#!/bin/sh\n{serve}\n{script}\n"))
            .status();
        assert!(write.unwrap().success());
        Launch {
            binary,
            data: folder.join("data"),
            log: folder.join("log"),
            ports: Ports {
                tcp: 0,
                tls: 0,
                quic: 0,
                ops: 0,
            },
            settings: Vec::new(),
            environment: BTreeMap::new(),
            start_max: LONG,
            lives: Lives::default(),
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    /// What was found and counted of its ends.
    fn judged(launch: &Launch) -> Vec<String> {
        let (findings, figures) = launch.lives.take();
        let found = findings.violations.into_keys();
        found.chain(figures.0.into_keys()).collect()
    }

    #[tokio::test]
    async fn an_end_by_itself_is_found_by_whoever_kills_it() {
        let folder = tempfile::tempdir().unwrap();
        let launch = scripted(
            folder.path(),
            "sleep 0.1; echo 'rialto: no room' >&2; exit 1",
        );
        let (mut broker, _) = Broker::must_start(&launch).await.unwrap();
        assert!(broker.wait(LONG).await.is_some());
        broker.kill();
        let (findings, _) = launch.lives.take();
        assert_eq!(findings.violations["ended by itself"], 1);
        let words = &findings.examples[0];
        assert!(words.contains("exit status: 1") && words.contains("no room"));
    }

    #[tokio::test]
    async fn an_end_is_judged_by_what_held_when_it_was_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let launch = scripted(folder.path(), "echo 'rialto: no room' >&2; exit 1");
        let (mut broker, _) = Broker::must_start(&launch).await.unwrap();
        assert!(broker.wait(LONG).await.is_some());
        launch.lives.judge_own_ends(OwnEnd::HasToSayWhy);
        broker.kill();
        assert_eq!(judged(&launch), ["ended by itself"]);
    }

    #[tokio::test]
    async fn a_panic_is_found_in_the_life_that_had_it() {
        let folder = tempfile::tempdir().unwrap();
        let wait = "exec sleep 1000";
        let panic = format!("echo 'thread x panicked at y' >&2; {wait}");
        // The words are in the log of a former life once, of the same file.
        let launch = scripted(
            folder.path(),
            &format!("test -e \"$3/old\" && {wait}; {panic}"),
        );
        let (mut broker, _) = Broker::must_start(&launch).await.unwrap();
        while !broker.log().contains(PANICKED) {
            assert!(broker.wait(Duration::from_millis(10)).await.is_none());
        }
        broker.kill();
        assert_eq!(judged(&launch), ["panicked"]);
        fs::write(launch.data.join("old"), "").unwrap();
        let (broker, _) = Broker::must_start(&launch).await.unwrap();
        broker.kill();
        assert_eq!(judged(&launch), [""; 0]);
    }

    #[tokio::test]
    async fn a_stop_is_in_order_only_with_a_success() {
        for (end, found) in [
            ("exit 0", "stops in order"),
            ("exit 1", "did not stop in order"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let script =
                format!("trap '{end}' TERM; touch \"$3/ready\"; while :; do sleep 0.01; done");
            let launch = scripted(folder.path(), &script);
            let (mut broker, _) = Broker::must_start(&launch).await.unwrap();
            while !launch.data.join("ready").exists() {
                assert!(broker.wait(Duration::from_millis(10)).await.is_none());
            }
            broker.stop(LONG).await;
            assert_eq!(judged(&launch), [found]);
        }
    }

    /// So many that by chance some would meet.
    #[test]
    fn ports_are_below_those_of_outgoing_connections_and_given_once() {
        let mut dice = Dice::new(std::process::id().into());
        let mut given = BTreeSet::new();
        for _ in 0..250 {
            let ports = Ports::free(&mut dice);
            for port in [ports.tcp, ports.tls, ports.quic, ports.ops] {
                assert!(PORTS.contains(&port.into()));
                assert!(given.insert(port), "{port} was given before");
            }
        }
    }
}
