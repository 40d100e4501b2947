//! Whatever ends the program, nothing of it stays behind that goes on.

#![allow(clippy::unwrap_used)] // as in every test

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[path = "../../loadgen/tests/support/built.rs"]
mod built;
use built::binary;
#[path = "../../loadgen/tests/support/program.rs"]
mod program;
use program::program;

/// The status of a campaign that was interrupted and had found nothing.
const INTERRUPTED: i32 = 130;
const PATIENCE: Duration = Duration::from_secs(60);

/// A campaign without an end, on one broker.
struct Running {
    scratch: tempfile::TempDir,
    faults: Child,
    broker: u64,
}

impl Running {
    fn start() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        // Whatever the suite was started to ignore.
        let faults = Command::new("env")
            .arg("--default-signal=HUP,QUIT")
            .arg(env!("CARGO_BIN_EXE_faults"))
            .args(["certificate", "--short", "--rounds", "100000", "--scratch"])
            .arg(scratch.path())
            .arg("--rialto")
            .arg(binary())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let broker = wait_for(|| broker(scratch.path()));
        Self {
            scratch,
            faults,
            broker,
        }
    }

    /// Gives the exit status, if there is one.
    fn end(&mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_raw(self.faults.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        wait_for(|| self.faults.try_wait().unwrap()).code()
    }
}

/// The process id of the broker that serves in there.
fn broker(scratch: &Path) -> Option<u64> {
    let folders = fs::read_dir(scratch).unwrap();
    let mut files = folders.map(|folder| folder.unwrap().path().join("data/addresses.json"));
    let addresses: PathBuf = files.find(|file| file.exists())?;
    let value: Value = serde_json::from_slice(&fs::read(addresses).ok()?).ok()?;
    value["pid"].as_u64()
}

/// Whether a process runs; one that nobody has asked for its status has no command line any more.
fn runs(pid: u64) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty())
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_terminal_that_goes_ends_the_campaign_in_order() {
    for signal in [Signal::HUP, Signal::QUIT] {
        let mut running = Running::start();
        assert_eq!(running.end(signal), Some(INTERRUPTED));
        assert!(!runs(running.broker));
        let left = fs::read_dir(running.scratch.path()).unwrap().count();
        assert_eq!(left, 0, "{signal:?}");
    }
}

/// The broker does not start at first, and then neither serves nor ends.
#[test]
fn what_one_campaign_found_is_told_though_the_next_one_is_given_up() {
    let scratch = tempfile::tempdir().unwrap();
    let broker = scratch.path().join("rialto");
    let script = "#!/bin/sh\ntest -e \"$0.once\" || { touch \"$0.once\"; exit 1; }\n\
                  touch \"$0.twice\"; exec sleep 1000\n";
    program(&broker, script);
    let mut faults = Command::new(env!("CARGO_BIN_EXE_faults"))
        .args(["kill", "clock", "--short", "--scratch"])
        .arg(scratch.path())
        .arg("--rialto")
        .arg(&broker)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(faults.stderr.take().unwrap()).lines();
    let pid = Pid::from_raw(faults.id().try_into().unwrap()).unwrap();
    wait_for(|| scratch.path().join("rialto.twice").exists().then_some(()));
    kill_process(pid, Signal::TERM).unwrap();
    // Or both would be one.
    let heard = said.find(|line| line.as_ref().unwrap().contains("once more"));
    assert!(heard.is_some());
    kill_process(pid, Signal::TERM).unwrap();
    let status = wait_for(|| faults.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_campaign_that_is_killed_leaves_no_broker() {
    let mut running = Running::start();
    assert!(runs(running.broker));
    assert_eq!(running.end(Signal::KILL), None);
    wait_for(|| (!runs(running.broker)).then_some(()));
}
