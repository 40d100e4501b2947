//! Events that storage drops while their conversation is in memory.

use super::*;
use rialto_protocol::{
    ids::Epoch,
    v1::{ConversationKind, Description, HistoryPage},
};

/// A group with ten events, in memory, and its owner.
fn ten_events() -> (World, UserId, ConversationId) {
    let mut world = World::new();
    let alice = user("alice");
    let group = world.create(alice, ConversationKind::Group, false, &[]);
    for number in 2..=10 {
        world.publish(alice, group, text(&format!("{number}")));
    }
    assert_eq!(world.subscribe(alice, group).unwrap().oldest, Seq(1));
    (world, alice, group)
}

fn page(
    world: &mut World,
    user: UserId,
    conversation: ConversationId,
    from: u64,
    backward: bool,
) -> (Vec<u64>, u64, bool) {
    let origin = world.origin();
    world.send(ToOwner::History {
        origin,
        user,
        conversation,
        from: Seq(from),
        backward,
        limit: 3,
        bytes_max: 1 << 18,
    });
    let page = world.answer::<HistoryPage>(FrameKind::HistoryPage);
    let seqs = page.events.iter().map(|event| event.seq).collect();
    (seqs, page.oldest_seq, page.end)
}

fn catch_up(
    world: &mut World,
    user: UserId,
    conversation: ConversationId,
    from: u64,
    verify: Option<Epoch>,
) -> Result<usize, ErrorCode> {
    ask_to_catch_up(world, user, conversation, from, verify);
    caught_up(world)
}

fn ask_to_catch_up(
    world: &mut World,
    user: UserId,
    conversation: ConversationId,
    from: u64,
    verify: Option<Epoch>,
) {
    world.send(ToOwner::CatchUp {
        edge: EDGE,
        conn: ConnId {
            index: 0,
            generation: 0,
        },
        user,
        conversation,
        from: Seq(from),
        verify,
        bytes_max: 1 << 16,
    });
}

/// How many events the newest read brought.
fn caught_up(world: &World) -> Result<usize, ErrorCode> {
    match world.said.last() {
        Some(ToEdge::CaughtUp { result, .. }) => result.clone().map(|events| events.len()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reader_is_told_the_oldest_event_as_of_the_last_drop() {
    let (mut world, alice, group) = ten_events();
    world.store.oldest = Seq(5);
    world.owner.handle_dropped();
    assert_eq!(world.subscribe(alice, group).unwrap().oldest, Seq(5));
    world.store.oldest = Seq(6);
    world.owner.handle_dropped();
    assert_eq!(
        page(&mut world, alice, group, 1, false),
        (vec![6, 7, 8], 6, false)
    );
    world.store.oldest = Seq(7);
    world.owner.handle_dropped();
    let origin = world.origin();
    world.send(ToOwner::Describe {
        origin,
        user: alice,
        conversation: group,
    });
    let description = world.answer::<Description>(FrameKind::Description);
    assert_eq!(description.oldest_seq, 7);
    world.store.oldest = Seq(8);
    world.owner.handle_dropped();
    assert_eq!(catch_up(&mut world, alice, group, 8, Some(Epoch(1))), Ok(3));
}

#[test]
fn history_reaches_the_head_over_events_that_were_dropped_unnoticed() {
    let (mut world, alice, group) = ten_events();
    world.store.oldest = Seq(6);
    assert_eq!(
        page(&mut world, alice, group, 3, true),
        (vec![], 1, true),
        "nothing is left below"
    );
    let (mut world, alice, group) = ten_events();
    world.store.oldest = Seq(6);
    assert_eq!(
        page(&mut world, alice, group, 1, false),
        (vec![], 1, false),
        "something is left above"
    );
    assert_eq!(
        page(&mut world, alice, group, 1, false),
        (vec![6, 7, 8], 6, false)
    );
    assert_eq!(
        page(&mut world, alice, group, 9, false),
        (vec![9, 10], 6, true)
    );
    world.store.oldest = Seq(9);
    assert_eq!(
        page(&mut world, alice, group, 7, false),
        (vec![9], 9, false),
        "a page tells what it shows"
    );
    world.store.oldest = Seq(11);
    assert_eq!(page(&mut world, alice, group, 9, false), (vec![], 11, true));
}

#[test]
fn whoever_meets_a_drop_that_was_not_noticed_is_told_of_it_when_he_subscribes_anew() {
    let (mut world, alice, group) = ten_events();
    world.store.oldest = Seq(5);
    assert_eq!(catch_up(&mut world, alice, group, 1, None), Ok(6));
    assert_eq!(world.subscribe(alice, group).unwrap().oldest, Seq(5));
    world.store.oldest = Seq(7);
    assert_eq!(
        catch_up(&mut world, alice, group, 6, Some(Epoch(1))),
        Err(ErrorCode::StorageUnavailable)
    );
    assert_eq!(world.subscribe(alice, group).unwrap().oldest, Seq(7));
    world.store.oldest = Seq(11);
    assert_eq!(catch_up(&mut world, alice, group, 7, None), Ok(0));
    assert_eq!(world.subscribe(alice, group).unwrap().oldest, Seq(11));
}

#[test]
fn a_conversation_that_was_read_while_events_were_dropped_is_looked_at_again() {
    let (world, alice, group) = ten_events();
    let mut world = world.restart();
    world.hold_loads = true;
    let origin = world.origin();
    world.send(ToOwner::Subscribe {
        origin,
        slot: 0,
        user: alice,
        conversation: group,
        cursor: None,
    });
    world.owner.handle_dropped();
    // What comes back was read before that.
    world.hold_loads = false;
    for (ticket, query) in std::mem::take(&mut world.held_loads) {
        world.load(ticket, &query);
    }
    world.store.oldest = Seq(5);
    world.settle();
    match world.said.last() {
        Some(ToEdge::Subscribed { result, .. }) => assert_eq!(result.unwrap().oldest, Seq(5)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_that_are_dropped_while_a_reader_reads_on_do_not_show_another_log() {
    let (mut world, alice, group) = ten_events();
    // The event that is looked at is gone alone, others with it, all are gone.
    for oldest in [5, 7, 11] {
        world.hold_loads = true;
        ask_to_catch_up(&mut world, alice, group, 5, Some(Epoch(1)));
        world.store.oldest = Seq(oldest);
        world.owner.handle_dropped();
        world.read();
        assert_eq!(caught_up(&world), Err(ErrorCode::StorageUnavailable));
        let standing = world.subscribe(alice, group).unwrap();
        assert_eq!(standing.oldest, Seq(oldest), "subscribing anew shows it");
        let rest = catch_up(&mut world, alice, group, oldest, None);
        assert_eq!(rest, Ok(usize::try_from(11 - oldest).unwrap()));
        (world, ..) = ten_events();
    }
    let other_epoch = catch_up(&mut world, alice, group, 5, Some(Epoch(2)));
    assert_eq!(other_epoch, Err(ErrorCode::CursorDiverged));
}
