//! Windows that are not kept any more, on their way out. All that was said in a window is a lot to remove at once: the journal
//! would wait for the disk meanwhile. See `docs/decisions/0034-windows-go-a-little-at-a-time.md`.
//!
//! | what it has | what is done with it |
//! | --- | --- |
//! | its name in the database, and nobody asks for it | the name is deleted, durably; a start finds it as it is |
//! | a folder where fjall keeps keyspaces, without a name | it waits for reads and merges that had begun; a start of fjall removes it at once |
//! | a folder where fjall does not look | its files become shorter by a step at a time; a start goes on with it |
//!
//! The windows go one after the other, so that one at most is in the state of the second row, and briefly. None goes before a later one
//! was made: after a start fjall would give its number out again, and take for deleted what is made under it.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fjall::{Database, Keyspace};

use super::{Doing, Fault, Partitions, ViewStore, trickle::greatest};

/// Folder beside that of the keyspaces, while there is something in it.
const FOLDER: &str = "leaving";
/// A file becomes shorter by so much at once, and is synced then: what the disk has to forget in one go is no more.
const STEP_BYTES: u64 = 1 << 20;
/// fjall asks whether a keyspace is gone and counts a merge a moment later. Where none is counted for so long, none has begun.
const UNCOUNTED: Duration = Duration::from_millis(100);

/// How it goes on with what is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::embedded) enum Leave {
    /// Nothing is.
    Nothing,
    /// A read or a merge has to end before.
    Later,
    /// A step was made, which has given the disk so many bytes back.
    Step(u64),
}

/// All that is on its way out.
pub(super) struct Leaving {
    /// See [`FOLDER`].
    folder: PathBuf,
    queue: Mutex<Queue>,
}

struct Queue {
    /// Those that have a name yet, in the order in which they go.
    named: VecDeque<Arc<Keyspace>>,
    nameless: Option<Nameless>,
    /// Something may be in the folder.
    moved: bool,
    file: Option<Shrinking>,
    /// Bytes that were cut off since the last sync.
    unsynced: u64,
}

struct Nameless {
    keyspace: Arc<Keyspace>,
    since: Instant,
    /// Merges that had ended by then.
    merges: usize,
}

struct Shrinking {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl ViewStore {
    /// Goes on with what is on its way out, by one step.
    ///
    /// # Errors
    /// What the operating system or fjall says; all is as it was then.
    pub(in crate::embedded) fn leave(&self) -> Result<Leave, Fault> {
        let last = self.with_partitions(|Partitions { events, sent }| {
            let kept = events.values().chain(sent.values());
            kept.filter_map(|keyspace| number_of(keyspace)).max()
        });
        self.leaving
            .step(&self.db, last, |gone| self.compaction.dropped(gone))
    }
}

impl Leaving {
    /// Of a database in this directory.
    pub(super) fn new(database: &Path) -> Self {
        Self {
            folder: database.join(FOLDER),
            queue: Mutex::new(Queue {
                named: VecDeque::new(),
                nameless: None,
                moved: true,
                file: None,
                unsynced: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody asks for this window any more.
    pub(super) fn drop_window(&self, keyspace: Arc<Keyspace>) {
        self.lock().named.push_back(keyspace);
    }

    /// The next step; `last` is the greatest number of a window that stays, and `gone` is told when a name is.
    fn step(
        &self,
        db: &Database,
        last: Option<u64>,
        gone: impl Fn(&Keyspace),
    ) -> Result<Leave, Fault> {
        let mut queue = self.lock();
        if queue.moved {
            let cut = self
                .shrink(&mut queue)
                .map_err(fjall::Error::from)
                .doing("shortening the files of a window that was dropped")?;
            queue.moved = cut.is_some();
            return Ok(Leave::Step(cut.unwrap_or(0)));
        }
        if let Some(nameless) = &queue.nameless {
            if !nameless.is_left_alone(db) {
                return Ok(Leave::Later);
            }
            self.take_over(&nameless.keyspace)
                .map_err(fjall::Error::from)
                .doing("moving the folder of a window that was dropped")?;
            (queue.nameless, queue.moved) = (None, true);
            return Ok(Leave::Step(0));
        }
        let mut named = queue.named.iter().enumerate();
        let Some((place, keyspace)) = named.find(|(_, keyspace)| number_of(keyspace) < last) else {
            return Ok(Leave::Nothing);
        };
        db.delete_keyspace(Keyspace::clone(keyspace))
            .doing("deleting the name of a window that was dropped")?;
        gone(keyspace);
        let keyspace = queue.named.remove(place);
        queue.nameless = keyspace.map(|keyspace| Nameless {
            keyspace,
            since: Instant::now(),
            merges: db.compactions_completed(),
        });
        Ok(Leave::Step(0))
    }

    /// Puts a folder where fjall does not look for it. Its handle finds nothing to remove then, whoever lets go of it last.
    fn take_over(&self, keyspace: &Keyspace) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let number = greatest(&self.folder)?.map_or(0, |last| last + 1);
        fs::rename(keyspace.path(), self.folder.join(number.to_string()))
    }

    /// Cuts a step off a file, of so many bytes; `None`: none is left.
    fn shrink(&self, queue: &mut Queue) -> io::Result<Option<u64>> {
        let shrinking = match &mut queue.file {
            Some(shrinking) => shrinking,
            none => match self.open_one()? {
                Some(shrinking) => none.insert(shrinking),
                None => return Ok(None),
            },
        };
        let cut = shrinking.bytes.min(STEP_BYTES);
        shrinking.file.set_len(shrinking.bytes - cut)?;
        shrinking.bytes -= cut;
        queue.unsynced += cut;
        if queue.unsynced >= STEP_BYTES {
            shrinking.file.sync_all()?;
            queue.unsynced = 0;
        }
        if shrinking.bytes == 0 {
            // Now that nothing is in it: fjall may have it open, and would keep its bytes.
            match fs::remove_file(&shrinking.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => queue.file = None,
            }
        }
        Ok(Some(cut))
    }

    /// Opens a file that is left; `None`: none is, and no folder.
    fn open_one(&self) -> io::Result<Option<Shrinking>> {
        let path = match any_file(&self.folder) {
            Ok(Some(path)) => path,
            Ok(None) => {
                fs::remove_dir(&self.folder)?;
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let file = File::options().write(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Some(Shrinking { path, file, bytes }))
    }
}

impl Nameless {
    /// Whether nobody reads from it, and no merge of it is under way.
    fn is_left_alone(&self, db: &Database) -> bool {
        // fjall has one thread that merges: when it ends a merge, those that it had begun before the name was gone are over.
        let merges_are_over = db.compactions_completed() != self.merges
            || (db.active_compactions() == 0 && self.since.elapsed() >= UNCOUNTED);
        Arc::strong_count(&self.keyspace) == 1 && merges_are_over
    }
}

/// By now the threads of fjall and of all readers have ended.
impl Drop for Leaving {
    fn drop(&mut self) {
        let nameless = self.lock().nameless.take();
        if let Some(Nameless { keyspace, .. }) = nameless
            && let Err(error) = self.take_over(&keyspace)
        {
            tracing::warn!(%error, "the files of a window that was dropped are removed all at once");
        }
    }
}

/// The number that fjall has given a keyspace: greater than those of all that were there then.
fn number_of(keyspace: &Keyspace) -> Option<u64> {
    keyspace.path().file_name()?.to_str()?.parse().ok()
}

/// Some file below a folder. Folders in which there is none are removed on the way.
fn any_file(folder: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            return Ok(Some(entry.path()));
        }
        let file = any_file(&entry.path())?;
        if file.is_some() {
            return Ok(file);
        }
        fs::remove_dir(entry.path())?;
    }
    Ok(None)
}
