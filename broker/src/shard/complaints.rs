//! Lines of the log about what fails again and again: one in a while, with how often it has failed.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Least time between two lines about the same.
const COMPLAINTS_APART: Duration = Duration::from_secs(10);

/// What fails because of the disk fails each time that somebody asks for it.
#[derive(Default)]
pub(crate) struct Complaints {
    last: Cell<Option<Instant>>,
    /// Not told of since.
    untold: Cell<u64>,
}

impl Complaints {
    /// Takes in a failure. When it is time for a line, how many there were since the last one.
    pub(crate) fn note(&self) -> Option<u64> {
        let failures = self.untold.get() + 1;
        if let Some(last) = self.last.get()
            && last.elapsed() < COMPLAINTS_APART
        {
            self.untold.set(failures);
            return None;
        }
        self.last.set(Some(Instant::now()));
        self.untold.set(0);
        Some(failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_at_once_is_told_of_later_with_how_often() {
        let complaints = Complaints::default();
        assert_eq!(complaints.note(), Some(1));
        assert_eq!((complaints.note(), complaints.note()), (None, None));
        complaints
            .last
            .set(Instant::now().checked_sub(COMPLAINTS_APART));
        assert_eq!(complaints.note(), Some(3));
        assert_eq!(complaints.note(), None);
    }
}
