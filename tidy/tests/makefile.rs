//! What `make` does and tells, with programs that only pretend.

#![allow(clippy::unwrap_used)] // in helpers as in every test

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rialto_tidy::tree;
use tempfile::TempDir;

/// What recipes use beside the programs that pretend.
const TOOLS: &[&str] = &["awk", "chmod", "head", "mkdir", "sed", "sort", "tee"];

/// Where a program is.
fn find(name: &str) -> PathBuf {
    std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is missing"))
}

/// Writes it from a process of its own: no child of another test may have it open when it is run.
fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let write = Command::new("sh")
        .args(["-c", r#"printf '%s' "$1" >"$0" && chmod +x "$0""#])
        .arg(path)
        .arg(format!("#!/bin/sh\n{text}\n"))
        .status();
    assert!(write.unwrap().success());
}

/// A copy of what `make` reads, in a folder with no other programs than these and [`TOOLS`].
fn folder(programs: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for file in ["Makefile", "Cargo.toml"] {
        fs::copy(tree::root().join(file), at(file)).unwrap();
    }
    fs::create_dir(at("bin")).unwrap();
    for tool in TOOLS {
        symlink(find(tool), at("bin").join(tool)).unwrap();
    }
    let pretend = [
        ("rustc", "echo rustc 9999.0.0"),
        ("cc", ""),
        ("setpriv", ""),
    ];
    for (name, text) in pretend.iter().chain(programs) {
        program(&at("bin").join(name), text);
    }
    folder
}

fn make(folder: &TempDir, target: &str) -> Output {
    command(folder, target).output().unwrap()
}

fn command(folder: &TempDir, target: &str) -> Command {
    let mut make = Command::new(find("make"));
    make.arg(target)
        .current_dir(folder.path())
        // Nothing of a `make` that this test runs under.
        .env_clear()
        .env("PATH", folder.path().join("bin"))
        .env("HOME", folder.path());
    make
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_summary_of_the_tests_says_what_was_not_tested() {
    let cargo = r#"
echo "NOT TESTED, power: root is needed" >&2
echo "test nothing_is_lost ... NOT TESTED, power: root is needed" >&2
echo "test it_works ... ok"
echo "test it_breaks ... FAILED"
echo "test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured"
exit 101"#;
    let output = make(&folder(&[("cargo", cargo)]), "test");
    assert!(!output.status.success(), "a test failed");
    let said = words(&output.stdout);
    let summary = said.split_once("0 measured\n");
    assert_eq!(
        summary.unwrap_or_else(|| panic!("{output:?}")).1,
        "failed: it_breaks\nNOT TESTED, power: root is needed\n\n\
         1 passed, 1 failed, 2 ignored; the whole output is in target/test.log\n"
    );
}

#[test]
fn what_is_run_is_what_was_built_wherever_cargo_is_told_to_build() {
    let cargo = r#"mkdir -p "$CARGO_TARGET_DIR/release"
printf '#!/bin/sh\necho built\n' >"$CARGO_TARGET_DIR/release/rialto"
chmod +x "$CARGO_TARGET_DIR/release/rialto""#;
    let folder = folder(&[("cargo", cargo)]);
    program(
        &folder.path().join("target/release/rialto"),
        "echo left from another build",
    );
    let elsewhere = folder.path().join("elsewhere");
    let mut run = command(&folder, "run");
    let output = run.env("CARGO_TARGET_DIR", elsewhere).output().unwrap();
    assert_eq!(words(&output.stdout), "built\n", "{output:?}");
}

/// Where the peers are compared, were they there.
fn peers(user: &str) -> TempDir {
    let apt = r#"echo "apt-get $*" >>done
case "$*" in
install*) for name in redis-server redis-benchmark redis-cli; do echo '#!/bin/sh' >bin/$name; chmod +x bin/$name; done ;;
esac"#;
    let id = format!("echo {user}");
    let service = r#"echo "service $*" >>done"#;
    let programs = [
        ("cargo", ""),
        ("id", &*id),
        ("apt-get", apt),
        ("service", service),
    ];
    let folder = folder(&programs);
    let binary = folder.path().join("target/release/rialto-peers");
    program(&binary, "echo compared");
    folder
}

#[test]
fn root_gets_what_is_missing_and_no_service_that_came_with_it_runs() {
    let folder = peers("0");
    let output = make(&folder, "peers");
    assert_eq!(words(&output.stdout), "compared\n", "{output:?}");
    assert_eq!(
        fs::read_to_string(folder.path().join("done")).unwrap(),
        "apt-get update\n\
         apt-get install -y --no-install-recommends redis-server redis-tools\n\
         service redis-server stop\n"
    );
    fs::remove_file(folder.path().join("done")).unwrap();
    assert!(make(&folder, "peers").status.success());
    assert!(!folder.path().join("done").exists(), "all is there now");
}

#[test]
fn everybody_else_is_told_how_to_get_what_is_missing() {
    let folder = peers("1000");
    let output = make(&folder, "peers");
    assert!(!output.status.success());
    let said = words(&output.stderr);
    assert!(
        said.contains("redis-server redis-benchmark redis-cli is missing"),
        "{said}"
    );
    assert!(
        said.contains("sudo apt-get install redis-server redis-tools\n"),
        "{said}"
    );
    assert!(!folder.path().join("done").exists());
}
