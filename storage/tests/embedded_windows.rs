//! Windows of time: old events go by retention, ids are kept long enough, markers for ever.

// A test may fail by unwrapping; the lint knows test functions only, not their helpers.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // Each test uses a part of it.
#[path = "support/writer.rs"]
mod writer;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rialto_protocol::{
    ids::{ConversationId, LaneId, Seq},
    record::Table,
};
use rialto_storage::{
    embedded::{EmbeddedOptions, EmbeddedStore, Step, StepHook},
    journal::Journal,
    views::{Order, Range, Views},
    wait,
};
use writer::{START_MS, Writer, client_id, conversation, device, numbers, user};

const DAY_MS: u64 = 24 * 3600 * 1000;
const PATIENCE: Duration = Duration::from_secs(60);

fn open(dir: &Path) -> EmbeddedStore {
    open_keeping(dir, 10)
}

fn open_keeping(dir: &Path, days: u64) -> EmbeddedStore {
    EmbeddedStore::open(dir, keeping(Some(days))).unwrap()
}

fn keeping(days: Option<u64>) -> EmbeddedOptions {
    EmbeddedOptions {
        lanes: 4,
        segment_bytes: 64 << 10,
        events_window_ms: DAY_MS,
        retention_ms: days.map(|days| days * DAY_MS),
        views_duty_percent: 100,
        ..EmbeddedOptions::default()
    }
}

/// Waits until it is so.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// One event a day, brought into the views every fifth day.
fn days(store: &EmbeddedStore, first: u64, last: u64) {
    let mut writer = Writer::claim(store);
    for day in first..=last {
        writer.say(conversation(1), day, START_MS + day * DAY_MS);
        if day % 5 == 0 {
            wait(store.settle()).unwrap();
        }
    }
    wait(store.settle()).unwrap();
}

fn find(store: &EmbeddedStore, seq: u64) -> Option<Seq> {
    wait(store.find_sent(conversation(1), user(), device(), client_id(seq)))
        .unwrap()
        .map(|sent| sent.seq)
}

#[test]
fn old_events_go_by_whole_windows_and_the_head_says_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = open(&path);
    // Somebody who says one thing and falls silent: his log goes, his head stays.
    Writer::claim(&store).say(conversation(2), 1, START_MS);
    days(&store, 1, 30);
    let check = |store: &EmbeddedStore| {
        let head = wait(store.head(conversation(1))).unwrap().unwrap();
        assert_eq!((head.seq, head.oldest), (Seq(30), Seq(20)));
        assert_eq!(
            numbers(store, conversation(1)),
            (20..=30).collect::<Vec<_>>()
        );
        let cut = Range {
            conversation: conversation(1),
            from: Seq(1),
            to: Seq(22),
            bytes_max: usize::MAX,
            order: Order::Backward,
        };
        assert_eq!(
            wait(store.events(cut)).unwrap().len(),
            3,
            "what is below the oldest is left out"
        );
        assert_eq!(
            wait(store.events(Range { to: Seq(19), ..cut }))
                .unwrap()
                .len(),
            0
        );
        assert_eq!(
            wait(store.events(Range {
                to: Seq(19),
                order: Order::Forward,
                ..cut
            }))
            .unwrap()
            .len(),
            0
        );
        let silent = wait(store.head(conversation(2))).unwrap().unwrap();
        assert_eq!(
            (silent.seq, silent.oldest),
            (Seq(1), Seq(2)),
            "nothing is left"
        );
        assert!(numbers(store, conversation(2)).is_empty());
        let rows = wait(store.rows(
            conversation(2),
            Table::Profile,
            vec![Bytes::from_static(b"last")],
        ))
        .unwrap();
        assert!(rows[0].is_some(), "rows are no events");
    };
    check(&store);
    store.close();
    let store = open(&path);
    check(&store);
    // He speaks again: the log goes on behind what is gone.
    let mut writer = Writer::claim(&store);
    writer.say(conversation(2), 2, START_MS + 31 * DAY_MS);
    assert_eq!(numbers(&store, conversation(2)), [2]);
    wait(store.settle()).unwrap();
    assert_eq!(numbers(&store, conversation(2)), [2]);
    assert_eq!(
        wait(store.head(conversation(2))).unwrap().unwrap().oldest,
        Seq(2)
    );
}

#[test]
fn ids_are_found_for_seven_days_at_least_and_what_a_device_last_sent_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = open(&path);
    Writer::claim(&store).say(conversation(2), 1, START_MS);
    days(&store, 1, 40);
    for seq in 33..=40 {
        assert_eq!(find(&store, seq), Some(Seq(seq)), "day {seq} of 40");
    }
    assert_eq!(find(&store, 5), None, "memory for ids is bounded");
    store.close();
    let store = open(&path);
    let sent = wait(store.sent(conversation(2), user())).unwrap().devices;
    assert_eq!(
        (sent.len(), sent[0].newest, sent[0].seq),
        (1, client_id(1), Seq(1)),
        "40 days later"
    );
    let views = path.join("views").join("1");
    // Meta, five fixed ones, at most 11 of events and 3 of ids; dropped ones go one after the other.
    until("dropped windows leave no folders", || {
        let keyspaces = std::fs::read_dir(views.join("keyspaces")).unwrap().count();
        keyspaces <= 20 && !views.join("leaving").exists()
    });
}

#[test]
fn what_has_become_too_old_by_new_options_goes_before_anything_new_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = open(&path);
    days(&store, 1, 30);
    store.close();
    let store = open_keeping(&path, 3);
    until("old events go", || {
        numbers(&store, conversation(1)) == (27..=30).collect::<Vec<_>>()
    });
}

#[test]
fn ids_are_found_though_their_events_are_not_kept_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_keeping(&dir.path().join("data"), 3);
    days(&store, 1, 20);
    let head = wait(store.head(conversation(1))).unwrap().unwrap();
    // Day 17 is the first that is kept; what came in with it in one segment stays as long.
    assert_eq!(head.oldest, Seq(16));
    for seq in 13..=20 {
        assert_eq!(find(&store, seq), Some(Seq(seq)), "day {seq} of 20");
    }
}

/// A conversation of another lane.
fn elsewhere(than: ConversationId) -> ConversationId {
    let lane = |whose: &ConversationId| LaneId::of(whose, 4);
    let mut others = (2..=u8::MAX).map(conversation);
    others.find(|other| lane(other) != lane(&than)).unwrap()
}

#[test]
fn what_is_said_after_a_clock_leapt_and_was_set_right_stays_as_long_as_anything() {
    for settles in [true, false] {
        after_a_leap(settles);
    }
}

/// A clock leaps and is set right, between two segments or within one.
fn after_a_leap(settles: bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = open_keeping(&path, 3);
    let (leapt, other) = (conversation(1), elsewhere(conversation(1)));
    let mut writer = Writer::claim(&store);
    writer.say(leapt, 1, START_MS + 100 * DAY_MS);
    if settles {
        wait(store.settle()).unwrap();
    }
    // The other lane has not seen that time.
    writer.say(other, 1, START_MS);
    wait(store.settle()).unwrap();
    writer.say(other, 2, START_MS + DAY_MS);
    wait(store.settle()).unwrap();
    let check = |store: &EmbeddedStore| {
        assert_eq!(numbers(store, other), [1, 2]);
        let head = wait(store.head(other)).unwrap().unwrap();
        assert_eq!((head.seq, head.oldest), (Seq(2), Seq(1)));
        for seq in 1..=2 {
            let found = wait(store.find_sent(other, user(), device(), client_id(seq))).unwrap();
            assert_eq!(found.map(|sent| sent.seq), Some(Seq(seq)), "id {seq}");
        }
    };
    check(&store);
    store.close();
    let store = open_keeping(&path, 3);
    check(&store);
    // Time comes to where it had leapt, and goes on: what was said behind it is in one row with what comes then.
    let mut writer = Writer::claim(&store);
    for day in 98..=102 {
        writer.say(other, day - 95, START_MS + day * DAY_MS);
        wait(store.settle()).unwrap();
    }
    let head = wait(store.head(other)).unwrap().unwrap();
    assert_eq!(
        numbers(&store, other),
        (head.oldest.0..=7).collect::<Vec<_>>()
    );
    let backward = Range {
        conversation: other,
        from: Seq(1),
        to: Seq(7),
        bytes_max: usize::MAX,
        order: Order::Backward,
    };
    assert_eq!(
        wait(store.events(backward)).unwrap().len() as u64,
        8 - head.oldest.0
    );
    // And what is old goes.
    assert_eq!(head.oldest, Seq(4));
}

#[test]
fn a_window_that_events_came_into_is_the_same_after_a_crash_whatever_is_to_be_kept_by_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (leapt, other) = (conversation(1), elsewhere(conversation(1)));
    let dies = EmbeddedOptions {
        on_step: Some(StepHook(Arc::new(|step| step != Step::Applied))),
        ..keeping(Some(3))
    };
    let store = EmbeddedStore::open(&path, dies).unwrap();
    let mut writer = Writer::claim(&store);
    writer.say(leapt, 1, START_MS + 100 * DAY_MS);
    writer.say(other, 1, START_MS);
    // All of it is in, and no checkpoint says so.
    wait(store.settle()).unwrap_err();
    store.abandon();
    let store = EmbeddedStore::open(&path, keeping(None)).unwrap();
    let mut writer = Writer::claim(&store);
    for seq in 2..=3 {
        writer.say(other, seq, START_MS + seq * DAY_MS);
        wait(store.settle()).unwrap();
    }
    assert_eq!(numbers(&store, other), [1, 2, 3]);
}
