//! Redis Streams, every append synced before it is acknowledged, driven by `redis-benchmark`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use super::{Measured, Peer, Promise, Run, Setting};
use crate::case::{CONVERSATIONS, Case, HISTORY, Load, MESSAGE_BYTES};
use crate::process::{Server, Tool, free_port};
use crate::{tools, warm_up};

const REMEDY: &str = "on Debian and Ubuntu: sudo apt-get install redis-server redis-tools";
/// Appends them under the ids 1-0, 2-0 and so on, so that a random number is a position.
const FILL: &str = "for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do redis.call('XADD', 'history', i .. '-0', 'm', ARGV[3]) end";
/// Events that one call of the script appends.
const FILLED_AT_ONCE: usize = 10_000;

pub(super) struct Redis {
    server: PathBuf,
    benchmark: PathBuf,
    cli: PathBuf,
    version: String,
}

impl Redis {
    pub(super) fn find() -> anyhow::Result<Self> {
        let server = tools::in_path("redis-server", REMEDY)?;
        Ok(Self {
            version: tools::version(&server)?,
            server,
            benchmark: tools::in_path("redis-benchmark", REMEDY)?,
            cli: tools::in_path("redis-cli", REMEDY)?,
        })
    }

    fn start(&self, setting: &Setting, run: Run<'_>) -> anyhow::Result<(Server, u16)> {
        let port = free_port()?;
        let mut command = Command::new(&self.server);
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
            .arg(run.folder)
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(["--auto-aof-rewrite-percentage", "0", "--save", ""])
            .args(["--loglevel", "warning"])
            .args(&setting.server);
        let mut server = Server::start("redis-server", run.folder, &command)?;
        server.wait_for(|| answers(port).then_some(()))?;
        Ok((server, port))
    }

    /// Starts `redis-benchmark` with these arguments.
    fn bench(
        &self,
        port: u16,
        process: usize,
        arguments: &[&str],
        run: Run<'_>,
    ) -> anyhow::Result<Tool> {
        let mut command = Command::new(&self.benchmark);
        command
            .args(["-h", "127.0.0.1", "-p", &port.to_string()])
            .args(["--csv", "--precision", "3"])
            .args(arguments);
        Tool::start(&format!("redis-benchmark-{process}"), run.folder, &command)
    }

    /// All benchmark processes together, each with its share of connections and messages.
    fn publish(
        &self,
        port: u16,
        (connections, in_flight): (usize, usize),
        setting: &Setting,
        run: Run<'_>,
    ) -> anyhow::Result<Measured> {
        let body = "x".repeat(MESSAGE_BYTES);
        let first = (connections * in_flight * 4).max(2000) as u64;
        let processes = setting.parts;
        warm_up::then_measure(run.times(), (first, 1), |messages| {
            let share = messages / processes as u64;
            let numbers = [
                ("-c", (connections / processes).to_string()),
                ("-P", in_flight.to_string()),
                ("-n", share.to_string()),
                ("-r", CONVERSATIONS.to_string()),
            ];
            let mut arguments = Vec::new();
            for (flag, number) in &numbers {
                arguments.extend([*flag, number]);
            }
            arguments.extend(["XADD", "key:__rand_int__", "*", "m", &body]);
            let started: Vec<Tool> = (0..processes)
                .map(|process| self.bench(port, process, &arguments, run))
                .collect::<anyhow::Result<_>>()?;
            let ended: Vec<Measured> = started
                .into_iter()
                .map(|tool| understand(&tool.output(run.limit())?))
                .collect::<anyhow::Result<_>>()?;
            together(&ended).context("no process of redis-benchmark")
        })
    }

    fn catch_up(&self, port: u16, setting: &Setting, run: Run<'_>) -> anyhow::Result<Measured> {
        for first in (1..HISTORY).step_by(FILLED_AT_ONCE) {
            let last = first + FILLED_AT_ONCE - 1;
            let mut command = Command::new(&self.cli);
            command
                .args([
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port.to_string(),
                    "EVAL",
                    FILL,
                    "0",
                ])
                .args([first.to_string(), last.to_string()])
                .arg("x".repeat(MESSAGE_BYTES));
            Tool::start("redis-cli", run.folder, &command)?.output(run.limit())?;
        }
        let page = setting.parts;
        let (count, random) = (page.to_string(), (HISTORY - page).to_string());
        let measured = warm_up::then_measure(run.times(), (50, page), |pages| {
            let pages = pages.to_string();
            let arguments = [
                &["-c", "1", "-P", "1", "-n", &pages, "-r", &random][..],
                &["XREAD", "COUNT", &count],
                &["STREAMS", "history", "__rand_int__"],
            ];
            let said = self.bench(port, 0, &arguments.concat(), run)?;
            let measured = understand(&said.output(run.limit())?)?;
            Ok(Measured {
                per_s: measured.per_s * page as f64,
                ..measured
            })
        })?;
        Ok(Measured {
            p50_ms: None,
            ..measured
        })
    }
}

impl Peer for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn title(&self) -> String {
        format!("Redis Streams {}", self.version)
    }

    fn promise(&self) -> Promise {
        Promise::Durable
    }

    fn terms(&self) -> &'static str {
        "`appendonly yes`, `appendfsync always`: each round of the event loop is synced before its replies go out. No RDB snapshots, no \
         rewriting of the log, no MAXLEN. `redis-benchmark` sends `XADD key:N * m BODY` in pipelines: it writes as many commands as are in flight \
         and waits for all of their replies. No users, no membership, no dedupe; everything is kept in memory. Catch-up: `XREAD COUNT` from \
         random places of a stream of a million entries, one request after the other."
    }

    fn settings(&self, case: &Case) -> Vec<Setting> {
        match case.load {
            Load::Publish {
                connections,
                in_flight,
            } => {
                let defaults = Setting::named("defaults");
                let pinned = || Setting::named("server on processor 0").server(PINNED);
                let two = pinned().and("2 benchmark processes").parts(2);
                let small = Setting::named("stream nodes of 2 KiB").server(SMALL_NODES);
                let untracked = Setting::named("no latency tracking").server(UNTRACKED);
                let threads = Setting::named("2 io-threads").server(&["--io-threads", "2"]);
                match (connections, in_flight) {
                    (1, 1) => vec![defaults, untracked, small, pinned()],
                    (1, _) => vec![small, pinned(), defaults, untracked],
                    (_, 1) => vec![untracked, defaults, small, pinned(), two, threads],
                    (_, 64..) => vec![pinned(), two, defaults, untracked, small, threads],
                    _ => vec![small, pinned(), defaults, two, untracked, threads],
                }
            }
            Load::FanOut { .. } => Vec::new(),
            Load::CatchUp => vec![
                Setting::named("pages of 1,000").parts(1000),
                Setting::named("pages of 100").parts(100),
                Setting::named("pages of 10,000").parts(10_000),
            ],
        }
    }

    fn measure(&self, case: &Case, setting: &Setting, run: Run<'_>) -> anyhow::Result<Measured> {
        let (server, port) = self.start(setting, run)?;
        let measured = match case.load {
            Load::Publish {
                connections,
                in_flight,
            } => self.publish(port, (connections, in_flight), setting, run)?,
            Load::CatchUp => self.catch_up(port, setting, run)?,
            Load::FanOut { .. } => anyhow::bail!("Redis takes no part in fan-out"),
        };
        Ok(Measured {
            peak_bytes: server.peak_bytes(),
            ..measured
        })
    }
}

const PINNED: &[&str] = &["--server_cpulist", "0", "--bio_cpulist", "1"];
const SMALL_NODES: &[&str] = &["--stream-node-max-bytes", "2048"];
const UNTRACKED: &[&str] = &[
    "--latency-tracking",
    "no",
    "--slowlog-log-slower-than",
    "-1",
];

/// Whether the server answers a PING.
fn answers(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(&answer == b"+PONG\r\n")
    };
    ask().unwrap_or(false)
}

/// The figures in the last line of `redis-benchmark --csv`: test, rps, average, minimum, p50, p95, p99 and maximum in ms.
fn understand(said: &str) -> anyhow::Result<Measured> {
    let figures = || {
        let line = said.lines().rfind(|line| line.starts_with('"'))?;
        let mut from_the_end = line
            .rsplit(',')
            .map(|field| field.trim().trim_matches('"').parse::<f64>().ok());
        let p50_ms = from_the_end.nth(3)??;
        let per_s = from_the_end.nth(2)??;
        (per_s > 0.0).then_some(Measured {
            per_s,
            p50_ms: Some(p50_ms),
            peak_bytes: None,
        })
    };
    figures().with_context(|| format!("redis-benchmark said {said:?}"))
}

/// Of processes that began together with the same number of messages: all messages by the time of the slowest, and the
/// mean of their medians.
fn together(processes: &[Measured]) -> Option<Measured> {
    let slowest = processes.iter().map(|one| one.per_s).reduce(f64::min)?;
    let medians: Vec<f64> = processes.iter().filter_map(|one| one.p50_ms).collect();
    let count = processes.len() as f64;
    Some(Measured {
        per_s: slowest * count,
        p50_ms: Some(medians.iter().sum::<f64>() / count),
        peak_bytes: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_the_benchmark_are_understood() {
        let said = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
            \"XADD key:__rand_int__ * m a,b\",\"181818.19\",\"0.848\",\"0.360\",\"0.823\",\"1.151\",\"2.175\",\"2.503\"\n";
        let measured = understand(said).unwrap();
        assert_eq!((measured.per_s, measured.p50_ms), (181_818.19, Some(0.823)));
    }

    #[test]
    fn an_error_of_the_benchmark_is_no_figure() {
        assert!(understand("Could not connect to Redis\n").is_err());
        assert!(understand("\"test\",\"rps\"\n").is_err());
    }

    #[test]
    fn processes_count_together_until_the_slowest_is_done() {
        let one = |per_s, p50_ms| Measured {
            per_s,
            p50_ms: Some(p50_ms),
            peak_bytes: None,
        };
        let both = together(&[one(100.0, 1.0), one(80.0, 2.0)]).unwrap();
        assert_eq!((both.per_s, both.p50_ms), (160.0, Some(1.5)));
        assert_eq!(together(&[]), None);
    }
}
