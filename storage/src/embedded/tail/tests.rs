//! The index against a model that keeps everything, over a real log.

mod damage;
mod world;

use std::sync::mpsc;

use bytes::BytesMut;
use proptest::prelude::*;
use rialto_protocol::record::put_row;

use self::world::{Change, LANES, Step, World, conversation, step};
use super::*;
use crate::journal::Entry;

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn look_ups_are_those_of_a_model(steps in proptest::collection::vec(step(), 1..25)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
            world.check();
        }
    }
}

#[test]
fn places_that_were_found_can_be_read_after_the_segment_was_forgotten() {
    let mut world = World::new();
    let change = Change::Event {
        user: 0,
        device: 0,
        client_id: 1,
        bytes: 100,
    };
    world.run(Step::Append(vec![
        (0, change.clone()),
        (1, change.clone()),
        (0, change),
    ]));
    let order = Order::Forward;
    let range = Range {
        conversation: conversation(0),
        from: Seq(1),
        to: Seq(9),
        bytes_max: 1 << 20,
        order,
    };
    let found = world.log().tail().events(&range);
    let expected: Vec<_> = world.kept[0].events[&0]
        .iter()
        .map(|(_, event)| event.clone())
        .collect();
    world.run(Step::Seal);
    world.run(Step::View);
    assert!(world.log().tail().head(&conversation(0)).unwrap().is_none());
    assert_eq!(found.read().unwrap(), expected);
}

#[test]
fn records_that_cannot_be_read_hide_nothing_before_them() {
    let mut world = World::new();
    let mut records = BytesMut::new();
    put_row(
        &mut records,
        &conversation(0),
        Table::Profile,
        b"",
        b"value",
    );
    records.extend_from_slice(&[77, 1, 0, 0, 0, 0]);
    let lane = LaneId::of(&conversation(0), LANES);
    let (epoch, _) = world.tails[usize::from(lane.0)];
    let entry = Entry {
        lane,
        epoch,
        position: Position(1),
        time_ms: 1,
        records: records.freeze(),
    };
    let (sender, receiver) = mpsc::channel();
    world
        .log()
        .append(vec![entry], move |result| sender.send(result).unwrap());
    receiver.recv().unwrap().unwrap();
    let found = world
        .log()
        .tail()
        .row(&conversation(0), Table::Profile, b"")
        .unwrap();
    assert_eq!(found, Some(Some(Bytes::from_static(b"value"))));
    world.run(Step::Reopen);
}

#[test]
fn the_index_of_an_event_is_small() {
    assert!(size_of::<EventPlace>() <= 24);
    assert!(size_of::<chunk::SenderPlace>() <= 12);
    assert!(size_of::<RowPlace>() <= 24);
}
