//! The limit of open files: a connection over TCP or TLS is one of them.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::target::Transport;

/// Files that are open beside connections: standard streams, reports, epoll, shared UDP sockets, and room to spare.
const BESIDE_CONNECTIONS: u64 = 256;

/// More connections than files may be open.
#[derive(Debug, thiserror::Error)]
pub enum OpenFilesError {
    /// The hard limit is too low, and may not be raised.
    #[error(
        "{connections} connections need {needed} open files, and this process may have {hard}. Raise the hard limit \
         (`ulimit -Hn {needed}` as root, `nofile` in /etc/security/limits.conf, LimitNOFILE= of a systemd unit, or \
         `docker run --ulimit nofile={needed}`), spread the load over several processes (`--processes`), or use fewer \
         connections. The broker needs as many"
    )]
    TooFew {
        /// Asked for.
        connections: u64,
        /// Files for them.
        needed: u64,
        /// The hard limit.
        hard: u64,
    },
    /// The operating system refused.
    #[error("the limit of open files cannot be raised: {0}")]
    Refused(#[from] io::Error),
}

/// Files that so many connections take: over QUIC they share a few sockets.
#[must_use]
pub const fn files_of(connections: u64, transport: Transport) -> u64 {
    match transport {
        Transport::Quic => 0,
        Transport::Tcp | Transport::Tls => connections,
    }
}

/// Makes sure that so many connections with a file each can be open, by raising the soft limit as far as needed, and the
/// hard one if this process may.
///
/// # Errors
/// When the limits do not allow it.
pub fn make_room_for(connections: u64) -> Result<(), OpenFilesError> {
    let needed = connections.saturating_add(BESIDE_CONNECTIONS);
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (
        limit.current.unwrap_or(u64::MAX),
        limit.maximum.unwrap_or(u64::MAX),
    );
    if soft >= needed {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(needed),
        maximum: Some(hard.max(needed)),
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => Ok(()),
        Err(_) if hard < needed => Err(OpenFilesError::TooFew {
            connections,
            needed,
            hard,
        }),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_can_ever_be_open_is_refused_with_both_numbers_and_what_to_do() {
        make_room_for(1).unwrap();
        let many = files_of(u64::MAX / 2, Transport::Tls);
        let error = make_room_for(many).unwrap_err().to_string();
        assert!(
            error.contains(&many.to_string()) && error.contains("ulimit -Hn"),
            "{error}"
        );
        make_room_for(files_of(many, Transport::Quic)).unwrap();
    }
}
