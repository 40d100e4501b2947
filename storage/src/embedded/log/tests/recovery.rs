//! Reading a log back whose bytes are not as they were written.

use super::{
    super::{format::FIRST_ENTRY, recovery::recover, segment::file_name},
    disk::Fault,
    *,
};
use crate::embedded::tail::TailIndex;

const FIRST: &str = "0000000001.seg";

/// Opens the log without its threads and gives the entries found, in order, with the bytes cut off.
fn recovered(disk: &Arc<FakeDisk>) -> Result<(Vec<Entry>, u64), JournalError> {
    let tail = TailIndex::new(LANES);
    let recovery = recover(
        &**disk,
        Path::new("data"),
        &small(),
        &ViewCheckpoint::default(),
        &tail,
    )?;
    let mut entries = Vec::new();
    for sealed in &recovery.segments.sealed {
        entries.extend(entries_in(&sealed.segment, sealed.end)?);
    }
    Ok((entries, recovery.found.cut_bytes))
}

/// A disk with one segment that was not sealed: groups of the sizes given, in entries. Also the entries and where each ends.
fn written(groups: &[usize]) -> (Arc<FakeDisk>, Vec<Entry>, Vec<usize>) {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    let mut all = Vec::new();
    for (group, count) in (0..).zip(groups) {
        let entries: Vec<_> = (0..*count)
            .map(|_| owner.row(group % LANES, 7, 20))
            .collect();
        append(&log, entries.clone()).unwrap();
        all.extend(entries);
    }
    let mut end = FIRST_ENTRY as usize;
    let ends = all.iter().map(|entry| {
        end += 48 + entry.records.len();
        end
    });
    let ends = ends.collect();
    (disk, all, ends)
}

#[test]
fn what_was_appended_is_there_after_a_restart_and_after_many() {
    let disk = FakeDisk::new();
    let mut all = Vec::new();
    for round in 0..5 {
        let (log, _) = open(&disk);
        assert_eq!(sealed_entries(&log), all, "round {round}");
        let mut owner = Owner::of(&log);
        for key in 0..20 {
            let entries = vec![
                owner.row(u16::from(key) % LANES, key, 500),
                owner.row(3, key, 5),
            ];
            append(&log, entries.clone()).unwrap();
            all.extend(entries);
        }
    }
    let (_, found) = open(&disk);
    assert_eq!((found.entries, found.cut_bytes), (200, 0));
}

#[test]
fn a_power_cut_while_the_end_is_made_sure_of_is_no_damage() {
    for survivor in 0..6 {
        let disk = FakeDisk::new();
        let (log, _) = open(&disk);
        let mut owner = Owner::of(&log);
        disk.fail(Fault::Sync);
        let lost = append(&log, vec![owner.row(0, 7, 2000)]);
        assert!(matches!(lost, Err(AppendError::Poisoned(_))), "{lost:?}");
        drop(log);
        // The next start writes the group again, and a seal behind it; then nothing works any more.
        disk.die_after(1);
        assert!(recovered(&disk).is_err());
        let mut sector = 0..;
        disk.cut_power(|| sector.next() == Some(survivor));
        let found = recovered(&disk);
        assert!(
            found.as_ref().is_ok_and(|(entries, _)| entries.is_empty()),
            "sector {survivor}: {found:?}"
        );
    }
}

#[test]
fn the_end_may_be_missing_from_any_byte_of_the_last_two_entries_on() {
    for groups in [&[1, 1, 1][..], &[1, 2]] {
        let (disk, all, ends) = written(groups);
        let whole = disk.bytes(FIRST);
        for cut in ends[0]..=ends[2] {
            let mut bytes = whole.clone();
            bytes[cut..].fill(0);
            disk.put(FIRST, &bytes);
            let kept = ends.iter().filter(|end| **end <= cut).count();
            let (entries, cut_bytes) = recovered(&disk).unwrap();
            assert_eq!(entries, all[..kept], "cut at {cut}");
            let header_is_there = !ends.contains(&cut) && cut >= ends[kept - 1] + 48;
            assert!(
                !header_is_there || cut_bytes > 0,
                "cut at {cut}: {cut_bytes} bytes"
            );
            // It was sealed: what is found again is the same, and nothing is torn any more.
            assert_eq!(
                recovered(&disk).unwrap(),
                (all[..kept].to_vec(), 0),
                "cut at {cut}"
            );
        }
    }
}

#[test]
fn a_write_that_is_torn_in_its_middle_is_cut_though_its_end_is_right() {
    let (disk, all, ends) = written(&[1, 3]);
    let mut bytes = disk.bytes(FIRST);
    bytes[ends[0]..ends[1]].fill(0);
    disk.put(FIRST, &bytes);
    let (entries, cut_bytes) = recovered(&disk).unwrap();
    assert_eq!(entries, all[..1]);
    assert_eq!(cut_bytes, (ends[3] - ends[0]) as u64);
    assert_eq!(recovered(&disk).unwrap(), (all[..1].to_vec(), 0));
}

#[test]
fn every_flipped_bit_is_found_and_cut_at_the_end_but_refused_before_it() {
    let (disk, all, ends) = written(&[2, 1, 2]);
    let whole = disk.bytes(FIRST);
    for at in (0..48).chain(FIRST_ENTRY as usize..ends[4]) {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            disk.put(FIRST, &bytes);
            let result = recovered(&disk);
            if at < 48 {
                assert!(
                    matches!(
                        result,
                        Err(JournalError::Damaged(_) | JournalError::Format(_))
                    ),
                    "byte {at}"
                );
            } else if at < ends[2] {
                let Err(JournalError::Damaged(text)) = result else {
                    panic!("byte {at}: {result:?}")
                };
                let bad = ends
                    .iter()
                    .rev()
                    .find(|end| **end <= at)
                    .copied()
                    .unwrap_or(FIRST_ENTRY as usize);
                assert!(
                    text.starts_with(&format!("journal/{FIRST} is damaged at byte {bad}: ")),
                    "{text}"
                );
                assert!(text.contains("backup"), "{text}");
            } else {
                let kept = ends.iter().filter(|end| **end <= at).count();
                assert_eq!(result.unwrap().0, all[..kept], "byte {at}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_a_segment_before_the_last_is_refused() {
    let (disk, _, ends) = written(&[1, 2]);
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(0, 1, 10)]).unwrap();
    drop(log);
    let whole = disk.bytes(FIRST);
    let seal_end = ends[2] + 48;
    for at in FIRST_ENTRY as usize..seal_end {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            disk.put(FIRST, &bytes);
            assert!(
                matches!(recovered(&disk), Err(JournalError::Damaged(_))),
                "byte {at}"
            );
        }
    }
}

#[test]
fn the_end_of_what_the_views_hold_is_not_taken_for_a_torn_write() {
    let disk = FakeDisk::new();
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open(&disk);
    let entry = Owner::of(&log).next(1, outbox(&[b"a"]));
    let end = FIRST_ENTRY as usize + 48 + entry.records.len() + 48;
    append(&log, vec![entry]).unwrap();
    drop(log);
    // A start ends the segment, by one write with the last group.
    let (log, _) = open(&disk);
    view_all(&log, &mut checkpoint);
    drop(log);
    assert_eq!((checkpoint.segment, checkpoint.outbox_segment), (2, 1));
    let whole = disk.bytes(FIRST);
    for at in FIRST_ENTRY as usize..end {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        disk.put(FIRST, &flipped);
        let opened = open_with(&disk, small(), &checkpoint);
        assert!(
            matches!(opened, Err(JournalError::Damaged(_))),
            "byte {at}: what is to be passed on is forgotten"
        );
    }
    disk.put(FIRST, &whole);
    let (log, _) = open_with(&disk, small(), &checkpoint).unwrap();
    assert_eq!(claim(&log)[1].outbox.len(), 1);
}

#[test]
fn a_segment_that_lost_its_end_is_refused_also_the_one_that_is_written() {
    let (disk, all, ends) = written(&[2, 1]);
    let whole = disk.bytes(FIRST);
    for end in (ends[1]..whole.len()).step_by(512) {
        disk.put(FIRST, &whole[..end]);
        let Err(JournalError::Damaged(text)) = recovered(&disk) else {
            panic!("{end} of {} bytes are taken", whole.len())
        };
        assert!(
            text.contains("cut off") || text.contains("no segment"),
            "{text}"
        );
    }
    disk.put(FIRST, &whole);
    assert_eq!(recovered(&disk).unwrap().0, all);
}

#[test]
fn a_missing_segment_is_refused_and_named() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    for key in 0..3 {
        append(&log, vec![owner.row(0, key, 10)]).unwrap();
        seal(&log);
    }
    drop(log);
    for missing in 1..=2 {
        let rest = FakeDisk::new();
        for name in disk
            .names()
            .iter()
            .filter(|name| **name != file_name(missing))
        {
            rest.put(name, &disk.bytes(name));
        }
        let Err(JournalError::Damaged(text)) = recovered(&rest) else {
            panic!("segment {missing} was not missed")
        };
        assert!(text.contains(&file_name(missing)), "{text}");
    }
}

#[test]
fn an_empty_folder_beside_views_that_hold_something_is_no_journal() {
    let disk = FakeDisk::new();
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(0, 1, 10)]).unwrap();
    seal(&log);
    view_all(&log, &mut checkpoint);
    append(&log, vec![owner.row(0, 2, 10)]).unwrap();
    drop(log);
    for others in [false, true] {
        let rest = FakeDisk::new();
        let names = disk.names().into_iter();
        for name in names.filter(|name| others && name != "epoch") {
            rest.put(&name, &disk.bytes(&name));
        }
        match open_with(&rest, small(), &checkpoint) {
            Err(JournalError::Damaged(text)) => {
                assert!(text.contains("epoch") && text.contains("backup"), "{text}");
            }
            opened => panic!("{:?}", opened.map(|(_, found)| found)),
        }
    }
    // A full disk leaves this behind: all that was sealed is in the views, and no segment was made after it.
    let full = FakeDisk::new();
    full.put("epoch", &disk.bytes("epoch"));
    let (log, _) = open_with(&full, small(), &checkpoint).unwrap();
    assert_eq!(claim(&log)[0].tail, Position(1));
    // Where nothing was ever written there is none.
    open(&FakeDisk::new());
}

#[test]
fn a_damaged_segment_that_only_making_views_again_would_need_refuses_nothing_but_that() {
    let disk = FakeDisk::new();
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    for key in 0..3 {
        append(&log, vec![owner.row(0, key, 10)]).unwrap();
        seal(&log);
    }
    view_all(&log, &mut checkpoint);
    let last = owner.row(0, 3, 10);
    append(&log, vec![last.clone()]).unwrap();
    drop(log);
    let whole = disk.bytes(FIRST);
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    for bad in [&flipped[..], &whole[..5000], &whole[..9], &[]] {
        disk.put(FIRST, bad);
        let (log, _) = open_with(&disk, small(), &checkpoint).unwrap();
        assert_eq!(sealed_entries(&log), std::slice::from_ref(&last));
        let viewed: Vec<u64> = {
            let states = log.shared.segments.lock();
            let viewed = states.viewed.iter();
            viewed.map(|viewed| viewed.number).collect()
        };
        assert_eq!(viewed, [2, 3]);
        drop(log);
        assert_eq!(disk.bytes(FIRST), bad, "it is left alone");
        assert!(
            recovered(&disk).is_err(),
            "it is needed to make views again"
        );
    }
}

#[test]
fn a_claim_refuses_what_is_to_be_passed_on_when_it_is_not_as_it_was_written() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let entry = Owner::of(&log).next(1, outbox(&[b"one", b"two"]));
    let bytes = 48 + entry.records.len();
    append(&log, vec![entry]).unwrap();
    drop(log);
    let (log, _) = open(&disk);
    let claim_one = || answer(|done| log.claim(vec![LaneId(1)], done));
    let whole = disk.bytes(FIRST);
    for at in (FIRST_ENTRY as usize..).take(bytes) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        disk.put(FIRST, &flipped);
        match claim_one() {
            Err(JournalError::Damaged(text)) => assert!(text.contains(FIRST), "{text}"),
            other => panic!("byte {at}: {other:?}"),
        }
    }
    disk.put(FIRST, &whole);
    let notices: Vec<_> = claim_one().unwrap()[0]
        .outbox
        .iter()
        .map(|item| (item.index, item.notice.to_vec()))
        .collect();
    assert_eq!(notices, [(0, b"one".to_vec()), (1, b"two".to_vec())]);
}

#[test]
fn a_newer_version_and_another_data_set_are_told_apart_from_damage() {
    let (disk, ..) = written(&[1]);
    let whole = disk.bytes(FIRST);
    let mut newer = whole.clone();
    newer[8] = 3;
    disk.put(FIRST, &newer);
    let Err(JournalError::Format(text)) = recovered(&disk) else {
        panic!("a newer version was read")
    };
    assert!(text.contains("version 3"), "{text}");
    disk.put(FIRST, &whole);
    let options = LogOptions {
        data_set: 1,
        ..small()
    };
    let other = open_with(&disk, options, &ViewCheckpoint::default());
    assert!(matches!(other, Err(JournalError::Format(_))));
    disk.put(FIRST, &whole[..5000]);
    assert!(matches!(recovered(&disk), Err(JournalError::Damaged(_))));
}

#[test]
fn entries_of_a_recycled_segment_never_come_back() {
    let disk = FakeDisk::new();
    let options = LogOptions {
        keep_bytes: 0,
        segment_bytes: 16 << 10,
        ..small()
    };
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open_with(&disk, options.clone(), &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    // Over more blocks than the fresh ones are written with.
    let stale: Vec<_> = (0..18).map(|key| owner.row(0, key, 500)).collect();
    append(&log, stale).unwrap();
    let first = seal(&log);
    // Only with one ready already does the recycled one come second.
    wait_until(&log, |states| states.ready.len() == 1);
    view_all(&log, &mut checkpoint);
    wait_until(&log, |states| {
        states.ready.len() == 2 && states.viewed.is_empty()
    });
    assert!(!disk.names().contains(&file_name(first)), "it was recycled");
    // Skip the segment that was prepared before; the next one is the recycled one.
    append(&log, vec![owner.row(0, 9, 10)]).unwrap();
    seal(&log);
    view_all(&log, &mut checkpoint);
    let recycled = checkpoint.segment;
    let fresh: Vec<_> = (0..2).map(|key| owner.row(0, key, 500)).collect();
    append(&log, fresh.clone()).unwrap();
    drop(log);
    let bytes = disk.bytes(&file_name(recycled));
    let end = FIRST_ENTRY as usize
        + fresh
            .iter()
            .map(|entry| 48 + entry.records.len())
            .sum::<usize>();
    assert!(
        bytes[end..].iter().any(|byte| *byte != 0),
        "the old entries' bytes still stand there"
    );
    let (log, found) = open_with(&disk, options, &checkpoint).unwrap();
    assert_eq!(sealed_entries(&log), fresh);
    assert_eq!(found.cut_bytes, 0);
}

#[test]
fn an_older_checkpoint_replays_more_and_one_that_asks_for_too_much_is_refused() {
    let disk = FakeDisk::new();
    let mut checkpoints = vec![ViewCheckpoint::default()];
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    let mut all = Vec::new();
    for key in 0..4 {
        let entry = owner.row(0, key, 10);
        append(&log, vec![entry.clone()]).unwrap();
        all.push(entry);
        seal(&log);
        checkpoints.push(log.sealed_unviewed().unwrap().checkpoint());
        log.viewed(u64::from(key) + 1);
    }
    drop(log);
    for (held, checkpoint) in checkpoints.iter().enumerate() {
        let (log, found) = open_with(&disk, small(), checkpoint).unwrap();
        assert_eq!(sealed_entries(&log), all[held..]);
        assert_eq!(found.segments, 4 - held as u64);
        assert_eq!(claim(&log)[0].tail, Position(4));
    }
    // The checkpoint of a lane that the segment does not go on from.
    let mut wrong = checkpoints[2].clone();
    wrong.lanes[0].position = Position(1);
    assert!(matches!(
        open_with(&disk, small(), &wrong),
        Err(JournalError::Damaged(_))
    ));
}

#[test]
fn what_users_write_is_never_taken_for_an_entry() {
    let disk = FakeDisk::new();
    let options = LogOptions {
        keep_bytes: 0,
        ..small()
    };
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open_with(&disk, options.clone(), &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    // Numbers of segments to come, everywhere in segments that will be recycled.
    for round in 0..6 {
        for number in 1..5_u64 {
            let bytes = number.saturating_add(round).to_le_bytes().repeat(100);
            append(&log, vec![owner.next(0, bytes.into())]).unwrap();
        }
        seal(&log);
        view_all(&log, &mut checkpoint);
        wait_until(&log, |states| {
            !states.ready.is_empty() && states.viewed.is_empty()
        });
    }
    let last = owner.row(0, 1, 100);
    append(&log, vec![last.clone()]).unwrap();
    drop(log);
    let (log, found) = open_with(&disk, options, &checkpoint).unwrap();
    assert_eq!(sealed_entries(&log), [last]);
    assert_eq!(found.cut_bytes, 0);
}
