//! What can be seen of the broker from outside: its memory, its metrics, whether it is ready.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::broker::Broker;

/// Memory of a process, bytes (proc(5)).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// In RAM now.
    pub(super) resident: u64,
    /// In RAM at most since it was started.
    pub(super) peak: u64,
}

pub(super) fn memory(broker: &Broker) -> anyhow::Result<Memory> {
    let path = format!("/proc/{}/status", broker.pid());
    let status =
        fs::read_to_string(&path).with_context(|| format!("{path}: the broker is gone"))?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Ok(Memory {
        resident: of("VmRSS:").context("no VmRSS")?,
        peak: of("VmHWM:").context("no VmHWM")?,
    })
}

/// `rialto_shed_total` by queue and reason.
pub(super) type Sheds = BTreeMap<(String, String), u64>;

pub(super) async fn sheds(broker: &Broker) -> anyhow::Result<Sheds> {
    Ok(get(broker, "/metrics")
        .await?
        .lines()
        .filter_map(shed)
        .collect())
}

/// Whether the broker says that clients are served.
pub(super) async fn is_ready(broker: &Broker) -> bool {
    let answer = get(broker, "/health/ready").await;
    answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

async fn get(broker: &Broker, path: &str) -> anyhow::Result<String> {
    let port = broker.launch().ports.ops;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let ask = format!("GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn shed(line: &str) -> Option<((String, String), u64)> {
    let rest = line.strip_prefix("rialto_shed_total{queue=\"")?;
    let (queue, rest) = rest.split_once("\",reason=\"")?;
    let (reason, count) = rest.split_once("\"} ")?;
    Some((
        (queue.to_owned(), reason.to_owned()),
        count.trim().parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_metrics_says_what_was_refused_where_and_how_often() {
        let line = "rialto_shed_total{queue=\"accept\",reason=\"total\"} 17";
        let found = shed(line).unwrap();
        assert_eq!(found, (("accept".to_owned(), "total".to_owned()), 17));
        assert_eq!(shed("rialto_sessions 4"), None);
    }
}
