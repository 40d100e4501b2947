//! The lock of a data directory: one process at a time.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::format::sync_directory;
use crate::journal::JournalError;

const FILE: &str = "LOCK";

/// A data directory that no other process uses. Held while it is in use; the operating system lets go of it even when the
/// process is killed.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
    dir: PathBuf,
}

impl DirectoryLock {
    /// Makes the directory (its parent must exist) and locks it.
    ///
    /// # Errors
    /// [`JournalError::Locked`] when another process has it, `Io` for what the operating system says.
    pub fn take(dir: &Path) -> Result<Self, JournalError> {
        make_directory(dir)?;
        let path = dir.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| JournalError::Io {
                what: format!(
                    "the data directory {} must be writable; opening {}",
                    dir.display(),
                    path.display()
                ),
                cause: error.to_string(),
            })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(dir, &mut file)),
            Err(TryLockError::Error(error)) => {
                return Err(JournalError::Io {
                    what: format!("locking {}", path.display()),
                    cause: error.to_string(),
                });
            }
        }
        // For the message of whoever comes second; the lock holds without it.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self {
            file,
            dir: dir.to_owned(),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

fn make_directory(dir: &Path) -> Result<(), JournalError> {
    if dir.is_dir() {
        return Ok(());
    }
    if dir.exists() {
        return Err(JournalError::Io {
            what: format!("the data directory {}", dir.display()),
            cause: "there is a file of this name: name a directory, or move the file away"
                .to_owned(),
        });
    }
    std::fs::create_dir(dir).map_err(|error| {
        let hint = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
                format!(" ({} does not exist: create it first)", parent.display())
            }
            _ => String::new(),
        };
        let what = format!("creating the data directory {}", dir.display());
        JournalError::Io {
            what,
            cause: format!("{error}{hint}"),
        }
    })?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

fn taken(dir: &Path, file: &mut File) -> JournalError {
    let mut owner = String::new();
    let _ = file.read_to_string(&mut owner);
    let owner = match owner.trim() {
        "" => "another process".to_owned(),
        pid => format!("another process (pid {pid})"),
    };
    JournalError::Locked(format!(
        "{owner} uses the data directory {}: stop it first, or name another directory",
        dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(dir.path()).unwrap();
        let error = DirectoryLock::take(dir.path()).unwrap_err();
        assert!(matches!(error, JournalError::Locked(_)));
        let text = error.to_string();
        assert!(
            text.contains(&std::process::id().to_string())
                && text.contains(&dir.path().display().to_string()),
            "{text}"
        );
        drop(lock);
        DirectoryLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_file_in_its_place_and_a_missing_parent_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert!(
            DirectoryLock::take(&file)
                .unwrap_err()
                .to_string()
                .contains("there is a file of this name")
        );
        let deep = dir.path().join("missing").join("data");
        assert!(
            DirectoryLock::take(&deep)
                .unwrap_err()
                .to_string()
                .contains("create it first")
        );
    }

    #[test]
    fn a_directory_that_may_not_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        // A directory where the lock file should be fails for every user, the superuser included.
        std::fs::create_dir(data.join(FILE)).unwrap();
        assert!(
            DirectoryLock::take(&data)
                .unwrap_err()
                .to_string()
                .contains("must be writable")
        );
    }
}
