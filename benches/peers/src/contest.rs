//! Who runs when: cases in order, those that take part in turn, the order turned by one with each repeat.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::case::Case;
use crate::disk;
use crate::peer::{Measured, Peer, Run, Setting};

/// How long the disk alone is measured in each repeat.
const DISK: Duration = Duration::from_secs(1);

/// What the folders of runs are called.
const RUN_PREFIX: &str = "rialto-peers-run-";

/// A peer in one setting in one case, and what came out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    /// What is measured.
    pub(crate) case: Case,
    /// Which of the peers.
    pub(crate) peer: usize,
    /// How it is set up.
    pub(crate) setting: Setting,
    /// One for each repeat that went well.
    pub(crate) samples: Vec<Measured>,
    /// Why the others did not.
    pub(crate) failures: Vec<String>,
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) repeats: usize,
    pub(crate) measure: Duration,
    pub(crate) warm_up: Duration,
    /// Nothing happens between two runs for so long.
    pub(crate) settle: Duration,
}

/// Which settings of a peer are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Settings {
    /// The one that was found to be the best.
    Best,
    /// All that are worth trying, of which the best median counts.
    All,
}

/// All of it.
pub(crate) struct Contest {
    /// Those that take part.
    pub(crate) peers: Vec<Box<dyn Peer>>,
    /// By case, in the order of the cases.
    pub(crate) entries: Vec<Entry>,
    /// The disk alone, milliseconds; one for each repeat.
    pub(crate) sync_p50_ms: Vec<f64>,
}

/// What a watcher is told.
pub(crate) trait Watch {
    /// So many runs will follow.
    fn begins(&mut self, runs: usize);
    /// This one begins.
    fn run_begins(&mut self, words: &str);
    /// It is over.
    fn run_ends(&mut self, words: &str);
    /// Keeps what was measured up to now.
    ///
    /// # Errors
    /// When it cannot be written.
    fn keep(&mut self, contest: &Contest) -> anyhow::Result<()>;
}

impl Contest {
    pub(crate) fn new(cases: &[Case], peers: Vec<Box<dyn Peer>>, settings: Settings) -> Self {
        let mut entries = Vec::new();
        for case in cases {
            for (peer, settable) in peers.iter().enumerate() {
                let mut settings_of_it = settable.settings(case);
                if settings == Settings::Best {
                    settings_of_it.truncate(1);
                }
                entries.extend(settings_of_it.into_iter().map(|setting| Entry {
                    case: *case,
                    peer,
                    setting,
                    samples: Vec::new(),
                    failures: Vec::new(),
                }));
            }
        }
        Self {
            peers,
            entries,
            sync_p50_ms: Vec::new(),
        }
    }

    /// Runs everything, with data in folders below `data`.
    ///
    /// # Errors
    /// When the disk cannot be used, or another contest uses the folder. A run that fails is noted in its entry.
    pub(crate) fn run(
        &mut self,
        pace: Pace,
        data: &Path,
        watch: &mut dyn Watch,
    ) -> anyhow::Result<()> {
        let cases: Vec<Case> = self.entries.iter().map(|entry| entry.case).collect();
        let _alone = lock(data)?;
        remove_left_over(data)?;
        watch.begins(pace.repeats * cases.len());
        for repeat in 0..pace.repeats {
            let alone = fresh_folder(data)?;
            self.sync_p50_ms
                .push(disk::sync_p50_ms(alone.path(), DISK)?);
            drop(alone);
            for at in order(&cases, repeat) {
                let words = self.words(at);
                watch.run_begins(&words);
                quieten(pace.settle)?;
                let outcome = self.one(at, pace, data);
                let entry = &mut self.entries[at];
                match outcome {
                    Ok(measured) => {
                        watch.run_ends(&format!("{words}: {:.0}/s", measured.per_s));
                        entry.samples.push(measured);
                    }
                    Err(error) => {
                        watch.run_ends(&format!("{words}: failed: {error:#}"));
                        entry.failures.push(format!("{error:#}"));
                    }
                }
                watch.keep(self)?;
            }
        }
        Ok(())
    }

    fn words(&self, at: usize) -> String {
        let entry = &self.entries[at];
        let peer = self.peers[entry.peer].name();
        format!("{} {peer} ({})", entry.case.name, entry.setting.name)
    }

    fn one(&self, at: usize, pace: Pace, data: &Path) -> anyhow::Result<Measured> {
        let entry = &self.entries[at];
        let folder = fresh_folder(data)?;
        let run = Run {
            folder: folder.path(),
            measure: pace.measure,
            warm_up: pace.warm_up,
        };
        self.peers[entry.peer].measure(&entry.case, &entry.setting, run)
    }
}

/// Keeps other contests away from a folder for as long as what comes back lives: their runs would be taken for left over.
fn lock(data: &Path) -> anyhow::Result<File> {
    let folder = File::open(data)?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => bail!(
            "another contest is under way in {}: wait for its end, for two at once measure each other",
            data.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", data.display()))
        }
    }
}

/// Removes folders of runs that were cut short.
fn remove_left_over(data: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(RUN_PREFIX) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn fresh_folder(data: &Path) -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(RUN_PREFIX)
        .tempdir_in(data)
        .with_context(|| format!("no folder can be made in {}", data.display()))
}

/// Lets the disk finish what the run before left it, then waits.
fn quieten(settle: Duration) -> anyhow::Result<()> {
    Command::new("sync")
        .status()
        .context("sync (of coreutils) cannot be started")?;
    thread::sleep(settle);
    Ok(())
}

/// In which order entries of these cases run in a repeat: case by case, in each the first turns by one with each repeat.
fn order(cases: &[Case], repeat: usize) -> Vec<usize> {
    let mut order = Vec::new();
    let mut from = 0;
    for group in cases.chunk_by(|one, other| one.name == other.name) {
        let count = group.len();
        order.extend((0..count).map(|place| from + (place + repeat) % count));
        from += count;
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::CASES;

    #[test]
    fn the_order_within_a_case_turns_with_each_repeat() {
        let cases = [CASES[0], CASES[0], CASES[0], CASES[1], CASES[1]];
        assert_eq!(order(&cases, 0), [0, 1, 2, 3, 4]);
        assert_eq!(order(&cases, 1), [1, 2, 0, 4, 3]);
        assert_eq!(order(&cases, 5), [2, 0, 1, 4, 3]);
    }

    /// Fails in its first run, and tells how often it was asked in all others.
    struct Flaky(std::cell::Cell<usize>);

    impl Peer for Flaky {
        fn name(&self) -> &'static str {
            "flaky"
        }
        fn title(&self) -> String {
            "Flaky".into()
        }
        fn promise(&self) -> crate::peer::Promise {
            crate::peer::Promise::Durable
        }
        fn terms(&self) -> &'static str {
            ""
        }
        fn settings(&self, _: &Case) -> Vec<Setting> {
            vec![Setting::default(), Setting::default()]
        }
        fn measure(&self, _: &Case, _: &Setting, run: Run<'_>) -> anyhow::Result<Measured> {
            assert_eq!(fs::read_dir(run.folder)?.count(), 0);
            fs::write(run.folder.join("left behind"), "x")?;
            let before = self.0.replace(self.0.get() + 1);
            anyhow::ensure!(before > 0, "the port was taken");
            Ok(Measured {
                per_s: before as f64,
                p50_ms: None,
                peak_bytes: None,
            })
        }
    }

    #[derive(Default)]
    struct Heard {
        runs: usize,
        ended: Vec<String>,
        kept: usize,
    }

    impl Watch for Heard {
        fn begins(&mut self, runs: usize) {
            self.runs = runs;
        }
        fn run_begins(&mut self, _: &str) {}
        fn run_ends(&mut self, words: &str) {
            self.ended.push(words.to_owned());
        }
        fn keep(&mut self, _: &Contest) -> anyhow::Result<()> {
            self.kept += 1;
            Ok(())
        }
    }

    const TWICE: Pace = Pace {
        repeats: 2,
        measure: Duration::ZERO,
        warm_up: Duration::ZERO,
        settle: Duration::ZERO,
    };

    fn flaky() -> Contest {
        let peers: Vec<Box<dyn Peer>> = vec![Box::new(Flaky(0.into()))];
        Contest::new(&CASES[..1], peers, Settings::All)
    }

    #[test]
    fn a_second_contest_leaves_alone_what_the_first_one_has_in_its_folder() {
        let data = tempfile::tempdir().unwrap();
        let first = lock(data.path()).unwrap();
        let run = fresh_folder(data.path()).unwrap();
        let mut heard = Heard::default();
        let second = flaky().run(TWICE, data.path(), &mut heard).unwrap_err();
        assert!(second.to_string().contains("another contest"), "{second}");
        assert!(run.path().exists());
        drop(first);
        flaky().run(TWICE, data.path(), &mut heard).unwrap();
        assert!(!run.path().exists(), "nobody has it any more");
    }

    #[test]
    fn a_failed_run_is_noted_and_the_others_go_on_in_empty_folders() {
        let data = tempfile::tempdir().unwrap();
        let left_over = data.path().join(format!("{RUN_PREFIX}killed"));
        fs::create_dir(&left_over).unwrap();
        let mut contest = flaky();
        let mut heard = Heard::default();
        contest.run(TWICE, data.path(), &mut heard).unwrap();
        let samples: Vec<_> = contest
            .entries
            .iter()
            .flat_map(|entry| entry.samples.iter().map(|sample| sample.per_s))
            .collect();
        assert_eq!(samples, [3.0, 1.0, 2.0]);
        assert_eq!(contest.entries[0].failures, ["the port was taken"]);
        assert_eq!((heard.runs, heard.ended.len(), heard.kept), (4, 4, 4));
        assert!(heard.ended[0].contains("the port was taken"));
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
    }
}
