//! A short form of each campaign, against the broker as it is built for tests.

#![allow(clippy::unwrap_used)] // as in every test

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rialto_faults::campaign::{self, Campaign, Options, Outcome, Report};
use tokio::sync::watch;

#[path = "../../loadgen/tests/support/built.rs"]
mod built;
use built::{binary, build};
#[path = "../../loadgen/tests/support/program.rs"]
mod program;
use program::program;

/// So many runs find a mistake, or the campaign does not.
const RUNS_MAX: u64 = 5;

/// Runs a campaign and insists on its verdict. Where the machine lacks what it needs, that is said aloud.
fn passes(campaign: Campaign) {
    let scratch = tempfile::tempdir().unwrap();
    let options = options(campaign, binary(), scratch.path());
    let report = play(campaign, &options, false);
    match &report.outcome {
        Outcome::CannotRun(why) => not_tested(campaign, why),
        _ => assert!(report.passed(), "{}", report.text()),
    }
}

/// Past what the test harness keeps to itself of tests that pass: it does so with what `eprintln!` writes, and no more.
fn not_tested(campaign: Campaign, why: &str) {
    let _ = writeln!(io::stderr(), "NOT TESTED, {}: {why}", campaign.name());
}

/// Runs a campaign against a broker that makes a mistake, and insists that it is found and that this is left of it;
/// `faults/planted.sh` has them all. Whether a single run meets the mistake is up to how fast the broker is.
fn finds(campaign: Campaign, mistake: &str, left: &str) {
    for seed in 1..=RUNS_MAX {
        let scratch = tempfile::tempdir().unwrap();
        let mut options = options(campaign, planted(), scratch.path());
        options.planted = Some(mistake.to_owned());
        options.seed = seed;
        let report = play(campaign, &options, false);
        match &report.outcome {
            Outcome::CannotRun(why) => return not_tested(campaign, why),
            Outcome::Failed => {
                let kept = report.kept.unwrap();
                assert!(kept.join(left).exists(), "{}", kept.display());
                return;
            }
            Outcome::Passed => {}
            other => panic!("{mistake}: {other:?}: {}", report.text()),
        }
    }
    panic!("{mistake} is not found by {RUNS_MAX} runs");
}

fn options(campaign: Campaign, binary: &Path, scratch: &Path) -> Options {
    Options {
        binary: binary.to_owned(),
        scratch: scratch.to_owned(),
        rounds: campaign.rounds_short(),
        seed: 1,
        attack: None,
        short: true,
        planted: None,
    }
}

fn play(campaign: Campaign, options: &Options, interrupted: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (_, interrupted) = watch::channel(interrupted);
    runtime.block_on(campaign::run(campaign, options, interrupted))
}

/// A broker that can make mistakes.
fn planted() -> &'static Path {
    static PLANTED: OnceLock<PathBuf> = OnceLock::new();
    PLANTED.get_or_init(|| build("rialto-planted", &["--features", "planted"]))
}

#[test]
fn an_interrupted_campaign_judges_what_it_did_and_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let options = options(Campaign::Kill, binary(), scratch.path());
    let report = play(Campaign::Kill, &options, true);
    let after = Outcome::Interrupted(0);
    assert_eq!(report.outcome, after, "{}", report.text());
    assert_eq!(report.figures.of("starts"), 1);
    assert_eq!(report.figures.of("kills"), 0);
    let words = "verdict: INTERRUPTED after 0 rounds";
    assert!(report.text().contains(words), "{}", report.text());
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

/// A broker as it is built, before whose start this is done.
fn after(folder: &Path, line: &str) -> PathBuf {
    let path = folder.join("rialto");
    let script = format!("#!/bin/sh\n{line}\nexec '{}' \"$@\"\n", binary().display());
    program(&path, &script);
    path
}

#[test]
fn a_panic_of_one_task_is_found_though_all_goes_on() {
    for campaign in [Campaign::Kill, Campaign::Overload] {
        let scratch = tempfile::tempdir().unwrap();
        let panicked = "echo \"thread 'shard' panicked at shard.rs:7:\" >&2";
        let mut options = options(campaign, &after(scratch.path(), panicked), scratch.path());
        options.rounds = 1;
        let report = play(campaign, &options, false);
        let found: Vec<&String> = report.findings.violations.keys().collect();
        assert_eq!(found, ["panicked"], "{}", report.text());
    }
}

/// As where the folder of the library may hold no programs, or a broker is linked statically.
#[test]
fn a_campaign_whose_library_the_broker_does_not_load_cannot_run() {
    let scratch = tempfile::tempdir().unwrap();
    let binary = after(scratch.path(), "unset LD_PRELOAD");
    let options = options(Campaign::Clock, &binary, scratch.path());
    let report = play(Campaign::Clock, &options, false);
    let cannot_run = matches!(report.outcome, Outcome::CannotRun(_));
    assert!(cannot_run, "{}", report.text());
}

#[test]
fn nothing_acknowledged_is_lost_when_the_broker_is_killed() {
    passes(Campaign::Kill);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    passes(Campaign::Power);
}

#[test]
fn calls_that_fail_lose_nothing_that_was_acknowledged() {
    passes(Campaign::Io);
}

#[test]
fn a_full_disk_refuses_for_now_and_nothing_more() {
    passes(Campaign::Full);
}

#[test]
fn damaged_files_are_noticed_or_harmless() {
    passes(Campaign::Corrupt);
}

#[test]
fn a_clock_that_steps_changes_nothing_of_the_order() {
    passes(Campaign::Clock);
}

#[test]
fn everybody_goes_on_after_a_pause() {
    passes(Campaign::Pause);
}

#[test]
fn quic_gets_through_bad_weather() {
    passes(Campaign::Relay);
}

#[test]
fn certificates_are_replaced_under_load() {
    passes(Campaign::Certificate);
}

#[test]
fn everybody_is_served_after_a_storm_of_restarts() {
    passes(Campaign::Storm);
}

#[test]
fn attacks_are_refused_and_counted_and_those_who_behave_lose_nothing() {
    passes(Campaign::Overload);
}

#[test]
fn an_acknowledgement_before_the_sync_is_found_when_the_power_goes() {
    finds(Campaign::Power, "ack-before-sync", "disk.img");
}

#[test]
fn a_dedupe_that_is_skipped_is_found_when_the_broker_is_killed() {
    finds(Campaign::Kill, "skip-dedupe", "data");
}
