//! Opening a data directory: what is there, what can be trusted, and what has to be made again.

use std::{
    io::ErrorKind,
    path::Path,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    EmbeddedStore, Handle,
    format::{Fixed, Format, sync_directory},
    lock::DirectoryLock,
    log::Log,
    options::EmbeddedOptions,
    readers::Readers,
    threads::{self, StoreThread},
    views::{Fault, Leave, ViewStore, checkpoint::Checkpoint, directory},
    worker::{PROBE, PROBE_BYTES, Work},
};
use crate::journal::JournalError;

/// By how much the thread that merges the views' tables stands back behind all others.
const MERGING_NICE: i32 = 5;

/// See [`EmbeddedStore::open_locked`].
pub(super) fn open(
    lock: DirectoryLock,
    options: EmbeddedOptions,
) -> Result<EmbeddedStore, JournalError> {
    options.check()?;
    let dir = lock.dir();
    let format = Format::load_or_create(dir, &options.fixed(), random_id()?, now_ms())?;
    // Of a process that was killed while it looked for room.
    let _ = std::fs::remove_file(dir.join(PROBE));
    let (views, checkpoint, made) = open_views(dir, options.cache_bytes, &format.fixed())?;
    let lanes = format.fixed().lanes;
    let (log, recovered) = Log::open(
        dir,
        options.log(format.data_set(), lanes),
        &checkpoint.of_log(),
    )?;
    make_room(&views, || log.room(dir));
    // Or a power cut might take the folders away that were just made.
    sync_directory(dir)?;
    if made == Made::Now {
        // Not before the journal has been read that they are made from: without it the former ones may be worth something yet.
        checkpoint.store(dir)?;
    }
    let Checkpoint {
        generation,
        segment,
        ..
    } = checkpoint;
    tracing::info!(dir = %dir.display(), generation, segment, ?recovered, "opened the store");
    remove_other_generations(dir, checkpoint.generation);
    let viewed = checkpoint.segment.saturating_sub(1);
    let hook = options.on_thread;
    let readers = Readers::start(options.reader_threads, options.reads_waiting_max, hook)
        .map_err(|error| thread_error("the readers", &error))?;
    let work = Arc::new(Work::new(
        dir.to_owned(),
        options.into_worker(),
        log,
        views,
        viewed,
    ));
    let worker = {
        let work = Arc::clone(&work);
        let thread = std::thread::Builder::new().name("rialto-views".to_owned());
        thread
            .spawn(move || {
                threads::begin(hook, StoreThread::Views);
                work.run(checkpoint);
            })
            .map_err(|error| thread_error("the views", &error))?
    };
    Ok(EmbeddedStore(Arc::new(Handle {
        work,
        readers,
        worker: Mutex::new(Some(worker)),
        lanes,
        data_set: format.data_set(),
        created_ms: format.created_ms(),
        _lock: lock,
    })))
}

/// Lanes are claimed, which takes a few bytes, before the thread behind the views comes to what leaves. Where there is no room,
/// some of it goes before that.
fn make_room(views: &ViewStore, room: impl Fn() -> std::io::Result<u64>) {
    // Where the file system does not tell, the claim will.
    while room().is_ok_and(|room| room < PROBE_BYTES as u64) {
        match views.leave() {
            Ok(Leave::Step(_)) => {}
            Ok(Leave::Nothing | Leave::Later) => return,
            Err(fault) => {
                tracing::warn!(%fault, "a window that was dropped gives no room back yet");
                return;
            }
        }
    }
}

/// When the views were made that are used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    Before,
    /// They are empty, and no checkpoint says so yet.
    Now,
}

/// The views as the checkpoint describes them, or an empty generation where they have to be made again.
fn open_views(
    dir: &Path,
    cache_bytes: u64,
    fixed: &Fixed,
) -> Result<(ViewStore, Checkpoint, Made), JournalError> {
    let loaded = Checkpoint::load(dir);
    let made = generations(dir)?;
    let noted = !matches!(loaded, Ok(None));
    let why = match loaded {
        Ok(Some(checkpoint)) => match existing(dir, cache_bytes, fixed, &checkpoint)? {
            Ok(views) => return Ok((views, checkpoint, Made::Before)),
            Err(why) => why,
        },
        Ok(None) if made.is_empty() => "there are none yet".to_owned(),
        Ok(None) => "their checkpoint is missing".to_owned(),
        Err(JournalError::Damaged(why)) => why,
        Err(error) => return Err(error),
    };
    let last = made.into_iter().max();
    let segments = segments(dir)?;
    // A fresh directory: no views, no journal. All else has to be made from the journal's very first segment on.
    let fresh = last.is_none() && segments.is_empty() && !noted;
    if !fresh && segments.first() != Some(&1) && !(segments.is_empty() && never_applied(dir)?) {
        return Err(JournalError::Damaged(format!(
            "the views in {} cannot be used ({why}) nor made again, because the journal begins with segment {}: restore \
             the data directory from a backup; nothing in it has been changed or deleted",
            dir.join("views").display(),
            segments
                .first()
                .map_or_else(|| "none".to_owned(), ToString::to_string),
        )));
    }
    if !fresh {
        tracing::warn!(dir = %dir.display(), why, "the views are made again from the journal");
    }
    let checkpoint = Checkpoint::empty(last.unwrap_or(0) + 1);
    let path = directory(dir, checkpoint.generation);
    std::fs::create_dir_all(&path).map_err(|error| JournalError::Io {
        what: format!("creating {}", path.display()),
        cause: error.to_string(),
    })?;
    let views =
        attempt(dir, cache_bytes, fixed, &checkpoint).map_err(|fault| JournalError::Io {
            what: format!("making views in {}", path.display()),
            cause: fault.to_string(),
        })?;
    sync_directory(&dir.join("views"))?;
    Ok((views, checkpoint, Made::Now))
}

/// The views that the checkpoint describes, or why they cannot be used.
///
/// # Errors
/// [`JournalError::Io`] where nothing says that they are bad: another start may find them as they were.
fn existing(
    dir: &Path,
    cache_bytes: u64,
    fixed: &Fixed,
    checkpoint: &Checkpoint,
) -> Result<Result<ViewStore, String>, JournalError> {
    let path = directory(dir, checkpoint.generation);
    if !exists(&path)? {
        return Ok(Err(format!("{} is missing", path.display())));
    }
    match attempt(dir, cache_bytes, fixed, checkpoint) {
        Err(fault) if fault.may_pass() => Err(JournalError::Io {
            what: format!("opening {}", path.display()),
            cause: format!("{fault}; nothing is lost: start again once the cause is gone"),
        }),
        opened => Ok(opened.map_err(|fault| fault.to_string())),
    }
}

/// A start that was cut off before anything was written leaves a checkpoint of nothing, or none, and no segment.
fn never_applied(dir: &Path) -> Result<bool, JournalError> {
    Ok(!exists(&dir.join("journal").join("epoch"))?
        && Checkpoint::load(dir)
            .is_ok_and(|checkpoint| checkpoint.is_none_or(|checkpoint| checkpoint.is_empty())))
}

fn attempt(
    dir: &Path,
    cache_bytes: u64,
    fixed: &Fixed,
    checkpoint: &Checkpoint,
) -> Result<ViewStore, Fault> {
    let path = directory(dir, checkpoint.generation);
    let open = || {
        // The thread that merges is started on this one and is as patient as it is. Without the right to, it is not.
        if let Err(error) = rustix::process::nice(MERGING_NICE) {
            tracing::debug!(%error, "the views are merged at the usual priority");
        }
        ViewStore::open(&path, cache_bytes, fixed, checkpoint)
    };
    // fjall asserts where it finds files that it does not expect; that is damage like any other.
    let opened = std::thread::scope(|scope| scope.spawn(open).join());
    opened.unwrap_or_else(|_| {
        Err(Fault::Damaged(
            "opening them failed an assertion".to_owned(),
        ))
    })
}

fn exists(path: &Path) -> Result<bool, JournalError> {
    path.try_exists().map_err(|error| unreadable(path, &error))
}

/// What is in a directory, if there is one.
fn names(dir: &Path) -> Result<Vec<String>, JournalError> {
    let listing = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing,
    };
    let names = listing.and_then(|listing| {
        listing
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<Vec<_>, _>>()
    });
    let names = names.map_err(|error| unreadable(dir, &error))?;
    Ok(names
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .collect())
}

fn unreadable(path: &Path, error: &std::io::Error) -> JournalError {
    JournalError::Io {
        what: format!("reading {}", path.display()),
        cause: error.to_string(),
    }
}

fn generations(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let names = names(&dir.join("views"))?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Numbers of the journal's segments, the oldest first.
fn segments(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let mut segments: Vec<u64> = names(&dir.join("journal"))?
        .iter()
        .filter_map(|name| name.strip_suffix(".seg")?.parse().ok())
        .collect();
    segments.sort_unstable();
    Ok(segments)
}

/// What a rebuild has left behind. Failing to remove it costs room and nothing else.
fn remove_other_generations(dir: &Path, kept: u64) {
    let found = generations(dir).unwrap_or_default();
    for generation in found.into_iter().filter(|generation| *generation != kept) {
        if let Err(error) = std::fs::remove_dir_all(directory(dir, generation)) {
            tracing::warn!(generation, %error, "old views could not be removed");
        }
    }
}

fn thread_error(whose: &str, error: &std::io::Error) -> JournalError {
    JournalError::Io {
        what: format!("starting the threads of {whose}"),
        cause: error.to_string(),
    }
}

fn random_id() -> Result<u128, JournalError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| JournalError::Io {
        what: "asking the operating system for random bytes".to_owned(),
        cause: error.to_string(),
    })?;
    Ok(u128::from_le_bytes(bytes))
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        super::views::tests::{bytes_below, open as database},
        *,
    };

    #[test]
    fn where_there_is_no_room_as_much_leaves_as_a_start_needs() {
        const LEAVING_BYTES: u64 = 3 * PROBE_BYTES as u64;
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::empty(1);
        drop(database(dir.path(), &checkpoint));
        let leaving = dir.path().join("leaving");
        fs::create_dir_all(leaving.join("0")).unwrap();
        let file = fs::File::create(leaving.join("0").join("1")).unwrap();
        file.set_len(LEAVING_BYTES).unwrap();
        let views = database(dir.path(), &checkpoint);
        make_room(&views, || Ok(PROBE_BYTES as u64));
        assert_eq!(bytes_below(&leaving), LEAVING_BYTES);
        make_room(&views, || Ok(LEAVING_BYTES - bytes_below(&leaving)));
        let left = LEAVING_BYTES - PROBE_BYTES as u64;
        assert_eq!(bytes_below(&leaving), left);
        // It may be too little, and ends all the same.
        make_room(&views, || Ok(0));
        assert!(!leaving.exists());
    }

    #[test]
    fn what_looked_for_room_takes_none_after_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let options = EmbeddedOptions {
                segment_bytes: 64 << 10,
                ..EmbeddedOptions::default()
            };
            EmbeddedStore::open(dir.path(), options).unwrap()
        };
        open().close();
        let probe = dir.path().join(PROBE);
        fs::write(&probe, b"as long as there was room").unwrap();
        open().close();
        assert!(!probe.exists());
    }
}
