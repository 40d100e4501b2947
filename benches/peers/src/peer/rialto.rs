//! Rialto as it comes, driven by `loadgen`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use serde::Deserialize;

use super::{Measured, OURS, Peer, Promise, Run, Setting};
use crate::case::{CONVERSATIONS, Case, HISTORY, Load, MESSAGE_BYTES};
use crate::process::{Server, Tool};
use crate::tools::{self, Tools};

/// What carries its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Tls,
    Quic,
}

pub(super) struct Rialto {
    server: PathBuf,
    loadgen: PathBuf,
    transport: Transport,
    version: String,
}

/// The part of `addresses.json` that is needed.
#[derive(Debug, Deserialize)]
struct Addresses {
    tcp: String,
    tls: String,
    quic: String,
}

/// The part of the load generator's report that is needed.
#[derive(Debug, Deserialize)]
struct Report {
    published_per_s: f64,
    delivered_per_s: f64,
    ack_ms: Percentiles,
    delivery_ms: Percentiles,
}

/// The part of its report on catching up that is needed.
#[derive(Debug, Deserialize)]
struct CaughtUp {
    read_per_s: f64,
}

#[derive(Debug, Deserialize)]
struct Percentiles {
    p50: f64,
}

impl Rialto {
    pub(super) fn find(transport: Transport, tools: &Tools) -> anyhow::Result<Self> {
        let server = tools.ours("rialto")?;
        Ok(Self {
            version: tools::version(&server)?,
            server,
            loadgen: tools.ours("loadgen")?,
            transport,
        })
    }

    fn start(&self, setting: &Setting, run: Run<'_>) -> anyhow::Result<(Server, String)> {
        let data = run.folder.join("data");
        let mut command = Command::new(&self.server);
        command.arg("serve").arg("--data").arg(&data);
        for listener in ["--tcp", "--tls", "--quic", "--ops"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        command.args(&setting.server);
        let mut server = Server::start("rialto", run.folder, &command)?;
        let addresses: Addresses = server.wait_for(|| {
            serde_json::from_slice(&fs::read(data.join("addresses.json")).ok()?).ok()
        })?;
        let target = match self.transport {
            Transport::Tcp => format!("tcp://{}", addresses.tcp),
            Transport::Tls => format!("tls://{}", addresses.tls),
            Transport::Quic => format!("quic://{}", addresses.quic),
        };
        Ok((server, target))
    }
}

impl Peer for Rialto {
    fn name(&self) -> &'static str {
        match self.transport {
            Transport::Tcp => OURS,
            Transport::Tls => "rialto-tls",
            Transport::Quic => "rialto-quic",
        }
    }

    fn title(&self) -> String {
        let transport = match self.transport {
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Quic => "QUIC",
        };
        format!("Rialto {} over {transport}", self.version)
    }

    fn promise(&self) -> Promise {
        Promise::Durable
    }

    fn terms(&self) -> &'static str {
        match self.transport {
            Transport::Tcp => {
                "`rialto serve` with its defaults. Every message is authorised, deduplicated, numbered and synced before it is acknowledged \
                 or delivered. `loadgen run` puts each message into a request of its own, sends the next when an acknowledgement comes, \
                 and checks what readers get, where there are any: a lost or repeated message fails the run. Catch-up: `loadgen catch-up`, one subscription from the first of a million events, \
                 each one decoded and checked."
            }
            Transport::Tls => "The same over TLS 1.3.",
            Transport::Quic => "The same over QUIC.",
        }
    }

    fn settings(&self, case: &Case) -> Vec<Setting> {
        match case.load {
            Load::Publish { in_flight, .. } => {
                let mut settings = vec![
                    Setting::named("defaults"),
                    Setting::named("loadgen with 1 thread").client(&["--threads", "1"]),
                ];
                // Where each message is a way to the disk and back, a second thread of clients only takes its processor away.
                if in_flight == 1 {
                    settings.reverse();
                }
                settings
            }
            Load::FanOut { .. } => vec![
                Setting::named("256 in flight").client(&["--in-flight", "256"]),
                Setting::named("1,000 in flight").client(&["--in-flight", "1000"]),
                Setting::named("64 in flight").client(&["--in-flight", "64"]),
            ],
            Load::CatchUp => vec![Setting::named("defaults")],
        }
    }

    fn measure(&self, case: &Case, setting: &Setting, run: Run<'_>) -> anyhow::Result<Measured> {
        let (server, target) = self.start(setting, run)?;
        let file = run.folder.join("report.json");
        let mut command = Command::new(&self.loadgen);
        let (publishers, readers, conversations) = match case.load {
            Load::Publish { connections, .. } => (connections, 0, CONVERSATIONS),
            Load::FanOut { readers } => (1, readers, 1),
            Load::CatchUp => (0, 1, 1),
        };
        if case.load == Load::CatchUp {
            command
                .arg("catch-up")
                .args(["--messages", &HISTORY.to_string()]);
        } else {
            command
                .args(["run", "--rate", "max"])
                .args(["--publishers", &publishers.to_string()])
                .args(["--readers", &readers.to_string()])
                .args(["--conversations", &conversations.to_string()])
                .args(["--duration", &run.measure.as_secs_f64().to_string()])
                .args(["--warm-up", &run.warm_up.as_secs_f64().to_string()]);
        }
        if let Load::Publish { in_flight, .. } = case.load {
            command.args(["--in-flight", &in_flight.to_string()]);
        }
        command
            .args(["--size", &MESSAGE_BYTES.to_string(), "--target", &target])
            .args(&setting.client)
            .arg("--report")
            .arg(&file);
        Tool::start("loadgen", run.folder, &command)?.output(run.limit())?;
        Ok(Measured {
            peak_bytes: server.peak_bytes(),
            ..understand(case.load, &fs::read(&file)?).context("the report of loadgen")?
        })
    }
}

/// The figures in a report of the load generator.
fn understand(load: Load, report: &[u8]) -> serde_json::Result<Measured> {
    let (per_s, p50_ms) = match load {
        Load::Publish { .. } => {
            let report: Report = serde_json::from_slice(report)?;
            (report.published_per_s, Some(report.ack_ms.p50))
        }
        Load::FanOut { .. } => {
            let report: Report = serde_json::from_slice(report)?;
            (report.delivered_per_s, Some(report.delivery_ms.p50))
        }
        Load::CatchUp => {
            let report: CaughtUp = serde_json::from_slice(report)?;
            (report.read_per_s, None)
        }
    };
    Ok(Measured {
        per_s,
        p50_ms,
        peak_bytes: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_of_the_load_generator_are_understood() {
        let report = br#"{"published_per_s": 2.5, "delivered_per_s": 5.0, "size": "100",
            "ack_ms": {"p50": 0.5, "p99": 1.0}, "delivery_ms": {"p50": 0.75, "p99": 2.0}}"#;
        let figures = |load, report: &[u8]| {
            let measured = understand(load, report).unwrap();
            (measured.per_s, measured.p50_ms)
        };
        let publish = Load::Publish {
            connections: 1,
            in_flight: 1,
        };
        assert_eq!(figures(publish, report), (2.5, Some(0.5)));
        let fan_out = Load::FanOut { readers: 2 };
        assert_eq!(figures(fan_out, report), (5.0, Some(0.75)));
        let caught_up = br#"{"messages": 10, "read_s": 0.5, "read_per_s": 20.0}"#;
        assert_eq!(figures(Load::CatchUp, caught_up), (20.0, None));
        assert!(understand(Load::CatchUp, report).is_err());
    }
}
