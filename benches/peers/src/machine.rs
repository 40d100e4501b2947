//! What machine it is, as the kernel tells it (proc(5)), and what file system the data is on.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, bail};
use serde::Serialize;

/// What a reader of figures must know of the machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    processors: usize,
    model: String,
    memory_gib: u64,
    kernel: String,
    file_system: String,
}

impl Machine {
    /// This one, with the file system of `data`.
    ///
    /// # Errors
    /// When that file system is memory: nothing is durable there.
    pub(crate) fn this(data: &Path) -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let data = data
            .canonicalize()
            .with_context(|| format!("{} cannot be found", data.display()))?;
        let file_system = file_system(&mounts, &data).unwrap_or("unknown");
        if matches!(file_system, "tmpfs" | "ramfs") {
            bail!(
                "{} is on {file_system}, which is memory: name a folder on a disk with --data",
                data.display()
            );
        }
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Ok(Self {
            processors: thread::available_parallelism().map_or(1, usize::from),
            model: value(&read("/proc/cpuinfo"), "model name")
                .unwrap_or("unknown processor".into()),
            memory_gib: value(&read("/proc/meminfo"), "MemTotal")
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kib| (kib + (1 << 19)) >> 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system.to_owned(),
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            processors,
            model,
            memory_gib,
            kernel,
            file_system,
        } = self;
        write!(
            out,
            "{processors} processors ({model}), {memory_gib} GiB, {file_system}, Linux {kernel}"
        )
    }
}

/// The value of a line `key : value`.
fn value(text: &str, key: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_owned())
}

/// The type of the file system that `path` is on: that of the longest mount point above it.
fn file_system<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mut best = None;
    for line in mounts.lines() {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        let length = point.len();
        if path.starts_with(point) && best.is_none_or(|(longest, _)| length >= longest) {
            best = Some((length, after.split(' ').next()?));
        }
    }
    best.map(|(_, file_system)| file_system)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "21 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        30 21 0:26 / /dev/shm rw,nosuid - tmpfs tmpfs rw\n\
        31 21 8:1 / /data rw shared:1 - xfs /dev/sda1 rw\n";

    #[test]
    fn the_longest_mount_point_decides() {
        let at = |path| file_system(MOUNTS, Path::new(path));
        assert_eq!(at("/srv/peers"), Some("ext4"));
        assert_eq!(at("/dev/shm/peers"), Some("tmpfs"));
        assert_eq!(at("/data"), Some("xfs"));
        assert_eq!(at("/database"), Some("ext4"));
    }

    #[test]
    fn a_value_is_found_by_its_key() {
        assert_eq!(
            value("a\t: 1\nmodel name\t: X 2\n", "model name").as_deref(),
            Some("X 2")
        );
    }
}
