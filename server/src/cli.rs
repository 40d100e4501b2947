//! The command line.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config::{
    layers::{Flag, Layers},
    table::TOKEN_LIFE_S_MAX,
};

/// What `--version` says.
pub const VERSION: &str = if cfg!(feature = "planted") {
    concat!(
        env!("CARGO_PKG_VERSION"),
        " (makes mistakes on purpose: for tests of its tests alone)"
    )
} else {
    env!("CARGO_PKG_VERSION")
};

/// A durable message broker for chat and forums.
#[derive(Debug, Parser)]
#[command(name = "rialto", version = VERSION, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a broker; needs no configuration
    Serve(ConfigArgs),
    /// Show or check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make an access token, signed with the key of the data directory
    Token(TokenArgs),
    /// Print the public half of the data directory's signing key, as a key set; it is made when there is none yet
    Keys(ConfigArgs),
    /// Ask a running broker how it is
    Status(StatusArgs),
}

/// What can be done with a configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the configuration in force as TOML, with the origin of each value
    Print(ConfigArgs),
    /// Say `ok`, or everything that is wrong
    Check(ConfigArgs),
}

/// Flags that set keys of the configuration. They overrule the environment (`RIALTO_SECTION_KEY`), which overrules the file.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file in TOML
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data directory [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Plain TCP, loopback only [default: 127.0.0.1:4400]; port 0 picks a free one, `off` switches it off
    #[arg(long, value_name = "ADDR")]
    pub tcp: Option<String>,
    /// TCP with TLS [default: 127.0.0.1:4401]
    #[arg(long, value_name = "ADDR")]
    pub tls: Option<String>,
    /// QUIC [default: 127.0.0.1:4400]
    #[arg(long, value_name = "ADDR")]
    pub quic: Option<String>,
    /// Metrics, health and status over HTTP [default: 127.0.0.1:4410]
    #[arg(long, value_name = "ADDR")]
    pub ops: Option<String>,
    /// How log lines look: human or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Any key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

/// Flags of `rialto token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Name or UUID of the user
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// A token of a service: no rate limits, and it may publish on behalf of users
    #[arg(long)]
    pub service: bool,
    /// How long the token is good for, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=TOKEN_LIFE_S_MAX))]
    pub life: u64,
    /// Configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Flags of `rialto status`. `--ops` asks the broker at that address instead of the one that uses the data directory.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print the broker's answer as it is
    #[arg(long)]
    pub json: bool,
    /// Operations address of the broker; without it, the one that the data directory's addresses.json names
    #[arg(long, value_name = "ADDR")]
    pub ops: Option<SocketAddr>,
    /// Data directory [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Configuration file in TOML
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigArgs {
    /// These flags over this environment.
    #[must_use]
    pub fn layers(&self, environment: Vec<(String, OsString)>) -> Layers {
        let named = [
            ("--data", "data.dir", &self.data),
            ("--tcp", "listen.tcp", &self.tcp),
            ("--tls", "listen.tls", &self.tls),
            ("--quic", "listen.quic", &self.quic),
            ("--ops", "listen.ops", &self.ops),
            ("--log-format", "log.format", &self.log_format),
        ];
        let flag = |flag: &str, key: &str, value: &str| Flag {
            flag: flag.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let set = self
            .set
            .iter()
            .map(|(key, value)| flag("--set", key, value));
        let named = named
            .iter()
            .filter_map(|(name, key, value)| value.as_ref().map(|value| flag(name, key, value)));
        Layers {
            file: self.config.clone(),
            environment,
            flags: named.chain(set).collect(),
        }
    }
}

impl StatusArgs {
    /// The part of them that is configuration.
    #[must_use]
    pub fn config(&self) -> ConfigArgs {
        ConfigArgs {
            config: self.config.clone(),
            data: self.data.clone(),
            ..ConfigArgs::default()
        }
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write it as section.key=value")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::config::table;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_build_that_nobody_asked_mistakes_of_makes_none() {
        assert_eq!(VERSION, env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn every_flag_sets_a_key_that_exists() {
        let text = [
            "rialto",
            "serve",
            "--data=d",
            "--tcp=a",
            "--tls=b",
            "--quic=c",
            "--ops=e",
            "--log-format=f",
            "--set",
            "broker.shards=2",
        ];
        let Command::Serve(args) = Cli::try_parse_from(text).unwrap().command else {
            panic!("not serve")
        };
        let layers = args.layers(Vec::new());
        assert_eq!(layers.flags.len(), 7);
        assert!(
            layers
                .flags
                .iter()
                .all(|flag| table::find(&flag.key).is_some())
        );
    }

    #[test]
    fn defaults_in_the_help_are_those_of_the_table() {
        let mut command = Cli::command();
        let help = command
            .find_subcommand_mut("serve")
            .unwrap()
            .render_long_help()
            .to_string();
        for key in [
            "data.dir",
            "listen.tcp",
            "listen.tls",
            "listen.quic",
            "listen.ops",
        ] {
            let default = format!("[default: {}]", table::find(key).unwrap().default);
            assert!(help.contains(&default), "{key}: {default}");
        }
    }

    #[test]
    fn a_token_lives_a_year_at_most() {
        assert!(
            Cli::try_parse_from(["rialto", "token", "--user", "a", "--life", "99999999999"])
                .is_err()
        );
        assert!(Cli::try_parse_from(["rialto", "token"]).is_err());
    }
}
