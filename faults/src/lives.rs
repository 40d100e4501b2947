//! How brokers' lives ended. Every end passes here, whoever brought it about: that a broker ended by itself, or that a part of it
//! panicked, is nothing that a campaign could forget to look for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::broker::Ending;
use crate::findings::{Figures, Findings};

/// What an end is that the broker brought about by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnEnd {
    /// A violation.
    #[default]
    Wrong,
    /// In order if it says why: what the broker needs is taken from it.
    HasToSayWhy,
}

/// What a broker was asked for before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing: it ended by itself.
    Nothing,
    /// To stop in order.
    ToStop,
    /// It was killed.
    ToDie,
}

/// See the module. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Lives(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    own_end: OwnEnd,
    at: String,
    findings: Findings,
    figures: Figures,
}

impl Lives {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How ends are judged from now on.
    pub(crate) fn judge_own_ends(&self, own_end: OwnEnd) {
        self.noted().own_end = own_end;
    }

    /// What goes on from now on; it stands in every finding.
    pub(crate) fn at(&self, what: impl Into<String>) {
        self.noted().at = what.into();
    }

    /// A life is over.
    pub(crate) fn over(&self, ending: &Ending, asked: Asked) {
        let mut noted = self.noted();
        let in_order = match (asked, noted.own_end) {
            _ if ending.has_panicked() => Err("panicked"),
            (Asked::ToDie, _) => return,
            (Asked::ToStop, _) if ending.status.success() => Ok("stops in order"),
            (_, OwnEnd::HasToSayWhy) if ending.is_clear() => Ok("ended with a clear error"),
            (_, OwnEnd::HasToSayWhy) => Err("ended without a word"),
            (Asked::ToStop, OwnEnd::Wrong) => Err("did not stop in order"),
            (Asked::Nothing, OwnEnd::Wrong) => Err("ended by itself"),
        };
        match in_order {
            Ok(figure) => noted.figures.add(figure, 1),
            Err(kind) => {
                let words = format!("{}: {}", noted.at, ending.words());
                noted.findings.add(kind, words);
            }
        }
    }

    /// One does not end.
    pub(crate) fn hangs(&self, words: &str) {
        let mut noted = self.noted();
        let words = format!("{}: {words}", noted.at);
        noted.findings.add("hung", words);
    }

    /// What was found and counted since it was asked for last.
    pub(crate) fn take(&self) -> (Findings, Figures) {
        let mut noted = self.noted();
        (
            std::mem::take(&mut noted.findings),
            std::mem::take(&mut noted.figures),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    const SUCCESS: i32 = 0;
    const FAILURE: i32 = 1 << 8;
    const KILLED: i32 = 9;

    /// What is found, or counted, of an end.
    fn judged(own_end: OwnEnd, asked: Asked, status: i32, log: &str) -> Vec<String> {
        let lives = Lives::default();
        lives.judge_own_ends(own_end);
        let ending = Ending {
            status: ExitStatus::from_raw(status),
            log: log.to_owned(),
        };
        lives.over(&ending, asked);
        let (findings, figures) = lives.take();
        let found = findings.violations.into_keys();
        found.chain(figures.0.into_keys()).collect()
    }

    #[test]
    fn nobody_ends_by_himself_where_nothing_is_taken_from_him() {
        let own = |status, log| judged(OwnEnd::Wrong, Asked::Nothing, status, log);
        assert_eq!(own(SUCCESS, ""), ["ended by itself"]);
        assert_eq!(own(FAILURE, "rialto: no room"), ["ended by itself"]);
        assert_eq!(own(KILLED, ""), ["ended by itself"], "by somebody else");
        assert_eq!(judged(OwnEnd::Wrong, Asked::ToDie, KILLED, ""), [""; 0]);
    }

    #[test]
    fn an_own_end_that_says_why_is_in_order_where_something_is_taken() {
        let own = |status, log| judged(OwnEnd::HasToSayWhy, Asked::Nothing, status, log);
        assert_eq!(
            own(FAILURE, "rialto: no room"),
            ["ended with a clear error"]
        );
        assert_eq!(own(FAILURE, ""), ["ended without a word"]);
        assert_eq!(own(SUCCESS, "rialto: bye"), ["ended without a word"]);
    }

    #[test]
    fn only_a_success_is_a_stop_in_order() {
        let stop = |own_end, status, log| judged(own_end, Asked::ToStop, status, log);
        let said = "rialto: no room";
        assert_eq!(stop(OwnEnd::Wrong, SUCCESS, ""), ["stops in order"]);
        let failed = ["did not stop in order"];
        assert_eq!(stop(OwnEnd::Wrong, FAILURE, said), failed);
        let clear = ["ended with a clear error"];
        assert_eq!(stop(OwnEnd::HasToSayWhy, FAILURE, said), clear);
        assert_eq!(stop(OwnEnd::HasToSayWhy, 6, said), ["panicked"]);
    }

    #[test]
    fn a_panic_of_one_task_is_found_whatever_the_end() {
        let log = "thread 'shard' panicked at shard.rs:7\nrialto: the disk is full";
        for own_end in [OwnEnd::Wrong, OwnEnd::HasToSayWhy] {
            for (asked, status) in [
                (Asked::Nothing, FAILURE),
                (Asked::ToStop, SUCCESS),
                (Asked::ToDie, KILLED),
            ] {
                assert_eq!(judged(own_end, asked, status, log), ["panicked"]);
            }
        }
    }
}
