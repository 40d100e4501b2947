//! The broker's process: started on ports that stay the same, killed, stopped, and started again on the same data.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::patience::Patience;
use crate::random::Dice;

/// Lines of its log that are told when something goes wrong.
const LOG_LINES: usize = 12;
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
    /// Four that nobody uses at the moment.
    #[must_use]
    pub fn free(dice: &mut Dice) -> Self {
        let mut free = || loop {
            let port = u16::try_from(dice.between(*PORTS.start(), *PORTS.end())).unwrap_or(12_000);
            let address = ("127.0.0.1", port);
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
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

    /// Whether a mistake of the program ended it.
    #[must_use]
    pub fn has_panicked(&self) -> bool {
        self.log.contains("panicked at") || self.status.signal() == Some(6)
    }

    /// Its last words.
    #[must_use]
    pub fn words(&self) -> String {
        let said = self.log.lines().rfind(|line| line.contains("rialto: "));
        let last = said.map_or_else(|| last_lines(&self.log, 3), str::to_owned);
        format!("{}: {last}", self.status)
    }
}

/// A process that serves; killed when it is dropped.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    launch: Launch,
    log_from: usize,
}

impl Broker {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// When the binary cannot be started at all.
    pub async fn start(launch: &Launch) -> anyhow::Result<Started> {
        let log_from = fs::metadata(&launch.log).map_or(0, |log| log.len());
        let mut broker = Self {
            child: spawn(launch)?,
            launch: launch.clone(),
            log_from: usize::try_from(log_from).unwrap_or(0),
        };
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
            Started::Ended(ending) => bail!(
                "the broker did not start: {}\n{}",
                ending.status,
                last_lines(&ending.log, LOG_LINES)
            ),
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
        let broker = Self {
            child: spawn(launch)?,
            launch: launch.clone(),
            log_from: 0,
        };
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
        let status = self.child.try_wait().ok().flatten()?;
        Some(Ending {
            status,
            log: self.log(),
        })
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
        let bytes = fs::read(&self.launch.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_from..).unwrap_or_default()).into_owned()
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(addresses(&self.launch.data));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(launch: &Launch) -> anyhow::Result<Child> {
    let _ = fs::remove_file(addresses(&launch.data));
    let log = File::options()
        .create(true)
        .append(true)
        .open(&launch.log)
        .with_context(|| format!("{} cannot be written", launch.log.display()))?;
    let mut command = Command::new(&launch.binary);
    command
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
        .with_context(|| format!("{} cannot be started", launch.binary.display()))
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

    #[test]
    fn ports_are_below_those_of_outgoing_connections() {
        let ports = Ports::free(&mut Dice::new(std::process::id().into()));
        for port in [ports.tcp, ports.tls, ports.quic, ports.ops] {
            assert!(PORTS.contains(&port.into()));
        }
    }
}
