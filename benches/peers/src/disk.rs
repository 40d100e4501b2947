//! What the disk can do: one small write and its sync, again and again.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::case::MESSAGE_BYTES;

/// The median time of appending a message to a file in `folder` and `fdatasync`, milliseconds, over about `time`.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn sync_p50_ms(folder: &Path, time: Duration) -> anyhow::Result<f64> {
    let path = folder.join("fdatasync");
    let mut file =
        File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    let message = [b'x'; MESSAGE_BYTES];
    let begun = Instant::now();
    let mut took_ms = Vec::new();
    while took_ms.is_empty() || begun.elapsed() < time {
        let start = Instant::now();
        file.write_all(&message)?;
        file.sync_data()?;
        took_ms.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    took_ms.sort_by(f64::total_cmp);
    Ok(took_ms[took_ms.len() / 2])
}
