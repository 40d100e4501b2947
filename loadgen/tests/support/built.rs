//! Binaries of this workspace, built as the tests are.

#![allow(clippy::unwrap_used)] // as in every test

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `RIALTO_BIN`, or `rialto` of this workspace.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("RIALTO_BIN") {
        Some(path) => path.into(),
        None => build("rialto", &[]),
    })
}

/// Builds a binary of the server's.
pub(crate) fn build(binary: &str, features: &[&str]) -> PathBuf {
    // This test is target/PROFILE/deps/NAME-HASH.
    let test = env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap();
    let profile = if folder.ends_with("release") {
        "release"
    } else {
        "test"
    };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "rialto-server"])
        .args(["--bin", binary, "--profile", profile])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "the broker does not build");
    folder.join(binary)
}
