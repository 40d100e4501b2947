//! What is said when the disk or a read fails, and when it may be said.

use super::*;
use rialto_protocol::v1::{ConversationKind, MembershipAction as Action, Role};

/// A group whose first member has sent, and an id of hers that is older: whether it is there has to be read.
fn group_and_early_id(world: &mut World) -> (UserId, UserId, ConversationId, ClientId) {
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    let early = world.id();
    seq_of(world.publish(alice, group, text("later id first")));
    world.said.clear();
    (alice, bob, group, early)
}

#[test]
fn drafts_of_an_entry_that_was_lost_are_judged_anew() {
    let mut world = World::new();
    let (alice, bob, group, early) = group_and_early_id(&mut world);
    let fresh = world.id();
    (world.hold, world.hold_loads) = (true, true);
    world.publish_all(alice, group, &[fresh, early]);
    world.fail(AppendFailure::NothingKept);
    world.read();
    let receipts = world.receipts();
    assert_eq!(receipts.len(), 2);
    let events = world.history(bob, group);
    for (receipt, id) in receipts.into_iter().zip([fresh, early]) {
        let seq = seq_of(receipt);
        let event = events
            .iter()
            .find(|event| event.client_id == id.to_proto())
            .expect("it was acknowledged");
        assert_eq!(event.seq, seq);
    }
}

#[test]
fn what_may_have_been_kept_is_not_said_to_have_had_no_effect() {
    let mut world = World::with(
        CoreConfig {
            shard_bytes_max: 1 << 20,
            ..CoreConfig::default()
        },
        MapStore::default(),
    );
    let (alice, bob, group, early) = group_and_early_id(&mut world);
    let lane = TOPOLOGY.lane_of(&group);
    let other = loop {
        let other = world.create(alice, ConversationKind::Group, false, &[]);
        if TOPOLOGY.lane_of(&other) != lane {
            break other;
        }
    };
    let (fresh, lost) = (world.id(), world.id());
    world.hold_loads = true;
    world.publish_all(alice, group, &[fresh, early]);
    world.hold = true;
    world.publish_as(bob, group, lost, text("lost"));
    world.fail_lane(lane);
    world.said.clear();
    let long = "long ".repeat(10_000);
    while world.receipts().is_empty() {
        let id = world.id();
        world.publish_as(alice, other, id, text(&long));
    }
    world.said.clear();
    world.read();
    let maybe_kept = |receipt: &Receipt| match *receipt {
        Receipt::Refused { code, .. } => code == ErrorCode::StorageUnavailable,
        Receipt::Kept { .. } => false,
    };
    let receipts = world.receipts();
    assert_eq!(receipts.len(), 2);
    assert!(receipts.iter().all(maybe_kept), "{receipts:?}");
    world.sync();
    let kept = |event: &v1::Event| event.client_id == fresh.to_proto();
    assert!(world.history(bob, group).iter().any(kept));
}

#[test]
fn a_page_that_cannot_be_read_comes_with_advice_when_to_try_again() {
    let mut world = World::new();
    let (alice, _, group, _) = group_and_early_id(&mut world);
    world.fail_loads = true;
    let origin = world.origin();
    world.send(ToOwner::History {
        origin,
        user: alice,
        conversation: group,
        from: Seq(1),
        backward: false,
        limit: 10,
        bytes_max: 1 << 10,
    });
    assert!(matches!(
        world.said.last(),
        Some(ToEdge::Refused {
            code: ErrorCode::StorageUnavailable,
            retry_after_ms: 2_000,
            ..
        })
    ));
}

#[test]
fn a_failed_read_does_not_acknowledge_the_drafts_before_it_early() {
    let mut world = World::new();
    let (alice, _, group, early) = group_and_early_id(&mut world);
    let fresh = world.id();
    (world.hold, world.fail_loads) = (true, true);
    world.publish_all(alice, group, &[fresh, early]);
    assert!(world.receipts().is_empty(), "{:?}", world.said);
    world.sync();
    assert!(matches!(
        world.receipts()[..],
        [
            Receipt::Kept { .. },
            Receipt::Refused {
                code: ErrorCode::StorageUnavailable,
                ..
            }
        ]
    ));
}

#[test]
fn too_much_waiting_work_does_not_acknowledge_early() {
    let mut world = World::with(
        CoreConfig {
            parked_max: 1,
            ..CoreConfig::default()
        },
        MapStore::default(),
    );
    let (alice, bob, group, early) = group_and_early_id(&mut world);
    let earlier_of_bob = world.id();
    seq_of(world.publish(bob, group, text("hi")));
    world.said.clear();
    let fresh = world.id();
    (world.hold, world.hold_loads) = (true, true);
    world.publish_as(bob, group, earlier_of_bob, text("takes the one place"));
    world.publish_all(alice, group, &[fresh, early]);
    assert!(world.receipts().is_empty(), "{:?}", world.said);
    world.fail(AppendFailure::NothingKept);
    assert!(
        world
            .receipts()
            .iter()
            .all(|receipt| matches!(receipt, Receipt::Refused { .. })),
        "{:?}",
        world.said
    );
    world.read();
    assert_eq!(world.receipts().len(), 3);
}

#[test]
fn one_lane_that_fails_does_not_make_another_append_twice() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let one = world.create(alice, ConversationKind::Group, false, &[bob]);
    let other = loop {
        let other = world.create(alice, ConversationKind::Group, false, &[bob]);
        if TOPOLOGY.lane_of(&other) != TOPOLOGY.lane_of(&one) {
            break other;
        }
    };
    world.hold = true;
    let id = world.id();
    world.publish_as(alice, one, id, text("once"));
    let lost = world.id();
    world.publish_as(alice, other, lost, text("lost"));
    world.fail_lane(TOPOLOGY.lane_of(&other));
    world.publish_as(alice, one, id, text("once"));
    world.sync();
    assert!(
        matches!(
            world.receipt(),
            Receipt::Kept {
                duplicate: true,
                ..
            }
        ),
        "{:?}",
        world.receipt()
    );
    assert_eq!(world.history(bob, one).len(), 2);
}

#[test]
fn a_read_from_before_a_failed_append_is_not_taken_for_one_after_it() {
    let mut world = World::new();
    let (alice, _, group, early) = group_and_early_id(&mut world);
    world.hold_loads = true;
    world.publish_as(alice, group, early, text("waits for a read"));
    let [stale] = &world.held_loads[..] else {
        panic!("one read is under way")
    };
    let stale = stale.0;
    world.hold = true;
    world.publish_as(
        user("bob"),
        group,
        ClientId::v7(world.now.unix_ms + 500, [0; 10]),
        text("lost"),
    );
    world.held_loads.retain(|(ticket, _)| *ticket == stale);
    // Bob's own row was in memory since the group was created.
    world.fail(AppendFailure::NothingKept);
    world.held_loads.retain(|(ticket, _)| *ticket != stale);
    let (ticket, query) = world.held_loads.remove(0);
    world.load(ticket, &query);
    world.settle();
    if world.owner.awaits(stale) {
        world
            .owner
            .handle_loaded(world.now, stale, None, &mut world.fx);
    }
    world.read();
    assert!(
        matches!(world.receipt(), Receipt::Kept { .. }),
        "{:?}",
        world.receipt()
    );
}

#[test]
fn a_reader_is_refused_only_once_his_removal_is_durable() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    world.said.clear();
    world.hold_loads = true;
    let conn = ConnId {
        index: 0,
        generation: 0,
    };
    let (from, verify, bytes_max) = (Seq(1), None, 1 << 16);
    world.send(ToOwner::CatchUp {
        edge: EDGE,
        conn,
        user: bob,
        conversation: group,
        from,
        verify,
        bytes_max,
    });
    world.hold = true;
    let id = world.id();
    world.publish_as(
        alice,
        group,
        id,
        membership(Action::Remove, Some(bob), Role::Unspecified),
    );
    world.read();
    assert!(world.said.is_empty(), "{:?}", world.said);
    world.fail(AppendFailure::NothingKept);
    assert!(!world.said.iter().any(|said| matches!(
        said,
        ToEdge::CaughtUp {
            result: Err(ErrorCode::NotAMember),
            ..
        }
    )));
    assert!(
        world
            .said
            .iter()
            .any(|said| matches!(said, ToEdge::CaughtUp { .. })),
        "it is answered all the same"
    );
    assert!(world.subscribe(bob, group).is_ok());
}

#[test]
fn a_subscriber_is_refused_only_once_his_removal_is_durable() {
    let config = CoreConfig {
        entries_in_flight_max: 1,
        ..CoreConfig::default()
    };
    let mut world = World::with(config, MapStore::default());
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    world.hold = true;
    let id = world.id();
    world.publish_as(alice, group, id, text("under way"));
    world.said.clear();
    let origin = world.origin();
    world.send(ToOwner::Subscribe {
        origin,
        slot: 0,
        user: bob,
        conversation: group,
        cursor: None,
    });
    let id = world.id();
    world.publish_as(
        alice,
        group,
        id,
        membership(Action::Remove, Some(bob), Role::Unspecified),
    );
    let first = world.held.remove(0);
    world.keep(first);
    world.settle();
    assert!(
        !world
            .said
            .iter()
            .any(|said| matches!(said, ToEdge::Subscribed { .. })),
        "{:?}",
        world.said
    );
    world.sync();
    assert!(world.said.iter().any(|said| matches!(
        said,
        ToEdge::Subscribed {
            result: Err(ErrorCode::NotAMember),
            ..
        }
    )));
}

#[test]
fn nobody_reads_by_a_membership_that_is_not_durable() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let channel = world.create(alice, ConversationKind::Channel, false, &[]);
    seq_of(world.publish(
        alice,
        channel,
        membership(Action::Invite, Some(bob), Role::Unspecified),
    ));
    world.said.clear();
    world.hold = true;
    let id = world.id();
    world.publish_as(
        bob,
        channel,
        id,
        membership(Action::Join, None, Role::Unspecified),
    );
    let origin = world.origin();
    let (from, limit, bytes_max) = (Seq(1), 10, 1 << 16);
    world.send(ToOwner::History {
        origin,
        user: bob,
        conversation: channel,
        from,
        backward: false,
        limit,
        bytes_max,
    });
    assert!(world.said.is_empty(), "{:?}", world.said);
    world.sync();
    assert!(matches!(
        world.said.last(),
        Some(ToEdge::Answered {
            kind: FrameKind::HistoryPage,
            ..
        })
    ));
}

#[test]
fn a_notice_that_waited_for_longer_than_ids_are_remembered_arrives() {
    let mut world = World::new();
    let bob = user("bob");
    let day_ms = 24 * 3_600 * 1_000;
    for (number, age_ms) in [(1, 0), (2, 8 * day_ms)] {
        let client_id = ClientId::v7(world.now.unix_ms - age_ms, [number; 10]);
        let mentioned = v1::Mentioned {
            seq: u64::from(number),
            ..v1::Mentioned::default()
        };
        let notice = v1::Notice {
            notice: Some(v1::notice::Notice::Mentioned(mentioned)),
        };
        let item = (rialto_protocol::ids::Position(u64::from(number)), 0);
        let notice = notice.encode_to_vec().into();
        world.send(ToOwner::Notify {
            from: EDGE,
            lane: LaneId(0),
            item,
            client_id,
            user: bob,
            notice,
            is_outdated: false,
        });
    }
    assert_eq!(world.notices(bob).len(), 2);
}

#[test]
fn damage_is_told_apart_from_what_cannot_be_read_now() {
    let mut world = World::new();
    let (alice, _, group, early) = group_and_early_id(&mut world);
    let nowhere = ConversationId::of_direct(alice, user("eve"));
    let conn = ConnId {
        index: 0,
        generation: 0,
    };
    world.fail_loads = true;
    for (damaged, code) in [
        (false, ErrorCode::StorageUnavailable),
        (true, ErrorCode::Damaged),
    ] {
        world.damaged = damaged;
        world.send(ToOwner::CatchUp {
            edge: EDGE,
            conn,
            user: alice,
            conversation: group,
            from: Seq(1),
            verify: None,
            bytes_max: 1 << 10,
        });
        assert_eq!(world.refusal(), Some(code), "a subscription that is behind");
        let origin = world.origin();
        world.send(ToOwner::History {
            origin,
            user: alice,
            conversation: group,
            from: Seq(1),
            backward: false,
            limit: 10,
            bytes_max: 1 << 10,
        });
        assert_eq!(world.refusal(), Some(code), "a page");
        world.publish_as(alice, group, early, text("its id is looked up"));
        let receipt = world.receipt();
        assert!(
            matches!(receipt, Receipt::Refused { code: told, .. } if told == code),
            "{receipt:?}"
        );
        assert_eq!(world.subscribe(alice, nowhere), Err(code));
    }
}

#[test]
fn damage_that_is_met_later_does_not_say_that_nothing_was_kept() {
    let mut world = World::new();
    let (alice, _, group, early) = group_and_early_id(&mut world);
    let fresh = world.id();
    (world.hold, world.hold_loads) = (true, true);
    world.publish_all(alice, group, &[fresh, early]);
    world.fail(AppendFailure::NothingKept);
    world.damaged = true;
    world.read();
    let receipts = world.receipts();
    assert_eq!(receipts.len(), 2);
    let code = ErrorCode::StorageUnavailable;
    let maybe_kept =
        |receipt: &Receipt| matches!(receipt, Receipt::Refused { code: told, .. } if *told == code);
    assert!(receipts.iter().all(maybe_kept), "{receipts:?}");
}

#[test]
fn a_conversation_whose_profile_is_damaged_is_not_opened_anew() {
    let mut world = World::new();
    let alice = user("alice");
    let group = world.create(alice, ConversationKind::Group, false, &[]);
    let mut world = world.restart();
    let damaged = Bytes::from_static(b"no profile");
    let profile = world.store.replace_profile(group, damaged);
    let (origin, client_id) = (world.origin(), world.id());
    let create = v1::Create {
        conversation: group.to_proto(),
        kind: ConversationKind::Group as i32,
        client_id: client_id.to_proto(),
        ..v1::Create::default()
    };
    world.send(ToOwner::Create {
        origin,
        author: author(user("eve")),
        conversation: group,
        create,
        service: false,
    });
    assert_eq!(world.refusal(), Some(ErrorCode::Damaged));
    assert_eq!(world.subscribe(alice, group), Err(ErrorCode::Damaged));
    world.store.replace_profile(group, profile);
    assert_eq!(world.history(alice, group).len(), 1);
}

#[test]
fn nobody_follows_by_a_membership_that_is_not_durable() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    world.said.clear();
    world.hold = true;
    let id = world.id();
    world.publish_as(alice, group, id, text("under way"));
    let origin = world.origin();
    world.send(ToOwner::Subscribe {
        origin,
        slot: 0,
        user: bob,
        conversation: group,
        cursor: None,
    });
    let role = Role::Unspecified;
    let changes = [
        (alice, membership(Action::Remove, Some(bob), role)),
        (alice, membership(Action::Invite, Some(bob), role)),
        (bob, membership(Action::Join, None, role)),
    ];
    for (author, change) in changes {
        let id = world.id();
        world.publish_as(author, group, id, change);
    }
    // The message and the removal become durable together, and what follows does not.
    let (lane, through) = (world.held[1].lane, world.held[1].position);
    let kept: Vec<Entry> = world.held.drain(..2).collect();
    for entry in kept {
        world.store.keep(entry);
    }
    let appended = Input::Appended { lane, through };
    world
        .owner
        .handle_append(world.now, &appended, &mut world.fx);
    world.settle();
    let answers = |world: &World| {
        let said = world.said.iter();
        let answers = said.filter_map(|said| match said {
            ToEdge::Subscribed { result, .. } => Some(result.is_ok()),
            _ => None,
        });
        answers.collect::<Vec<_>>()
    };
    assert!(answers(&world).is_empty());
    world.fail(AppendFailure::NothingKept);
    assert_eq!(answers(&world), [false]);
    assert_eq!(world.subscribe(bob, group), Err(ErrorCode::NotAMember));
}

#[test]
fn what_lanes_that_fail_together_have_in_memory_is_looked_for_once() {
    let mut world = World::new();
    let alice = user("alice");
    let one = world.create(alice, ConversationKind::Group, false, &[]);
    let other = loop {
        let other = world.create(alice, ConversationKind::Group, false, &[]);
        if TOPOLOGY.lane_of(&other) != TOPOLOGY.lane_of(&one) {
            break other;
        }
    };
    let groups = [one, other];
    world.said.clear();
    world.hold = true;
    for group in groups {
        let id = world.id();
        world.publish_as(alice, group, id, text("lost"));
    }
    for entry in std::mem::take(&mut world.held) {
        let input = Input::AppendFailed {
            lane: entry.lane,
            position: entry.position,
            failure: AppendFailure::NothingKept,
        };
        world.owner.handle_append(world.now, &input, &mut world.fx);
    }
    let in_memory =
        |world: &World| groups.map(|group| world.owner.conversations.peek(&group).is_some());
    assert_eq!(in_memory(&world), [true, true], "others may fail too");
    assert!(!world.owner.is_idle());
    world.owner.clear_up(world.now, &mut world.fx);
    assert_eq!(in_memory(&world), [false, false]);
    world.hold = false;
    world.settle();
    let receipts = world.receipts();
    let code = ErrorCode::StorageUnavailable;
    let is_refused =
        |receipt: &Receipt| matches!(receipt, Receipt::Refused { code: told, .. } if *told == code);
    assert!(
        receipts.len() == 2 && receipts.iter().all(is_refused),
        "{receipts:?}"
    );
    for group in groups {
        assert_eq!(seq_of(world.publish(alice, group, text("again"))), 2);
    }
    assert!(world.owner.is_idle());
}
