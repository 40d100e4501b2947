//! The acceptance script, with programs that only pretend: it ends with 0 only when the broker was killed under way.

#![allow(clippy::unwrap_used)] // in helpers as in every test

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

#[path = "support/program.rs"]
mod program;
use program::program;

/// Counts its starts, says where it serves, then that it does, and stays until it is killed.
const BROKER: &str = r#"#!/bin/sh
echo >>"$0.starts"
mkdir -p "$3"
echo '{"tcp": "a", "tls": "b", "quic": "c", "ops": "d"}' >"$3/addresses.json"
echo >"$0.ready"
exec sleep 600
"#;
/// Each broker is found ready once.
const CURL: &str = r#"#!/bin/sh
release="${0%path/curl}target/release"
case "$*" in
*/health/ready) exec rm "$release/rialto.ready" ;;
esac
"#;
/// The broker has appended enough whenever it is asked.
const APPENDED: &str = "echo rialto_events_appended_total 5000\n";
/// Lets nothing be told before the replay that is to be killed is gone.
const ONCE_PLAYED: &str = r#"until [ -s "$release/loadgen.pid" ]; do sleep 0.01; done
while kill -0 "$(cat "$release/loadgen.pid")" 2>/dev/null; do sleep 0.01; done
"#;
/// Publishes nothing, and ends at once; the replay that is to be killed says which process it is.
const LOADGEN: &str = r#"#!/bin/sh
for report; do :; done
echo '"published": 0,' >"$report"
case "$*" in
*killed*) echo $$ >"$0.pid" ;;
esac
"#;
/// Lets the replay that is to be killed last until somebody ends it.
const FOR_EVER: &str = r#"case "$*" in
*killed*) exec >/dev/null 2>&1; while :; do sleep 0.1; done ;;
esac
"#;
/// Lets the replay that is to be killed last until that has happened, and the broker has been started for the third time.
const UNTIL_KILLED: &str = r#"case "$*" in
*killed*again.json) ;;
*killed*) until [ "$(wc -l <"${0%loadgen}rialto.starts")" -ge 3 ]; do sleep 0.01; done ;;
esac
"#;
/// After so many seconds the script hangs.
const PATIENCE_S: &str = "120";

fn accept(kills: &str, loadgen: &str, metrics: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    accept_in(folder.path(), BROKER, kills, loadgen, metrics)
}

fn accept_in(folder: &Path, broker: &str, kills: &str, loadgen: &str, metrics: &str) -> Output {
    let at = |name: &str| folder.join(name);
    let script = at("loadgen/acceptance.sh");
    program(&script, include_str!("../acceptance.sh"));
    program(&at("target/release/rialto"), broker);
    program(&at("target/release/loadgen"), loadgen);
    program(&at("path/curl"), &format!("{CURL}{metrics}"));
    let path = std::env::var("PATH").unwrap();
    // Ends what the script has started too.
    Command::new("timeout")
        .arg(PATIENCE_S)
        .arg(script)
        .args(["chat.jsonl", kills])
        .env("PATH", format!("{}:{path}", at("path").display()))
        .output()
        .unwrap()
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_replay_that_ends_before_any_kill_is_no_acceptance() {
    let output = accept("3", LOADGEN, &format!("{ONCE_PLAYED}{APPENDED}"));
    let said = words(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("the broker was never killed"), "{said}");
    assert!(!words(&output.stdout).contains("all clean"));
}

#[test]
fn a_replay_that_is_killed_under_way_is_accepted() {
    let output = accept("1", &format!("{LOADGEN}{UNTIL_KILLED}"), APPENDED);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = words(&output.stdout);
    assert!(said.ends_with("all clean, killed 1 of 1 times\n"), "{said}");
}

#[test]
fn a_broker_that_does_not_come_back_leaves_no_replay_behind() {
    let folder = tempfile::tempdir().unwrap();
    let starts = r#"[ "$(wc -l <"$0.starts")" -lt 3 ] || exit 1"#;
    let broker = BROKER.replace("mkdir", &format!("{starts}\nmkdir"));
    let loadgen = format!("{LOADGEN}{FOR_EVER}");
    let output = accept_in(folder.path(), &broker, "3", &loadgen, APPENDED);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let player = fs::read_to_string(folder.path().join("target/release/loadgen.pid")).unwrap();
    let kill = Command::new("sh")
        .args(["-c", &format!("kill -9 {player}")])
        .output();
    assert!(!kill.unwrap().status.success(), "it still played");
}

#[test]
fn a_missing_curl_is_said_instead_of_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("acceptance.sh");
    program(&script, include_str!("../acceptance.sh"));
    let output = Command::new("/bin/bash")
        .arg(script)
        .arg("chat.jsonl")
        .env("PATH", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = words(&output.stderr);
    assert!(said.contains("curl is missing"), "{said}");
}
