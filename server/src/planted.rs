//! The binary `rialto-planted`: `rialto` with a mistake on purpose, by which it is seen that the fault campaigns find mistakes.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match plant() {
        Ok(()) => rialto_server::command::run(),
        Err(error) => {
            rialto_server::terminal::tell(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Chooses the mistake that this build is to make, and says so.
fn plant() -> anyhow::Result<()> {
    let Some(name) = std::env::var_os("RIALTO_PLANTED") else {
        return Ok(());
    };
    let name = name.to_string_lossy();
    anyhow::ensure!(
        rialto_protocol::planted::choose(&name),
        "RIALTO_PLANTED: there is no mistake called {name}"
    );
    rialto_server::terminal::tell(&format!("makes the mistake {name} on purpose"));
    Ok(())
}
