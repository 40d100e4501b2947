//! The binary `rialto`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    rialto_server::command::run()
}
