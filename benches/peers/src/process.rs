//! Children: servers that run until they are dropped, and tools that run to their end.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How long a server may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How often a child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Lines of a child's output that an error shows.
const LINES_SHOWN: usize = 8;

/// A server that is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Server {
    /// Starts it; what it says goes to a file in `folder`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(name: &str, folder: &Path, command: &Command) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let child = spawn(command, &log)?;
        Ok(Self {
            child,
            name: name.to_owned(),
            log,
        })
    }

    /// Waits until `ready` gives something.
    ///
    /// # Errors
    /// When the server ends before, or takes too long.
    pub(crate) fn wait_for<T>(
        &mut self,
        mut ready: impl FnMut() -> Option<T>,
    ) -> anyhow::Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(ready) = ready() {
                return Ok(ready);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}): {}", self.name, last_lines(&self.log));
            }
            if begun.elapsed() > READY_WITHIN {
                bail!(
                    "{} was not ready in {} s: {}",
                    self.name,
                    READY_WITHIN.as_secs(),
                    last_lines(&self.log)
                );
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it had in RAM up to now, bytes (`VmHWM`, proc(5)); none where the kernel does not tell.
    pub(crate) fn peak_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killed, not asked: its folder is thrown away.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A tool at work; killed when it is dropped before its end.
#[derive(Debug)]
pub(crate) struct Tool {
    child: Child,
    name: String,
    output: PathBuf,
}

impl Tool {
    /// Starts it; what it says goes to a file in `folder`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(name: &str, folder: &Path, command: &Command) -> anyhow::Result<Self> {
        let output = folder.join(format!("{name}.out"));
        let child = spawn(command, &output)?;
        Ok(Self {
            child,
            name: name.to_owned(),
            output,
        })
    }

    /// Waits for its end, and gives what it said.
    ///
    /// # Errors
    /// When it fails or takes longer than `limit`.
    pub(crate) fn output(mut self, limit: Duration) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!(
                        "{} failed ({status}): {}",
                        self.name,
                        last_lines(&self.output)
                    );
                }
                let said = fs::read(&self.output)?;
                return Ok(String::from_utf8_lossy(&said).into_owned());
            }
            if begun.elapsed() > limit {
                bail!(
                    "{} was not done in {} s: {}",
                    self.name,
                    limit.as_secs(),
                    last_lines(&self.output)
                );
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &Command, output: &Path) -> anyhow::Result<Child> {
    let file =
        File::create(output).with_context(|| format!("{} cannot be written", output.display()))?;
    leashed(command)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| {
            format!(
                "{} cannot be started by setpriv (of util-linux 2.36 or newer)",
                command.get_program().display()
            )
        })
}

/// The same command, killed by the kernel when we end, however we end (prctl(2), `PR_SET_PDEATHSIG`).
fn leashed(command: &Command) -> Command {
    let mut leashed = Command::new("setpriv");
    leashed
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            leashed.env(name, value);
        }
    }
    leashed
}

fn last_lines(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text
        .split(['\n', '\r'])
        .filter(|line| !line.trim().is_empty())
        .collect();
    let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
    if shown.is_empty() {
        "it said nothing".to_owned()
    } else {
        shown.join("\n  ")
    }
}

/// A TCP port of 127.0.0.1 that nobody uses at the moment.
///
/// # Errors
/// When there is none.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_tool_that_fails_is_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let tool = Tool::start("tool", folder.path(), &shell("echo no luck >&2; exit 3"));
        let error = tool.unwrap().output(Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().contains("no luck"), "{error}");
    }

    #[test]
    fn a_tool_that_never_ends_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let tool = Tool::start("tool", folder.path(), &shell("exec sleep 1000")).unwrap();
        assert!(tool.output(Duration::ZERO).is_err());
    }

    #[test]
    fn a_server_that_ends_before_it_is_ready_is_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::start("server", folder.path(), &shell("echo port taken")).unwrap();
        let error = server.wait_for(|| None::<()>).unwrap_err().to_string();
        assert!(error.contains("port taken"), "{error}");
    }

    #[test]
    fn a_server_is_gone_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start("server", folder.path(), &shell("exec sleep 1000"));
        let server = server.unwrap();
        let pid = server.pid();
        assert!(server.peak_bytes().is_some());
        drop(server);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
