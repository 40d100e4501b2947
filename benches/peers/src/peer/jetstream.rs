//! NATS JetStream with file storage, synced before each acknowledgement or, as it comes, every two minutes.

use std::fs;

use super::nats_bench::{Running, understand};
use super::{Measured, Peer, Promise, Run, Setting};
use crate::case::{CONVERSATIONS, Case, HISTORY, Load};
use crate::tools::{self, Nats, Tools};
use crate::warm_up;

/// When it syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// Before each acknowledgement.
    Always,
    /// As it comes: every two minutes.
    Default,
}

pub(super) struct JetStream {
    nats: Nats,
    sync: Sync,
    version: String,
}

impl JetStream {
    pub(super) fn build(sync: Sync, tools: &Tools) -> anyhow::Result<Self> {
        let nats = tools.nats()?;
        Ok(Self {
            version: tools::version(&nats.server)?,
            nats,
            sync,
        })
    }

    fn start(&self, setting: &Setting, run: Run<'_>) -> anyhow::Result<Running<'_>> {
        let store = serde_json::to_string(&run.folder.join("jetstream"))?;
        let sync = match self.sync {
            Sync::Always => "sync_interval: always, ",
            Sync::Default => "",
        };
        let configuration =
            format!("jetstream {{ {sync}store_dir: {store}, max_file_store: 100GB }}\n");
        let running = Running::start(&self.nats, &configuration, setting, run)?;
        for stream in 0..setting.parts {
            let name = stream_name(stream);
            let file = run.folder.join("stream.json");
            fs::write(&file, stream_json(&name, &subjects(stream, setting.parts)))?;
            let file = file.display().to_string();
            running
                .command(
                    "nats-stream-add",
                    run.folder,
                    &["stream", "add", &name, "--config", &file],
                )?
                .output(run.limit())?;
        }
        Ok(running)
    }
}

impl Peer for JetStream {
    fn name(&self) -> &'static str {
        match self.sync {
            Sync::Always => "jetstream",
            Sync::Default => "jetstream-default",
        }
    }

    fn title(&self) -> String {
        let sync = match self.sync {
            Sync::Always => "sync_interval: always",
            Sync::Default => "its default",
        };
        format!("NATS JetStream {}, {sync}", self.version)
    }

    fn promise(&self) -> Promise {
        match self.sync {
            Sync::Always => Promise::Durable,
            Sync::Default => Promise::NotDurable,
        }
    }

    fn terms(&self) -> &'static str {
        match self.sync {
            Sync::Always => {
                "File storage, one replica, `sync_interval: always`. `nats bench js pub async --multisubject`: it publishes as many \
                 messages as are in flight and waits for all of their acknowledgements (its p50 is that of such a round); with one in flight `js pub sync`."
            }
            Sync::Default => {
                "The same without `sync_interval`: acknowledged when written, synced every two minutes; a power cut takes back what was acknowledged. For \
                 information. Catch-up: one ordered consumer reads a million messages of one subject (`nats bench js ordered`)."
            }
        }
    }

    fn settings(&self, case: &Case) -> Vec<Setting> {
        let streams = |count: usize, name: &str| Setting::named(name).parts(count);
        match (case.load, self.sync) {
            (
                Load::Publish {
                    in_flight: 1,
                    connections: 1,
                },
                _,
            )
            | (Load::Publish { .. }, Sync::Default) => {
                vec![
                    streams(1, "one stream"),
                    streams(4, "subjects spread over 4 streams"),
                ]
            }
            (Load::Publish { .. }, Sync::Always) => vec![
                streams(16, "subjects spread over 16 streams"),
                streams(4, "subjects spread over 4 streams"),
                streams(64, "subjects spread over 64 streams"),
                streams(1, "one stream"),
            ],
            (Load::CatchUp, Sync::Default) => vec![streams(1, "one stream")],
            (Load::CatchUp, Sync::Always) | (Load::FanOut { .. }, _) => Vec::new(),
        }
    }

    fn measure(&self, case: &Case, setting: &Setting, run: Run<'_>) -> anyhow::Result<Measured> {
        let running = self.start(setting, run)?;
        let measured = match case.load {
            Load::Publish {
                connections,
                in_flight,
            } => publish(&running, (connections, in_flight), run)?,
            Load::CatchUp => catch_up(&running, run)?,
            Load::FanOut { .. } => anyhow::bail!("JetStream takes no part in fan-out"),
        };
        Ok(Measured {
            peak_bytes: running.server.peak_bytes(),
            ..measured
        })
    }
}

fn publish(
    running: &Running<'_>,
    (connections, in_flight): (usize, usize),
    run: Run<'_>,
) -> anyhow::Result<Measured> {
    let clients = format!("--clients={connections}");
    let batch = format!("--batch={in_flight}");
    let subjects = format!("--multisubjectmax={CONVERSATIONS}");
    let stream = format!("--stream={}", stream_name(0));
    let first = (connections * in_flight).max(500) as u64;
    warm_up::then_measure(run.times(), (first, 1), |messages| {
        let messages = format!("--msgs={messages}");
        let mut arguments = vec!["js", "pub"];
        if in_flight == 1 {
            arguments.push("sync");
        } else {
            arguments.extend(["async", &batch]);
        }
        arguments.extend([
            "room",
            "--multisubject",
            &subjects,
            &clients,
            &messages,
            &stream,
        ]);
        let said = running.bench("nats-bench", run.folder, &arguments)?;
        understand(&said.output(run.limit())?)
    })
}

fn catch_up(running: &Running<'_>, run: Run<'_>) -> anyhow::Result<Measured> {
    let stream = format!("--stream={}", stream_name(0));
    let messages = format!("--msgs={HISTORY}");
    let fill = [
        "js",
        "pub",
        "async",
        "room.0000",
        "--batch=500",
        &messages,
        &stream,
    ];
    running
        .bench("nats-bench-fill", run.folder, &fill)?
        .output(run.limit())?;
    let read = ["js", "ordered", &messages, &stream];
    let said = running.bench("nats-bench", run.folder, &read)?;
    let measured = understand(&said.output(run.limit())?)?;
    Ok(Measured {
        p50_ms: None,
        ..measured
    })
}

fn stream_name(stream: usize) -> String {
    format!("rooms{stream}")
}

/// The share of a stream in the subjects that `nats bench --multisubject` publishes to: `room.` and a number with as many digits as their count has.
fn subjects(stream: usize, streams: usize) -> Vec<String> {
    let digits = CONVERSATIONS.to_string().len();
    (stream..CONVERSATIONS)
        .step_by(streams)
        .map(|subject| format!("room.{subject:0digits$}"))
        .collect()
}

fn stream_json(name: &str, subjects: &[String]) -> String {
    serde_json::json!({
        "name": name,
        "subjects": subjects,
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": 1,
        "max_bytes": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "max_consumers": -1,
        "max_age": 0,
        "duplicate_window": 120_000_000_000_u64,
        "allow_direct": true,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_is_in_one_stream() {
        let mut all: Vec<_> = (0..16).flat_map(|stream| subjects(stream, 16)).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), CONVERSATIONS);
        assert_eq!((&*all[0], &*all[999]), ("room.0000", "room.0999"));
        assert_eq!(subjects(0, 16)[1], "room.0016");
    }

    #[test]
    fn a_stream_has_its_name_and_subjects() {
        let json = stream_json("rooms3", &subjects(3, 500));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["name"], "rooms3");
        assert_eq!(json["subjects"][1], "room.0503");
    }
}
