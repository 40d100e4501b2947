//! The NATS server and `nats bench`, for core and JetStream alike.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use super::{Measured, Run, Setting};
use crate::case::MESSAGE_BYTES;
use crate::process::{Server, Tool, free_port};
use crate::tools::Nats;

/// How long the monitoring port may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A server at work.
pub(super) struct Running<'a> {
    pub(super) server: Server,
    nats: &'a Nats,
    port: u16,
    monitoring: u16,
    environment: Vec<(&'static str, &'static str)>,
}

impl<'a> Running<'a> {
    /// Starts one with these lines in its configuration.
    pub(super) fn start(
        nats: &'a Nats,
        configuration: &str,
        setting: &Setting,
        run: Run<'_>,
    ) -> anyhow::Result<Self> {
        let (port, monitoring) = (free_port()?, free_port()?);
        let file = run.folder.join("nats.conf");
        fs::write(
            &file,
            format!(
                "listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitoring}\"\n{configuration}"
            ),
        )?;
        let mut command = Command::new(&nats.server);
        command.arg("-c").arg(file);
        command.envs(setting.environment.iter().copied());
        let mut server = Server::start("nats-server", run.folder, &command)?;
        server.wait_for(|| get(monitoring, "/healthz").ok())?;
        Ok(Self {
            server,
            nats,
            port,
            monitoring,
            environment: setting.environment.clone(),
        })
    }

    /// Starts `nats` with these arguments.
    pub(super) fn command(
        &self,
        name: &str,
        folder: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Tool> {
        let mut command = Command::new(&self.nats.command);
        command
            .args(["--no-context", "--timeout=60s"])
            .arg(format!("--server=nats://127.0.0.1:{}", self.port))
            .args(arguments)
            .env("HOME", folder)
            .env("XDG_CONFIG_HOME", folder);
        command.envs(self.environment.iter().copied());
        Tool::start(name, folder, &command)
    }

    /// Starts `nats bench` with messages of the size that all have.
    pub(super) fn bench(
        &self,
        name: &str,
        folder: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Tool> {
        let size = format!("--size={MESSAGE_BYTES}B");
        let arguments = [&["bench"], arguments, &["--no-progress", &size]].concat();
        self.command(name, folder, &arguments)
    }

    /// Subscriptions that the server has now, its own among them.
    pub(super) fn subscriptions(&self) -> anyhow::Result<u64> {
        let answer = get(self.monitoring, "/subsz")?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let json: serde_json::Value = serde_json::from_str(body)?;
        json["num_subscriptions"]
            .as_u64()
            .context("/subsz does not tell the number of subscriptions")
    }
}

/// What the monitoring port says to a GET: `Err` unless it is a 200.
fn get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1);
    anyhow::ensure!(status == Some("200"), "{path}: {status:?}");
    Ok(answer)
}

/// The figures in what `nats bench` says: of all clients together, where there are several.
pub(super) fn understand(said: &str) -> anyhow::Result<Measured> {
    let figure = || {
        let after = said.rsplit_once(" stats: ")?.1;
        number(after).filter(|per_s| *per_s > 0.0)
    };
    Ok(Measured {
        per_s: figure().with_context(|| format!("nats bench said {said:?}"))?,
        p50_ms: said
            .rsplit_once("P50")
            .and_then(|(_, after)| number(after.trim_start_matches([':', ' '])))
            .map(|us| us / 1000.0),
        peak_bytes: None,
    })
}

/// The number that a text begins with, its thousands parted by commas.
fn number(text: &str) -> Option<f64> {
    let digits: String = text
        .chars()
        .take_while(|letter| letter.is_ascii_digit() || matches!(letter, ',' | '.'))
        .filter(|letter| *letter != ',')
        .collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_one_client_are_understood() {
        let said = "14:01:14 [1] Starting JetStream asynchronous publisher, publishing 20,000 messages\n\n\
            NATS JetStream asynchronous publisher stats: 1,611 msgs/sec ~ 157 KiB/sec ~ min: 109,758.34us ~ avg: 310,231.54us ~ \
            max: 5,693,067.86us ~ P50: 140,881.05us ~ P90: 183,166.20us ~ P99: 5,693,067.86us ~ P99.9: 5,693,067.86us\n";
        let measured = understand(said).unwrap();
        assert_eq!(
            (measured.per_s, measured.p50_ms),
            (1611.0, Some(140.881_05))
        );
    }

    #[test]
    fn figures_of_many_clients_are_those_of_all_together() {
        let said = "  [1] 48,897,364 msgs/sec ~ 4.6 GiB/sec (1,000 msgs)\n\n \
            NATS JetStream asynchronous publisher aggregated stats: 2,113 msgs/sec ~ 206 KiB/sec\n \
            message rates min 21 | avg 22 | max 27 | stddev 2 msgs\n \
            latencies per operation min 38,964.16us | avg 1us | P50 510,993.44us | P90 1,360,490.90us | P99 1,799,757.05us\n";
        let measured = understand(said).unwrap();
        assert_eq!(
            (measured.per_s, measured.p50_ms),
            (2113.0, Some(510.993_44))
        );
    }

    #[test]
    fn subscribers_tell_no_latency() {
        let said =
            " NATS Core NATS subscriber aggregated stats: 3,758,418 msgs/sec ~ 358 MiB/sec\n";
        let measured = understand(said).unwrap();
        assert_eq!((measured.per_s, measured.p50_ms), (3_758_418.0, None));
    }

    #[test]
    fn an_error_is_no_figure() {
        assert!(understand("nats: error: no servers available").is_err());
    }
}
