//! Configuration: from the layers to one checked value, with every problem named at once.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`table`] | every key: name, range, default, what it does |
//! | [`layers`] | defaults, file, environment and flags, one over the other |
//! | [`mod@print`] | the settings in force as TOML, and the table of the documentation |

mod checks;
pub mod layers;
mod nearest;
pub mod print;
pub mod problem;
pub mod table;
pub mod value;

use std::{net::SocketAddr, path::PathBuf};

use rialto_broker::auth::TokenPolicy;
use rialto_core::config::CoreConfig;
use rialto_storage::embedded::EmbeddedOptions;

use layers::{Layers, Setting};
use problem::Problem;
use value::Value;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// All that the binary can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// `data.dir`.
    pub data_dir: PathBuf,
    /// Section `listen`.
    pub listen: Listen,
    /// Section `tls`.
    pub tls: Tls,
    /// Section `auth`.
    pub auth: Auth,
    /// Section `broker`.
    pub broker: Shell,
    /// Section `limits`.
    pub limits: CoreConfig,
    /// Section `storage`.
    pub storage: EmbeddedOptions,
    /// Section `log`.
    pub log: Log,
}

/// Where to listen; none: off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Plain TCP.
    pub tcp: Option<SocketAddr>,
    /// TCP with TLS.
    pub tls: Option<SocketAddr>,
    /// QUIC.
    pub quic: Option<SocketAddr>,
    /// Operations.
    pub ops: Option<SocketAddr>,
}

impl Listen {
    /// Every address that is listened on.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        [self.tcp, self.tls, self.quic, self.ops]
            .into_iter()
            .flatten()
    }
}

/// Certificate and key; none: self-signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM, chain included.
    pub certificate: Option<PathBuf>,
    /// PEM.
    pub key: Option<PathBuf>,
}

/// Which access tokens are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The key set; none: the one in the data directory.
    pub keys: Option<PathBuf>,
    /// Issuer, audience, leeway.
    pub policy: TokenPolicy,
    /// Whether `dev:NAME` may be taken when every listener is on loopback.
    pub development_tokens: bool,
}

/// The running broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shell {
    /// Shards; 0: one a core.
    pub shards: u16,
    /// Whether each stays on one processor.
    pub pin: bool,
    /// Over how long reconnects are spread at a stop, milliseconds.
    pub drain_ms: u32,
    /// Open connections.
    pub connections_max: usize,
    /// Open connections from one address.
    pub connections_per_address_max: usize,
    /// Open connections of one user.
    pub connections_per_user_max: usize,
    /// Connections of a shard that have not shown who they are.
    pub handshakes_max: usize,
    /// Bytes that all shards together may hold for their connections.
    pub node_bytes_max: usize,
}

/// Log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How they look.
    pub format: LogFormat,
    /// Directives of the filter.
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// A configuration with the origin of each value.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The same, by key and with origins, in the order of the table.
    pub settings: Vec<Setting>,
    /// Everything that is wrong; the values are usable only when nothing is.
    pub problems: Vec<Problem>,
}

/// Puts the layers together, and checks whether a broker could run with the result.
#[must_use]
pub fn load(layers: &Layers) -> Loaded {
    let mut loaded = read(layers);
    checks::check(&loaded.config, &mut loaded.problems);
    loaded
}

/// Puts the layers together. For commands that run no broker.
#[must_use]
pub fn read(layers: &Layers) -> Loaded {
    let mut problems = Vec::new();
    let settings = layers::resolve(layers, &mut problems);
    Loaded {
        config: Values(&settings).config(),
        settings,
        problems,
    }
}

/// Typed look-ups by key. A wrong name or kind is a mistake in this file, found by the test that loads the defaults.
struct Values<'a>(&'a [Setting]);

impl Values<'_> {
    fn value(&self, key: &str) -> &Value {
        match self.0.iter().find(|setting| setting.key == key) {
            Some(setting) => &setting.value,
            None => unreachable!("{key} is no key of the table"),
        }
    }

    /// The table's range keeps every number within its type.
    fn number<N: TryFrom<u64>>(&self, key: &str) -> N {
        match self.value(key) {
            Value::Number(number) => {
                N::try_from(*number).unwrap_or_else(|_| unreachable!("{key} does not fit its type"))
            }
            other => unreachable!("{key} is no number: {other}"),
        }
    }

    fn text(&self, key: &str) -> &str {
        match self.value(key) {
            Value::Text(text) => text,
            other => unreachable!("{key} is no text: {other}"),
        }
    }

    fn address(&self, key: &str) -> Option<SocketAddr> {
        match self.value(key) {
            Value::Address(address) => *address,
            other => unreachable!("{key} is no address: {other}"),
        }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        match self.value(key) {
            Value::Path(path) => path.clone(),
            other => unreachable!("{key} is no path: {other}"),
        }
    }

    fn config(&self) -> Config {
        Config {
            data_dir: self.path("data.dir").unwrap_or_default(),
            listen: Listen {
                tcp: self.address("listen.tcp"),
                tls: self.address("listen.tls"),
                quic: self.address("listen.quic"),
                ops: self.address("listen.ops"),
            },
            tls: Tls {
                certificate: self.path("tls.certificate"),
                key: self.path("tls.key"),
            },
            auth: self.auth(),
            broker: Shell {
                shards: self.number("broker.shards"),
                pin: self.text("broker.pin") == "on",
                drain_ms: self.number("broker.drain_ms"),
                connections_max: self.number("broker.connections_max"),
                connections_per_address_max: self.number("broker.connections_per_address_max"),
                connections_per_user_max: self.number("broker.connections_per_user_max"),
                handshakes_max: self.number("broker.handshakes_max"),
                node_bytes_max: self.number("limits.node_bytes_max"),
            },
            limits: self.limits(),
            storage: self.storage(),
            log: Log {
                format: if self.text("log.format") == "json" {
                    LogFormat::Json
                } else {
                    LogFormat::Human
                },
                level: self.text("log.level").to_owned(),
            },
        }
    }

    fn auth(&self) -> Auth {
        Auth {
            keys: self.path("auth.keys"),
            policy: TokenPolicy {
                issuer: self.text("auth.issuer").to_owned(),
                audience: self.text("auth.audience").to_owned(),
                leeway_s: self.number("auth.leeway_s"),
            },
            development_tokens: self.text("auth.development_tokens") == "auto",
        }
    }

    fn storage(&self) -> EmbeddedOptions {
        let retention_days: u64 = self.number("storage.retention_days");
        EmbeddedOptions {
            lanes: self.number("storage.lanes"),
            retention_ms: (retention_days > 0).then_some(retention_days * DAY_MS),
            segment_bytes: self.number("storage.segment_bytes"),
            journal_keep_bytes: self.number("storage.journal_keep_bytes"),
            journal_keep_ms: self.number::<u64>("storage.journal_keep_days") * DAY_MS,
            cache_bytes: self.number("storage.cache_bytes"),
            reader_threads: self.number("storage.reader_threads"),
            ..EmbeddedOptions::default()
        }
    }

    fn limits(&self) -> CoreConfig {
        CoreConfig {
            frame_bytes_max: self.number("limits.frame_bytes_max"),
            body_bytes_max: self.number("limits.body_bytes_max"),
            in_flight_bytes_max: self.number("limits.in_flight_bytes_max"),
            queue_bytes_max: self.number("limits.queue_bytes_max"),
            shard_bytes_max: self.number("limits.shard_bytes_max"),
            catch_up_bytes_max: self.number("limits.catch_up_bytes_max"),
            subscriptions_max: self.number("limits.subscriptions_max"),
            publish_per_s: self.number("limits.publish_per_s"),
            publish_burst: self.number("limits.publish_burst"),
            requests_per_s: self.number("limits.requests_per_s"),
            requests_burst: self.number("limits.requests_burst"),
            handshake_timeout_ms: self.number("limits.handshake_timeout_ms"),
            keep_alive_ms: self.number("limits.keep_alive_ms"),
            unread_timeout_ms: CoreConfig::default().unread_timeout_ms,
            conversations_max: self.number("limits.conversations_max"),
            members_max: self.number("limits.members_max"),
            recent_events_max: CoreConfig::default().recent_events_max,
            parked_max: self.number("limits.parked_max"),
            members_per_conversation_max: self.number("limits.members_per_conversation_max"),
            entry_bytes_max: self.number("limits.entry_bytes_max"),
            // What the journal can take is the journal's to say.
            entries_in_flight_max: CoreConfig::default().entries_in_flight_max,
            // The broker takes a random one.
            hash_seed: CoreConfig::default().hash_seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers::Flag;

    fn flags(flags: &[(&str, &str)]) -> Layers {
        let flag = |(key, value): &(&str, &str)| Flag {
            flag: "--set".to_owned(),
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        Layers {
            flags: flags.iter().map(flag).collect(),
            ..Layers::default()
        }
    }

    fn problems(settings: &[(&str, &str)]) -> Vec<String> {
        load(&flags(settings))
            .problems
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn without_any_configuration_the_defaults_of_the_code_are_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let loaded = load(&flags(&[("data.dir", directory.path().to_str().unwrap())]));
        assert_eq!(loaded.problems, []);
        assert_eq!(loaded.config.limits, CoreConfig::default());
        assert_eq!(loaded.config.auth.policy, TokenPolicy::default());
        assert_eq!(
            format!("{:?}", loaded.config.storage),
            format!("{:?}", EmbeddedOptions::default())
        );
        let broker = rialto_broker::BrokerConfig::default();
        assert_eq!(loaded.config.broker.connections_max, broker.connections_max);
        assert_eq!(
            loaded.config.broker.connections_per_address_max,
            broker.connections_per_address_max
        );
        assert_eq!(
            loaded.config.broker.connections_per_user_max,
            broker.connections_per_user_max
        );
        assert_eq!(loaded.config.broker.handshakes_max, broker.handshakes_max);
        assert_eq!(loaded.config.broker.node_bytes_max, broker.node_bytes_max);
        assert!(
            loaded
                .config
                .listen
                .addresses()
                .all(|address| address.ip().is_loopback())
        );
    }

    #[test]
    fn values_that_contradict_each_other_are_all_named() {
        let found = problems(&[
            ("listen.tcp", "0.0.0.0:4400"),
            ("listen.tls", "127.0.0.1:5000"),
            ("listen.ops", "127.0.0.1:5000"),
            ("limits.body_bytes_max", "131073"),
            ("tls.key", "missing.pem"),
        ]);
        for part in [
            "plain TCP is for loopback only",
            "listen.ops: has the same",
            "limits.body_bytes_max",
            "tls.certificate: is needed",
            "missing.pem: cannot be read",
        ] {
            assert!(
                found.iter().any(|problem| problem.contains(part)),
                "{part}: {found:#?}"
            );
        }
        assert_eq!(found.len(), 5, "{found:#?}");
    }

    #[test]
    fn limits_that_no_frame_or_no_entry_would_fit_into_are_refused() {
        let node = [("limits.node_bytes_max", "4194304"), ("broker.shards", "8")];
        let found = problems(&node);
        assert!(
            found.len() == 1
                && found[0].contains("limits.frame_bytes_max: 262144 is more than 131072"),
            "{found:?}"
        );
        assert_eq!(problems(&[node[0], ("broker.shards", "4")]), [""; 0]);
        let segment = ("storage.segment_bytes", "1048576");
        let found = problems(&[segment, ("limits.entry_bytes_max", "1048576")]);
        assert!(
            found.len() == 1 && found[0].contains("storage.segment_bytes"),
            "{found:?}"
        );
        assert_eq!(problems(&[segment]), [""; 0]);
    }

    /// In a container every process has the number of the one before.
    #[test]
    fn what_a_process_that_was_killed_left_in_the_data_directory_stops_no_start() {
        let directory = tempfile::tempdir().unwrap();
        let left = format!(".rialto-probe-{}", std::process::id());
        std::fs::write(directory.path().join(&left), "").unwrap();
        let data = directory.path().display().to_string();
        assert_eq!(problems(&[("data.dir", &data)]), [""; 0]);
        let names = std::fs::read_dir(directory.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [&*left]);
    }

    /// Such as `--data "$UNSET"`, which would scatter files into the folder that we happen to be in.
    #[test]
    fn an_empty_data_directory_is_refused() {
        let found = problems(&[("data.dir", " ")]);
        assert_eq!(
            found,
            ["data.dir: \"\" is not allowed (flag --set); use a path that is not empty"]
        );
        assert_eq!(problems(&[("tls.key", "")]), [""; 0]);
    }

    #[test]
    fn a_broker_that_nobody_can_reach_is_a_mistake() {
        let off = problems(&[
            ("listen.tcp", "off"),
            ("listen.tls", "off"),
            ("listen.quic", "off"),
        ]);
        assert!(off[0].contains("all off"), "{off:?}");
    }

    /// Else the start would find it out once the data is open.
    #[test]
    fn the_port_of_one_listener_cannot_be_that_of_another_on_all_addresses() {
        for (tls, refused) in [
            ("0.0.0.0:4400", 1),
            ("0.0.0.0:4402", 0),
            ("127.0.0.2:4400", 0),
            ("[::1]:4400", 0),
        ] {
            let found = problems(&[("listen.tls", tls)]);
            assert_eq!(found.len(), refused, "{tls}: {found:?}");
        }
    }

    #[test]
    fn a_data_directory_under_a_file_is_refused_before_anything_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let found = problems(&[("data.dir", file.join("data").to_str().unwrap())]);
        assert!(
            found.len() == 1 && found[0].contains("is not a directory"),
            "{found:?}"
        );
    }
}
