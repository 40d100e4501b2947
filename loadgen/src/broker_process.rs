//! What the broker's process uses, as the kernel tells it (proc(5)).

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Clock ticks a second in /proc: fixed for user space on every Linux of today (`USER_HZ`).
const TICKS_PER_S: f64 = 100.0;
/// Fields of /proc/PID/stat after the command's closing parenthesis: utime is number 14, and the state is number 3.
const UTIME: usize = 14 - 3;

/// A process that is watched.
#[derive(Clone, Debug)]
pub struct BrokerProcess {
    folder: PathBuf,
}

/// What it has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time of all its threads, user and system, seconds.
    pub cpu_s: f64,
    /// Memory that is in RAM, bytes.
    pub resident_bytes: u64,
    /// Files, sockets included, that are open; 0 when they may not be seen.
    #[serde(default)]
    pub open_files: u64,
}

/// The process cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("process {folder}: {problem}", folder = folder.display())]
pub struct BrokerProcessError {
    folder: PathBuf,
    problem: String,
}

impl BrokerProcess {
    /// The process with this id.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn of(pid: u32) -> Result<Self, BrokerProcessError> {
        let process = Self {
            folder: PathBuf::from(format!("/proc/{pid}")),
        };
        process.usage()?;
        Ok(process)
    }

    /// What it has used up to now.
    ///
    /// # Errors
    /// When it has ended.
    pub fn usage(&self) -> Result<Usage, BrokerProcessError> {
        let read = |name| {
            fs::read_to_string(self.folder.join(name))
                .map_err(|error| self.error(format!("{name}: {error}")))
        };
        let cpu_s = cpu_s(&read("stat")?).ok_or_else(|| self.error("stat has no times".into()))?;
        let resident_bytes = resident_bytes(&read("status")?)
            .ok_or_else(|| self.error("status has no VmRSS".into()))?;
        let open_files =
            fs::read_dir(self.folder.join("fd")).map_or(0, |files| files.count() as u64);
        Ok(Usage {
            cpu_s,
            resident_bytes,
            open_files,
        })
    }

    fn error(&self, problem: String) -> BrokerProcessError {
        BrokerProcessError {
            folder: self.folder.clone(),
            problem,
        }
    }
}

impl Usage {
    /// What was used from `earlier` on: the difference of times, the memory of now.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu_s: (self.cpu_s - earlier.cpu_s).max(0.0),
            ..self
        }
    }

    /// What was used in a stretch and in the one behind it: the sum of times, and the memory that was seen last.
    #[must_use]
    pub fn both(before: Option<Self>, behind: Option<Self>) -> Option<Self> {
        let last = behind.or(before)?;
        let cpu_s = [before, behind].iter().flatten().map(|one| one.cpu_s).sum();
        Some(Self { cpu_s, ..last })
    }
}

/// The command may hold spaces and parentheses; what follows its last one does not.
fn cpu_s(stat: &str) -> Option<f64> {
    let mut times = stat
        .rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .skip(UTIME)
        .map(str::parse::<u32>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_S)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_command_whatever_it_is_called() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 99 1 2";
        assert_eq!(cpu_s(stat), Some(3.0));
        assert_eq!(cpu_s("7 (cut"), None);
    }

    #[test]
    fn a_stretch_without_a_process_takes_nothing_away() {
        let used = |cpu_s, resident_bytes| Usage {
            cpu_s,
            resident_bytes,
            open_files: 1,
        };
        let (first, second) = (Some(used(1.0, 10)), Some(used(2.0, 20)));
        assert_eq!(Usage::both(first, second), Some(used(3.0, 20)));
        assert_eq!(Usage::both(first, None), first);
        assert_eq!(Usage::both(None, second), second);
        assert_eq!(Usage::both(None, None), None);
    }

    #[test]
    fn this_process_uses_memory_and_a_missing_one_is_an_error() {
        let usage = BrokerProcess::of(std::process::id())
            .unwrap()
            .usage()
            .unwrap();
        assert!(usage.resident_bytes > 1 << 16);
        assert!(BrokerProcess::of(u32::MAX).is_err());
    }
}
