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

/// Files that are left to storage and to what else the process opens: 128 that the views keep open, those that they make and merge, the
/// journal's segments. Of a low limit it is a quarter.
const LEFT: u64 = 512;

impl OpenFiles {
    /// How many of them connections may take.
    #[must_use]
    pub fn for_connections(self) -> usize {
        match self {
            Self::AtMost(count) | Self::NotRaised(count) => {
                let for_connections = count - LEFT.min(count / 4);
                usize::try_from(for_connections).unwrap_or(usize::MAX)
            }
            Self::Unlimited => usize::MAX,
        }
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

    #[test]
    fn connections_leave_some_to_storage() {
        let for_connections = |files: OpenFiles| files.for_connections();
        assert_eq!(for_connections(OpenFiles::AtMost(20_000)), 19_488);
        assert_eq!(for_connections(OpenFiles::NotRaised(1024)), 768);
        assert_eq!(for_connections(OpenFiles::Unlimited), usize::MAX);
    }
}
