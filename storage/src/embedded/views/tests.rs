//! Windows that are dropped, as long as anything of them is left, and a database for the tests of those who use one.

use std::fs;

use rialto_protocol::ids::{ConversationId, Seq};

use super::{
    codec::{run_key, window_key, window_of},
    sink::Sink,
    *,
};

/// Width of a window.
pub(in crate::embedded) const WIDTH_MS: u64 = 1000;
/// What is written to a window: runs of so many bytes, which is also what leaves at once.
const RUNS: usize = 3;
const RUN_BYTES: usize = 1 << 20;

fn conversation() -> ConversationId {
    ConversationId::from_bytes([5; 16])
}

/// The database in a directory.
pub(in crate::embedded) fn open(dir: &Path, checkpoint: &Checkpoint) -> ViewStore {
    let fixed = Fixed {
        lanes: 4,
        events_window_ms: WIDTH_MS,
        sent_window_ms: WIDTH_MS,
    };
    ViewStore::open(dir, 1 << 20, &fixed, checkpoint).unwrap()
}

/// Writes to a keyspace, and waits until fjall has seen to what it makes of it.
fn write(store: &ViewStore, keyspace: &Keyspace, pairs: &[(Vec<u8>, Vec<u8>)]) {
    let merges = store.db.compactions_completed();
    let mut sink = Sink::new(keyspace, 1 << 20);
    for (key, value) in pairs {
        sink.put(key, value).unwrap();
    }
    sink.finish().unwrap();
    while store.db.compactions_completed() == merges || store.db.active_compactions() > 0 {
        std::thread::yield_now();
    }
}

/// Makes a window of events with something in it; its folder.
pub(in crate::embedded) fn fill(store: &ViewStore, window: u32) -> PathBuf {
    let (events, _) = store
        .open_windows(&BTreeSet::from([window]), &BTreeSet::new())
        .unwrap();
    let run = |seq| {
        let key = run_key(conversation(), Seq(seq)).to_vec();
        (key, vec![b'x'; RUN_BYTES])
    };
    let runs: Vec<_> = (1..).take(RUNS).map(run).collect();
    write(store, &events[&window], &runs);
    events[&window].path().to_owned()
}

/// Makes a window of sent ids with nothing in it.
pub(in crate::embedded) fn make_sent(store: &ViewStore, window: u32) {
    store
        .open_windows(&BTreeSet::new(), &BTreeSet::from([window]))
        .unwrap();
}

/// Has the thread that merges end by a panic while more tables wait for it than may.
pub(in crate::embedded) fn crowd(store: &ViewStore) {
    store.compaction.fail_merges();
    while store.rows.l0_table_count() < UNMERGED_TABLES_MAX {
        let mut sink = Sink::new(&store.rows, 1 << 20);
        // Tables that do not overlap would be moved without a look at what is in them.
        sink.put(b"first", b"").unwrap();
        sink.put(b"last", b"").unwrap();
        sink.finish().unwrap();
    }
    while store.persist().is_ok() {
        std::thread::yield_now();
    }
    assert!(store.is_crowded());
}

fn check(store: &ViewStore, window: u32) {
    let keyspace = store.with_partitions(|partitions| Arc::clone(&partitions.events[&window]));
    let lengths = keyspace.iter().map(|run| run.value().unwrap().len());
    assert_eq!(lengths.collect::<Vec<_>>(), [RUN_BYTES; RUNS]);
}

/// Bytes of all files below a folder, if there is one.
pub(in crate::embedded) fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let bytes = entries.map(|entry| {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            bytes_below(&entry.path())
        } else {
            entry.metadata().unwrap().len()
        }
    });
    bytes.sum()
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let copy = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &copy);
        } else {
            fs::copy(entry.path(), copy).unwrap();
        }
    }
}

/// The next step, as soon as it can be made; false: there is none.
fn step(store: &ViewStore) -> bool {
    loop {
        match store.leave().unwrap() {
            Leave::Nothing => return false,
            Leave::Later => std::thread::yield_now(),
            Leave::Step(_) => return true,
        }
    }
}

/// Of views that hold windows 1 to 3, and keep them from this one on.
fn keeping_from(window: u32) -> Checkpoint {
    Checkpoint {
        segment: 2,
        events_from: window,
        events_windows: vec![1, 2, 3],
        ..Checkpoint::empty(1)
    }
}

#[test]
fn a_window_that_is_dropped_goes_by_steps_that_nobody_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &Checkpoint::empty(1));
    let folders = [fill(&store, 1), fill(&store, 2)];
    fill(&store, 3);
    let leaving = dir.path().join("leaving");
    let left = || bytes_below(&folders[0]) + bytes_below(&folders[1]) + bytes_below(&leaving);
    let whole = left();
    assert!(whole > (2 * RUNS * RUN_BYTES) as u64);
    store.keep_from(3);
    store.drop_windows(0);
    assert_eq!(store.existing_windows(), [3]);
    assert_eq!(left(), whole);
    let mut before = whole;
    while step(&store) {
        let now = left();
        assert!(before - now <= RUN_BYTES as u64, "{before} {now}");
        before = now;
    }
    assert_eq!(before, 0);
    assert!(!leaving.exists() && folders.iter().all(|folder| !folder.exists()));
    check(&store, 3);
}

#[test]
fn a_window_that_is_read_from_stays_as_it_is_until_nobody_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &Checkpoint::empty(1));
    let folder = fill(&store, 1);
    let whole = bytes_below(&folder);
    fill(&store, 2);
    let read = store.with_partitions(|partitions| Arc::clone(&partitions.events[&1]));
    store.keep_from(2);
    store.drop_windows(0);
    while matches!(store.leave().unwrap(), Leave::Step(_)) {}
    // What fjall had begun is over for certain.
    fill(&store, 3);
    assert_eq!(store.leave().unwrap(), Leave::Later);
    assert_eq!(bytes_below(&folder), whole);
    assert_eq!(read.iter().count(), RUNS);
    drop(read);
    while step(&store) {}
    assert!(!folder.exists());
    check(&store, 2);
}

#[test]
fn a_start_goes_on_wherever_a_crash_has_cut_it_off() {
    let dir = tempfile::tempdir().unwrap();
    let views = dir.path().join("views");
    let store = open(&views, &Checkpoint::empty(1));
    for window in 1..=3 {
        fill(&store, window);
    }
    store.keep_from(3);
    store.drop_windows(0);
    let mut crashes = 0;
    loop {
        let copy = dir.path().join(format!("crash-{crashes}"));
        copy_all(&views, &copy);
        let after = open(&copy, &keeping_from(3));
        assert_eq!(after.existing_windows(), [3]);
        while step(&after) {}
        check(&after, 3);
        drop(after);
        let keyspaces = fs::read_dir(copy.join("keyspaces")).unwrap().count();
        assert_eq!(keyspaces, 1 + FIXED.len() + 1, "fjall's own among them");
        assert!(!copy.join("leaving").exists());
        fs::remove_dir_all(copy).unwrap();
        crashes += 1;
        if !step(&store) {
            break;
        }
    }
    assert!(crashes > 2 * RUNS);
}

#[test]
fn a_stop_removes_nothing_and_the_next_start_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &Checkpoint::empty(1));
    let folders = [fill(&store, 1), fill(&store, 2)];
    fill(&store, 3);
    let whole = bytes_below(&folders[0]);
    let read = store.with_partitions(|partitions| Arc::clone(&partitions.events[&1]));
    store.keep_from(3);
    store.drop_windows(0);
    // The first has no name any more, the second has.
    while matches!(store.leave().unwrap(), Leave::Step(_)) {}
    drop(store);
    drop(read);
    assert!(!folders[0].exists());
    assert_eq!(bytes_below(&dir.path().join("leaving")), whole);
    assert_eq!(bytes_below(&folders[1]), whole);
    // In the middle of a file.
    let store = open(dir.path(), &keeping_from(3));
    assert!(step(&store));
    drop(store);
    let store = open(dir.path(), &keeping_from(3));
    while step(&store) {}
    assert!(!dir.path().join("leaving").exists() && !folders[1].exists());
    check(&store, 3);
}

#[test]
fn a_window_that_is_made_after_the_last_one_was_dropped_is_there_at_every_start() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint {
        events_from: 2,
        ..Checkpoint::empty(1)
    };
    let store = open(dir.path(), &Checkpoint::empty(1));
    let folder = fill(&store, 1);
    store.keep_from(2);
    store.drop_windows(0);
    while step(&store) {}
    drop(store);
    let store = open(dir.path(), &checkpoint);
    for window in 2..=4 {
        fill(&store, window);
    }
    drop(store);
    let store = open(dir.path(), &checkpoint);
    assert_eq!(store.existing_windows(), [2, 3, 4]);
    (2..=4).for_each(|window| check(&store, window));
    while step(&store) {}
    assert!(!folder.exists());
}

#[test]
fn what_cannot_be_removed_stays_in_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &Checkpoint::empty(1));
    let folder = fill(&store, 1);
    let whole = bytes_below(&folder);
    fill(&store, 2);
    // Of a former run nothing is left.
    assert!(step(&store) && !step(&store));
    store.keep_from(2);
    store.drop_windows(0);

    // The list of names cannot be written.
    let (names, aside) = (dir.path().join("keyspaces/0/tables"), dir.path().join("a"));
    fs::rename(&names, &aside).unwrap();
    for _ in 0..2 {
        store.leave().unwrap_err();
    }
    fs::rename(&aside, &names).unwrap();
    assert!(step(&store));

    // The folder cannot be moved.
    let leaving = dir.path().join("leaving");
    fs::write(&leaving, b"").unwrap();
    while store.leave().is_ok() {}
    store.leave().unwrap_err();
    assert_eq!(bytes_below(&folder), whole);
    fs::remove_file(&leaving).unwrap();
    while step(&store) {}
    assert!(!folder.exists() && !leaving.exists());
}

#[test]
fn a_time_that_cannot_be_read_back_is_written_anew_and_keeps_nobody_elses_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &Checkpoint::empty(1));
    let user = |number| UserId::from_bytes([number; 16]);
    store.write_seen(&[(user(1), 5)]).unwrap();
    store.seen.rotate_memtable_and_wait().unwrap();
    let tables = trickle::tables_of(&store.seen);
    drop(store);
    let mut entries = fs::read_dir(tables).unwrap();
    let table = entries.next().unwrap().unwrap().path();
    let mut bytes = fs::read(&table).unwrap();
    // Behind the header of the first block, of 33 bytes.
    bytes[40] ^= 1;
    fs::write(&table, bytes).unwrap();
    let store = open(dir.path(), &Checkpoint::empty(1));
    store.read_seen(user(1)).unwrap_err();
    store.write_seen(&[(user(1), 7), (user(2), 8)]).unwrap();
    let times = [1, 2].map(|number| store.read_seen(user(number)).unwrap());
    assert_eq!(times, [Some(7), Some(8)]);
}

#[test]
fn merges_leave_out_which_windows_had_events_once_these_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &Checkpoint::empty(1));
    let keys = |keyspace: &Keyspace| -> Vec<u32> {
        keyspace.major_compact().unwrap();
        let keys = keyspace.iter().map(|row| row.key().unwrap());
        keys.map(|key| window_of(&key).unwrap()).collect()
    };
    let row = |window| (window_key(conversation(), window).to_vec(), Vec::new());
    for keyspace in [&store.windows, &store.rows] {
        write(&store, keyspace, &[row(1), row(2), row(3)]);
        assert_eq!(keys(keyspace), [1, 2, 3]);
    }
    store.keep_from(2);
    assert_eq!(keys(&store.windows), [2, 3]);
    assert_eq!(keys(&store.rows), [1, 2, 3], "rows of another kind");
    drop(store);
    // A start knows it from the checkpoint.
    let checkpoint = Checkpoint {
        events_from: 3,
        ..Checkpoint::empty(1)
    };
    let store = open(dir.path(), &checkpoint);
    assert_eq!(keys(&store.windows), [3]);
}
