//! Where the broker is, and as whom to come: the flags that all commands share.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use rialto_loadgen::target::Target;
use rialto_loadgen::tokens::Tokens;
use rialto_loadgen::units;
use rialto_sdk::Roots;

/// Most of a flag in seconds: a year.
pub(super) const SECONDS_MAX: u64 = 365 * 24 * 3600;

#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// The broker: tcp://HOST:PORT, tls://HOST:PORT or quic://HOST:PORT.
    #[arg(long)]
    pub(super) target: Target,
    /// PEM file with the root of the broker's certificate. Without it certificates go unchecked, on loopback only.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file with the key that signs access tokens. Without it development tokens are used.
    #[arg(long, value_name = "FILE")]
    token_key: Option<PathBuf>,
    /// Issuer of signed tokens.
    #[arg(long, default_value = "rialto", requires = "token_key")]
    issuer: String,
    /// Audience of signed tokens.
    #[arg(long, default_value = "rialto", requires = "token_key")]
    audience: String,
    /// Seconds without any progress after which the broker counts as gone.
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    patience_s: u64,
}

impl TargetArgs {
    pub(super) fn tokens(&self) -> anyhow::Result<Tokens> {
        match &self.token_key {
            Some(key) => Ok(Tokens::signed(key, &self.issuer, &self.audience)?),
            None => Ok(Tokens::Development),
        }
    }

    pub(super) fn roots(&self) -> anyhow::Result<Roots> {
        match &self.ca {
            Some(file) => Ok(Roots::File(file.clone())),
            None if self.target.is_loopback() => Ok(Roots::InsecureLoopbackOnly),
            None => bail!(
                "{} is no loopback address: --ca FILE must name the root of its certificate",
                self.target
            ),
        }
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_s)
    }

    /// The flags that lead another process to the same broker.
    pub(super) fn as_flags(&self) -> Vec<std::ffi::OsString> {
        let mut flags = vec!["--target".into(), self.target.to_string().into()];
        if let Some(file) = &self.ca {
            flags.extend(["--ca".into(), file.into()]);
        }
        if let Some(file) = &self.token_key {
            flags.extend(["--token-key".into(), file.into()]);
            flags.extend(["--issuer".into(), self.issuer.clone().into()]);
            flags.extend(["--audience".into(), self.audience.clone().into()]);
        }
        flags
    }
}

/// A duration of a flag.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text)
}
