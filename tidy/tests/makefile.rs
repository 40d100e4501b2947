//! What `make` tells, with programs that only pretend.

#![allow(clippy::unwrap_used)] // in helpers as in every test

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rialto_tidy::tree;

/// Writes it from a process of its own: no child of another test may have it open when it is run.
fn program(path: &Path, text: &str) {
    let write = Command::new("sh")
        .args(["-c", r#"printf '%s' "$1" >"$0" && chmod +x "$0""#])
        .arg(path)
        .arg(format!("#!/bin/sh\n{text}"))
        .status();
    assert!(write.unwrap().success());
}

/// Runs a target in a folder of its own, where these are the first programs that are found.
fn make(target: &str, programs: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    for file in ["Makefile", "Cargo.toml"] {
        fs::copy(tree::root().join(file), folder.path().join(file)).unwrap();
    }
    let pretend = [("rustc", "echo rustc 9.9.9"), ("cc", "")];
    for (name, text) in pretend.iter().chain(programs) {
        program(&folder.path().join(name), text);
    }
    let path = std::env::var("PATH").unwrap();
    Command::new("make")
        .arg(target)
        .current_dir(folder.path())
        .env("PATH", format!("{}:{path}", folder.path().display()))
        // Of a `make` that this test runs under.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .output()
        .unwrap()
}

#[test]
fn the_summary_of_the_tests_says_what_was_not_tested() {
    let cargo = r#"
echo "NOT TESTED, power: root is needed" >&2
echo "test nothing_is_lost ... NOT TESTED, power: root is needed" >&2
echo "test it_works ... ok"
echo "test it_breaks ... FAILED"
echo "test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured"
exit 101
"#;
    let output = make("test", &[("cargo", cargo)]);
    assert!(!output.status.success(), "a test failed");
    let said = String::from_utf8(output.stdout).unwrap();
    let (_, summary) = said.split_once("0 measured\n").unwrap();
    assert_eq!(
        summary,
        "failed: it_breaks\nNOT TESTED, power: root is needed\n\n\
         1 passed, 1 failed, 2 ignored; the whole output is in target/test.log\n"
    );
}
