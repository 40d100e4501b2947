//! The files that fjall keeps long values in, as far as their way to the disk is ours to see to.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use fjall::Keyspace;

use super::{Doing, Fault, SEPARATED_BYTES};

/// Where a keyspace keeps them.
fn folder(keyspace: &Keyspace) -> PathBuf {
    keyspace.path().join("blobs")
}

/// Makes the names of these files durable: fjall syncs the files and not their folder.
pub(super) fn sync_names(windows: &BTreeMap<u32, Keyspace>) -> Result<(), Fault> {
    for keyspace in windows.values() {
        File::open(folder(keyspace))
            .and_then(|folder| folder.sync_all())
            .map_err(fjall::Error::from)
            .doing("syncing a folder of the views")?;
    }
    Ok(())
}

/// Sends what an ingestion writes to the disk a little at a time. fjall does that when a file is whole: 64 MiB at once, behind
/// which an append of the journal would wait for tens of milliseconds. Handing it over takes a processor for 3 µs a page.
pub(super) struct Trickle {
    folder: PathBuf,
    /// After so many.
    step_bytes: usize,
    /// The number of the newest file, once one was there.
    newest: Option<u64>,
    bytes: usize,
}

impl Trickle {
    pub(super) fn new(keyspace: &Keyspace, step_bytes: usize) -> Self {
        Self {
            folder: folder(keyspace),
            step_bytes,
            newest: None,
            bytes: 0,
        }
    }

    /// A value of so many bytes was written.
    pub(super) fn wrote(&mut self, bytes: usize) -> Result<(), Fault> {
        if bytes < SEPARATED_BYTES as usize {
            return Ok(());
        }
        self.bytes += bytes;
        if self.bytes < self.step_bytes {
            return Ok(());
        }
        self.bytes = 0;
        self.sync_newest()
            .map_err(fjall::Error::from)
            .doing("syncing values of the views")
    }

    /// Files are numbered as they are made; the one that is being written is the last.
    fn sync_newest(&mut self) -> io::Result<()> {
        let mut newest = match self.newest {
            Some(number) => number,
            None => match greatest(&self.folder)? {
                Some(number) => number,
                None => return Ok(()),
            },
        };
        while self.folder.join((newest + 1).to_string()).exists() {
            newest += 1;
        }
        self.newest = Some(newest);
        match File::open(self.folder.join(newest.to_string())) {
            Ok(file) => file.sync_data(),
            // Merging has removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.newest = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn greatest(folder: &Path) -> io::Result<Option<u64>> {
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

    const STEP_BYTES: usize = 2 * SEPARATED_BYTES as usize;

    #[test]
    fn the_newest_file_is_found_also_after_more_were_made_and_it_was_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |number: u64| folder.path().join(number.to_string());
        let mut trickle = Trickle {
            folder: folder.path().to_owned(),
            step_bytes: STEP_BYTES,
            newest: None,
            bytes: 0,
        };
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
}
