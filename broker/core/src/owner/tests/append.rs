//! Appending, acknowledging, deduplicating, failing.

use super::*;
use crate::owner::conversation::Slot;

fn group(world: &mut World) -> (UserId, UserId, ConversationId) {
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = world.create(alice, v1::ConversationKind::Group, false, &[bob]);
    (alice, bob, conversation)
}

fn edit(target: u64) -> Content {
    Content::Edit(v1::Edit {
        target,
        body: Bytes::from_static(b"x"),
        ..v1::Edit::default()
    })
}

fn delete(target: u64) -> Content {
    Content::Delete(v1::Delete {
        target,
        reason: String::new(),
    })
}

#[test]
fn nothing_is_acknowledged_or_shown_before_it_is_durable() {
    let mut world = World::new();
    let (alice, bob, conversation) = group(&mut world);
    world.subscribe(bob, conversation).unwrap();
    world.said.clear();
    world.hold = true;
    let id = world.id();
    world.publish_as(alice, conversation, id, text("hello"));
    assert!(world.said.is_empty(), "{:?}", world.said);
    assert_eq!(
        world.history(bob, conversation).len(),
        1,
        "only the created event is there for readers"
    );
    world.said.clear();
    world.sync();
    assert!(matches!(
        world.said[0],
        ToEdge::Deliver {
            first: Seq(2),
            last: Seq(2),
            ..
        }
    ));
    assert!(
        matches!(&world.said[1], ToEdge::Appended { receipts, .. } if seq_of(receipts[0]) == 2)
    );
}

#[test]
fn a_retry_gets_the_first_answer_while_in_flight_later_and_after_a_restart() {
    let mut world = World::new();
    let (alice, bob, conversation) = group(&mut world);
    let id = world.id();
    world.hold = true;
    world.publish_as(alice, conversation, id, text("once"));
    world.publish_as(alice, conversation, id, text("once"));
    assert!(
        !world
            .said
            .iter()
            .any(|said| matches!(said, ToEdge::Appended { .. }))
    );
    world.sync();
    let first = match &world
        .said
        .iter()
        .find(|said| matches!(said, ToEdge::Appended { .. }))
    {
        Some(ToEdge::Appended { receipts, .. }) => receipts[0],
        _ => panic!("no receipt"),
    };
    let Receipt::Kept {
        epoch,
        seq,
        time_ms,
        duplicate: false,
    } = first
    else {
        panic!("{first:?}")
    };
    let again = Receipt::Kept {
        epoch,
        seq,
        time_ms,
        duplicate: true,
    };
    assert_eq!(world.receipt(), again);
    world.publish(alice, conversation, text("another"));
    world.now.unix_ms += 1_000;
    world.publish_as(alice, conversation, id, text("once"));
    assert_eq!(world.receipt(), again);
    let mut world = world.restart();
    world.publish_as(alice, conversation, id, text("once"));
    assert_eq!(world.receipt(), again);
    assert_eq!(world.history(bob, conversation).len(), 3);
}

#[test]
fn a_retry_is_looked_for_among_the_events_of_its_sender_alone() {
    let mut world = World::new();
    let (alice, bob, conversation) = group(&mut world);
    let ids: Vec<ClientId> = (0..200).map(|_| world.id()).collect();
    world.hold = true;
    for (sender, id) in [alice, bob].into_iter().cycle().zip(&ids) {
        world.publish_as(sender, conversation, *id, text("not durable"));
    }
    let Some(Slot::Present(slot)) = world.owner.conversations.peek(&conversation) else {
        panic!("in memory")
    };
    let looked_at = slot.recent_of(&alice).map(|recent| recent.head.seq.0);
    let own = (2..=200).rev().step_by(2);
    assert!(looked_at.eq(own), "the creation is durable and has left");
    world.said.clear();
    world.publish_as(alice, conversation, ids[0], text("not durable"));
    world.sync();
    let again = world.receipts().into_iter().rev().find(|receipt| {
        matches!(
            receipt,
            Receipt::Kept {
                duplicate: true,
                ..
            }
        )
    });
    assert_eq!(again.map(seq_of), Some(2));
}

#[test]
fn an_old_id_that_was_never_seen_is_new_within_the_window_and_refused_beyond_it() {
    let mut world = World::new();
    let (alice, _, conversation) = group(&mut world);
    let early = world.id();
    world.publish(alice, conversation, text("later id first"));
    world.publish_as(alice, conversation, early, text("earlier id second"));
    assert_eq!(seq_of(world.receipt()), 3);
    let ancient = ClientId::v7(world.now.unix_ms - 8 * 24 * 3_600 * 1_000, [1; 10]);
    world.publish_as(alice, conversation, ancient, text("ancient"));
    assert_eq!(world.receipt(), refused(ErrorCode::ClientIdTooOld));
}

#[test]
fn an_id_that_was_forgotten_because_a_clock_leapt_is_refused_and_not_taken_for_new() {
    const DAY_MS: u64 = 24 * 3_600 * 1_000;
    let mut world = World::new();
    let (alice, _, conversation) = group(&mut world);
    let early = world.id();
    world.publish(alice, conversation, text("later id first"));
    world.store.sent_as_of_ms = world.now.unix_ms + 8 * DAY_MS;
    world.publish_as(alice, conversation, early, text("earlier id second"));
    assert_eq!(world.receipt(), refused(ErrorCode::ClientIdTooOld));
    seq_of(world.publish(alice, conversation, text("a new id is new all the same")));
    world.store.sent_as_of_ms = world.now.unix_ms + 6 * DAY_MS;
    world.publish_as(alice, conversation, early, text("earlier id second"));
    assert_eq!(seq_of(world.receipt()), 4);
}

#[test]
fn what_was_not_kept_is_refused_and_the_next_gets_its_number() {
    let mut world = World::new();
    let (alice, bob, conversation) = group(&mut world);
    world.hold = true;
    let id = world.id();
    world.publish_as(alice, conversation, id, text("lost"));
    world.fail(AppendFailure::NothingKept);
    assert!(matches!(
        world.receipt(),
        Receipt::Refused {
            code: ErrorCode::StorageUnavailable,
            ..
        }
    ));
    world.publish_as(alice, conversation, id, text("again"));
    assert!(matches!(
        world.receipt(),
        Receipt::Kept {
            seq: Seq(2),
            duplicate: false,
            ..
        }
    ));
    assert_eq!(world.history(bob, conversation).len(), 2);
}

#[test]
fn a_lost_lane_takes_nothing_more() {
    let mut world = World::new();
    let (alice, _, conversation) = group(&mut world);
    world.hold = true;
    let id = world.id();
    world.publish_as(alice, conversation, id, text("lost"));
    world.fail(AppendFailure::Lost);
    assert!(matches!(
        world.receipt(),
        Receipt::Refused {
            code: ErrorCode::StorageUnavailable,
            ..
        }
    ));
    let receipt = world.publish(alice, conversation, text("more"));
    assert!(matches!(
        receipt,
        Receipt::Refused {
            code: ErrorCode::StorageUnavailable,
            ..
        }
    ));
}

#[test]
fn a_mention_counts_for_the_one_mentioned_and_reaches_the_inbox_once() {
    let mut world = World::new();
    let (alice, bob, conversation) = group(&mut world);
    let mentions = vec![
        bob.to_proto(),
        bob.to_proto(),
        user("stranger").to_proto(),
        alice.to_proto(),
    ];
    let message = v1::Message {
        body: Bytes::from_static(b"look"),
        mentions,
        ..v1::Message::default()
    };
    world.publish(alice, conversation, Content::Message(message));
    let standing = world.subscribe(bob, conversation).unwrap();
    assert_eq!((standing.unread, standing.unread_mentions), (1, 1));
    let mentioned: Vec<_> = world
        .notices(bob)
        .into_iter()
        .filter(|notice| matches!(notice, v1::notice::Notice::Mentioned(_)))
        .collect();
    let v1::notice::Notice::Mentioned(mentioned) = &mentioned[..][0] else {
        panic!("no mention")
    };
    assert_eq!(
        (mentioned.seq, mentioned.unread, mentioned.unread_mentions),
        (2, 1, 1)
    );
    assert!(world.notices(user("stranger")).is_empty());
    let mut world = world.restart();
    let again = world
        .notices(bob)
        .iter()
        .filter(|notice| matches!(notice, v1::notice::Notice::Mentioned(_)))
        .count();
    assert_eq!(again, 1, "a restart passes nothing on twice");
    assert_eq!(
        world.subscribe(bob, conversation).unwrap().unread_mentions,
        1
    );
}

#[test]
fn only_the_author_edits_and_deleted_text_is_not_served() {
    let mut world = World::new();
    let (alice, bob, conversation) = group(&mut world);
    world.publish(alice, conversation, text("secret"));
    assert_eq!(
        world.publish(bob, conversation, edit(2)),
        refused(ErrorCode::NotTheAuthor)
    );
    assert_eq!(
        world.publish(alice, conversation, edit(1)),
        refused(ErrorCode::TargetNotFound)
    );
    assert_eq!(
        world.publish(alice, conversation, edit(99)),
        refused(ErrorCode::TargetNotFound)
    );
    assert_eq!(seq_of(world.publish(alice, conversation, edit(2))), 3);
    assert_eq!(
        world.publish(bob, conversation, delete(2)),
        refused(ErrorCode::NotTheAuthor)
    );
    assert_eq!(seq_of(world.publish(alice, conversation, delete(2))), 4);
    assert_eq!(
        world.publish(alice, conversation, delete(2)),
        refused(ErrorCode::TargetDeleted)
    );
    let mut world = world.restart();
    let events = world.history(bob, conversation);
    assert!(
        matches!(&events[1].content, Some(v1::event::Content::Redacted(redacted)) if redacted.by_seq == 4)
    );
    assert_eq!(
        world.publish(alice, conversation, edit(2)),
        refused(ErrorCode::TargetDeleted)
    );
}

/// A group with a message of alice's that has left memory, seq 2, and a moderator.
fn group_with_an_old_message() -> (World, UserId, UserId, ConversationId) {
    let config = CoreConfig {
        recent_events_max: 1,
        ..CoreConfig::default()
    };
    let mut world = World::with(config, MapStore::default());
    let (alice, bob, conversation) = group(&mut world);
    seq_of(world.publish(alice, conversation, text("old")));
    let rises = membership(
        v1::MembershipAction::SetRole,
        Some(bob),
        v1::Role::Moderator,
    );
    seq_of(world.publish(alice, conversation, rises));
    world.said.clear();
    (world, alice, bob, conversation)
}

#[test]
fn nothing_refers_to_a_message_whose_deletion_is_not_durable_yet() {
    let (mut world, alice, bob, conversation) = group_with_an_old_message();
    world.hold = true;
    let (first, second, third) = (world.id(), world.id(), world.id());
    world.publish_as(bob, conversation, first, delete(2));
    world.publish_as(alice, conversation, second, edit(2));
    world.publish_as(alice, conversation, third, delete(2));
    world.sync();
    let receipts = world.receipts();
    assert_eq!(seq_of(receipts[0]), 4);
    assert_eq!(receipts[1..], [refused(ErrorCode::TargetDeleted); 2]);
}

#[test]
fn nothing_refers_to_a_message_that_is_deleted_while_it_is_read() {
    let (mut world, alice, bob, conversation) = group_with_an_old_message();
    world.hold_loads = true;
    let (first, second) = (world.id(), world.id());
    world.publish_as(alice, conversation, first, edit(2));
    let (ticket, query) = world.held_loads.remove(0);
    let as_it_was = Some(world.store.read(&query));
    world.publish_as(bob, conversation, second, delete(2));
    world.read();
    assert_eq!(seq_of(world.receipt()), 4);
    world
        .owner
        .handle_loaded(world.now, ticket, as_it_was, &mut world.fx);
    world.settle();
    assert_eq!(world.receipt(), refused(ErrorCode::TargetDeleted));
}

#[test]
fn conversations_leave_memory_and_come_back_as_they_were() {
    let config = CoreConfig {
        conversations_max: 2,
        members_max: 4,
        ..CoreConfig::default()
    };
    let mut world = World::with(config, MapStore::default());
    let alice = user("alice");
    let all: Vec<_> = (0..8)
        .map(|_| world.create(alice, v1::ConversationKind::Group, false, &[user("bob")]))
        .collect();
    for round in 0..3 {
        for conversation in &all {
            assert_eq!(
                seq_of(world.publish(alice, *conversation, text("again"))),
                round + 2
            );
        }
    }
    let mut counters = crate::counters::Counters::default();
    world.owner.gauges(&mut counters);
    assert!(counters.conversations <= 3, "{}", counters.conversations);
}

#[test]
fn notes_to_oneself_open_by_themselves_and_for_nobody_else() {
    let mut world = World::new();
    let alice = user("alice");
    let notes = ConversationId::of_self(alice);
    assert_eq!(
        world.publish(user("bob"), notes, text("hi")),
        refused(ErrorCode::ConversationNotFound)
    );
    assert_eq!(seq_of(world.publish(alice, notes, text("milk"))), 2);
    assert_eq!(
        world.publish(user("bob"), notes, text("hi")),
        refused(ErrorCode::ConversationNotFound)
    );
    assert_eq!(
        world.subscribe(user("bob"), notes),
        Err(ErrorCode::ConversationNotFound)
    );
}

#[test]
fn an_inbox_is_written_by_the_system_alone() {
    let mut world = World::new();
    let (alice, ..) = group(&mut world);
    let inbox = ConversationId::of_inbox(alice);
    assert!(world.subscribe(alice, inbox).is_ok());
    for content in [text("hi"), delete(2)] {
        assert_eq!(
            world.publish(alice, inbox, content),
            refused(ErrorCode::WrittenBySystemOnly)
        );
    }
}
