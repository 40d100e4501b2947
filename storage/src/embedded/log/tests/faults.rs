//! Group commit, its answers, and what happens when the disk fails or is full.

use std::{sync::Mutex, time::Instant};

use super::{disk::Fault, *};

#[test]
fn everything_that_waits_becomes_durable_with_one_sync_and_is_answered_in_order() {
    let disk = FakeDisk::new();
    let options = LogOptions {
        segment_bytes: 1 << 20,
        ..small()
    };
    let (log, _) = open_with(&disk, options, &ViewCheckpoint::default()).unwrap();
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(0, 0, 10)]).unwrap();
    let before = disk.syncs();
    disk.close_gate();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (sender, receiver) = mpsc::channel();
    let mut push = |number: u16| {
        let (order, sender) = (Arc::clone(&order), sender.clone());
        log.append(vec![owner.row(number % LANES, 1, 10)], move |result| {
            order.lock().unwrap().push(number);
            sender.send(result).unwrap();
        });
    };
    push(0);
    disk.wait_for_sync();
    (1..=100).for_each(&mut push);
    assert!(
        order.lock().unwrap().is_empty(),
        "answered before it was durable"
    );
    disk.open_gate();
    for _ in 0..=100 {
        receiver.recv().unwrap().unwrap();
    }
    assert_eq!(disk.syncs() - before, 2);
    assert_eq!(*order.lock().unwrap(), (0..=100).collect::<Vec<_>>());
    let status = log.status();
    assert_eq!((status.entries, status.groups), (102, 3));
}

#[test]
fn a_failed_write_or_sync_poisons_for_good_and_what_was_acknowledged_before_is_there_after_a_restart()
 {
    for fault in [
        Fault::Write,
        Fault::WriteOutOfSpace,
        Fault::ShortWrite,
        Fault::Sync,
    ] {
        let disk = FakeDisk::new();
        let (log, _) = open(&disk);
        let mut owner = Owner::of(&log);
        let kept = owner.row(0, 1, 100);
        append(&log, vec![kept.clone()]).unwrap();
        disk.fail(fault);
        let lost = owner.row(0, 2, 100);
        assert!(
            matches!(
                append(&log, vec![lost.clone()]),
                Err(AppendError::Poisoned(_))
            ),
            "{fault:?}"
        );
        for _ in 0..3 {
            // The disk works again; the log does not.
            assert!(
                matches!(
                    append(&log, vec![lost.clone()]),
                    Err(AppendError::Poisoned(_))
                ),
                "{fault:?}"
            );
        }
        assert!(log.status().poisoned);
        assert!(answer(|done| log.claim(vec![LaneId(0)], done)).is_err());
        assert!(answer(|done| log.seal(done)).is_err());
        drop(log);
        let (log, _) = open(&disk);
        let entries = sealed_entries(&log);
        assert!(
            entries == [kept.clone()] || entries == [kept, lost],
            "{fault:?}: {entries:?}"
        );
        let mut owner = Owner::of(&log);
        append(&log, vec![owner.row(0, 3, 100)]).unwrap();
    }
}

#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_written_again_before_it_counts() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    disk.fail(Fault::Sync);
    let entry = owner.row(0, 1, 2000);
    assert!(append(&log, vec![entry.clone()]).is_err());
    drop(log);
    let (log, _) = open(&disk);
    assert_eq!(sealed_entries(&log), [entry]);
    let seen = sealed_entries(&log);
    drop(log);
    disk.cut_power(|| false);
    assert_eq!(
        sealed_entries(&open(&disk).0),
        seen,
        "seen after a restart, gone after the next"
    );
}

#[test]
fn calls_that_wait_when_the_log_is_poisoned_are_all_answered() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    disk.close_gate();
    disk.fail(Fault::Sync);
    let (sender, receiver) = mpsc::channel();
    for number in 0..10 {
        let sender = sender.clone();
        log.append(vec![owner.row(0, 1, 10)], move |result| {
            sender.send(result).unwrap();
        });
        if number == 0 {
            disk.wait_for_sync();
        }
    }
    disk.open_gate();
    for _ in 0..10 {
        assert!(matches!(
            receiver.recv().unwrap(),
            Err(AppendError::Poisoned(_))
        ));
    }
}

#[test]
fn with_the_disk_full_appends_are_turned_away_and_work_again_once_there_is_room() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    let mut kept = vec![owner.row(0, 0, 1000)];
    append(&log, kept.clone()).unwrap();
    wait_until(&log, |states| states.ready.len() == 1);
    disk.set_room(Some(100));
    let refused = loop {
        let entry = owner.row(0, 1, 1000);
        match append(&log, vec![entry.clone()]) {
            Ok(()) => kept.push(entry),
            Err(error) => {
                assert_eq!(error, AppendError::Full);
                break entry;
            }
        }
    };
    // What was sent behind it without waiting is not the caller's mistake.
    assert_eq!(
        append(&log, vec![owner.row(0, 2, 1000)]),
        Err(AppendError::Full)
    );
    // Another lane's entry that still fits is taken.
    assert!(matches!(
        append(&log, vec![owner.row(1, 2, 10_000)]),
        Err(AppendError::Refused(_))
    ));
    assert!(!log.status().poisoned);
    // What was begun takes no room, but for a moment whenever it is tried again.
    let looked = Instant::now();
    while disk.names().iter().any(|name| name.ends_with(".tmp")) {
        assert!(
            looked.elapsed() < Duration::from_secs(60),
            "{:?}",
            disk.names()
        );
    }

    disk.set_room(None);
    while append(&log, vec![refused.clone()]) == Err(AppendError::Full) {}
    kept.push(refused);
    owner.tails[0].0 = Position(kept.len() as u64);
    let next = owner.row(0, 3, 1000);
    append(&log, vec![next.clone()]).unwrap();
    kept.push(next);
    seal(&log);
    assert_eq!(sealed_entries(&log), kept);
    drop(log);
    assert_eq!(sealed_entries(&open(&disk).0), kept);
}

#[test]
fn what_was_sent_behind_an_entry_that_had_no_room_is_told_so_though_one_before_it_was_kept() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(1, 0, 10)]).unwrap();
    wait_until(&log, |states| states.ready.len() == 1);
    disk.set_room(Some(0));
    let (sender, receiver) = mpsc::channel();
    let push = |entries: Vec<Entry>| {
        let sender = sender.clone();
        log.append(entries, move |result| sender.send(result).unwrap());
    };
    // All that comes during this sync is looked at together.
    disk.close_gate();
    push(vec![owner.row(1, 1, 10)]);
    disk.wait_for_sync();
    push(vec![owner.row(0, 1, 2000)]);
    // Two segments more, of which there is one.
    push(vec![owner.row(0, 2, 3000), owner.row(0, 3, 3000)]);
    push(vec![owner.row(0, 4, 10)]);
    disk.open_gate();
    let answers: Vec<_> = (0..4).map(|_| receiver.recv().unwrap()).collect();
    let full = || Err(AppendError::Full);
    assert_eq!(answers, [Ok(()), Ok(()), full(), full()]);
}

#[test]
fn a_segment_that_cannot_be_made_for_another_reason_is_not_called_a_full_disk() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    wait_until(&log, |states| states.ready.len() == 1);
    // Too many open files.
    disk.refuse_creation(Some(24));
    let no_segment = |answer: Result<(), AppendError>| match answer {
        Err(AppendError::NoSegment(why)) => assert!(why.contains("os error 24"), "{why}"),
        other => panic!("{other:?}"),
    };
    let refused = loop {
        let entry = owner.row(0, 1, 3000);
        let answer = append(&log, vec![entry.clone()]);
        if answer.is_err() {
            no_segment(answer);
            break entry;
        }
    };
    // What was sent behind it without waiting is told the same.
    no_segment(append(&log, vec![owner.row(0, 2, 3000)]));
    disk.refuse_creation(None);
    while append(&log, vec![refused.clone()]).is_err() {}
    // Once it was made, a full disk is one again.
    disk.set_room(Some(0));
    owner.tails[0].0 = refused.position;
    let full = loop {
        if let Err(error) = append(&log, vec![owner.row(0, 3, 3000)]) {
            break error;
        }
    };
    assert_eq!(full, AppendError::Full);
}

#[test]
fn a_call_that_needs_more_segments_than_there_is_room_for_leaves_nothing_behind() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    wait_until(&log, |states| states.ready.len() == 1);
    disk.set_room(Some(8 << 10));
    let entries: Vec<_> = (0..12).map(|key| owner.row(0, key, 1000)).collect();
    assert_eq!(append(&log, entries.clone()), Err(AppendError::Full));
    disk.set_room(None);
    assert_eq!(claim(&log)[0].tail, Position(0));
    let mut owner = Owner::of(&log);
    let entries: Vec<_> = (0..12).map(|key| owner.row(0, key, 1000)).collect();
    while append(&log, entries.clone()) == Err(AppendError::Full) {}
    seal(&log);
    assert_eq!(sealed_entries(&log), entries);
}

#[test]
fn a_caller_waits_while_the_queue_is_full_and_everything_is_written_in_the_end() {
    let disk = FakeDisk::new();
    let options = LogOptions {
        queue_bytes_max: 500,
        ..small()
    };
    let (log, _) = open_with(&disk, options, &ViewCheckpoint::default()).unwrap();
    let mut owner = Owner::of(&log);
    let (sender, receiver) = mpsc::channel();
    for key in 0..100 {
        let sender = sender.clone();
        log.append(vec![owner.row(0, key, 200)], move |result| {
            sender.send(result).unwrap();
        });
    }
    drop(sender);
    assert_eq!(receiver.iter().filter(Result::is_ok).count(), 100);
    // Nothing at all, and more than ever fits, are calls too.
    assert_eq!(append(&log, Vec::new()), Ok(()));
    assert_eq!(append(&log, vec![owner.row(0, 1, 2000)]), Ok(()));
}

#[test]
fn dropping_the_log_finishes_what_was_appended() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    disk.close_gate();
    let (sender, receiver) = mpsc::channel();
    for key in 0..20 {
        let sender = sender.clone();
        log.append(vec![owner.row(0, key, 1000)], move |result| {
            sender.send(result).unwrap();
        });
    }
    drop(sender);
    disk.wait_for_sync();
    disk.open_gate();
    drop(log);
    assert_eq!(receiver.iter().filter(Result::is_ok).count(), 20);
    assert_eq!(sealed_entries(&open(&disk).0).len(), 20);
}
