//! Processes that a load is spread over, started by this one.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

use crate::cli::target::TargetArgs;

/// What a worker says before its address, once it listens.
pub(super) const LISTENING: &str = "listening on ";

/// Workers of one load. They end by themselves, and are killed if this process gives up before.
pub(super) struct Workers {
    children: Vec<Child>,
    addresses: Vec<SocketAddr>,
}

impl Workers {
    /// Starts so many, against the same broker.
    pub(super) fn start(count: usize, to: &TargetArgs) -> anyhow::Result<Self> {
        let mut workers = Self {
            children: Vec::new(),
            addresses: Vec::new(),
        };
        let program = std::env::current_exe().context("this program is not to be found")?;
        for _ in 0..count {
            let child = Command::new(&program)
                .args(["run", "--worker", "127.0.0.1:0"])
                .args(to.as_flags())
                // A Ctrl-C is for the one that leads them.
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .context("a worker cannot be started")?;
            workers.children.push(child);
        }
        for child in &mut workers.children {
            let mut line = String::new();
            if let Some(out) = child.stdout.take() {
                BufReader::new(out).read_line(&mut line)?;
            }
            let address = line.trim().strip_prefix(LISTENING);
            let Some(address) = address.and_then(|address| address.parse().ok()) else {
                bail!("a worker did not start");
            };
            workers.addresses.push(address);
        }
        Ok(workers)
    }

    /// Where they wait.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until they have ended.
    pub(super) fn join(mut self) -> anyhow::Result<()> {
        for mut child in self.children.drain(..) {
            let status = child.wait()?;
            if !status.success() {
                bail!("a worker ended with {status}");
            }
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
