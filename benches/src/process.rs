//! What the operating system says about this process: processor time by thread, memory, files out of its cache.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// Seconds on a processor, by the name of the thread. Threads that have ended are missing.
#[must_use]
pub fn cpu_seconds() -> BTreeMap<String, f64> {
    let mut seconds = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let ns: u64 = stat
            .split(' ')
            .next()
            .and_then(|ns| ns.parse().ok())
            .unwrap_or(0);
        *seconds.entry(name.trim().to_owned()).or_default() += ns as f64 / 1e9;
    }
    seconds
}

/// A line of `/proc/self/status` such as `VmRSS`, in MiB.
#[must_use]
pub fn memory_mib(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kib = line.and_then(|line| {
        line.trim_matches([':', ' ', '\t', 'k', 'B'])
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0) / 1024
}

/// Bytes that this process had written to disk so far.
#[must_use]
pub fn written_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

/// Has the operating system forget a directory's files, so that the next read comes from the disk.
///
/// # Errors
/// When `dd` is missing or a file cannot be opened.
pub fn forget_files(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            forget_files(&path)?;
            continue;
        }
        fs::File::open(&path)?.sync_all()?;
        Command::new("dd")
            .arg(format!("if={}", path.display()))
            .args(["iflag=nocache", "count=0", "status=none"])
            .stdin(Stdio::null())
            .status()?;
    }
    Ok(())
}
