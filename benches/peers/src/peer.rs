//! Those that take part, and what they have in common. Each peer is driven by its own project's load generator.

mod jetstream;
mod nats_bench;
mod nats_core;
mod redis;
mod rialto;

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

use crate::case::{Case, Load};
use crate::tools::Tools;

/// The peer that the others are compared with.
pub(crate) const OURS: &str = "rialto-tcp";

/// What an acknowledgement of a publish says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Promise {
    /// The message is on disk, synced.
    Durable,
    /// The server has it; a power cut may take it back.
    NotDurable,
    /// Nothing is acknowledged or kept.
    Nothing,
}

impl Promise {
    /// As tables say it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::NotDurable => "not durable",
            Self::Nothing => "nothing is kept",
        }
    }
}

/// One way to set a peer up and to drive it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    /// As tables name it.
    pub(crate) name: String,
    /// Arguments of the server.
    pub(crate) server: Vec<&'static str>,
    /// Arguments of the load generator.
    pub(crate) client: Vec<&'static str>,
    /// Environment of server and load generator, beside what they inherit.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
    /// Into how many parts the work is divided: streams, pages, processes, whatever the peer divides.
    pub(crate) parts: usize,
}

impl Setting {
    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            parts: 1,
            ..Self::default()
        }
    }

    /// The same, and something more.
    fn and(mut self, name: &str) -> Self {
        self.name = format!("{}, {name}", self.name);
        self
    }

    fn server(mut self, arguments: &[&'static str]) -> Self {
        self.server.extend(arguments);
        self
    }

    fn client(mut self, arguments: &[&'static str]) -> Self {
        self.client.extend(arguments);
        self
    }

    fn environment(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    fn parts(mut self, parts: usize) -> Self {
        self.parts = parts;
        self
    }
}

/// What came out of one run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Measured {
    /// Messages acknowledged, delivered or read a second.
    pub(crate) per_s: f64,
    /// From sending to acknowledgement, median, where the load generator tells.
    pub(crate) p50_ms: Option<f64>,
    /// The most memory of the server's process.
    pub(crate) peak_bytes: Option<u64>,
}

/// The circumstances of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    /// An empty folder for it alone.
    pub(crate) folder: &'a Path,
    /// How long it is to be measured.
    pub(crate) measure: Duration,
    /// How long it is loaded before that.
    pub(crate) warm_up: Duration,
}

impl Run<'_> {
    /// How long a load generator may take before it is given up.
    fn limit(&self) -> Duration {
        Duration::from_secs(60) + 8 * (self.measure + self.warm_up)
    }

    fn times(&self) -> (Duration, Duration) {
        (self.warm_up, self.measure)
    }
}

/// Something that carries messages.
pub(crate) trait Peer {
    /// As `--peers` names it.
    fn name(&self) -> &'static str;
    /// As tables name it.
    fn title(&self) -> String;
    /// What its acknowledgements say.
    fn promise(&self) -> Promise;
    /// How it is set up in every case, and what its figures mean, for the page.
    fn terms(&self) -> &'static str;
    /// The ways to set it up for a case, the best one first; none if it takes no part.
    fn settings(&self, case: &Case) -> Vec<Setting>;
    /// Starts it, loads it, stops it.
    ///
    /// # Errors
    /// When server or load generator fail.
    fn measure(&self, case: &Case, setting: &Setting, run: Run<'_>) -> anyhow::Result<Measured>;
}

/// Whether a peer with this promise is compared in a case, or shown for information.
pub(crate) fn compares(promise: Promise, case: &Case) -> bool {
    promise == Promise::Durable || !matches!(case.load, Load::Publish { .. })
}

/// Names of all peers.
const NAMES: &[&str] = &[
    OURS,
    "rialto-tls",
    "rialto-quic",
    "redis",
    "jetstream",
    "jetstream-default",
    "nats",
];

/// The peers whose names begin with one of `prefixes`, with their programs found or built; all when there are none.
///
/// # Errors
/// When a prefix fits none, or a program is missing.
pub(crate) fn chosen(prefixes: &[String], tools: &Tools) -> anyhow::Result<Vec<Box<dyn Peer>>> {
    if let Some(unknown) = prefixes
        .iter()
        .find(|prefix| !NAMES.iter().any(|name| name.starts_with(&***prefix)))
    {
        bail!(
            "--peers {unknown}: no peer begins so; there are {}",
            NAMES.join(", ")
        );
    }
    let wanted = |name: &str| {
        prefixes.is_empty() || prefixes.iter().any(|prefix| name.starts_with(&**prefix))
    };
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for name in NAMES.iter().filter(|name| wanted(name)) {
        peers.push(match *name {
            "rialto-tls" => Box::new(rialto::Rialto::find(rialto::Transport::Tls, tools)?),
            "rialto-quic" => Box::new(rialto::Rialto::find(rialto::Transport::Quic, tools)?),
            "redis" => Box::new(redis::Redis::find()?),
            "jetstream" => Box::new(jetstream::JetStream::build(jetstream::Sync::Always, tools)?),
            "jetstream-default" => Box::new(jetstream::JetStream::build(
                jetstream::Sync::Default,
                tools,
            )?),
            "nats" => Box::new(nats_core::NatsCore::build(tools)?),
            _ => Box::new(rialto::Rialto::find(rialto::Transport::Tcp, tools)?),
        });
    }
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::CASES;

    #[test]
    fn what_is_not_durable_is_not_compared_where_durability_is_measured() {
        let find = |name: &str| CASES.iter().find(|case| case.name == name).unwrap();
        let publish = find("durable-100x16");
        assert!(compares(Promise::Durable, publish));
        assert!(!compares(Promise::NotDurable, publish));
        assert!(compares(Promise::Nothing, find("fan-out-100")));
    }
}
