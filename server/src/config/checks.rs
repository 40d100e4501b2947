//! Checks that need more than one value, or a look at the file system.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rialto_broker::{BrokerConfig, TlsIdentity, auth::KeyFile};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{Auth, Config, problem::Problem};
use crate::files;

/// What one request adds to the records that its frame holds (the members of a new conversation), and the journal to an entry.
const DECISION_BYTES: usize = 64 << 10;

/// Everything that is wrong with values that are allowed by themselves.
pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    check_listeners(config, problems);
    check_sizes(config, problems);
    check_room(config, problems);
    check_data_dir(&config.data_dir, problems);
    check_tls(config, problems);
    check_log_level(&config.log.level, problems);
    check_keys(&config.auth, problems);
}

fn check_listeners(config: &Config, problems: &mut Vec<Problem>) {
    let listen = &config.listen;
    if let Some(address) = listen
        .tcp
        .filter(|address| !address.ip().to_canonical().is_loopback())
    {
        let text = format!(
            "{address} is not a loopback address, and plain TCP is for loopback only; use listen.tls for other machines"
        );
        problems.push(Problem::Conflict {
            key: "listen.tcp",
            text,
        });
    }
    if listen.tcp.is_none() && listen.tls.is_none() && listen.quic.is_none() {
        let text = "tcp, tls and quic are all off; clients need one of them".to_owned();
        problems.push(Problem::Conflict {
            key: "listen.tls",
            text,
        });
    }
    let named = [
        ("listen.tcp", listen.tcp),
        ("listen.tls", listen.tls),
        ("listen.ops", listen.ops),
    ];
    for (index, (key, address)) in named.iter().enumerate() {
        for (earlier, other) in &named[..index] {
            if address.zip(*other).is_some_and(|(a, b)| overlap(a, b)) {
                let text = format!(
                    "has the same TCP port as {earlier}, on the same address or all of them; give it another port"
                );
                problems.push(Problem::Conflict { key, text });
            }
        }
    }
}

/// Whether who listens on one of them keeps the other taken.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let one_is_all =
        a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() != 0 && (a == b || (a.port() == b.port() && one_is_all))
}

/// A word that is no level would count as the name of a part, and silence all others.
fn check_log_level(level: &str, problems: &mut Vec<Problem>) {
    let levels = "error, warn, info, debug, trace or off";
    let word = level.split(',').map(str::trim).find(|directive| {
        !directive.contains(['=', '[']) && directive.parse::<LevelFilter>().is_err()
    });
    let text = match (word, EnvFilter::try_new(level)) {
        (Some(word), _) => format!("{word:?} is no level; use {levels}, or PART=LEVEL"),
        (None, Err(error)) => {
            format!("{error}; use {levels}, or directives such as info,rialto_broker=debug")
        }
        (None, Ok(_)) => return,
    };
    problems.push(Problem::Conflict {
        key: "log.level",
        text,
    });
}

fn check_sizes(config: &Config, problems: &mut Vec<Problem>) {
    let limits = &config.limits;
    if limits.body_bytes_max > limits.frame_bytes_max / 2 {
        let text = format!(
            "{} is more than half of limits.frame_bytes_max ({})",
            limits.body_bytes_max, limits.frame_bytes_max
        );
        problems.push(Problem::Conflict {
            key: "limits.body_bytes_max",
            text,
        });
    }
    for (key, bytes) in [
        ("limits.queue_bytes_max", limits.queue_bytes_max),
        ("limits.in_flight_bytes_max", limits.in_flight_bytes_max),
    ] {
        if bytes < limits.frame_bytes_max {
            let text = format!(
                "{bytes} is less than one frame (limits.frame_bytes_max is {})",
                limits.frame_bytes_max
            );
            problems.push(Problem::Conflict { key, text });
        }
        if bytes > config.broker.node_bytes_max {
            let text = format!(
                "{bytes} is more than the whole node may hold (limits.node_bytes_max is {})",
                config.broker.node_bytes_max
            );
            problems.push(Problem::Conflict { key, text });
        }
    }
}

/// A frame has to fit into what a shard may hold of frames that have begun, and what one decision makes into the journal.
fn check_room(config: &Config, problems: &mut Vec<Problem>) {
    let limits = &config.limits;
    let defaults = BrokerConfig::default();
    let shards = match config.broker.shards {
        0 => defaults.shards,
        shards => shards,
    };
    let broker = BrokerConfig {
        shards,
        core: limits.clone(),
        node_bytes_max: config.broker.node_bytes_max,
        ..defaults
    };
    let begun = broker.begun_bytes_max();
    if limits.frame_bytes_max > begun {
        let text = format!(
            "{} is more than {begun}, a quarter of what each of {shards} shards may hold (limits.shard_bytes_max, and its part of \
             limits.node_bytes_max): such a frame would never be read",
            limits.frame_bytes_max
        );
        problems.push(Problem::Conflict {
            key: "limits.frame_bytes_max",
            text,
        });
    }
    let entry = limits.entry_bytes_max + limits.frame_bytes_max + DECISION_BYTES;
    let segment = config.storage.segment_bytes as usize;
    if entry > segment {
        let text = format!(
            "{segment} is less than {entry}: an entry of the journal (limits.entry_bytes_max), what one more frame makes of it \
             (limits.frame_bytes_max), and {DECISION_BYTES} for what stands around them"
        );
        problems.push(Problem::Conflict {
            key: "storage.segment_bytes",
            text,
        });
    }
}

/// The directory, or the nearest one above it that exists, must take a file.
fn check_data_dir(path: &Path, problems: &mut Vec<Problem>) {
    let problem = |cause: String| Problem::Path {
        key: "data.dir",
        path: path.to_owned(),
        cause,
    };
    let Some(existing) = absolute(path)
        .ancestors()
        .find(|path| path.exists())
        .map(Path::to_owned)
    else {
        problems.push(problem("no directory above it exists".to_owned()));
        return;
    };
    if !existing.is_dir() {
        problems.push(problem(format!(
            "{} is not a directory",
            existing.display()
        )));
        return;
    }
    // One without a name, which no other check and no end of the process can get into the way of.
    if let Err(error) = tempfile::tempfile_in(&existing) {
        problems.push(Problem::Unwritable {
            key: "data.dir",
            cause: format!(
                "{} cannot be written: {error}; {}",
                existing.display(),
                files::advice(&error)
            ),
        });
    }
}

fn check_tls(config: &Config, problems: &mut Vec<Problem>) {
    let missing = match (&config.tls.certificate, &config.tls.key) {
        (Some(_), None) => Some(("tls.key", "tls.certificate")),
        (None, Some(_)) => Some(("tls.certificate", "tls.key")),
        _ => None,
    };
    if let Some((key, given)) = missing {
        problems.push(Problem::Conflict {
            key,
            text: format!("is needed, because {given} is given"),
        });
    }
    let mut readable = true;
    for (key, path) in [
        ("tls.certificate", &config.tls.certificate),
        ("tls.key", &config.tls.key),
    ] {
        if let Some(path) = path {
            readable &= check_readable(key, path, problems);
        }
    }
    let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.key) else {
        return;
    };
    let identity = TlsIdentity::Files {
        certificates: certificate.clone(),
        key: key.clone(),
    };
    if readable && let Err(error) = identity.check() {
        let text = format!("with {}: {error}", key.display());
        problems.push(Problem::Path {
            key: "tls.certificate",
            path: certificate.clone(),
            cause: text,
        });
    }
}

fn check_keys(auth: &Auth, problems: &mut Vec<Problem>) {
    let Some(path) = &auth.keys else {
        return;
    };
    if check_readable("auth.keys", path, problems)
        && let Err(error) = KeyFile::open(path, auth.policy.clone())
    {
        problems.push(Problem::Path {
            key: "auth.keys",
            path: path.clone(),
            cause: error.to_string(),
        });
    }
}

/// Says whether it is.
fn check_readable(key: &'static str, path: &Path, problems: &mut Vec<Problem>) -> bool {
    let cause = match fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => return true,
        Ok(_) => "not a file".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
    };
    problems.push(Problem::Path {
        key,
        path: path.to_owned(),
        cause,
    });
    false
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
