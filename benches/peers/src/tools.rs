//! Where programs are, and how to get those that are missing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// Which modules of Go the NATS programs are built from; committed, with their checksums.
const NATS_MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/nats");

/// Places of our own.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// Where Rialto's binaries are.
    pub(crate) binaries: PathBuf,
    /// What is built and kept for the peers.
    pub(crate) folder: PathBuf,
}

/// The NATS programs.
#[derive(Clone, Debug)]
pub(crate) struct Nats {
    /// The server.
    pub(crate) server: PathBuf,
    /// The command, with `nats bench`.
    pub(crate) command: PathBuf,
}

impl Tools {
    /// Beside the program that runs: `target/release`, and `target/peers`.
    ///
    /// # Errors
    /// When the operating system does not say where this program is.
    pub(crate) fn beside_us() -> anyhow::Result<Self> {
        let us = env::current_exe().context("where is this program?")?;
        let binaries = us.parent().unwrap_or(Path::new(".")).to_owned();
        let target = binaries.parent().unwrap_or(Path::new("."));
        Ok(Self {
            folder: target.join("peers"),
            binaries,
        })
    }

    /// A binary of this repository.
    ///
    /// # Errors
    /// When it has not been built.
    pub(crate) fn ours(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.binaries.join(name);
        if !path.is_file() {
            bail!(
                "{} is missing: cargo build --release -p rialto-server -p rialto-loadgen (make peers does it)",
                path.display()
            );
        }
        Ok(path)
    }

    /// The NATS programs, built unless they already were from the same go.sum.
    ///
    /// # Errors
    /// When Go is missing, or the build fails.
    pub(crate) fn nats(&self) -> anyhow::Result<Nats> {
        let bin = self.folder.join("bin");
        let nats = Nats {
            server: bin.join("nats-server"),
            command: bin.join("nats"),
        };
        let read = |name| {
            let path = Path::new(NATS_MODULE).join(name);
            fs::read_to_string(&path).with_context(|| format!("{} is missing", path.display()))
        };
        let wanted = read("go.mod")? + &read("go.sum")?;
        let stamp = bin.join("nats.built-from");
        if nats.server.is_file()
            && nats.command.is_file()
            && fs::read_to_string(&stamp).is_ok_and(|built| built == wanted)
        {
            return Ok(nats);
        }
        let go = in_path("go", "get Go 1.26 or newer from https://go.dev/dl")?;
        fs::create_dir_all(&bin)?;
        eprintln!(
            "building the NATS server and the nats command, once; this takes a minute or two"
        );
        let status = Command::new(go)
            .args(["build", "-buildvcs=false", "-o"])
            .arg(&bin)
            .arg("tool")
            .current_dir(NATS_MODULE)
            .status()
            .context("go cannot be started")?;
        if !status.success() {
            bail!(
                "go build failed ({status}) in {NATS_MODULE}: it needs Go 1.26 or newer and, the first time, a Go module proxy"
            );
        }
        fs::write(stamp, wanted)?;
        Ok(nats)
    }
}

/// A program of the search path.
///
/// # Errors
/// When it is not there; `remedy` says how to get it.
pub(crate) fn in_path(name: &str, remedy: &str) -> anyhow::Result<PathBuf> {
    let found = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("{name} is missing: {remedy}"))
}

/// The first word of what `program --version` says that looks like a version.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn version(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("{} cannot be started", program.display()))?;
    Ok(version_in(&String::from_utf8_lossy(&output.stdout)))
}

fn version_in(text: &str) -> String {
    let trim = |word: &str| {
        word.trim_start_matches("v=")
            .trim_start_matches('v')
            .to_owned()
    };
    text.split_whitespace()
        .map(trim)
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'))
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64";
        assert_eq!(version_in(redis), "7.0.15");
        assert_eq!(version_in("nats-server: v2.14.5"), "2.14.5");
        assert_eq!(version_in("v0.4.0"), "0.4.0");
        assert_eq!(version_in("rialto 0.1.0"), "0.1.0");
    }

    #[test]
    fn a_missing_program_is_told_with_its_remedy() {
        let error = in_path("no-such-program", "buy one")
            .unwrap_err()
            .to_string();
        assert_eq!(error, "no-such-program is missing: buy one");
    }

    #[test]
    fn the_versions_of_nats_are_pinned() {
        let module = fs::read_to_string(Path::new(NATS_MODULE).join("go.mod")).unwrap();
        assert!(module.contains("github.com/nats-io/nats-server/v2 v2.14.5"));
        assert!(module.contains("github.com/nats-io/natscli v0.4.0"));
    }
}
