//! Appending, claiming and fencing; and the directory, which is asked little.

use rialto_protocol::{
    ids::{Epoch, LaneId, Position, Seq},
    record::Table,
};

use super::{
    Ending, Harness,
    fixture::{Batch, Owner, START_MS, append, conversation, event, head, user},
};
use crate::{
    directory::{Directory, Seen},
    journal::{AppendError, Entry, Journal},
    promise::wait,
    views::{Order, Range, Views},
};

fn refused(outcome: &Result<(), AppendError>) -> bool {
    matches!(outcome, Err(AppendError::Refused(_)))
}

fn one_event<S: Journal>(owner: &Owner<'_, S>, seq: u64) -> Batch {
    let whose = conversation(1);
    Batch::default().event(whose, &event(&head(seq, owner.epoch(whose), START_MS), 10))
}

/// An epoch is greater than all before it, across restarts; the tail is that of the last durable entry.
///
/// # Panics
/// When it is not so, as with every behaviour here.
pub fn a_claim_finds_the_tail_and_raises_the_epoch(harness: &impl Harness) {
    let mut store = harness.open();
    let (whose, mut last) = (conversation(1), Epoch(0));
    for round in 0..6 {
        let mut owner = Owner::of(&store);
        let claim = owner.claim(owner.lane_of(whose)).clone();
        assert!(
            claim.epoch > last,
            "round {round}: {} is not above {last}",
            claim.epoch
        );
        assert_eq!(claim.tail, Position(round), "round {round}");
        assert_eq!(
            claim.time_ms,
            if round == 0 { 0 } else { START_MS + round - 1 },
            "round {round}"
        );
        last = claim.epoch;
        let batch = one_event(&owner, round + 1);
        owner.append(whose, START_MS + round, batch);
        if round == 3 {
            wait(store.settle()).expect("the views are settled");
        }
        store = harness.reopen(
            store,
            if round % 2 == 0 {
                Ending::Crash
            } else {
                Ending::Clean
            },
        );
    }
}

/// Only the position after the last one, under the claimed epoch, in a lane that exists.
///
/// # Panics
/// When it is not so.
pub fn positions_and_epochs_are_enforced(harness: &impl Harness) {
    let store = harness.open();
    let mut owner = Owner::of(&store);
    let lane = owner.lane_of(conversation(1));
    let batch = one_event(&owner, 1);
    let first = owner.entry(lane, START_MS, batch);
    assert!(
        refused(&append(
            &store,
            vec![Entry {
                position: Position(0),
                ..first.clone()
            }]
        )),
        "there is no position 0"
    );
    assert!(
        refused(&append(
            &store,
            vec![Entry {
                position: Position(2),
                ..first.clone()
            }]
        )),
        "a gap"
    );
    let unclaimed = Entry {
        epoch: first.epoch.next(),
        ..first.clone()
    };
    assert!(
        refused(&append(&store, vec![unclaimed])),
        "an epoch that was never claimed"
    );
    let nowhere = Entry {
        lane: LaneId(store.lanes()),
        ..first.clone()
    };
    assert!(
        refused(&append(&store, vec![nowhere])),
        "a lane that does not exist"
    );
    assert_eq!(append(&store, vec![first.clone()]), Ok(()));
    assert!(
        refused(&append(&store, vec![first.clone()])),
        "the same position twice"
    );
    assert_eq!(
        append(&store, Vec::new()),
        Ok(()),
        "nothing is appended at once"
    );
    assert_eq!(
        wait(store.head(conversation(1)))
            .expect("a head is read")
            .map(|head| head.seq),
        Some(Seq(1))
    );
    let tail = Owner::of(&store).claim(lane).tail;
    assert_eq!(tail, Position(1), "what was refused left nothing behind");
}

/// After another claim the former owner can append nothing, and the new one goes on where he ended.
///
/// # Panics
/// When it is not so.
pub fn a_former_owner_is_fenced(harness: &impl Harness) {
    let store = harness.open();
    let mut former = Owner::of(&store);
    let lane = former.lane_of(conversation(1));
    let batch = one_event(&former, 1);
    former.append(conversation(1), START_MS, batch);
    let mut new = Owner::of(&store);
    let batch = one_event(&former, 2);
    let late = former.entry(lane, START_MS, batch);
    assert_eq!(
        append(&store, vec![late]),
        Err(AppendError::Fenced { lane })
    );
    let batch = one_event(&new, 2);
    assert_eq!(new.append(conversation(1), START_MS, batch), Position(2));
    let epoch = new.claim(lane).epoch;
    let store = harness.reopen(store, Ending::Crash);
    let owner = Owner::of(&store);
    let later = Entry {
        lane,
        epoch,
        position: Position(3),
        time_ms: START_MS,
        records: bytes::Bytes::new(),
    };
    assert_eq!(
        append(&store, vec![later]),
        Err(AppendError::Fenced { lane }),
        "across a restart too"
    );
    assert_eq!(owner.claim(lane).tail, Position(2));
}

/// An entry's time is not before that of the entry before, across restarts.
///
/// # Panics
/// When it is not so.
pub fn time_never_goes_back(harness: &impl Harness) {
    let store = harness.open();
    let mut owner = Owner::of(&store);
    let lane = owner.lane_of(conversation(1));
    owner.append(conversation(1), START_MS + 10, Batch::default());
    let same = owner.entry(lane, START_MS, Batch::default());
    assert_eq!(
        append(&store, vec![same]),
        Ok(()),
        "the same time is not back"
    );
    let entry = owner.entry(lane, START_MS, Batch::default());
    assert!(refused(&append(
        &store,
        vec![Entry {
            time_ms: START_MS + 9,
            ..entry
        }]
    )));
    let store = harness.reopen(store, Ending::Clean);
    let mut owner = Owner::of(&store);
    let entry = owner.entry(lane, START_MS, Batch::default());
    assert_eq!(entry.time_ms, START_MS + 10, "a claim brings the time");
    assert!(refused(&append(
        &store,
        vec![Entry {
            time_ms: START_MS + 9,
            ..entry
        }]
    )));
}

/// The longest entry is kept, one byte more is refused.
///
/// # Panics
/// When it is not so.
pub fn an_entry_that_is_too_large_is_refused(harness: &impl Harness) {
    let store = harness.open();
    let mut owner = Owner::of(&store);
    let (whose, key) = (conversation(1), b"key");
    let overhead = 5 + 16 + 1 + 2 + key.len();
    let bytes_max = harness.entry_bytes_max();
    let value = vec![7; bytes_max - overhead + 1];
    let lane = owner.lane_of(whose);
    let entry = owner.entry(
        lane,
        START_MS,
        Batch::default().row(whose, Table::Member, key, &value),
    );
    assert_eq!(entry.records.len(), bytes_max + 1);
    assert!(refused(&append(&store, vec![entry])));
    let mut owner = Owner::of(&store);
    let entry = owner.entry(
        lane,
        START_MS,
        Batch::default().row(whose, Table::Member, key, &value[1..]),
    );
    assert_eq!(append(&store, vec![entry]), Ok(()));
    let found =
        wait(store.rows(whose, Table::Member, vec![key[..].into()])).expect("rows are read");
    assert_eq!(found[0].as_deref(), Some(&value[1..]));
}

/// The entries of a call are accepted all or none.
///
/// # Panics
/// When it is not so.
pub fn a_call_with_one_bad_entry_keeps_nothing(harness: &impl Harness) {
    let store = harness.open();
    let mut owner = Owner::of(&store);
    let lane = owner.lane_of(conversation(1));
    let other = (0..store.lanes())
        .map(LaneId)
        .find(|other| *other != lane)
        .expect("there are several lanes");
    let batch = one_event(&owner, 1);
    let good = owner.entry(lane, START_MS, batch);
    let bad = owner.entry(other, START_MS, Batch::default());
    let bad = Entry {
        position: Position(9),
        ..bad
    };
    assert!(refused(&append(&store, vec![good.clone(), bad])));
    assert_eq!(
        wait(store.head(conversation(1))).expect("a head is read"),
        None
    );
    assert_eq!(
        append(&store, vec![good]),
        Ok(()),
        "its position is still free"
    );
}

/// Calls that wait at the same time take effect one after the other, as they came.
///
/// # Panics
/// When it is not so.
pub fn calls_take_effect_in_their_order(harness: &impl Harness) {
    let store = harness.open();
    let mut owner = Owner::of(&store);
    let whose = conversation(1);
    let lane = owner.lane_of(whose);
    let waiting: Vec<_> = (1..=50)
        .map(|seq| {
            let batch =
                one_event(&owner, seq).row(whose, Table::Member, b"last", &seq.to_le_bytes());
            store.append(vec![owner.entry(lane, START_MS, batch)])
        })
        .collect();
    // Durable in whatever order they are asked.
    for outcome in waiting.into_iter().rev() {
        assert_eq!(wait(outcome), Ok(()));
    }
    let rows =
        wait(store.rows(whose, Table::Member, vec![b"last"[..].into()])).expect("rows are read");
    assert_eq!(rows[0].as_deref(), Some(&50_u64.to_le_bytes()[..]));
}

/// After a crash an entry that nobody was told about is there with all its records, or with none; and never one after
/// an entry that is lost.
///
/// # Panics
/// When it is not so.
pub fn an_unanswered_entry_is_kept_whole_or_not_at_all(harness: &impl Harness) {
    let store = harness.open();
    let mut owner = Owner::of(&store);
    let whose = conversation(1);
    let lane = owner.lane_of(whose);
    let answered = 5;
    for seq in 1..=20 {
        let batch = one_event(&owner, seq).row(whose, Table::Member, b"last", &seq.to_le_bytes());
        let outcome = store.append(vec![owner.entry(lane, START_MS, batch)]);
        if seq <= answered {
            assert_eq!(wait(outcome), Ok(()));
        }
    }
    let store = harness.reopen(store, Ending::Crash);
    let tail = Owner::of(&store).claim(lane).tail.0;
    assert!((answered..=20).contains(&tail), "{tail} entries are left");
    let range = Range {
        conversation: whose,
        from: Seq(1),
        to: Seq(99),
        bytes_max: usize::MAX,
        order: Order::Forward,
    };
    let events = wait(store.events(range)).expect("events are read");
    assert_eq!(events.len() as u64, tail);
    let rows =
        wait(store.rows(whose, Table::Member, vec![b"last"[..].into()])).expect("rows are read");
    assert_eq!(rows[0].as_deref(), Some(&tail.to_le_bytes()[..]));
}

/// Owners of different lanes append at the same time, and each finds its own.
///
/// # Panics
/// When it is not so.
pub fn lanes_work_side_by_side(harness: &impl Harness) {
    const OWNERS: u8 = 4;
    const EVENTS: u64 = 60;
    let store = harness.open();
    let claims = Owner::of(&store);
    let epochs: Vec<Epoch> = (0..=u8::MAX)
        .map(|number| claims.epoch(conversation(number)))
        .collect();
    let lanes = store.lanes();
    std::thread::scope(|scope| {
        for owner in 0..OWNERS {
            let (store, epochs) = (&store, &epochs);
            scope.spawn(move || {
                let own = |lane: LaneId| lane.0 % u16::from(OWNERS) == u16::from(owner);
                let mut positions = vec![Position(0); usize::from(lanes)];
                for seq in 1..=EVENTS {
                    let mut entries = Vec::new();
                    for number in (0..=u8::MAX).step_by(9) {
                        let whose = conversation(number);
                        let (lane, epoch) =
                            (LaneId::of(&whose, lanes), epochs[usize::from(number)]);
                        if own(lane) {
                            let position = positions[usize::from(lane.0)].next();
                            positions[usize::from(lane.0)] = position;
                            let batch = Batch::default()
                                .event(whose, &event(&head(seq, epoch, START_MS + seq), 30));
                            let time_ms = START_MS + seq;
                            entries.push(Entry {
                                lane,
                                epoch,
                                position,
                                time_ms,
                                records: batch.records(),
                            });
                        }
                    }
                    assert_eq!(append(store, entries), Ok(()));
                }
            });
        }
    });
    let store = harness.reopen(store, Ending::Crash);
    for number in (0..=u8::MAX).step_by(9) {
        let found = wait(store.head(conversation(number))).expect("a head is read");
        assert_eq!(
            found.map(|head| head.seq),
            Some(Seq(EVENTS)),
            "conversation {number}"
        );
    }
}

/// The latest time counts, in whatever order it comes; a clean end keeps it.
///
/// # Panics
/// When it is not so.
pub fn users_are_seen_last_when_they_were(harness: &impl Harness) {
    let store = harness.open();
    let seen = |number, time_ms| Seen {
        user: user(number),
        time_ms,
    };
    wait(store.record_seen(vec![seen(1, 50), seen(2, 70), seen(1, 40)]))
        .expect("times are recorded");
    wait(store.record_seen(vec![seen(2, 60), seen(3, 10)])).expect("times are recorded");
    let users = vec![user(3), user(1), user(9), user(2)];
    let expected = [Some(10), Some(50), None, Some(70)];
    assert_eq!(
        wait(store.last_seen(users.clone())).expect("times are read"),
        expected
    );
    let store = harness.reopen(store, Ending::Clean);
    assert_eq!(
        wait(store.last_seen(users.clone())).expect("times are read"),
        expected
    );
    wait(store.record_seen(vec![seen(1, 45), seen(3, 11)])).expect("times are recorded");
    let found = wait(store.last_seen(users)).expect("times are read");
    assert_eq!(
        found,
        [Some(11), Some(50), None, Some(70)],
        "an earlier time changes nothing"
    );
}
