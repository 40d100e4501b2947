//! Limits of the operating system: a broker needs a file descriptor a connection.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many files this process may have open, after it has asked for as many as it is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFiles {
    /// This many.
    AtMost(u64),
    /// As many as the machine has.
    Unlimited,
    /// The operating system refused to raise the limit of this many.
    NotRaised(u64),
}

/// Raises the limit to what it may be.
#[must_use]
pub fn raise_open_files() -> OpenFiles {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        Ok(()) => maximum.map_or(OpenFiles::Unlimited, OpenFiles::AtMost),
        Err(_) => OpenFiles::NotRaised(current.unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        let raised = raise_open_files();
        assert!(!matches!(raised, OpenFiles::NotRaised(_)), "{raised:?}");
        assert_eq!(
            getrlimit(Resource::Nofile).current,
            getrlimit(Resource::Nofile).maximum
        );
    }
}
