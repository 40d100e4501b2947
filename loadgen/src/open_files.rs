//! The limit of open files: one connection is one of them.

use std::io;

/// Files that are open beside connections: standard streams, the log, epoll, and room to spare.
const BESIDE_CONNECTIONS: u64 = 64;

/// More connections than files may be open.
#[derive(Debug, thiserror::Error)]
pub enum OpenFilesError {
    /// The hard limit is too low.
    #[error(
        "{connections} connections need {needed} open files, and this process may have {hard}: raise it (`ulimit -Hn`), \
         or share connections"
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
    #[error("the limit of open files cannot be changed: {0}")]
    Refused(#[from] io::Error),
}

/// Makes sure that so many connections can be open, by raising the soft limit as far as needed.
///
/// # Errors
/// When the hard limit does not allow it.
pub fn make_room_for(connections: u64) -> Result<(), OpenFilesError> {
    let needed = connections.saturating_add(BESIDE_CONNECTIONS);
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes to `limit`, which lives until it returns, and to nothing else.
    #[allow(unsafe_code)]
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    if limit.rlim_cur >= needed {
        return Ok(());
    }
    if limit.rlim_max < needed {
        return Err(OpenFilesError::TooFew {
            connections,
            needed,
            hard: limit.rlim_max,
        });
    }
    limit.rlim_cur = needed;
    // SAFETY: the call only reads `limit`.
    #[allow(unsafe_code)]
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_hard_limit_is_refused_with_both_numbers() {
        make_room_for(1).unwrap();
        let error = make_room_for(u64::MAX / 2).unwrap_err().to_string();
        assert!(
            error.contains(&(u64::MAX / 2).to_string()) && error.contains("ulimit -Hn"),
            "{error}"
        );
    }
}
