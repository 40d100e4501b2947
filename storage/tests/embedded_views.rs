//! The embedded views follow the journal, wherever the way there is cut off, and are made again where they are lost.

// A test may fail by unwrapping; the lint knows test functions only, not their helpers.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // Each test uses a part of it.
#[path = "support/writer.rs"]
mod writer;

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, symlink},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
    time::Duration,
};

use rialto_protocol::ids::{Seq, UserId};
use rialto_storage::{
    directory::{Directory, Seen},
    embedded::{EmbeddedOptions, EmbeddedStore, Step, StepHook},
    journal::{AppendError, Journal, JournalError},
    views::{Order, Range, Views, ViewsError},
    wait,
};
use writer::{START_MS, Writer, check, conversation};

fn options() -> EmbeddedOptions {
    EmbeddedOptions {
        lanes: 4,
        segment_bytes: 64 << 10,
        // The tests' time is long ago.
        journal_keep_ms: u64::MAX,
        views_duty_percent: 100,
        ..EmbeddedOptions::default()
    }
}

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, options()).unwrap()
}

/// Events `from..=to` of two conversations.
fn say(store: &EmbeddedStore, from: u64, to: u64) {
    let mut writer = Writer::claim(store);
    for seq in from..=to {
        for whose in [conversation(1), conversation(2)] {
            writer.say(whose, seq, START_MS + seq);
        }
    }
}

fn check_both(store: &EmbeddedStore, last: u64, stage: &str) {
    check(store, conversation(1), last, stage);
    check(store, conversation(2), last, stage);
}

/// Dies at the `count`th time that the work comes to `step`.
fn dying_at(step: Step, count: usize) -> EmbeddedOptions {
    let seen = AtomicUsize::new(0);
    let hook = move |reached| reached != step || seen.fetch_add(1, Ordering::SeqCst) + 1 != count;
    EmbeddedOptions {
        on_step: Some(StepHook(Arc::new(hook))),
        ..options()
    }
}

#[test]
fn a_crash_at_any_step_of_a_segments_way_repeats_it_harmlessly() {
    for step in [
        Step::Gathered,
        Step::Events,
        Step::Applied,
        Step::Checkpointed,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let store = EmbeddedStore::open(&path, dying_at(step, 2)).unwrap();
        say(&store, 1, 10);
        wait(store.settle()).unwrap();
        say(&store, 11, 20);
        assert!(
            wait(store.settle()).is_err(),
            "{step:?}: the worker is dead, nobody settles"
        );
        check_both(&store, 20, &format!("{step:?}: before the restart"));
        store.abandon();
        // And once more, on the way of the same segment.
        let store = EmbeddedStore::open(&path, dying_at(step, 1)).unwrap();
        check_both(&store, 20, &format!("{step:?}: after the restart"));
        say(&store, 21, 25);
        store.abandon();
        let store = open(&path);
        check_both(&store, 25, &format!("{step:?}: after two restarts"));
        wait(store.settle()).unwrap();
        check_both(&store, 25, &format!("{step:?}: settled"));
        assert_eq!(store.status().views_lag_segments, 0);
    }
}

#[test]
fn views_whose_thread_panics_end_the_journal_instead_of_letting_it_wait_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let options = EmbeddedOptions {
        on_step: Some(StepHook(Arc::new(|_| panic!("on purpose")))),
        ..options()
    };
    let store = EmbeddedStore::open(&path, options).unwrap();
    let mut writer = Writer::claim(&store);
    for seq in 1..=10 {
        writer.say(conversation(1), seq, START_MS + seq);
    }
    assert!(wait(store.settle()).is_err());
    let entry = writer.entry(conversation(1), 11, START_MS + 11, 10);
    assert!(matches!(
        wait(store.append(vec![entry])),
        Err(AppendError::Poisoned(_))
    ));
    drop(store);
    check(&open(&path), conversation(1), 10, "after the restart");
}

#[test]
fn a_segment_that_cannot_be_brought_in_ends_the_journal_after_some_attempts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (go, may_go) = channel::<()>();
    let may_go = Mutex::new(may_go);
    let hook = move |_| may_go.lock().unwrap().recv().is_err();
    let options = EmbeddedOptions {
        on_step: Some(StepHook(Arc::new(hook))),
        ..options()
    };
    let store = EmbeddedStore::open(&path, options).unwrap();
    // Three segments and more; the worker waits in the first one.
    say(&store, 1, 400);
    let second = path.join("journal").join("0000000002.seg");
    let file = File::options().write(true).open(second).unwrap();
    file.write_all_at(&[0xff; 64], 20_000).unwrap();
    file.sync_all().unwrap();
    drop(go);
    while !store.status().poisoned {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(wait(store.settle()).is_err());
}

#[test]
fn views_that_are_gone_or_broken_are_made_again_from_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = open(&path);
    say(&store, 1, 10);
    wait(store.settle()).unwrap();
    say(&store, 11, 12);
    store.close();

    fs::remove_dir_all(path.join("views")).unwrap();
    let store = open(&path);
    check_both(&store, 12, "the database is gone");
    wait(store.settle()).unwrap();
    check_both(&store, 12, "and was made again");
    store.close();

    fs::write(path.join("views.checkpoint"), b"nonsense").unwrap();
    let store = open(&path);
    check_both(&store, 12, "the checkpoint is broken");
    wait(store.settle()).unwrap();
    store.close();

    // One keyspace of the database is gone: it must not be taken for an empty one.
    let generations: Vec<_> = fs::read_dir(path.join("views"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(generations.len(), 1, "former generations are removed");
    fs::remove_dir_all(generations[0].join("keyspaces").join("3")).unwrap();
    let store = open(&path);
    wait(store.settle()).unwrap();
    check_both(&store, 12, "a keyspace is gone");
    store.close();

    // A database without this file is taken for one that is to be made, among files that are there.
    let generation = fs::read_dir(path.join("views")).unwrap().next().unwrap();
    fs::remove_file(generation.unwrap().path().join("version")).unwrap();
    let store = open(&path);
    wait(store.settle()).unwrap();
    check_both(
        &store,
        12,
        "the file that says that there is a database is gone",
    );
}

#[test]
fn views_that_lost_a_window_of_events_or_of_sent_ids_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = open(&path);
    say(&store, 1, 10);
    wait(store.settle()).unwrap();
    store.close();
    for removed in ["", "current"] {
        // Five are made with the database, and these with the first segment.
        for number in [6, 7] {
            let generations: Vec<_> = fs::read_dir(path.join("views"))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            assert_eq!(generations.len(), 1, "former generations are removed");
            let keyspace = generations[0].join("keyspaces").join(number.to_string());
            if removed.is_empty() {
                fs::remove_dir_all(keyspace).unwrap();
            } else {
                fs::remove_file(keyspace.join(removed)).unwrap();
            }
            let store = open(&path);
            wait(store.settle()).unwrap();
            check_both(
                &store,
                10,
                &format!("keyspace {number} without {removed:?}"),
            );
            store.close();
            assert!(!generations[0].exists(), "it was not used");
        }
    }
}

#[test]
fn events_that_the_views_have_lost_are_an_error_and_not_left_out_before_those_of_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = open(&path);
    say(&store, 1, 10);
    wait(store.settle()).unwrap();
    store.close();
    let views = fjall::Database::builder(path.join("views").join("1"))
        .open()
        .unwrap();
    let windows = views.keyspace("windows", Default::default).unwrap();
    let keys: Vec<_> = windows.iter().map(|row| row.key().unwrap()).collect();
    assert_eq!(keys.len(), 2);
    for key in keys {
        windows.remove(key).unwrap();
    }
    drop((windows, views));
    let store = open(&path);
    say(&store, 11, 12);
    for order in [Order::Forward, Order::Backward] {
        let range = Range {
            conversation: conversation(1),
            from: Seq(1),
            to: Seq(u64::MAX),
            bytes_max: usize::MAX,
            order,
        };
        let read = wait(store.events(range));
        assert!(matches!(read, Err(ViewsError::Damaged(_))), "{read:?}");
    }
}

#[test]
fn views_are_not_given_up_for_a_journal_that_they_cannot_be_made_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = open(&path);
    say(&store, 1, 10);
    wait(store.settle()).unwrap();
    say(&store, 11, 20);
    wait(store.settle()).unwrap();
    store.close();
    // Nothing but making the views again needs this segment.
    let second = path.join("journal").join("0000000002.seg");
    let file = File::options().write(true).open(second).unwrap();
    file.write_all_at(&[0xff; 64], 4096).unwrap();
    let (keyspace, aside) = (path.join("views/1/keyspaces/3"), dir.path().join("aside"));
    fs::rename(&keyspace, &aside).unwrap();
    for _ in 0..2 {
        let refused = EmbeddedStore::open(&path, options()).err();
        assert!(
            matches!(refused, Some(JournalError::Damaged(_))),
            "{refused:?}"
        );
    }
    fs::rename(&aside, &keyspace).unwrap();
    check_both(&open(&path), 20, "what was missing is back");
}

#[test]
fn views_that_cannot_be_opened_for_now_are_neither_made_again_nor_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = open(&path);
    say(&store, 1, 10);
    wait(store.settle()).unwrap();
    let user = UserId::from_bytes([1; 16]);
    let time_ms = START_MS;
    wait(store.record_seen(vec![Seen { user, time_ms }])).unwrap();
    store.close();

    let aside = dir.path().join("aside");
    for name in [
        "views",
        "views/1",
        "views/1/keyspaces",
        "views/1/keyspaces/0/current",
        "views/1/keyspaces/1/tables",
        "views.checkpoint",
        "journal",
    ] {
        let place = path.join(name);
        fs::rename(&place, &aside).unwrap();
        // The operating system follows it as long as it may, and gives up: no answer to what stands there.
        symlink(&place, &place).unwrap();
        match EmbeddedStore::open(&path, options()) {
            Err(error @ JournalError::Io { .. }) => {
                assert!(!error.to_string().contains("backup"), "{name}: {error}");
            }
            other => panic!("{name}: {:?}", other.err()),
        }
        fs::remove_file(&place).unwrap();
        fs::rename(&aside, &place).unwrap();
    }
    let store = open(&path);
    check_both(&store, 10, "all is where it was");
    // Nothing but the views holds this.
    assert_eq!(wait(store.last_seen(vec![user])).unwrap(), [Some(time_ms)]);
    assert!(path.join("views").join("1").exists());
}

#[test]
fn views_that_cannot_be_made_again_are_an_error_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let old = EmbeddedOptions {
        journal_keep_ms: 0,
        ..options()
    };
    let store = EmbeddedStore::open(&path, old.clone()).unwrap();
    // Several segments; the first ones are recycled as soon as the views hold them.
    for round in 0..6 {
        say(&store, round * 100 + 1, round * 100 + 100);
        wait(store.settle()).unwrap();
    }
    store.close();
    assert!(
        !path.join("journal").join("0000000001.seg").exists(),
        "the first segment was recycled"
    );
    let store = EmbeddedStore::open(&path, old.clone()).unwrap();
    check_both(&store, 600, "nothing is missing while the views are there");
    store.close();
    fs::remove_dir_all(path.join("views")).unwrap();
    match EmbeddedStore::open(&path, old.clone()) {
        Err(JournalError::Damaged(text)) => assert!(
            text.contains("restore") && text.contains("backup"),
            "{text}"
        ),
        other => panic!("it opened, or failed otherwise: {:?}", other.err()),
    }
    // The journal is gone as well: not an empty data set either.
    fs::remove_dir_all(path.join("journal")).unwrap();
    assert!(matches!(
        EmbeddedStore::open(&path, old),
        Err(JournalError::Damaged(_))
    ));
}

#[test]
fn segments_come_into_the_views_by_themselves_while_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("data"));
    let mut writer = Writer::claim(&store);
    let whose = conversation(1);
    let mut seq = 0;
    // Until several segments were taken up, whatever the scheduler does.
    while store.status().views_lag_segments == store.status().segments || seq < 3000 {
        let entries = (seq + 1..=seq + 50)
            .map(|seq| writer.entry(whose, seq, START_MS + seq, 200))
            .collect();
        wait(store.append(entries)).unwrap();
        seq += 50;
        assert_eq!(
            writer::numbers(&store, whose).len() as u64,
            seq,
            "nothing is missing and nothing comes twice"
        );
    }
    wait(store.settle()).unwrap();
    assert_eq!(
        writer::numbers(&store, whose),
        (1..=seq).collect::<Vec<_>>()
    );
}

#[test]
fn a_closed_store_answers_every_call_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = open(&path);
    say(&store, 1, 3);
    let other = store.clone();
    store.close();
    assert!(matches!(
        wait(other.head(conversation(1))),
        Err(ViewsError::Closed)
    ));
    assert!(wait(other.settle()).is_err());
    assert!(wait(other.claim(vec![rialto_protocol::ids::LaneId(0)])).is_err());
    drop(other);
    check_both(&open(&path), 3, "opened again");
}
