//! A real broker in a process of its own, which can be killed and started again on the same ports.

#![allow(clippy::unwrap_used)] // as in every test
#![allow(dead_code)] // not every test needs all of it

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

#[path = "built.rs"]
mod built;
pub(crate) use built::binary;

/// How long a broker may take to serve; a bound for a test that would otherwise hang.
const START_MAX: Duration = Duration::from_secs(60);
/// Segments that are filled quickly on any disk, and time for handshakes on a busy machine.
const SETTINGS: [&str; 2] = [
    "storage.segment_bytes=8388608",
    "limits.handshake_timeout_ms=30000",
];
/// Between two looks at whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A broker; killed when dropped.
pub(crate) struct Broker {
    data: TempDir,
    settings: Vec<String>,
    child: Child,
    addresses: Value,
}

impl Broker {
    /// A fresh one, on free ports.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With settings, such as `limits.body_bytes_max=100`.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let settings: Vec<String> = settings.iter().copied().map(str::to_owned).collect();
        let listeners = ["127.0.0.1:0"; 4].map(str::to_owned);
        let (child, addresses) = serve(data.path(), &listeners, &settings);
        Self {
            data,
            settings,
            child,
            addresses,
        }
    }

    /// `tcp`, `tls` or `quic`, as a target.
    pub(crate) fn target(&self, transport: &str) -> String {
        format!("{transport}://{}", self.address(transport))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn address(&self, listener: &str) -> String {
        self.addresses[listener]
            .as_str()
            .unwrap_or_else(|| panic!("no {listener}: {}", self.addresses))
            .to_owned()
    }

    /// SIGKILL, and a new process on the same data and ports.
    pub(crate) fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        fs::remove_file(addresses_file(self.data.path())).unwrap();
        let listeners = ["tcp", "tls", "quic", "ops"].map(|listener| self.address(listener));
        wait_until_free(&listeners);
        (self.child, self.addresses) = serve(self.data.path(), &listeners, &self.settings);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Meanwhile one may have been given to somebody's outgoing connection.
fn wait_until_free([tcp, tls, quic, ops]: &[String; 4]) {
    let begun = Instant::now();
    while UdpSocket::bind(quic).is_err()
        || [tcp, tls, ops]
            .map(TcpListener::bind)
            .iter()
            .any(Result::is_err)
    {
        assert!(begun.elapsed() < START_MAX, "a port is taken");
        thread::sleep(LOOK_EVERY);
    }
}

fn addresses_file(data: &Path) -> PathBuf {
    data.join("addresses.json")
}

fn serve(data: &Path, [tcp, tls, quic, ops]: &[String; 4], settings: &[String]) -> (Child, Value) {
    let mut child = Command::new(binary())
        .args([
            "serve", "--tcp", tcp, "--tls", tls, "--quic", quic, "--ops", ops, "--data",
        ])
        .arg(data)
        .args(SETTINGS.iter().flat_map(|setting| ["--set", setting]))
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    loop {
        // The file is written once all listeners are there, and whole or not at all.
        if let Ok(text) = fs::read(addresses_file(data)) {
            return (child, serde_json::from_slice(&text).unwrap());
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the broker ended: {status}");
        }
        assert!(begun.elapsed() < START_MAX, "the broker does not serve");
        thread::sleep(LOOK_EVERY);
    }
}
