//! Segments from being prepared to being recycled, and publishers that are slowed while the views lag.

use std::time::Instant;

use super::{
    super::{now_ms, segment::file_name},
    *,
};

#[test]
fn sealing_ends_the_active_segment_and_costs_nothing_when_it_is_empty() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    assert_eq!(seal(&log), 0);
    assert!(log.sealed_unviewed().is_none());
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(0, 1, 10)]).unwrap();
    assert!(log.sealed_unviewed().is_none());
    assert_eq!((seal(&log), seal(&log)), (1, 1));
    assert!(log.wait_for_sealed(Duration::from_secs(3600), || false));
    let sealed = log.sealed_unviewed().unwrap();
    assert_eq!(sealed.number(), 1);
    assert_eq!(entries_of(&sealed).len(), 1);
    assert_eq!(sealed.checkpoint().lanes.len(), 1);
    let status = log.status();
    assert_eq!(status.views_lag_segments, 1);
    assert!(status.views_lag_bytes > 0);
    log.viewed(1);
    assert_eq!(
        (
            log.status().views_lag_segments,
            log.status().views_lag_bytes
        ),
        (0, 0)
    );
    assert_eq!(log.tail().scan_rows(&everything()).unwrap(), []);
    assert!(!log.wait_for_sealed(Duration::ZERO, || false));
}

fn everything() -> crate::views::Scan {
    let conversation = ConversationId::from_bytes([1; 16]);
    crate::views::Scan {
        conversation,
        table: Table::Member,
        after: Bytes::new(),
        through: Bytes::new(),
        limit: 9,
    }
}

#[test]
fn lanes_tails_of_a_sealed_segment_are_those_at_its_end_even_within_one_call() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    // One call over several segments.
    let entries: Vec<_> = (0..10).map(|key| owner.row(0, key, 1000)).collect();
    append(&log, entries.clone()).unwrap();
    seal(&log);
    let mut checkpoint = ViewCheckpoint::default();
    let mut seen = 0;
    while let Some(segment) = log.sealed_unviewed() {
        seen += entries_of(&segment).len();
        checkpoint = segment.checkpoint();
        assert_eq!(
            checkpoint.lanes[0].position,
            Position(seen as u64),
            "segment {}",
            segment.number()
        );
        log.viewed(segment.number());
    }
    assert!(checkpoint.segment > 3);
    assert_eq!(seen, 10);
}

#[test]
fn viewed_segments_are_kept_for_a_while_then_recycled_and_their_number_stays_bounded() {
    let disk = FakeDisk::new();
    let options = LogOptions {
        keep_bytes: 3 * (8 << 10),
        ..small()
    };
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open_with(&disk, options, &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    for key in 0..30 {
        append(&log, vec![owner.row(0, key, 1000)]).unwrap();
        seal(&log);
        view_all(&log, &mut checkpoint);
        wait_until(&log, |states| states.viewed.len() <= 3);
    }
    wait_until(&log, |states| !states.ready.is_empty());
    assert_eq!(log.shared.segments.lock().viewed.len(), 3);
    assert!(log.status().segments <= 6, "{:?}", log.status());
    drop(log);
    assert!(disk.names().len() <= 8, "{:?}", disk.names());
}

#[test]
fn old_segments_are_recycled_by_age_though_there_is_room() {
    let disk = FakeDisk::new();
    let mut checkpoint = ViewCheckpoint::default();
    let options = LogOptions {
        keep_ms: 7 * 24 * 3600 * 1000,
        ..small()
    };
    let (log, _) = open_with(&disk, options, &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(0, 1, 10)]).unwrap();
    seal(&log);
    view_all(&log, &mut checkpoint);
    wait_until(&log, |states| states.viewed.is_empty());
}

#[test]
fn a_segment_that_has_become_too_old_goes_though_nothing_else_happens() {
    let disk = FakeDisk::new();
    let mut checkpoint = ViewCheckpoint::default();
    let options = LogOptions {
        keep_ms: 500,
        ..small()
    };
    let (log, _) = open_with(&disk, options, &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    let entry = Entry {
        time_ms: now_ms(),
        ..owner.row(0, 1, 10)
    };
    append(&log, vec![entry]).unwrap();
    seal(&log);
    view_all(&log, &mut checkpoint);
    wait_until(&log, |states| states.viewed.is_empty());
}

#[test]
fn a_segment_that_is_only_kept_has_no_file_open_and_is_opened_for_whoever_reads_from_it() {
    let disk = FakeDisk::new();
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open_with(&disk, small(), &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(0, 1, 10)]).unwrap();
    seal(&log);
    append(&log, vec![owner.next(1, outbox(&[b"a"]))]).unwrap();
    seal(&log);
    view_all(&log, &mut checkpoint);
    let handles = || [1, 2].map(|number| disk.handles(&file_name(number)));
    assert_eq!(handles(), [0, 0]);
    assert_eq!(claim(&log)[1].outbox.len(), 1);
    assert_eq!(handles(), [0, 0]);
    let first = log.shared.segment(1).unwrap();
    let again = log.shared.segment(1).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(handles(), [1, 0]);
    drop((first, again, log));
    // A start reads what an outbox needs, and keeps none of it open either.
    let (log, _) = open_with(&disk, small(), &checkpoint).unwrap();
    assert_eq!(log.shared.segments.lock().viewed.len(), 2);
    assert_eq!(handles(), [0, 0]);
    assert_eq!(claim(&log)[1].outbox.len(), 1);
}

#[test]
fn with_the_disk_full_segments_are_made_of_those_that_would_be_kept_and_of_no_others() {
    let disk = FakeDisk::new();
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open_with(&disk, small(), &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.next(1, outbox(&[b"a"]))]).unwrap();
    seal(&log);
    for key in 0..4 {
        append(&log, vec![owner.row(0, key, 3000)]).unwrap();
        seal(&log);
    }
    view_all(&log, &mut checkpoint);
    append(&log, vec![owner.next(1, outbox_done(Position(1)))]).unwrap();
    seal(&log);
    view_all(&log, &mut checkpoint);
    wait_until(&log, |states| !states.ready.is_empty());
    let kept = log.shared.segments.lock().viewed.len();
    assert_eq!(kept, 6, "there is room for them");

    disk.set_room(Some(0));
    let segments = log.status().segments;
    let mut taken = 0;
    let refused = loop {
        match append(&log, vec![owner.row(0, taken, 3000)]) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        seal(&log);
    };
    assert_eq!(refused, AppendError::Full);
    assert_eq!(log.status().segments, segments);
    let states = log.shared.segments.lock();
    assert!(states.viewed.is_empty());
    assert!(usize::from(taken) > kept, "{taken} of {kept}");
}

#[test]
fn on_a_full_disk_a_claim_gets_its_room_from_segments_that_were_only_kept() {
    for read_from in [false, true] {
        let disk = FakeDisk::new();
        let mut checkpoint = ViewCheckpoint::default();
        let (log, _) = open_with(&disk, small(), &checkpoint).unwrap();
        let mut owner = Owner::of(&log);
        for key in 0..2 {
            append(&log, vec![owner.row(0, key, 10)]).unwrap();
            seal(&log);
        }
        append(&log, vec![owner.next(1, outbox(&[b"a"]))]).unwrap();
        seal(&log);
        append(&log, vec![owner.row(0, 2, 10)]).unwrap();
        seal(&log);
        view_all(&log, &mut checkpoint);
        wait_until(&log, |states| !states.ready.is_empty());
        let read = read_from.then(|| log.shared.segment(1).unwrap());

        disk.set_room(Some(0));
        assert_eq!(claim(&log)[1].outbox.len(), 1);
        let viewed = || -> Vec<u64> {
            let states = log.shared.segments.lock();
            let viewed = states.viewed.iter();
            viewed.map(|viewed| viewed.number).collect()
        };
        // One that somebody reads from goes, and its room stays taken.
        let left: &[u64] = if read_from { &[3, 4] } else { &[2, 3, 4] };
        assert_eq!(viewed(), left);
        let names = disk.names();
        assert!(!names.contains(&file_name(1)), "{names:?}");
        assert!(
            left.iter()
                .all(|number| names.contains(&file_name(*number)))
        );
        drop(read);
        drop(log);
        // As after a restart.
        let (log, _) = open_with(&disk, small(), &checkpoint).unwrap();
        assert_eq!(claim(&log)[1].outbox.len(), 1);
    }
}

#[test]
fn a_claim_waits_for_the_room_that_a_segment_holds_which_will_not_fit() {
    let disk = FakeDisk::new();
    let options = LogOptions {
        segment_bytes: 256 << 10,
        // It is begun once.
        full_retry: Duration::from_secs(3600),
        ..small()
    };
    disk.keep_room_secret();
    disk.set_room(Some(128 << 10));
    disk.hold_fills();
    let (log, _) = open_with(&disk, options, &ViewCheckpoint::default()).unwrap();
    disk.wait_for_fill();
    assert_eq!(disk.least_room(), Some(0));
    let (sender, receiver) = mpsc::channel();
    log.claim(vec![LaneId(0)], move |claims| sender.send(claims).unwrap());
    let early = loop {
        let answer = receiver.try_recv().ok();
        if answer.is_some() || log.shared.segments.lock().wanted > 0 {
            break answer;
        }
        std::thread::yield_now();
    };
    disk.let_fills_go();
    let claims = early.unwrap_or_else(|| receiver.recv().unwrap());
    assert_eq!(claims.unwrap().len(), 1);
}

#[test]
fn a_new_segment_is_begun_only_where_it_fits_and_leaves_room_for_what_is_small() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    wait_until(&log, |states| !states.ready.is_empty());
    let enough = (8 << 10) + (1 << 20);
    disk.set_room(Some(enough - 1));
    let mut key = 0;
    let refused = loop {
        let entry = owner.row(0, key, 3000);
        key += 1;
        if append(&log, vec![entry.clone()]).is_err() {
            break entry;
        }
    };
    assert_eq!(append(&log, vec![refused.clone()]), Err(AppendError::Full));
    assert_eq!(disk.least_room(), Some(enough - 1), "nothing was written");
    disk.set_room(Some(enough));
    while append(&log, vec![refused.clone()]) == Err(AppendError::Full) {}
    // One was made, and no other one fits.
    assert!(disk.least_room() >= Some(1 << 20));
}

#[test]
fn what_else_lacks_room_gets_that_of_all_viewed_segments_but_those_of_an_outbox() {
    let disk = FakeDisk::new();
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open_with(&disk, small(), &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    for key in 0..4 {
        append(&log, vec![owner.row(0, key, 10)]).unwrap();
        seal(&log);
    }
    append(&log, vec![owner.next(1, outbox(&[b"a"]))]).unwrap();
    let needed = seal(&log);
    append(&log, vec![owner.row(0, 4, 10)]).unwrap();
    seal(&log);
    view_all(&log, &mut checkpoint);
    wait_until(&log, |states| !states.ready.is_empty());
    assert_eq!(log.shared.segments.lock().viewed.len(), 6);
    log.make_room();
    wait_until(&log, |states| states.viewed.len() == 2);
    assert_eq!(log.shared.segments.lock().viewed[0].number, needed);
    assert!(!disk.names().contains(&file_name(1)), "{:?}", disk.names());
}

#[test]
fn a_segment_that_the_checkpoint_on_disk_names_for_an_outbox_stays_until_a_later_one_does_not() {
    let disk = FakeDisk::new();
    let options = LogOptions {
        keep_bytes: 0,
        ..small()
    };
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open_with(&disk, options.clone(), &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.next(1, outbox(&[b"a"]))]).unwrap();
    let first = seal(&log);
    append(&log, vec![owner.row(0, 1, 10)]).unwrap();
    seal(&log);
    view_all(&log, &mut checkpoint);
    assert_eq!(checkpoint.outbox_segment, first);
    // It is passed on, and segments are used up, before the next checkpoint.
    append(&log, vec![owner.next(1, outbox_done(Position(1)))]).unwrap();
    for key in 2..6 {
        append(&log, vec![owner.row(0, key, 10)]).unwrap();
        seal(&log);
    }
    drop(log);
    let (log, _) = open_with(&disk, options, &checkpoint).unwrap();
    view_all(&log, &mut checkpoint);
    wait_until(&log, |states| states.viewed.is_empty());
    assert!(!disk.names().contains(&file_name(first)), "it was recycled");
}

#[test]
fn segments_that_stay_for_an_outbox_alone_are_counted_and_complained_of_once() {
    let disk = FakeDisk::new();
    let options = LogOptions {
        keep_bytes: 2 * (8 << 10),
        ..small()
    };
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open_with(&disk, options, &checkpoint).unwrap();
    let complained = || log.shared.segments.lock().outbox_complained;
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(1, 1, 10)]).unwrap();
    seal(&log);
    append(&log, vec![owner.next(1, outbox(&[b"a"]))]).unwrap();
    seal(&log);
    view_all(&log, &mut checkpoint);
    // The first one may go, and is not needed.
    assert_eq!((log.status().outbox_segments, complained()), (1, None));
    for key in 2..6 {
        append(&log, vec![owner.row(1, key, 10)]).unwrap();
        seal(&log);
        view_all(&log, &mut checkpoint);
    }
    while complained().is_none() {
        std::thread::yield_now();
    }
    let before = complained();
    assert_eq!(log.status().outbox_segments, 5);
    append(&log, vec![owner.next(1, outbox_done(Position(2)))]).unwrap();
    seal(&log);
    view_all(&log, &mut checkpoint);
    wait_until(&log, |states| states.viewed.len() <= 2);
    assert_eq!((log.status().outbox_segments, complained()), (0, before));
}

#[test]
fn a_reader_gets_its_bytes_even_after_its_segment_could_have_been_recycled() {
    let disk = FakeDisk::new();
    let options = LogOptions {
        keep_bytes: 0,
        ..small()
    };
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open_with(&disk, options, &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(0, 1, 3000)]).unwrap();
    seal(&log);
    let held = log.sealed_unviewed().unwrap();
    let before = entries_of(&held);
    view_all(&log, &mut checkpoint);
    // Others come and go meanwhile.
    for key in 2..8 {
        append(&log, vec![owner.row(0, key, 3000)]).unwrap();
        seal(&log);
        view_all(&log, &mut checkpoint);
    }
    let after = entries_of(&held);
    assert_eq!(after, before);
    drop(held);
    log.shared.segments.change(|_| ());
    wait_until(&log, |states| states.viewed.is_empty());
}

#[test]
fn publishers_are_slowed_while_the_views_lag_and_the_lag_is_bounded() {
    let disk = FakeDisk::new();
    let options = LogOptions {
        lag_segments_soft: 2,
        lag_segments_hard: 4,
        ..small()
    };
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open_with(&disk, options, &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for key in 0..40 {
                // One call a group: each may end one segment.
                sender
                    .send(append(&log, vec![owner.row(0, key, 3000)]))
                    .unwrap();
            }
        });
        wait_until(&log, |states| states.sealed.len() >= 4);
        let mut answered = 0;
        while answered < 40 {
            assert!(log.shared.segments.lock().sealed.len() <= 5);
            if log.wait_for_sealed(Duration::from_millis(1), || false) {
                let segment = log.sealed_unviewed().unwrap();
                checkpoint = segment.checkpoint();
                log.viewed(segment.number());
            }
            answered += receiver.try_iter().map(Result::unwrap).count();
        }
    });
    assert!(log.status().slowed > 0);
}

#[test]
fn appends_that_would_wait_for_views_without_room_are_turned_away_and_a_seal_is_answered() {
    let disk = FakeDisk::new();
    let options = LogOptions {
        lag_segments_soft: 0,
        lag_segments_hard: 1,
        ..small()
    };
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open_with(&disk, options, &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(0, 0, 3000)]).unwrap();
    let sealed = seal(&log);
    let (sender, receiver) = mpsc::channel();
    let refused = owner.row(0, 1, 3000);
    log.append(vec![refused.clone()], move |result| {
        sender.send(result).unwrap();
    });
    log.hold_views_up(true);
    assert_eq!(receiver.recv().unwrap(), Err(AppendError::Full));
    assert_eq!(seal(&log), sealed);
    // What was sent behind it without waiting is not the caller's mistake.
    let behind = owner.row(0, 2, 10);
    assert_eq!(append(&log, vec![behind.clone()]), Err(AppendError::Full));
    assert!(!log.status().poisoned);

    log.hold_views_up(false);
    view_all(&log, &mut checkpoint);
    append(&log, vec![refused]).unwrap();
    append(&log, vec![behind]).unwrap();
}

#[test]
fn a_log_that_is_slowed_can_be_closed() {
    let disk = FakeDisk::new();
    let options = LogOptions {
        lag_segments_soft: 0,
        lag_segments_hard: 1,
        ..small()
    };
    let (log, _) = open_with(&disk, options, &ViewCheckpoint::default()).unwrap();
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(0, 0, 3000)]).unwrap();
    seal(&log);
    let (sender, receiver) = mpsc::channel();
    log.append(vec![owner.row(0, 1, 3000)], move |result| {
        sender.send(result).unwrap();
    });
    log.close();
    assert_eq!(receiver.recv().unwrap(), Ok(()));
    assert!(matches!(
        append(&log, vec![owner.row(0, 2, 10)]),
        Err(AppendError::Poisoned(_))
    ));
}

#[test]
fn segments_of_another_size_are_read_and_new_ones_have_the_new_size() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    let first = owner.row(0, 1, 3000);
    append(&log, vec![first.clone()]).unwrap();
    wait_until(&log, |states| !states.ready.is_empty());
    drop(log);
    let options = LogOptions {
        segment_bytes: 16 << 10,
        ..small()
    };
    let (log, _) = open_with(&disk, options.clone(), &ViewCheckpoint::default()).unwrap();
    let mut owner = Owner::of(&log);
    let second = owner.row(0, 2, 10_000);
    append(&log, vec![second.clone()]).unwrap();
    drop(log);
    let (log, _) = open_with(&disk, options, &ViewCheckpoint::default()).unwrap();
    assert_eq!(sealed_entries(&log), [first, second]);
}

#[test]
fn the_same_holds_on_the_machines_own_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut checkpoint = ViewCheckpoint::default();
    let mut all = Vec::new();
    let begun = Instant::now();
    for round in 0..4 {
        let options = LogOptions {
            keep_bytes: 0,
            ..small()
        };
        let (log, found) = Log::open(directory.path(), options, &checkpoint).unwrap();
        assert_eq!(found.cut_bytes, 0);
        assert_eq!(
            sealed_entries(&log),
            all,
            "round {round} after {:?}",
            begun.elapsed()
        );
        view_all(&log, &mut checkpoint);
        all.clear();
        let mut owner = Owner::of(&log);
        for key in 0..40 {
            let entries: Vec<_> = (0..30)
                .map(|_| owner.row(u16::from(key) % LANES, key, 20))
                .collect();
            append(&log, entries.clone()).unwrap();
            if key < 20 {
                seal(&log);
                view_all(&log, &mut checkpoint);
            } else {
                all.extend(entries);
            }
        }
    }
}
