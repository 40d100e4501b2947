//! The files by which fjall knows the tables of a keyspace: `current` names the newest list of them, `vN`, and holds its checksum.
//! fjall (lsm-tree 3.1) reads the name and leaves the checksum alone, so that a damaged name would open an older list, and what
//! was written since would be gone without a word.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_128;

use super::Fault;

const CURRENT: &str = "current";
/// Number of the list (8), its checksum (16), how that is made (1): 0 is XXH3 of 128 bits. Little endian.
const CURRENT_BYTES: usize = 25;
const XXH3: u8 = 0;

/// Checks the newest list of each keyspace of the database in `dir`, which is not open.
pub(super) fn check(dir: &Path) -> Result<(), Fault> {
    for keyspace in folders(&dir.join("keyspaces"))? {
        let current = keyspace.join(CURRENT);
        let bytes = match fs::read(&current) {
            Ok(bytes) => bytes,
            // A keyspace that was being made when the process ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(&current, &error)),
        };
        let Some((number, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(damaged(&current, "it is too short"));
        };
        let Some((checksum, &[how])) = rest.split_first_chunk::<16>() else {
            let words = format!("it has {} bytes and not {CURRENT_BYTES}", bytes.len());
            return Err(damaged(&current, &words));
        };
        if how != XXH3 {
            return Err(damaged(
                &current,
                "its checksum is of a kind that nobody writes",
            ));
        }
        let list = keyspace.join(format!("v{}", u64::from_le_bytes(*number)));
        let listed = fs::read(&list).map_err(|error| unreadable(&list, &error))?;
        if xxh3_128(&listed) != u128::from_le_bytes(*checksum) {
            return Err(damaged(&list, "it does not fit the checksum in `current`"));
        }
    }
    Ok(())
}

/// None where there is no such directory yet.
fn folders(directory: &Path) -> Result<Vec<PathBuf>, Fault> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(directory, &error)),
    };
    entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()
        .map_err(|error| unreadable(directory, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    let named = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    Fault::Store {
        what: "reading the lists of tables",
        cause: fjall::Error::Io(named),
    }
}

fn damaged(path: &Path, why: &str) -> Fault {
    Fault::Damaged(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use fjall::{Database, KeyspaceCreateOptions, PersistMode};

    use super::*;

    #[test]
    fn every_flipped_bit_and_every_end_of_what_names_the_tables_is_found() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path()).unwrap();
        let db = Database::builder(folder.path()).open().unwrap();
        let keyspace = db.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        for round in 0..3_u8 {
            keyspace.insert([round], [round]).unwrap();
            keyspace.rotate_memtable_and_wait().unwrap();
        }
        db.persist(PersistMode::SyncAll).unwrap();
        drop((keyspace, db));
        check(folder.path()).unwrap();
        let mut files = 0;
        for keyspace in folders(&folder.path().join("keyspaces")).unwrap() {
            let current = fs::read(keyspace.join(CURRENT)).unwrap();
            let list = format!("v{}", u64::from_le_bytes(current[..8].try_into().unwrap()));
            for name in [CURRENT, &list] {
                let path = keyspace.join(name);
                let whole = fs::read(&path).unwrap();
                for at in 0..whole.len() {
                    let mut flipped = whole.clone();
                    flipped[at] ^= 1 << (at % 8);
                    fs::write(&path, &flipped).unwrap();
                    check(folder.path()).unwrap_err();
                    fs::write(&path, &whole[..at]).unwrap();
                    check(folder.path()).unwrap_err();
                }
                fs::write(&path, vec![0; whole.len()]).unwrap();
                check(folder.path()).unwrap_err();
                fs::write(&path, &whole).unwrap();
                files += 1;
            }
        }
        assert!(files >= 2);
        check(folder.path()).unwrap();
    }
}
