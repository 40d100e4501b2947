//! The memory store does what a simulation tells it to.

// A test may fail by unwrapping; the lint knows test functions only, not their helpers.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // Each test uses a part of it.
#[path = "support/writer.rs"]
mod writer;

use rialto_protocol::ids::{LaneId, Position, Seq};
use rialto_storage::{
    journal::{AppendError, Journal},
    memory::{AppendId, Durability, MemoryStore},
    views::{Views, ViewsError},
    wait,
};
use writer::{START_MS, Writer, check, conversation};

fn head(store: &MemoryStore) -> u64 {
    store
        .head_now(conversation(1))
        .unwrap()
        .map_or(0, |head| head.seq.0)
}

#[test]
fn an_append_is_durable_and_visible_only_once_the_simulation_says_so() {
    let store = MemoryStore::new(4);
    store.set_durability(Durability::Stepped);
    let mut writer = Writer::claim(&store);
    let first = store
        .append_now(vec![writer.entry(conversation(1), 1, START_MS, 5)])
        .unwrap();
    let second = store.append(vec![writer.entry(conversation(1), 2, START_MS, 5)]);
    assert_eq!(
        (head(&store), store.waiting()),
        (0, 2),
        "nothing is visible before it is durable"
    );
    assert_eq!(store.step(), Some((first, Ok(()))));
    assert_eq!(head(&store), 1);
    assert_eq!(store.step(), Some((AppendId(2), Ok(()))));
    assert_eq!(wait(second), Ok(()));
    assert_eq!(store.step(), None);
    check(&store, conversation(1), 2, "stepped");
}

#[test]
fn a_crash_keeps_a_prefix_of_what_was_not_acknowledged() {
    for kept in 0..=3_usize {
        let store = MemoryStore::new(4);
        let mut writer = Writer::claim(&store);
        writer.say(conversation(1), 1, START_MS);
        store.set_durability(Durability::Stepped);
        for seq in 2..=4 {
            store
                .append_now(vec![writer.entry(conversation(1), seq, START_MS, 5)])
                .unwrap();
        }
        let lane = LaneId::of(&conversation(1), 4);
        let after = store.crash(kept);
        assert_eq!(
            after.claim_now(&[lane]).unwrap()[0].tail,
            Position(1 + kept as u64)
        );
        check(&after, conversation(1), 1 + kept as u64, "after the crash");
        assert!(
            matches!(store.head_now(conversation(1)), Err(ViewsError::Closed)),
            "the old handle is dead"
        );
        let late = writer.entry(conversation(1), 5, START_MS, 5);
        assert!(matches!(
            store.append_now(vec![late]),
            Err(AppendError::Poisoned(_))
        ));
    }
}

#[test]
fn poison_fails_what_waits_and_all_that_follows_but_a_restart_may_find_it() {
    let store = MemoryStore::new(4);
    store.set_durability(Durability::Stepped);
    let mut writer = Writer::claim(&store);
    let waiting = store.append(vec![writer.entry(conversation(1), 1, START_MS, 5)]);
    assert_eq!(store.poison("a sync failed"), [AppendId(1)]);
    let poisoned = Err(AppendError::Poisoned("a sync failed".to_owned()));
    assert_eq!(wait(waiting), poisoned);
    assert_eq!(wait(store.append(Vec::new())), poisoned);
    assert!(store.status().poisoned);
    assert_eq!(head(&store), 0);
    assert_eq!((head(&store.crash(1)), head(&store.crash(0))), (1, 0));
}

#[test]
fn a_claim_fences_what_the_former_owner_has_in_flight() {
    let store = MemoryStore::new(4);
    store.set_durability(Durability::Stepped);
    let mut former = Writer::claim(&store);
    let late = store.append(vec![former.entry(conversation(1), 1, START_MS, 5)]);
    let mut new = Writer::claim(&store);
    let own = store.append(vec![new.entry(conversation(1), 1, START_MS, 9)]);
    while store.step().is_some() {}
    let lane = LaneId::of(&conversation(1), 4);
    assert_eq!(
        (wait(late), wait(own)),
        (Err(AppendError::Fenced { lane }), Ok(()))
    );
    check(&store, conversation(1), 1, "the new owner's");
    assert_eq!(
        wait(store.head(conversation(1))).unwrap().unwrap().seq,
        Seq(1)
    );
}

#[test]
fn a_snapshot_goes_its_own_way() {
    let store = MemoryStore::new(4);
    Writer::claim(&store).say(conversation(1), 1, START_MS);
    let snapshot = store.durable_snapshot();
    Writer::claim(&store).say(conversation(1), 2, START_MS);
    store.set_full(true);
    let mut writer = Writer::claim(&store);
    let entry = writer.entry(conversation(1), 3, START_MS, 5);
    assert_eq!(
        wait(store.append(vec![entry.clone()])),
        Err(AppendError::Full)
    );
    store.set_full(false);
    assert_eq!(
        wait(store.append(vec![entry])),
        Ok(()),
        "its position was not used up"
    );
    assert_eq!((head(&store), head(&snapshot)), (3, 1));
}
