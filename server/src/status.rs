//! `rialto status`: asks a running broker over its operations port how it is.

mod http;

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Context as _;
use rialto_broker::ops::{Status, StatusAddresses};
use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};

use crate::{
    addresses::{self, Addresses},
    cli::StatusArgs,
    config::Config,
};

/// What the broker said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it takes connections and can keep what they send.
    pub ready: bool,
    /// To be printed.
    pub text: String,
}

/// Asks the broker that uses the data directory, or the one at `--ops`.
///
/// # Errors
/// When no broker answers there, or another one than that of the data directory. The text says what to do.
pub fn ask(args: &StatusArgs, config: &Config) -> anyhow::Result<Answer> {
    let (address, file) = match args.ops {
        Some(address) => (address, None),
        None => {
            let file = addresses_of(config)?;
            let off = "this broker has no operations port (listen.ops is \"off\")";
            (file.ops.context(off)?, Some(file))
        }
    };
    let asked = reachable(address);
    let unreachable =
        || format!("no broker answers at http://{asked}; was it stopped? `rialto serve` starts it");
    let ready = http::get(asked, "/health/ready").with_context(unreachable)?;
    let status = http::get(asked, "/status").with_context(unreachable)?;
    anyhow::ensure!(
        status.code != 503,
        "the broker at http://{asked} starts: it opens its data, which takes long when the journal has to be read"
    );
    anyhow::ensure!(
        status.code == 200,
        "http://{asked}/status answered {}: is this the operations port of a broker?",
        status.code
    );
    let ready = ready.code == 200;
    let understood = serde_json::from_str::<Status>(&status.body);
    if let (Some(file), Ok(status)) = (&file, &understood)
        && let Some(why) = stranger(file, status)
    {
        anyhow::bail!(
            "another broker answers at http://{asked}: {why}. The one that {} names has ended: `rialto serve` starts it, and \
             --ops {asked} asks the one that answers",
            addresses::path(&config.data_dir).display()
        );
    }
    if args.json {
        return Ok(Answer {
            ready,
            text: format!("{}\n", status.body.trim_end()),
        });
    }
    let status =
        understood.context("the broker's answer is not understood; is it of another version?")?;
    Ok(Answer {
        ready,
        text: table(asked, ready, &status),
    })
}

/// Why who answers is not the broker that wrote the file; none: it is, for all that can be seen.
fn stranger(file: &Addresses, status: &Status) -> Option<String> {
    let StatusAddresses {
        tcp,
        tls,
        quic,
        ops,
    } = status.addresses;
    if (file.tcp, file.tls, file.quic, file.ops) != (tcp, tls, quic, ops) {
        return Some("it listens on other addresses".to_owned());
    }
    is_gone(file.pid).then(|| format!("there is no process {} any more", file.pid))
}

/// Whether there is no such process, be it of another user.
fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

fn addresses_of(config: &Config) -> anyhow::Result<Addresses> {
    let path = addresses::path(&config.data_dir);
    addresses::read(&config.data_dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!(
            "no broker serves from {} ({} is missing): it may still be opening its data, which --ops ADDR shows; otherwise start one \
             with `rialto serve`, or name another with --data or --ops",
            config.data_dir.display(),
            path.display()
        ),
        io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "{}: {error}; run this as the user that runs the broker, or ask it with --ops ADDR",
            path.display()
        ),
        _ => anyhow::anyhow!("{}: {error}", path.display()),
    })
}

/// A listener on all addresses is asked on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn table(address: SocketAddr, ready: bool, status: &Status) -> String {
    let Status {
        connections,
        journal,
        addresses,
        ..
    } = status;
    let open = connections.tcp + connections.tls + connections.quic;
    let listens = [
        ("tcp", addresses.tcp),
        ("tls", addresses.tls),
        ("quic", addresses.quic),
    ];
    let listens = listens
        .iter()
        .filter_map(|(name, address)| address.map(|address| format!("{name}://{address}")));
    let rows = [
        (
            "broker",
            format!(
                "{} at http://{address}, {} for {}",
                status.version,
                status.state,
                duration(status.uptime_ms)
            ),
        ),
        ("ready", if ready { "yes" } else { "no" }.to_owned()),
        ("listens", listens.collect::<Vec<_>>().join(" ")),
        (
            "connections",
            format!(
                "{open} (tcp {}, tls {}, quic {}), {} sessions, {} subscriptions",
                connections.tcp,
                connections.tls,
                connections.quic,
                status.sessions,
                status.subscriptions
            ),
        ),
        (
            "conversations",
            format!(
                "{} in memory, in {} lanes on {} shards",
                status.conversations, status.lanes, status.shards
            ),
        ),
        (
            "events",
            format!(
                "{} appended, {} delivered; {} things dropped or refused",
                status.events_appended, status.events_delivered, status.shed
            ),
        ),
        (
            "journal",
            format!(
                "{} in {} entries and {} syncs; {} segments; views are {} behind",
                bytes(journal.bytes),
                journal.entries,
                journal.groups,
                journal.segments,
                bytes(journal.views_lag_bytes)
            ),
        ),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{name:<14} {value}");
    }
    if let Some(problem) = &status.problem {
        let _ = writeln!(
            text,
            "{:<14} {problem}; restart it, which recovers",
            "problem"
        );
    }
    if !status.complete {
        let _ = writeln!(
            text,
            "{:<14} a shard did not answer within a second; its figures are older",
            "note"
        );
    }
    text
}

/// The two largest units, such as `2 h 5 min`.
fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// In the largest unit that leaves a whole number, rounded down, with one decimal.
fn bytes(count: u64) -> String {
    let units = [
        (1_u64 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    match units.into_iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!(
            "{}.{} {unit}",
            count / size,
            u128::from(count % size) * 10 / u128::from(size)
        ),
        None => format!("{count} B"),
    }
}

#[cfg(test)]
mod tests {
    use rialto_broker::ops::{ConnectionCounts, JournalFigures};

    use super::*;

    fn status() -> Status {
        Status {
            version: "1.2.3".to_owned(),
            state: "failed".to_owned(),
            problem: Some("the journal is poisoned".to_owned()),
            uptime_ms: 3_725_000,
            addresses: StatusAddresses {
                tcp: "127.0.0.1:5".parse().ok(),
                tls: None,
                quic: None,
                ops: None,
            },
            shards: 2,
            complete: false,
            lanes: 128,
            connections: ConnectionCounts {
                tcp: 1,
                tls: 2,
                quic: 3,
            },
            sessions: 6,
            subscriptions: 7,
            conversations: 8,
            events_appended: 9,
            events_delivered: 10,
            shed: 11,
            journal: JournalFigures {
                entries: 12,
                bytes: 1_600_000,
                groups: 13,
                views_lag_bytes: 0,
                views_lag_segments: 0,
                segments: 1,
                poisoned: true,
            },
        }
    }

    #[test]
    fn the_table_says_what_an_operator_asks_first() {
        let text = table("127.0.0.1:9".parse().unwrap(), false, &status());
        for part in [
            "1.2.3 at http://127.0.0.1:9, failed for 1 h 2 min",
            "tcp://127.0.0.1:5",
            "6 (tcp 1, tls 2, quic 3)",
            "1.5 MiB in 12 entries",
            "the journal is poisoned",
            "did not answer",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            text.lines()
                .any(|line| line.split_whitespace().eq(["ready", "no"])),
            "{text}"
        );
        assert!(text.lines().count() <= 10, "it stays short");
    }

    #[test]
    fn a_broker_at_the_same_address_is_another_one_once_the_process_of_the_file_is_gone() {
        let file = Addresses {
            pid: std::process::id(),
            tcp: "127.0.0.1:5".parse().ok(),
            tls: None,
            quic: None,
            ops: None,
        };
        assert_eq!(stranger(&file, &status()), None);
        let elsewhere = Addresses {
            tls: "127.0.0.1:6".parse().ok(),
            ..file.clone()
        };
        let why = stranger(&elsewhere, &status()).unwrap();
        assert!(why.contains("other addresses"), "{why}");
        // More than there can be, also of those that no signal can have.
        for pid in [i32::MAX.unsigned_abs(), u32::MAX] {
            let killed = Addresses {
                pid,
                ..file.clone()
            };
            let why = stranger(&killed, &status()).unwrap();
            assert!(why.contains(&pid.to_string()), "{why}");
        }
    }

    #[test]
    fn times_and_sizes_are_for_people() {
        assert_eq!(
            [duration(999), duration(61_000), duration(90_000_000)],
            ["0 s", "1 min 1 s", "1 d 1 h"]
        );
        assert_eq!(
            [bytes(1023), bytes(1024), bytes(u64::MAX)],
            ["1023 B", "1.0 KiB", "16777215.9 TiB"]
        );
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        assert_eq!(
            reachable("0.0.0.0:1".parse().unwrap()),
            "127.0.0.1:1".parse().unwrap()
        );
        assert_eq!(
            reachable("[::]:1".parse().unwrap()),
            "[::1]:1".parse().unwrap()
        );
        assert_eq!(
            reachable("192.0.2.1:1".parse().unwrap()),
            "192.0.2.1:1".parse().unwrap()
        );
    }
}
