//! The files that fjall writes, as far as their way to the disk is ours to see to. fjall syncs one when it is whole: up to 64 MiB
//! at once, behind which an append of the journal would wait for tens of milliseconds.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use fjall::Keyspace;

use super::{Doing, Fault};

/// Where a keyspace keeps its tables.
pub(super) fn tables_of(keyspace: &Keyspace) -> PathBuf {
    keyspace.path().join("tables")
}

/// Where a keyspace keeps values that stand beside its tables.
pub(super) fn values_of(keyspace: &Keyspace) -> PathBuf {
    keyspace.path().join("blobs")
}

/// Makes the names of the keyspaces' folders durable, which stand beside this one's.
pub(super) fn sync_folder_of(keyspace: &Keyspace) -> Result<(), Fault> {
    let folder = keyspace.path().parent();
    folder
        .map_or(Ok(()), sync_folder)
        .map_err(fjall::Error::from)
        .doing("syncing the folder of the views' keyspaces")
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Sends what is written into a folder to the disk a little at a time. Handing it over takes a processor for 3 µs a page.
pub(super) struct Trickle {
    folder: PathBuf,
    /// After so many.
    step_bytes: u64,
    /// The number of the newest file, once one was there.
    newest: Option<u64>,
    /// Of the newest file.
    synced: u64,
    /// Written since it was last looked at.
    bytes: u64,
}

impl Trickle {
    pub(super) fn new(folder: PathBuf, step_bytes: usize) -> Self {
        Self {
            folder,
            step_bytes: step_bytes as u64,
            newest: None,
            synced: 0,
            bytes: 0,
        }
    }

    /// So many bytes were written.
    pub(super) fn wrote(&mut self, bytes: usize) -> io::Result<()> {
        self.bytes += bytes as u64;
        if self.bytes < self.step_bytes {
            return Ok(());
        }
        self.bytes = 0;
        self.look(0)
    }

    /// Something may have been written.
    pub(super) fn may_have_grown(&mut self) -> io::Result<()> {
        self.look(self.step_bytes)
    }

    /// Makes the names of the files durable.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        sync_folder(&self.folder)
    }

    /// Syncs the newest file if it has grown by so many bytes: files are numbered as they are made, and the one that is being
    /// written is the last.
    fn look(&mut self, grown: u64) -> io::Result<()> {
        let Some(mut newest) = self
            .newest
            .map_or_else(|| greatest(&self.folder), |newest| Ok(Some(newest)))?
        else {
            return Ok(());
        };
        while self.folder.join((newest + 1).to_string()).exists() {
            newest += 1;
        }
        if self.newest.replace(newest) != Some(newest) {
            self.synced = 0;
        }
        match File::open(self.folder.join(newest.to_string())) {
            Ok(file) => {
                let length = file.metadata()?.len();
                if length >= self.synced + grown {
                    self.synced = length;
                    file.sync_data()?;
                }
                Ok(())
            }
            // Merging has removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.newest = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// The greatest number that is the name of something in a folder; `None`: there is none.
pub(super) fn greatest(folder: &Path) -> io::Result<Option<u64>> {
    let mut greatest = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        greatest = greatest.max(name.to_str().and_then(|name| name.parse().ok()));
    }
    Ok(greatest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_BYTES: usize = 8 << 10;

    #[test]
    fn the_newest_file_is_found_also_after_more_were_made_and_it_was_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |number: u64| folder.path().join(number.to_string());
        let mut trickle = Trickle::new(folder.path().to_owned(), STEP_BYTES);
        trickle.wrote(STEP_BYTES).unwrap();
        assert_eq!(trickle.newest, None);
        for number in [2, 9, 10] {
            fs::write(path(number), b"values").unwrap();
        }
        fs::write(folder.path().join("other"), b"").unwrap();
        trickle.wrote(STEP_BYTES / 2).unwrap();
        trickle.wrote(STEP_BYTES / 2 - 1).unwrap();
        assert_eq!(trickle.newest, None);
        trickle.wrote(STEP_BYTES / 2).unwrap();
        assert_eq!(trickle.newest, Some(10));
        fs::write(path(11), b"values").unwrap();
        trickle.wrote(STEP_BYTES).unwrap();
        assert_eq!(trickle.newest, Some(11));
        fs::remove_file(path(11)).unwrap();
        trickle.wrote(STEP_BYTES).unwrap();
        trickle.wrote(STEP_BYTES).unwrap();
        assert_eq!(trickle.newest, Some(10));
    }

    #[test]
    fn what_may_have_grown_is_synced_once_it_has_grown_by_a_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = |number: u64| folder.path().join(number.to_string());
        let mut trickle = Trickle::new(folder.path().to_owned(), STEP_BYTES);
        trickle.may_have_grown().unwrap();
        fs::write(path(3), vec![0; STEP_BYTES - 1]).unwrap();
        trickle.may_have_grown().unwrap();
        assert_eq!((trickle.newest, trickle.synced), (Some(3), 0));
        fs::write(path(3), vec![0; STEP_BYTES]).unwrap();
        trickle.may_have_grown().unwrap();
        assert_eq!(trickle.synced, STEP_BYTES as u64);
        fs::write(path(3), vec![0; 2 * STEP_BYTES - 1]).unwrap();
        trickle.may_have_grown().unwrap();
        assert_eq!(trickle.synced, STEP_BYTES as u64);
        // The next one begins at nothing.
        fs::write(path(4), vec![0; STEP_BYTES - 1]).unwrap();
        trickle.may_have_grown().unwrap();
        assert_eq!((trickle.newest, trickle.synced), (Some(4), 0));
    }
}
