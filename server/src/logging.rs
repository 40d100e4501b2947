//! Log lines on standard error: for people, or one JSON object a line.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// Starts logging.
///
/// # Errors
/// When the directives of `log.level` cannot be understood, or logging was started before.
pub fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level).map_err(|error| {
        anyhow::anyhow!(
            "log.level: {:?} is not understood ({error}); use a level such as \"info\"",
            log.level
        )
    })?;
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written is lost. Told of it on standard error as well, the thread that logs would panic.
        .log_internal_errors(false);
    let started = match log.format {
        LogFormat::Human => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))
}
