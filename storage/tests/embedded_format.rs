//! Data directories of every released format open for ever, and what is no such directory is refused with a reason.

// A test may fail by unwrapping; the lint knows test functions only, not their helpers.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // Each test uses a part of it.
#[path = "support/writer.rs"]
mod writer;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rialto_protocol::ids::{LaneId, UserId};
use rialto_storage::{
    directory::{Directory, Seen},
    embedded::{EmbeddedOptions, EmbeddedStore},
    journal::{Journal, JournalError},
    wait,
};
use writer::{START_MS, Writer, check, conversation};

const DATA_SET: u128 = 0x1f0e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0;

fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(format!("data-v{version}"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn small() -> EmbeddedOptions {
    EmbeddedOptions {
        lanes: 4,
        segment_bytes: 8 << 10,
        journal_keep_ms: u64::MAX,
        ..EmbeddedOptions::default()
    }
}

#[test]
fn a_data_directory_of_format_1_opens_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    copy(&fixture(1), &path);
    let store = EmbeddedStore::open(&path, EmbeddedOptions::default()).unwrap();
    assert_eq!(
        (store.lanes(), store.data_set()),
        (4, DATA_SET),
        "what is fixed at creation stays"
    );
    let both = |store: &EmbeddedStore, last, stage: &str| {
        check(store, conversation(1), last, stage);
        check(store, conversation(2), last, stage);
        let seen = wait(store.last_seen(vec![
            UserId::from_bytes([1; 16]),
            UserId::from_bytes([2; 16]),
        ]))
        .unwrap();
        assert_eq!(seen, [Some(START_MS), None], "{stage}");
    };
    both(&store, 12, "as it was written");
    let mut writer = Writer::claim(&store);
    for whose in [conversation(1), conversation(2)] {
        writer.say(whose, 13, START_MS + 13);
    }
    wait(store.settle()).unwrap();
    both(&store, 13, "written on and settled");
    store.close();
    both(
        &EmbeddedStore::open(&path, EmbeddedOptions::default()).unwrap(),
        13,
        "opened again",
    );
}

/// Writes the fixture of the format that this program writes. Run once a format, before its release:
/// `cargo test -p rialto-storage --test embedded_format -- --ignored`. A fixture that is committed is never written again.
#[test]
#[ignore = "writes a fixture into the source tree"]
fn write_the_fixture_of_the_newest_format() {
    let target = fixture(1);
    assert!(!target.exists(), "a fixture once committed stays as it is");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    fs::create_dir(&path).unwrap();
    let format = format!(
        "{{\n  \"format\": 1,\n  \"data_set\": \"{DATA_SET:032x}\",\n  \"lanes\": 4,\n  \"created_ms\": {START_MS},\n  \
         \"events_window_ms\": 604800000,\n  \"sent_window_ms\": 604800000\n}}\n"
    );
    fs::write(path.join("format.json"), format).unwrap();
    let store = EmbeddedStore::open(&path, small()).unwrap();
    wait(store.record_seen(vec![Seen {
        user: UserId::from_bytes([1; 16]),
        time_ms: START_MS,
    }]))
    .unwrap();
    let mut writer = Writer::claim(&store);
    for seq in 1..=12 {
        for whose in [conversation(1), conversation(2)] {
            writer.say(whose, seq, START_MS + seq);
        }
        if seq == 8 {
            // What follows stands in the journal alone.
            wait(store.settle()).unwrap();
        }
    }
    store.close();
    let jnl = path.join("views").join("1").join("0.jnl");
    // fjall reserves 64 MiB for its journal; only what was written is worth committing.
    let used = fs::read(&jnl)
        .unwrap()
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last as u64 + 1);
    fs::OpenOptions::new()
        .write(true)
        .open(&jnl)
        .unwrap()
        .set_len(used)
        .unwrap();
    fs::remove_file(path.join("LOCK")).unwrap();
    copy(&path, &target);
}

#[test]
fn a_newer_format_a_file_and_a_missing_parent_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let newer = dir.path().join("newer");
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("format.json"), br#"{"format": 99}"#).unwrap();
    let error = EmbeddedStore::open(&newer, small()).err().unwrap();
    assert!(
        matches!(&error, JournalError::Format(text) if text.contains("99") && text.contains("newer")),
        "{error}"
    );

    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(
        EmbeddedStore::open(&file, small()).err(),
        Some(JournalError::Io { .. })
    ));
    let error = EmbeddedStore::open(&dir.path().join("no").join("data"), small())
        .err()
        .unwrap();
    assert!(error.to_string().contains("create it first"), "{error}");
}

#[test]
fn one_directory_has_one_store_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = EmbeddedStore::open(&path, small()).unwrap();
    let second = EmbeddedStore::open(&path, small()).err().unwrap();
    assert!(
        matches!(&second, JournalError::Locked(text) if text.contains("stop it first")),
        "{second}"
    );
    wait(store.claim(vec![LaneId(0)])).unwrap();
    drop(store);
    EmbeddedStore::open(&path, small()).unwrap().close();
}

#[test]
fn options_out_of_range_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    for options in [
        EmbeddedOptions {
            lanes: 0,
            ..small()
        },
        EmbeddedOptions {
            events_window_ms: 0,
            ..small()
        },
        EmbeddedOptions {
            reader_threads: 0,
            ..small()
        },
        EmbeddedOptions {
            views_duty_percent: 0,
            ..small()
        },
    ] {
        assert!(matches!(
            EmbeddedStore::open(&path, options).err(),
            Some(JournalError::Format(_))
        ));
    }
    assert!(!path.exists());
}
