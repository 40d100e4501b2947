//! The acceptance script, with programs that only pretend: it ends with 0 only when the broker was killed under way.

#![allow(clippy::unwrap_used)] // in helpers as in every test

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

/// Counts its starts, says where it serves, and stays until it is killed.
const BROKER: &str = r#"#!/bin/sh
echo >>"$0.starts"
mkdir -p "$3"
echo '{"tcp": "a", "tls": "b", "quic": "c", "ops": "d"}' >"$3/addresses.json"
exec sleep 600
"#;
/// Has appended enough whenever it is asked.
const CURL: &str = "#!/bin/sh\necho rialto_events_appended_total 5000\n";
/// Publishes nothing, and ends at once.
const LOADGEN: &str = r#"#!/bin/sh
for report; do :; done
echo '"published": 0,' >"$report"
"#;
/// Lets the replay that is to be killed last until that has happened, and the broker has been started for the third time.
const UNTIL_KILLED: &str = r#"case "$*" in
*killed*again.json) ;;
*killed*) until [ "$(wc -l <"${0%loadgen}rialto.starts")" -ge 3 ]; do sleep 0.01; done ;;
esac
"#;

fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn accept(kills: &str, loadgen: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let script = at("loadgen/acceptance.sh");
    program(&script, include_str!("../acceptance.sh"));
    program(&at("target/release/rialto"), BROKER);
    program(&at("target/release/loadgen"), loadgen);
    program(&at("path/curl"), CURL);
    let path = std::env::var("PATH").unwrap();
    Command::new(script)
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
    let output = accept("3", LOADGEN);
    let said = words(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("the broker was never killed"), "{said}");
    assert!(!words(&output.stdout).contains("all clean"));
}

#[test]
fn a_replay_that_is_killed_under_way_is_accepted() {
    let output = accept("1", &format!("{LOADGEN}{UNTIL_KILLED}"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = words(&output.stdout);
    assert!(said.ends_with("all clean, killed 1 of 1 times\n"), "{said}");
}
