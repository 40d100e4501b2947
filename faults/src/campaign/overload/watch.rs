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

/// What the kernel lost since it was started, of this machine's network as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// Times that TCP waited in vain for an acknowledgement, 0.2 s at least.
    pub(super) timeouts: u64,
    /// Datagrams for which a socket's receive buffer had no room.
    pub(super) full: u64,
    /// Packets for which a processor's backlog had none.
    pub(super) backlog: u64,
}

/// What cannot be read counts as nothing: it is told, and never judged.
pub(super) fn losses() -> Losses {
    let read = |name: &str| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    losses_in(&(read("snmp") + &read("netstat")), &read("softnet_stat"))
}

fn losses_in(counters: &str, softnet: &str) -> Losses {
    // Names and values of a protocol stand in two lines.
    let of = |protocol: &str, name: &str| -> Option<u64> {
        let lines = counters.lines();
        let mut lines = lines.filter_map(|line| line.strip_prefix(protocol));
        let (names, values) = (lines.next()?, lines.next()?);
        let place = names.split_whitespace().position(|one| one == name)?;
        values.split_whitespace().nth(place)?.parse().ok()
    };
    // A line for each processor, in hexadecimal: packets, and those that were dropped.
    let dropped = |line: &str| {
        let dropped = line.split_whitespace().nth(1)?;
        u64::from_str_radix(dropped, 16).ok()
    };
    Losses {
        timeouts: of("TcpExt:", "TCPTimeouts").unwrap_or_default(),
        full: of("Udp:", "RcvbufErrors").unwrap_or_default(),
        backlog: softnet.lines().filter_map(dropped).sum(),
    }
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

    #[test]
    fn what_the_kernel_lost_is_found_by_its_name() {
        let counters = "Udp: InDatagrams RcvbufErrors\nUdp: 9 6\nUdpLite: InDatagrams RcvbufErrors\nUdpLite: 1 2\n\
                        TcpExt: TW TCPTimeouts TCPSpuriousRTOs\nTcpExt: 77 5 3\n";
        let softnet = "000000ff 0000000a 00000000\n0000001f 00000001 00000000\n";
        let found = losses_in(counters, softnet);
        let expected = Losses {
            timeouts: 5,
            full: 6,
            backlog: 11,
        };
        assert_eq!(found, expected);
        assert_eq!(losses_in("", ""), Losses::default());
    }
}
