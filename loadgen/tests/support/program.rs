//! Programs that tests write.

#![allow(clippy::unwrap_used)] // as in every test

use std::fs;
use std::path::Path;
use std::process::Command;

/// Writes it from a process of its own: no child of another test may have it open when it is run.
pub(crate) fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let write = Command::new("sh")
        .args(["-c", r#"printf %s "$1" >"$0" && chmod +x "$0""#])
        .args([path.as_os_str(), text.as_ref()])
        .status();
    assert!(write.unwrap().success());
}
