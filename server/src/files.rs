//! Writing small files so that nobody ever sees half of one.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The owner alone (0600): private keys.
    Owner,
    /// Everybody (0644).
    All,
}

/// Replaces the file by one with this content, at once.
pub(crate) fn replace(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let written = write_beside(path, content, access)?;
    fs::rename(&written, path)
}

/// Makes the file unless there is one. Of several processes that try, one makes it. Says whether this one did.
pub(crate) fn create(path: &Path, content: &[u8], access: Access) -> io::Result<bool> {
    let written = write_beside(path, content, access)?;
    let made = match fs::hard_link(&written, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    };
    fs::remove_file(&written)?;
    made
}

fn write_beside(path: &Path, content: &[u8], access: Access) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mode = if access == Access::Owner {
        0o600
    } else {
        0o644
    };
    // What a killed process of the same number left behind.
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    Ok(beside)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_first_one_makes_the_file_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        assert!(create(&path, b"first", Access::Owner).unwrap());
        assert!(!create(&path, b"second", Access::Owner).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        replace(&path, b"third", Access::All).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
