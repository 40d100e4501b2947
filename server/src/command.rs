//! Does what the command line says, and turns what comes of it into an exit status: 0 done, 1 failed, 2 the command line or
//! the configuration is wrong.

use std::{ffi::OsString, fmt::Write as _, process::ExitCode};

use clap::Parser as _;

use crate::{
    cli::{Cli, Command, ConfigArgs, ConfigCommand},
    config::{self, Config, Loaded, problem::Problem},
    keys, serve, status, terminal, token,
};

const FAILED: u8 = 1;
const MISCONFIGURED: u8 = 2;

/// Does it.
#[must_use]
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => with(config::load(&args.layers(environment())), |loaded| {
            report(serve::run(&loaded.config))
        }),
        Command::Config(ConfigCommand::Print(args)) => print(&args),
        Command::Config(ConfigCommand::Check(args)) => {
            with(config::load(&args.layers(environment())), |_| say("ok\n"))
        }
        Command::Token(args) => with(config::read(&args.config.layers(environment())), |loaded| {
            report(token::make(&args, &loaded.config).map(|token| say(&format!("{token}\n"))))
        }),
        Command::Keys(args) => with(config::read(&args.layers(environment())), |loaded| {
            let Config { data_dir, auth, .. } = &loaded.config;
            match keys::open_or_make(data_dir, auth.keys.as_deref()) {
                Ok(key) => say(&format!("{}\n", key.key_set())),
                Err(error) => fail(&error.into()),
            }
        }),
        Command::Status(args) => with(
            config::read(&args.config().layers(environment())),
            |loaded| match status::ask(&args, &loaded.config) {
                Ok(answer) => {
                    let said = say(&answer.text);
                    if answer.ready {
                        said
                    } else {
                        ExitCode::from(FAILED)
                    }
                }
                Err(error) => fail(&error),
            },
        ),
    }
}

/// Prints the configuration even when it is wrong, so that one can see where a value came from.
fn print(args: &ConfigArgs) -> ExitCode {
    let loaded = config::load(&args.layers(environment()));
    let said = say(&config::print::toml(&loaded.settings));
    with(loaded, |_| said)
}

fn with(loaded: Loaded, action: impl FnOnce(Loaded) -> ExitCode) -> ExitCode {
    if loaded.problems.is_empty() {
        return action(loaded);
    }
    // What the machine does not let us do is nobody's mistake in the configuration.
    let unwritable = |problem: &Problem| matches!(problem, Problem::Unwritable { .. });
    let (mut text, status) = if loaded.problems.iter().all(unwritable) {
        ("this cannot work:".to_owned(), FAILED)
    } else {
        ("the configuration is wrong:".to_owned(), MISCONFIGURED)
    };
    for problem in &loaded.problems {
        let _ = write!(text, "\n  {problem}");
    }
    terminal::tell(&text);
    ExitCode::from(status)
}

fn report<T>(result: anyhow::Result<T>) -> ExitCode {
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    terminal::tell(&format!("{error:#}"));
    ExitCode::from(FAILED)
}

/// Writes to standard output; a reader that went away (`| head`) is no failure of ours, but not a success either.
fn say(text: &str) -> ExitCode {
    match terminal::print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

/// The one place that reads the environment. Names that are not Unicode are none of ours.
fn environment() -> Vec<(String, OsString)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .collect()
}
