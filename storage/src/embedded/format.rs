//! What a data directory says about itself: `format.json`.
//!
//! ```text
//! DIR/LOCK               one process at a time
//! DIR/format.json        this file: format, data set, what was fixed at its creation
//! DIR/journal/           segments: the truth (see `log`)
//! DIR/views/N/           a fjall database made from them; N grows with every rebuild
//! DIR/views/N/leaving/   what is left of windows that were dropped, until it is gone; fjall does not look there
//! DIR/views.checkpoint   how far the views have come
//! ```
//!
//! **Raising a version.** [`FORMAT`] is one number for the whole directory. A change that an older program would misread
//! raises it by one; what is only added and may be ignored does not. The new program goes on reading every older format:
//! `open` brings the directory up step by step (`1 → 2 → 3`), each step leaving a directory that is whole, and writes
//! `format.json` last, so that a crash repeats the step. When views alone change, the step is simply a new generation of
//! them, rebuilt from the journal where it reaches back, converted otherwise. A program refuses what is newer than itself
//! instead of guessing. A directory of every format that was ever released stands under `tests/fixtures` and is opened by
//! a test for ever; a fixture once committed is never written again.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::journal::JournalError;

/// Format that this program writes.
pub(super) const FORMAT: u32 = 1;
const FILE: &str = "format.json";

/// What is fixed when a data set is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    /// Number of lanes.
    pub(super) lanes: u16,
    /// Width of a window of events, milliseconds.
    pub(super) events_window_ms: u64,
    /// Width of a window of sent ids, milliseconds.
    pub(super) sent_window_ms: u64,
}

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Format {
    format: u32,
    /// 128 bits in hex.
    data_set: String,
    lanes: u16,
    created_ms: u64,
    events_window_ms: u64,
    sent_window_ms: u64,
}

#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Format {
    /// Reads the directory's file, or makes it in a directory that has no data yet.
    pub(super) fn load_or_create(
        dir: &Path,
        fixed: &Fixed,
        id: u128,
        now_ms: u64,
    ) -> Result<Self, JournalError> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Self::parse(&path, &bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Self::create(dir, fixed, id, now_ms)
            }
            Err(error) => Err(io("reading", &path, &error)),
        }
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, JournalError> {
        let damaged = |cause: String| {
            JournalError::Damaged(format!(
                "{} cannot be read ({cause}): restore it from a backup",
                path.display()
            ))
        };
        let version: Version =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if version.format > FORMAT {
            return Err(JournalError::Format(format!(
                "{} says format {}, this program knows up to {FORMAT}: the data was written by a newer version, use \
                 that one",
                path.display(),
                version.format
            )));
        }
        let format: Self =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        let whole = format.format >= 1
            && format.lanes > 0
            && format.events_window_ms > 0
            && format.sent_window_ms > 0
            && u128::from_str_radix(&format.data_set, 16).is_ok();
        if whole {
            Ok(format)
        } else {
            Err(damaged("a value is out of range".to_owned()))
        }
    }

    fn create(dir: &Path, fixed: &Fixed, id: u128, now_ms: u64) -> Result<Self, JournalError> {
        for name in ["journal", "views"] {
            if dir.join(name).exists() {
                return Err(JournalError::Damaged(format!(
                    "{} has data but no {FILE}: restore it from a backup, or name an empty directory",
                    dir.display()
                )));
            }
        }
        let format = Self {
            format: FORMAT,
            data_set: format!("{id:032x}"),
            lanes: fixed.lanes,
            created_ms: now_ms,
            events_window_ms: fixed.events_window_ms,
            sent_window_ms: fixed.sent_window_ms,
        };
        let text = serde_json::to_string_pretty(&format)
            .map_err(|error| JournalError::Format(format!("writing {FILE}: {error}")))?;
        write_durably(dir, FILE, format!("{text}\n").as_bytes())?;
        Ok(format)
    }

    /// Tells this data set from every other.
    pub(super) fn data_set(&self) -> u128 {
        // Checked when it was read.
        u128::from_str_radix(&self.data_set, 16).unwrap_or_default()
    }

    /// What was fixed at creation, whatever the options say today.
    pub(super) fn fixed(&self) -> Fixed {
        Fixed {
            lanes: self.lanes,
            events_window_ms: self.events_window_ms,
            sent_window_ms: self.sent_window_ms,
        }
    }

    /// When the data set was created, milliseconds since 1970.
    pub(super) fn created_ms(&self) -> u64 {
        self.created_ms
    }
}

/// Replaces a file so that after a crash either the old or the new one is there, whole.
pub(super) fn write_durably(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
    let path = dir.join(name);
    let temporary: PathBuf = dir.join(format!("{name}.new"));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|error: std::io::Error| io("writing", &path, &error))
}

/// Makes created, renamed and removed names in a directory durable.
pub(super) fn sync_directory(dir: &Path) -> Result<(), JournalError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| io("syncing", dir, &error))
}

fn io(what: &str, path: &Path, error: &std::io::Error) -> JournalError {
    JournalError::Io {
        what: format!("{what} {}", path.display()),
        cause: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: Fixed = Fixed {
        lanes: 8,
        events_window_ms: 1000,
        sent_window_ms: 2000,
    };

    #[test]
    fn what_is_fixed_at_creation_stays_whatever_is_asked_later() {
        let dir = tempfile::tempdir().unwrap();
        let made = Format::load_or_create(dir.path(), &FIXED, 7, 99).unwrap();
        let other = Fixed {
            lanes: 64,
            events_window_ms: 5,
            sent_window_ms: 5,
        };
        let read = Format::load_or_create(dir.path(), &other, 8, 100).unwrap();
        assert_eq!(made, read);
        assert_eq!(
            (read.fixed(), read.data_set(), read.created_ms()),
            (FIXED, 7, 99)
        );
    }

    #[test]
    fn a_newer_format_is_refused_whatever_else_it_says() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), br#"{"format":2,"unheard":"of"}"#).unwrap();
        let error = Format::load_or_create(dir.path(), &FIXED, 7, 99).unwrap_err();
        assert!(
            matches!(&error, JournalError::Format(text) if text.contains("newer version")),
            "{error}"
        );
    }

    #[test]
    fn data_without_its_format_file_is_not_taken_for_an_empty_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("journal")).unwrap();
        assert!(matches!(
            Format::load_or_create(dir.path(), &FIXED, 7, 99),
            Err(JournalError::Damaged(_))
        ));
        std::fs::write(dir.path().join(FILE), b"{\"format\":").unwrap();
        assert!(matches!(
            Format::load_or_create(dir.path(), &FIXED, 7, 99),
            Err(JournalError::Damaged(_))
        ));
    }
}
