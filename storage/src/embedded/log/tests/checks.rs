//! What is let in: claims, positions, epochs, times, sizes; and what a claim finds.

use super::*;

fn refused(result: &Result<(), AppendError>) -> bool {
    matches!(result, Err(AppendError::Refused(_)))
}

#[test]
fn an_entry_that_does_not_follow_the_last_one_is_refused_and_nothing_of_its_call_is_kept() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    let good = owner.row(0, 1, 10);
    let at = |position, time_ms| Entry {
        position: Position(position),
        time_ms,
        ..good.clone()
    };
    let refused_calls = [
        vec![at(2, 1)],
        vec![at(0, 1)],
        vec![at(1, 5), at(2, 4)],
        vec![at(1, 1), at(3, 1)],
        vec![Entry {
            epoch: owner.epoch.next(),
            ..good.clone()
        }],
        vec![Entry {
            lane: LaneId(LANES),
            ..good.clone()
        }],
        vec![Entry {
            records: vec![0; 8 << 10].into(),
            ..good.clone()
        }],
    ];
    for entries in refused_calls {
        assert!(refused(&append(&log, entries.clone())), "{entries:?}");
    }
    assert_eq!(append(&log, vec![good.clone()]), Ok(()));
    assert!(
        refused(&append(&log, vec![good.clone()])),
        "the same entry again"
    );
    seal(&log);
    assert_eq!(sealed_entries(&log), [good]);
}

#[test]
fn a_lane_has_to_be_claimed_and_its_former_owner_is_fenced() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let unclaimed = Entry {
        lane: LaneId(0),
        epoch: Epoch(1),
        position: Position(1),
        time_ms: 1,
        records: Bytes::new(),
    };
    assert!(refused(&append(&log, vec![unclaimed])));
    let mut former = Owner::of(&log);
    let mut owner = Owner::of(&log);
    assert!(owner.epoch > former.epoch);
    let late = former.row(2, 1, 10);
    assert_eq!(
        append(&log, vec![late]),
        Err(AppendError::Fenced { lane: LaneId(2) })
    );
    assert_eq!(append(&log, vec![owner.row(2, 1, 10)]), Ok(()));
}

#[test]
fn an_epoch_is_greater_than_every_one_before_it_even_after_a_power_cut() {
    let disk = FakeDisk::new();
    let mut last = Epoch(0);
    for _ in 0..5 {
        let (log, _) = open(&disk);
        let mut owner = Owner::of(&log);
        assert!(owner.epoch > last);
        last = owner.epoch;
        append(&log, vec![owner.row(0, 1, 10)]).unwrap();
        drop(log);
        disk.cut_power(|| false);
    }
    // The file with the last epoch is gone, the entries under it are not.
    let old = FakeDisk::new();
    for name in disk.names().iter().filter(|name| name.ends_with(".seg")) {
        old.put(name, &disk.bytes(name));
    }
    assert!(claim(&open(&old).0)[0].epoch > last);
}

#[test]
fn a_claim_finds_the_tail_and_what_has_not_been_passed_on() {
    let disk = FakeDisk::new();
    let mut checkpoint = ViewCheckpoint::default();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    append(
        &log,
        vec![
            owner.next(1, outbox(&[b"a", b"b"])),
            owner.next(1, outbox(&[b"c"])),
        ],
    )
    .unwrap();
    append(
        &log,
        vec![
            owner.next(1, outbox_done(Position(1))),
            owner.next(3, outbox(&[b"d"])),
        ],
    )
    .unwrap();
    let expected = |claims: &[Claim]| {
        let items: Vec<_> = claims[1]
            .outbox
            .iter()
            .map(|item| (item.position.0, item.index, &item.notice[..]))
            .collect();
        assert_eq!(items, [(2, 0, &b"c"[..])]);
        assert_eq!((claims[1].tail, claims[1].time_ms), (Position(3), 3));
        assert_eq!(
            (
                claims[0].tail,
                claims[0].outbox.len(),
                claims[3].outbox.len()
            ),
            (Position(0), 0, 1)
        );
    };
    expected(&claim(&log));
    // Not even when the views hold it is a pending record's segment given away.
    let needed = seal(&log);
    view_all(&log, &mut checkpoint);
    assert_eq!(
        (checkpoint.segment, checkpoint.outbox_segment),
        (needed + 1, needed)
    );
    drop(log);
    let options = LogOptions {
        keep_bytes: 0,
        ..small()
    };
    for _ in 0..3 {
        let (log, found) = open_with(&disk, options.clone(), &checkpoint).unwrap();
        assert_eq!((found.segments, found.outbox_entries), (0, 2));
        expected(&claim(&log));
    }
    let (log, _) = open_with(&disk, options.clone(), &checkpoint).unwrap();
    let mut owner = Owner::of(&log);
    append(
        &log,
        vec![
            owner.next(1, outbox_done(Position(2))),
            owner.next(3, outbox_done(Position(1))),
        ],
    )
    .unwrap();
    assert!(claim(&log).iter().all(|claim| claim.outbox.is_empty()));
    let last = seal(&log);
    view_all(&log, &mut checkpoint);
    assert_eq!(
        (checkpoint.segment, checkpoint.outbox_segment),
        (last + 1, last + 1)
    );
    drop(log);
    let (log, found) = open_with(&disk, options, &checkpoint).unwrap();
    assert_eq!(found.outbox_entries, 0);
    assert_eq!(claim(&log)[1].tail, Position(4));
}

#[test]
fn a_checkpoint_survives_its_bytes() {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(0, 1, 10), owner.row(3, 1, 10)]).unwrap();
    seal(&log);
    let checkpoint = log.sealed_unviewed().unwrap().checkpoint();
    assert_eq!(checkpoint.lanes.len(), 2);
    let bytes = checkpoint.encode();
    assert_eq!(ViewCheckpoint::decode(&bytes).unwrap(), checkpoint);
    assert!(matches!(
        ViewCheckpoint::decode(&bytes[..20]),
        Err(JournalError::Damaged(_))
    ));
    assert!(matches!(
        ViewCheckpoint::decode(&[9]),
        Err(JournalError::Format(_))
    ));
}
