//! Markers, counts, lists, catch-up.

use super::*;
use rialto_protocol::{
    ids::{Cursor, Epoch},
    v1::{ConversationKind, Marker},
};

fn mark(
    world: &mut World,
    user: UserId,
    conversation: ConversationId,
    read: u64,
    unread: bool,
) -> v1::Marked {
    let origin = world.origin();
    let (read, delivered) = (Seq(read), Seq(0));
    world.send(ToOwner::Mark {
        origin,
        author: author(user),
        conversation,
        read,
        delivered,
        unread,
    });
    let position = world.said.iter().rposition(|said| {
        matches!(
            said,
            ToEdge::Answered {
                kind: FrameKind::Marked,
                ..
            }
        )
    });
    let ToEdge::Answered { body, .. } = &world.said[position.expect("marked")] else {
        unreachable!()
    };
    v1::Marked::decode(body.clone()).unwrap()
}

#[test]
fn markers_never_go_back_unless_marked_unread() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    for number in 0..40 {
        world.publish(alice, group, text(&format!("{number}")));
    }
    assert_eq!(world.subscribe(bob, group).unwrap().unread, 40);
    assert_eq!(
        mark(&mut world, bob, group, 11, false).unread,
        30,
        "an event that has left memory is read"
    );
    assert_eq!(mark(&mut world, bob, group, 41, false).unread, 0);
    let marked = mark(&mut world, bob, group, 5, false);
    assert_eq!(
        marked.marker,
        Some(Marker {
            read_seq: 41,
            read_ordinal: 40,
            delivered_seq: 41
        })
    );
    let marked = mark(&mut world, bob, group, 31, true);
    assert_eq!(
        (marked.unread, marked.marker.unwrap().delivered_seq),
        (10, 41)
    );
    let mut world = world.restart();
    assert_eq!(world.subscribe(bob, group).unwrap().unread, 10);
    world.publish(bob, group, text("read all"));
    assert_eq!(
        world.subscribe(bob, group).unwrap().unread,
        0,
        "own events count as read"
    );
    let mut world = world.restart();
    assert_eq!(world.subscribe(bob, group).unwrap().unread, 0);
}

#[test]
fn a_marker_beyond_the_log_is_refused() {
    let mut world = World::new();
    let alice = user("alice");
    let group = world.create(alice, ConversationKind::Group, false, &[]);
    let origin = world.origin();
    let ask = ToOwner::Mark {
        origin,
        author: author(alice),
        conversation: group,
        read: Seq(9),
        delivered: Seq(0),
        unread: false,
    };
    world.send(ask);
    assert_eq!(world.refusal(), Some(ErrorCode::TargetNotFound));
}

#[test]
fn the_list_holds_what_the_user_prefers_and_has_read() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let direct = world.create(alice, ConversationKind::Direct, false, &[bob]);
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    world.publish(alice, group, text("hi"));
    mark(&mut world, bob, group, 2, false);
    let origin = world.origin();
    let (hidden, muted_until_ms) = (Some(true), Some(u64::MAX));
    world.send(ToOwner::Prefer {
        origin,
        author: author(bob),
        conversation: group,
        hidden,
        muted_until_ms,
    });
    let mut world = world.restart();
    let mut listings = Vec::new();
    let mut after = None;
    loop {
        let origin = world.origin();
        world.send(ToOwner::Conversations {
            origin,
            user: bob,
            after,
            limit: 1,
        });
        let page = world.answer::<v1::ConversationsPage>(FrameKind::ConversationsPage);
        after = page
            .listings
            .last()
            .map(|last| ConversationId::from_slice(&last.conversation).unwrap());
        listings.extend(page.listings);
        if page.end {
            break;
        }
    }
    assert_eq!(listings.len(), 2);
    let listed = |id: ConversationId| {
        listings
            .iter()
            .find(|listing| listing.conversation == id.to_proto())
            .unwrap()
    };
    assert_eq!(listed(direct).peer, alice.to_proto());
    let of_group = listed(group);
    assert!(of_group.hidden && of_group.muted_until_ms == u64::MAX);
    assert_eq!(of_group.marker.unwrap().read_seq, 2);
}

#[test]
fn catching_up_ends_where_the_log_ends_and_shows_another_log() {
    let mut world = World::new();
    let alice = user("alice");
    let group = world.create(alice, ConversationKind::Group, false, &[]);
    for number in 0..5 {
        world.publish(alice, group, text(&format!("{number}")));
    }
    let mut catch_up = |from: u64, verify: Option<u64>| {
        let conn = ConnId {
            index: 0,
            generation: 0,
        };
        let verify = verify.map(Epoch);
        let (from, bytes_max) = (Seq(from), 1 << 16);
        world.send(ToOwner::CatchUp {
            edge: EDGE,
            conn,
            user: alice,
            conversation: group,
            from,
            verify,
            bytes_max,
        });
        match world.said.last() {
            Some(ToEdge::CaughtUp { result, .. }) => result.clone().map(|events| events.len()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(catch_up(1, None), Ok(6));
    assert_eq!(catch_up(3, Some(1)), Ok(4));
    assert_eq!(catch_up(7, None), Ok(0));
    assert_eq!(catch_up(3, Some(2)), Err(ErrorCode::CursorDiverged));
    assert_eq!(
        world.subscribe(alice, group).unwrap().head,
        Cursor {
            epoch: Epoch(1),
            seq: Seq(6)
        }
    );
}

#[test]
fn history_goes_both_ways_in_pages() {
    let mut world = World::new();
    let alice = user("alice");
    let group = world.create(alice, ConversationKind::Group, false, &[]);
    for number in 0..9 {
        world.publish(alice, group, text(&format!("{number}")));
    }
    let mut page = |from, backward, limit| {
        let origin = world.origin();
        let ask = ToOwner::History {
            origin,
            user: alice,
            conversation: group,
            from: Seq(from),
            backward,
            limit,
            bytes_max: 1 << 18,
        };
        world.send(ask);
        let page = world.answer::<v1::HistoryPage>(FrameKind::HistoryPage);
        (
            page.events
                .iter()
                .map(|event| event.seq)
                .collect::<Vec<_>>(),
            page.end,
        )
    };
    assert_eq!(page(0, true, 3), (vec![8, 9, 10], false));
    assert_eq!(page(3, true, 3), (vec![1, 2, 3], true));
    assert_eq!(page(4, false, 4), (vec![4, 5, 6, 7], false));
    assert_eq!(page(8, false, 50), (vec![8, 9, 10], true));
    assert_eq!(page(11, false, 50), (vec![], true));
}

#[test]
fn signals_reach_followers_and_are_not_kept() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    world.subscribe(bob, group).unwrap();
    let signal = v1::signalled::Signal::Typing(v1::Typing { off: false });
    let ask = ToOwner::Signal {
        origin: world.origin(),
        user: alice,
        conversation: group,
        signal: signal.clone(),
    };
    world.send(ask);
    assert!(matches!(world.said.last(), Some(ToEdge::Signalled { user, .. }) if *user == alice));
    let ask = ToOwner::Signal {
        origin: world.origin(),
        user: user("eve"),
        conversation: group,
        signal,
    };
    world.send(ask);
    assert_eq!(world.refusal(), Some(ErrorCode::ConversationNotFound));
    assert_eq!(world.history(bob, group).len(), 1);
}

/// How often a user's inbox was told of his marker, and what it was told last.
fn told(world: &mut World, user: UserId) -> (usize, Option<Marker>) {
    let notices = world.notices(user);
    let listings = notices.iter().filter_map(|notice| match notice {
        v1::notice::Notice::Listing(listing) => listing.marker,
        v1::notice::Notice::Mentioned(_) => None,
    });
    let markers: Vec<Marker> = listings.collect();
    (markers.len(), markers.last().copied())
}

#[test]
fn marking_what_one_said_oneself_is_written_and_told_once() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    world.subscribe(alice, group).unwrap();
    for number in 2..=40 {
        world.publish(bob, group, text(&format!("{number}")));
    }
    let own = Marker {
        read_seq: 40,
        read_ordinal: 39,
        delivered_seq: 40,
    };
    let (before, _) = told(&mut world, bob);
    world.said.clear();
    let marked = mark(&mut world, bob, group, 3, false);
    assert_eq!(marked.marker, Some(own), "it does not go back");
    let is_signal = |said: &ToEdge| matches!(said, ToEdge::Signalled { user, .. } if *user == bob);
    assert!(world.said.iter().any(is_signal), "others see it");
    assert_eq!(told(&mut world, bob), (before + 1, Some(own)));
    for read in [3, 40] {
        mark(&mut world, bob, group, read, false);
    }
    assert_eq!(told(&mut world, bob), (before + 1, Some(own)));

    let mut world = world.restart();
    let origin = world.origin();
    world.send(ToOwner::Members {
        origin,
        user: alice,
        conversation: group,
        after: None,
        limit: 9,
    });
    let page = world.answer::<v1::MembersPage>(FrameKind::MembersPage);
    let of_bob = page.members.iter().find(|it| it.user == bob.to_proto());
    assert_eq!(of_bob.unwrap().marker, Some(own), "it is in the row");

    let unread = mark(&mut world, bob, group, 30, true).marker.unwrap();
    assert_eq!((unread.read_seq, unread.delivered_seq), (30, 40));
}

#[test]
fn marking_unread_does_not_take_back_that_what_one_said_oneself_arrived() {
    let mut world = World::new();
    let alice = user("alice");
    let group = world.create(alice, ConversationKind::Group, false, &[]);
    world.publish(alice, group, text("2"));
    let marker = mark(&mut world, alice, group, 1, true).marker.unwrap();
    assert_eq!((marker.read_seq, marker.delivered_seq), (1, 2));
    let mut world = world.restart();
    let standing = world.subscribe(alice, group).unwrap();
    assert_eq!(standing.marker, marker);
}

#[test]
fn of_more_unread_mentions_than_are_counted_the_newest_are() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    for _ in 2..=151 {
        let mention = v1::Message {
            mentions: vec![bob.to_proto()],
            ..v1::Message::default()
        };
        seq_of(world.publish(alice, group, Content::Message(mention)));
    }
    let mut world = world.restart();
    assert_eq!(world.subscribe(bob, group).unwrap().unread_mentions, 100);
    for (read, left) in [(21, 100), (101, 50), (141, 10), (151, 0)] {
        let marked = mark(&mut world, bob, group, read, false);
        assert_eq!(marked.unread_mentions, left, "up to {read}");
        assert_eq!(marked.unread, 151 - read);
    }
}
