//! Redis Streams, every append synced before it is acknowledged, driven by `redis-benchmark`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use super::{Measured, Peer, Promise, Run, Setting};
use crate::case::{CONVERSATIONS, Case, Load, MESSAGE_BYTES};
use crate::process::{Server, Tool, free_port};
use crate::{tools, warm_up};

const REMEDY: &str = "on Debian and Ubuntu: sudo apt-get install redis-server redis-tools";
/// Events in the stream that catch-up reads.
const HISTORY: usize = 1_000_000;
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
        let mut server = Server::start("redis-server", run.folder, &mut command)?;
        server.wait_for(|| answers(port).then_some(()))?;
        Ok((server, port))
    }

    /// Runs `redis-benchmark` with these arguments.
    fn bench(&self, port: u16, arguments: &[String], run: Run<'_>) -> anyhow::Result<Measured> {
        let mut command = Command::new(&self.benchmark);
        command
            .args(["-h", "127.0.0.1", "-p", &port.to_string()])
            .args(["--csv", "--precision", "3"])
            .args(arguments);
        let said = Tool::start("redis-benchmark", run.folder, &mut command)?.output(run.limit())?;
        understand(&said).with_context(|| format!("redis-benchmark said {said:?}"))
    }

    fn publish(
        &self,
        port: u16,
        (connections, in_flight): (usize, usize),
        setting: &Setting,
        run: Run<'_>,
    ) -> anyhow::Result<Measured> {
        let body = "x".repeat(MESSAGE_BYTES);
        let first = (connections * in_flight * 4).max(2000) as u64;
        warm_up::then_measure(run.times(), (first, 1), |messages| {
            let mut arguments = words(&["-c", "-P", "-n", "-r"]);
            for (at, value) in [connections, in_flight].iter().enumerate() {
                arguments.insert(2 * at + 1, value.to_string());
            }
            arguments.insert(5, messages.to_string());
            arguments.push(CONVERSATIONS.to_string());
            arguments.extend(words(&setting.client));
            arguments.extend(words(&["XADD", "key:__rand_int__", "*", "m", &body]));
            self.bench(port, &arguments, run)
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
            Tool::start("redis-cli", run.folder, &mut command)?.output(run.limit())?;
        }
        let page = setting.parts;
        let measured = warm_up::then_measure(run.times(), (50, page), |pages| {
            let mut arguments = words(&["-c", "1", "-P", "1", "-n"]);
            arguments.extend([pages.to_string(), "-r".to_owned()]);
            arguments.push((HISTORY - page).to_string());
            arguments.extend(words(&["XREAD", "COUNT"]));
            arguments.push(page.to_string());
            arguments.extend(words(&["STREAMS", "history", "__rand_int__"]));
            let measured = self.bench(port, &arguments, run)?;
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
            Load::Publish { connections: 1, .. } => vec![
                Setting::named("defaults"),
                Setting::named("server on processor 0").server(PINNED),
                Setting::named("stream nodes of 2 KiB").server(SMALL_NODES),
            ],
            Load::Publish { .. } => vec![
                Setting::named("benchmark with 2 threads, server on processor 0")
                    .server(PINNED)
                    .client(THREADS),
                Setting::named("benchmark with 2 threads").client(THREADS),
                Setting::named("benchmark with 1 thread"),
                Setting::named("benchmark with 1 thread, server on processor 0").server(PINNED),
                Setting::named("benchmark with 2 threads, stream nodes of 2 KiB")
                    .server(SMALL_NODES)
                    .client(THREADS),
                Setting::named("benchmark with 2 threads, 2 io-threads")
                    .server(&["--io-threads", "2"])
                    .client(THREADS),
            ],
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
const THREADS: &[&str] = &["--threads", "2"];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

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
fn understand(said: &str) -> Option<Measured> {
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
        assert_eq!(understand("Could not connect to Redis\n"), None);
        assert_eq!(understand("\"test\",\"rps\"\n"), None);
    }
}
