//! What the program and its script refuse, so that nothing passes that was not tried.

#![allow(clippy::unwrap_used)] // as in every test

use std::path::Path;
use std::process::{Command, Output};

#[path = "../../loadgen/tests/support/built.rs"]
mod built;
use built::binary;
#[path = "../../loadgen/tests/support/program.rs"]
mod program;
use program::program;

/// One round against the broker as it is shipped, unless the program refuses.
fn faults(scratch: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_faults"))
        .args(["kill", "--short", "--seed", "1", "--scratch"])
        .arg(scratch)
        .arg("--rialto")
        .arg(binary())
        .args(args)
        .output()
        .unwrap()
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn no_rounds_are_no_campaign() {
    let scratch = tempfile::tempdir().unwrap();
    let output = faults(scratch.path(), &["--rounds", "0"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_mistake_that_the_broker_cannot_make_is_not_looked_for() {
    let scratch = tempfile::tempdir().unwrap();
    let planted = ["--rounds", "1", "--planted", "skip-dedupe"];
    let output = faults(scratch.path(), &planted);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = words(&output.stdout);
    assert!(said.contains("makes no mistakes on purpose"), "{said}");
    assert!(!said.contains("VIOLATION"), "{said}");
}

/// It would not start, and that would pass for the mistake that was looked for.
#[test]
fn a_mistake_that_no_broker_knows_is_not_looked_for() {
    let scratch = tempfile::tempdir().unwrap();
    let broker = scratch.path().join("rialto-planted");
    let script = r#"#!/bin/sh
case "$RIALTO_PLANTED" in "" | known) echo "rialto 1 (makes mistakes on purpose)" ;; *) echo "no such mistake" >&2; exit 1 ;; esac
"#;
    program(&broker, script);
    let output = Command::new(env!("CARGO_BIN_EXE_faults"))
        .args(["kill", "--short", "--rounds", "1", "--planted", "unknown"])
        .arg("--scratch")
        .arg(scratch.path())
        .arg("--rialto")
        .arg(&broker)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = words(&output.stdout);
    assert!(said.contains("no such mistake"), "{said}");
    assert!(!said.contains("VIOLATION"), "{said}");
}

#[test]
fn a_report_that_cannot_be_written_ends_it_before_anything_is_tried() {
    let scratch = tempfile::tempdir().unwrap();
    let report = scratch.path().join("missing/report.json");
    let output = faults(
        scratch.path(),
        &["--rounds", "1", "--report", report.to_str().unwrap()],
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(words(&output.stdout), "", "no campaign was run");
    let said = words(&output.stderr);
    assert!(said.contains("report.json cannot be written"), "{said}");
}

/// The script, with campaigns that only pretend.
fn planted(campaigns: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let pretend = r#"mkdir -p "$0/faults" "$0/target/release" && printf %s "$1" >"$0/faults/planted.sh" &&
printf '#!/bin/sh\n%s\n' "$2" >"$0/target/release/faults" &&
chmod +x "$0/target/release/faults" && exec bash "$0/faults/planted.sh" broker"#;
    Command::new("sh")
        .args(["-c", pretend])
        .arg(folder.path())
        .arg(include_str!("../planted.sh"))
        .arg(campaigns)
        .output()
        .unwrap()
}

#[test]
fn planting_ends_with_the_campaign_that_is_interrupted() {
    let output = planted("exit 130");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(words(&output.stderr), "interrupted\n");
}

/// `kill` finds nothing, `power` cannot run.
#[test]
fn a_mistake_that_was_missed_is_told_though_another_campaign_could_not_run() {
    let output = planted("case \"$1\" in power) exit 3 ;; esac");
    let said = words(&output.stderr);
    assert!(said.contains("kill does NOT find"), "{said}");
    assert!(said.contains("power cannot run here"), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
}
