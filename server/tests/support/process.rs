//! What the tests of the binary share: a broker in a process of its own, on free ports, in a directory that goes away.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use rialto_server::addresses::{self, Addresses};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Last line of the banner.
const BANNER_END: &str = "Ctrl-C";

/// After this long something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, seeing nothing of the environment that the tests run in.
pub fn rialto() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rialto"));
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Output {
    rialto().args(args).output().unwrap()
}

/// Sends a signal to a child that nobody has waited for yet.
pub fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running broker; killed when it is dropped.
pub struct Serving {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Option<ChildStderr>,
    data: PathBuf,
    pub banner: String,
}

impl Serving {
    /// Starts it on free ports and waits until it says that it serves.
    pub fn start(data: &Path, more: &[&str]) -> Self {
        Self::start_logging_to(Stdio::piped(), data, more)
    }

    /// The same, with its standard error there.
    pub fn start_logging_to(log: Stdio, data: &Path, more: &[&str]) -> Self {
        let mut command = rialto();
        command.arg("serve").arg("--data").arg(data).args([
            "--set",
            "broker.shards=1",
            "--set",
            "broker.pin=off",
            // A new one is filled quickly on any disk.
            "--set",
            "storage.segment_bytes=8388608",
        ]);
        for listener in ["--tcp", "--tls", "--quic", "--ops"] {
            if !more.contains(&listener) {
                command.args([listener, "127.0.0.1:0"]);
            }
        }
        let mut child = command.args(more).stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take();
        let mut banner = String::new();
        while !banner.contains(BANNER_END) {
            if stdout.read_line(&mut banner).unwrap() == 0 {
                let mut log = String::new();
                if let Some(stderr) = &mut stderr {
                    stderr.read_to_string(&mut log).unwrap();
                }
                panic!("the broker ended: {:?}\n{banner}\n{log}", child.wait());
            }
        }
        Self {
            child,
            stdout,
            stderr,
            data: data.to_owned(),
            banner,
        }
    }

    pub fn addresses(&self) -> Addresses {
        addresses::read(&self.data).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until its metrics have this line.
    pub fn wait_for_metric(&self, line: &str) {
        let begun = Instant::now();
        while !self.metrics().lines().any(|found| found == line) {
            assert!(begun.elapsed() < PATIENCE, "no {line:?} in the metrics");
        }
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.addresses().ops.unwrap()).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: rialto\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Ends the reading of its log: the next line meets a broken pipe.
    pub fn close_log(&mut self) {
        self.stderr = None;
    }

    /// Waits for its end; gives the exit status and what it logged.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        if let Some(mut stderr) = self.stderr.take() {
            stderr.read_to_string(&mut log).unwrap();
        }
        (self.child.wait().unwrap(), log)
    }

    /// Reads its log up to a line that contains the text.
    pub fn wait_for_log(&mut self, part: &str) -> String {
        let mut reader = BufReader::new(self.stderr.as_mut().unwrap());
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert!(
                reader.read_line(&mut line).unwrap() > 0,
                "the log ended without {part:?}"
            );
        }
        line
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
