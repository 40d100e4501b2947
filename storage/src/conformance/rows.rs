//! Rows: the newest value of each key.

use std::collections::BTreeMap;

use bytes::Bytes;
use rialto_protocol::record::Table;

use super::{
    Harness,
    fixture::{Batch, Owner, START_MS, at_every_stage, conversation},
};
use crate::{
    journal::Journal,
    promise::wait,
    views::{Scan, Views},
};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// What each half writes, in order; no value: the row is deleted.
fn writes(half: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut writes = Vec::new();
    for number in 0..40_u8 {
        let key = vec![b'k', number];
        match half {
            0 => writes.push((key, vec![number; 3])),
            _ if number % 4 == 0 => writes.push((key, Vec::new())),
            _ if number % 4 == 1 => writes.push((key, vec![number; 9])),
            _ => {}
        }
    }
    // Within one half: set, deleted and set again; the last counts. And keys of every length.
    writes.push((vec![b'k', 5], Vec::new()));
    writes.push((vec![b'k', 5], vec![b'a'; half + 1]));
    writes.push((vec![b'k', 6], b"gone".to_vec()));
    writes.push((vec![b'k', 6], Vec::new()));
    writes.push((vec![0xff; 64], vec![1; half + 1]));
    writes.push((vec![], vec![2; half + 1]));
    if half == 1 {
        // A key that never was, and one that comes back.
        writes.push((b"never".to_vec(), Vec::new()));
        writes.push((vec![b'k', 8], b"again".to_vec()));
    }
    writes
}

fn model() -> Model {
    let mut model = Model::new();
    for (key, value) in [writes(0), writes(1)].concat() {
        if value.is_empty() {
            model.remove(&key);
        } else {
            model.insert(key, value);
        }
    }
    model
}

fn write_half<S: Journal>(owner: &mut Owner<'_, S>, half: usize) {
    let whose = conversation(1);
    for writes in writes(half).chunks(7) {
        let batch = writes.iter().fold(Batch::default(), |batch, (key, value)| {
            batch.row(whose, Table::Member, key, value)
        });
        owner.append(whose, START_MS, batch);
    }
    // Neighbours that must not be met: the tables before and after, and the conversations.
    for table in [Table::Profile, Table::Tombstone] {
        owner.append(
            whose,
            START_MS,
            Batch::default().row(whose, table, &[b'k', 1], b"another table"),
        );
    }
    for other in [conversation(0), conversation(2)] {
        owner.append(
            other,
            START_MS,
            Batch::default().row(other, Table::Member, &[b'k', 1], b"another conversation"),
        );
    }
}

/// A row is what was written last; a deleted one is none.
///
/// # Panics
/// When it is not so.
pub fn rows_are_the_newest(harness: &impl Harness) {
    let model = model();
    let mut keys: Vec<Bytes> = writes(0)
        .into_iter()
        .chain(writes(1))
        .map(|(key, _)| key.into())
        .collect();
    keys.push(Bytes::from_static(b"unknown"));
    at_every_stage(harness, write_half, |store, stage| {
        let found =
            wait(store.rows(conversation(1), Table::Member, keys.clone())).expect("rows are read");
        assert_eq!(found.len(), keys.len(), "{stage}: an answer for each key");
        for (key, found) in keys.iter().zip(found) {
            assert_eq!(
                found.as_deref(),
                model.get(&key[..]).map(Vec::as_slice),
                "{stage}: key {key:?}"
            );
        }
        let none =
            wait(store.rows(conversation(3), Table::Member, keys.clone())).expect("rows are read");
        assert!(none.iter().all(Option::is_none), "{stage}");
    });
}

/// A scan gives the rows between its bounds in the order of their keys, as many as asked.
///
/// # Panics
/// When it is not so.
pub fn scans_are_in_order_and_within_bounds(harness: &impl Harness) {
    let model = model();
    let bounds: [&[u8]; 8] = [
        b"",
        b"a",
        b"k",
        &[b'k', 5],
        &[b'k', 20],
        &[b'k', 39],
        b"z",
        &[0xff; 64],
    ];
    at_every_stage(harness, write_half, |store, stage| {
        for after in bounds {
            for through in bounds {
                for limit in [0, 1, 2, 10, 1000] {
                    let scan = Scan {
                        conversation: conversation(1),
                        table: Table::Member,
                        after: Bytes::copy_from_slice(after),
                        through: Bytes::copy_from_slice(through),
                        limit,
                    };
                    let found = wait(store.scan(scan)).expect("rows are scanned");
                    let expected = model
                        .iter()
                        .filter(|(key, _)| after.is_empty() || key.as_slice() > after)
                        .filter(|(key, _)| through.is_empty() || key.as_slice() <= through)
                        .take(limit);
                    let found = found
                        .iter()
                        .map(|(key, value)| (key.to_vec(), value.to_vec()));
                    let expected: Vec<_> = expected
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect();
                    assert_eq!(
                        found.collect::<Vec<_>>(),
                        expected,
                        "{stage}: {after:?} to {through:?}, {limit}"
                    );
                }
            }
        }
    });
}
