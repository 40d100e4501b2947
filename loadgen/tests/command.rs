//! The command itself: reports, exit statuses, and errors that say what to do.

#![allow(clippy::unwrap_used)] // in helpers as in every test

#[path = "support/broker.rs"]
mod broker;
#[path = "support/chat.rs"]
mod chat;

use std::fs;
use std::process::{Command, Output};

use broker::Broker;
use serde_json::Value;

fn loadgen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments)
        .output()
        .unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn a_clean_replay_ends_with_status_0_and_a_report() {
    let (folder, broker) = (tempfile::tempdir().unwrap(), Broker::start());
    let file = chat::write(folder.path(), 2, 50);
    let report = folder.path().join("report.json");
    let (file, path) = (file.to_str().unwrap(), report.to_str().unwrap());
    let target = broker.target("tcp");
    let output = loadgen(&[
        "replay",
        file,
        "--target",
        &target,
        "--report",
        path,
        "--connections",
        "2",
        "--run",
        "a",
    ]);
    assert_eq!(status(&output), 0, "{output:?}");
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(
        (&report["messages"], &report["delivered"], &report["clean"]),
        (&100.into(), &300.into(), &true.into())
    );
    for kind in [
        "lost",
        "duplicated",
        "reordered",
        "gapped",
        "altered",
        "diverged",
    ] {
        assert_eq!(report["violations"][kind], 0, "{kind}");
    }
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("violations: none")
    );
}

#[test]
fn a_message_that_readers_never_get_ends_with_status_1() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start_with(&["limits.body_bytes_max=1024"]);
    let report = folder.path().join("report.json");
    let (path, target) = (report.to_str().unwrap(), broker.target("tcp"));
    let file = folder.path().join("long.jsonl");
    let line = |n: u32, text: &str| {
        format!(
            "{{\"channel\":\"c\",\"day\":\"d\",\"n\":{n},\"at\":0,\"nick\":\"a\",\"text\":\"{text}\"}}\n"
        )
    };
    let text = [line(0, "one"), line(1, &"x".repeat(2000)), line(2, "three")].concat();
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let output = loadgen(&["replay", file, "--target", &target, "--report", path]);
    assert_eq!(status(&output), 1, "{output:?}");
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(report["violations"]["lost"], 3, "one for each reader");
    assert_eq!(report["clean"], false);
    let first = report["examples"][0].as_str().unwrap();
    assert!(first.contains("message 1 was not taken"), "{first}");
}

#[test]
fn no_verdict_is_status_2_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (report, bad) = (path("report.json"), path("bad.jsonl"));
    let file = chat::write(folder.path(), 1, 3);
    let file = file.to_str().unwrap();
    fs::write(&bad, "{\n").unwrap();
    let (nobody, away) = (
        "--target tcp://127.0.0.1:1",
        "--target tls://broker.example:1",
    );
    for (arguments, report, says) in [
        (
            format!("replay missing {nobody}"),
            report.as_str(),
            "missing",
        ),
        (format!("replay {bad} {nobody}"), &report, "line 1"),
        (format!("replay {file} {nobody}"), &report, "no connection"),
        (
            format!("replay {file} {nobody}"),
            "/proc/no",
            "cannot be written",
        ),
        (format!("replay {file} {away}"), &report, "--ca"),
        (
            format!("replay {file} {nobody} --speed 1e-300x"),
            &report,
            "no number from 0.001 on",
        ),
        (
            format!("replay {file} {nobody} --window 0"),
            &report,
            "--window",
        ),
        (
            format!("replay {file} {nobody} --settle-s 18446744073709551615"),
            &report,
            "--settle-s",
        ),
        ("run --target nowhere".to_owned(), &report, "no target"),
        (
            format!("run {nobody} --connections 1"),
            &report,
            "--connections",
        ),
        (
            format!("idle {nobody} --broker-pid 1 --connections 0"),
            &report,
            "--connections",
        ),
        (
            format!("idle {nobody} --broker-pid 1 --connections 16777215"),
            &report,
            "--connections",
        ),
        (
            format!("idle {nobody} --broker-pid 4294967295"),
            &report,
            "/proc/4294967295",
        ),
    ] {
        let mut arguments: Vec<&str> = arguments.split(' ').collect();
        arguments.extend(["--report", report]);
        let output = loadgen(&arguments);
        let text = String::from_utf8(output.stderr.clone()).unwrap();
        assert!(
            status(&output) == 2 && text.contains(says),
            "{arguments:?}: {text}"
        );
    }
}
