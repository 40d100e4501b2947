//! Log lines on standard error: for people, or one JSON object a line.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};

use crate::config::{Log, LogFormat};

/// They have a line at `info` for each segment of the journal. Unless they are named in `log.level`, their warnings are enough.
const TALKATIVE: [&str; 2] = ["fjall", "lsm_tree"];

/// Starts logging.
///
/// # Errors
/// When the directives of `log.level` cannot be understood, or logging was started before.
pub fn start(log: &Log) -> anyhow::Result<()> {
    let filter = filter(&log.level).map_err(|error| {
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

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let mut filter = EnvFilter::try_new(level)?;
    if filter.max_level_hint() > Some(LevelFilter::WARN) {
        for library in TALKATIVE
            .iter()
            .filter(|library| !level.contains(**library))
        {
            filter = filter.add_directive(format!("{library}=warn").parse()?);
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn talkative_libraries_are_quiet_unless_they_are_asked() {
        let said = |level| filter(level).unwrap().to_string();
        assert!(said("info").contains("fjall=warn") && said("info").contains("lsm_tree=warn"));
        assert!(said("info,fjall=debug").contains("fjall=debug"));
        assert!(!said("info,fjall=debug").contains("fjall=warn"));
        for level in ["off", "error", "warn"] {
            assert_eq!(said(level), level);
        }
    }
}
