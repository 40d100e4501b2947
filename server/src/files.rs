//! Writing small files so that nobody ever sees half of one, and the folder that they lie in.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
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

/// Makes the data directory, unless there is one, for its owner alone (0700): everything that people said lies in it. Those
/// above it are made as others are.
pub(crate) fn make_data_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        _ => Ok(()),
    }
}

/// The permissions of a folder, if others than its owner and its group may look into it.
pub(crate) fn open_to_others(path: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    Ok((mode & 0o007 != 0).then_some(mode))
}

/// What to do about a data directory that cannot be written.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on its disk",
        io::ErrorKind::ReadOnlyFilesystem => {
            "its file system is mounted read-only: mount it for writing, or name another with --data"
        }
        _ => "make it writable for the user that runs rialto, or name another with --data",
    }
}

/// Replaces the file by one with this content, at once.
pub(crate) fn replace(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let written = write_beside(path, content, access)?;
    fs::rename(&written, path).inspect_err(|_| {
        let _ = fs::remove_file(&written);
    })
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
    use super::*;

    #[test]
    fn a_data_directory_is_made_for_its_owner_and_one_that_is_there_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("above/data");
        make_data_directory(&data).unwrap();
        assert_eq!(open_to_others(&data).unwrap(), None);
        let made = fs::metadata(&data).unwrap().permissions().mode() & 0o777;
        assert_eq!(made, 0o700);
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        make_data_directory(&data).unwrap();
        assert_eq!(open_to_others(&data).unwrap(), Some(0o755));
        fs::write(data.join("file"), "").unwrap();
        assert!(make_data_directory(&data.join("file")).is_err());
        assert!(make_data_directory(&data.join("file/data")).is_err());
    }

    #[test]
    fn what_to_do_depends_on_what_is_in_the_way() {
        for (kind, word) in [
            (io::ErrorKind::StorageFull, "free space"),
            (io::ErrorKind::ReadOnlyFilesystem, "mounted read-only"),
            (io::ErrorKind::PermissionDenied, "the user that runs rialto"),
        ] {
            assert!(advice(&kind.into()).contains(word), "{kind}");
        }
    }

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

    /// It may be a private key.
    #[test]
    fn what_cannot_be_put_in_its_place_is_not_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"secret", Access::Owner).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
