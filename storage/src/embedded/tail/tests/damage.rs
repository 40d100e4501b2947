//! A segment of which one byte is not as it was written.

use std::{fs::OpenOptions, os::unix::fs::FileExt};

use bytes::Bytes;

use super::world::{Change, Step, World, client_id, conversation, device, user};
use crate::views::ViewsError;

/// Where the first entry stands.
const FIRST_ENTRY: usize = 4096;

fn event(user: u8, device: u8, client_id: u8) -> Change {
    Change::Event {
        user,
        device,
        client_id,
        bytes: 9,
    }
}

fn row(table: u8, key: u8, bytes: usize) -> Change {
    Change::Row { table, key, bytes }
}

/// Events and rows of one conversation, some of which are older than what the index searches from end to end; and one of its
/// neighbours.
fn world() -> World {
    let mut world = World::new();
    for changes in [
        vec![event(0, 0, 3), row(1, 1, 7), row(1, 4, 7)],
        vec![event(0, 1, 7), event(1, 2, 12), row(1, 2, 7)],
        vec![event(0, 0, 1), row(1, 2, 0)],
        vec![event(0, 0, 2), row(2, 3, 5)],
    ] {
        world.run(Step::Append(
            changes.into_iter().map(|change| (0, change)).collect(),
        ));
    }
    world.run(Step::Append(vec![(1, event(0, 0, 3)), (1, row(1, 1, 3))]));
    world
}

#[test]
fn of_many_devices_only_the_newest_are_read() {
    let mut world = World::new();
    for number in 0..40 {
        world.run(Step::Append(vec![(0, event(0, number, number))]));
    }
    // What the first of them said cannot be read any more.
    let file = OpenOptions::new()
        .write(true)
        .open(world.segment())
        .unwrap();
    let first = world.kept[0].events[&0][0].1.clone();
    let bytes = std::fs::read(world.segment()).unwrap();
    let place = bytes
        .windows(first.len())
        .position(|window| window == first)
        .unwrap();
    file.write_all_at(&[!bytes[place]], place as u64).unwrap();

    let tail = world.log().tail();
    let sent = tail.sent(&conversation(0), &user(0)).unwrap();
    let numbers = sent.devices.iter().map(|sent| sent.seq.0);
    assert_eq!(
        numbers.collect::<Vec<_>>(),
        (25..=40).rev().collect::<Vec<_>>()
    );
    assert!(sent.more);
    let lost = tail.find_sent(&conversation(0), &user(0), &device(0), &client_id(0));
    assert!(matches!(lost, Err(ViewsError::Damaged(_))), "it is damaged");
}

#[test]
fn a_changed_byte_never_changes_an_answer() {
    let mut world = world();
    world.check();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(world.segment())
        .unwrap();
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;

    world.damaged = true;
    let mut noticed = 0;
    for (offset, byte) in bytes.iter().enumerate().take(end).skip(FIRST_ENTRY) {
        let change = |byte| file.write_all_at(&[byte], offset as u64).unwrap();
        change(byte ^ 1 << (offset % 8));
        world.refused.set(0);
        world.check();
        noticed += usize::from(world.refused.get() > 0);
        change(*byte);
    }
    world.damaged = false;
    world.check();

    let kept = &world.kept[0];
    let events = kept.events.values().flatten().map(|(_, event)| event.len());
    let rows = kept.rows.iter();
    let rows = rows.map(|((.., key), value)| key.len() + value.as_ref().map_or(0, Bytes::len));
    assert!(
        noticed >= events.chain(rows).sum(),
        "of all that is looked at, each byte counts"
    );
}
