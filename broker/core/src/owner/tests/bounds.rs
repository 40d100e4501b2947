//! What is kept in memory has an end, however hot a conversation is.

use super::*;
use crate::owner::{conversation::Slot, remains::FREED_AT_ONCE};
use rialto_protocol::{
    ids::Position,
    v1::{ConversationKind, MembershipAction as Action, Role},
};

fn small(members_max: usize) -> World {
    World::with(
        CoreConfig {
            members_max,
            ..CoreConfig::default()
        },
        MapStore::default(),
    )
}

fn join(world: &mut World, user: UserId, conversation: ConversationId) {
    seq_of(world.publish(
        user,
        conversation,
        membership(Action::Join, None, Role::Unspecified),
    ));
}

#[test]
fn members_of_a_conversation_that_never_rests_leave_memory() {
    let mut world = small(50);
    let alice = user("alice");
    let channel = world.create(alice, ConversationKind::Channel, true, &[]);
    let early = world.id();
    seq_of(world.publish(alice, channel, text("later id first")));
    world.hold_loads = true;
    world.publish_as(alice, channel, early, text("waits for a read all along"));
    let waiting = std::mem::take(&mut world.held_loads);
    world.hold_loads = false;
    for number in 0..400 {
        join(&mut world, user(&format!("user {number}")), channel);
        assert!(
            world.owner.desk.members <= 110,
            "{} members in memory",
            world.owner.desk.members
        );
    }
    world.held_loads = waiting;
    world.read();
    assert_eq!(seq_of(world.receipt()), 403);
    assert_eq!(
        world.publish(
            user("user 7"),
            channel,
            membership(Action::Join, None, Role::Unspecified)
        ),
        refused(ErrorCode::MembershipUnchanged)
    );
}

#[test]
fn what_waits_for_more_members_than_may_be_kept_still_ends() {
    let mut world = small(4);
    let alice = user("alice");
    let others: Vec<UserId> = (0..40)
        .map(|number| user(&format!("user {number}")))
        .collect();
    let group = world.create(alice, ConversationKind::Group, false, &others);
    let mentions = others.iter().map(UserId::to_proto).collect();
    let message = v1::Message {
        body: Bytes::from_static(b"all of you"),
        mentions,
        ..v1::Message::default()
    };
    seq_of(world.publish(alice, group, Content::Message(message)));
    assert_eq!(
        world.subscribe(others[39], group).unwrap().unread_mentions,
        1
    );
}

#[test]
fn one_hot_conversation_does_not_drive_the_others_out() {
    let mut world = small(50);
    let alice = user("alice");
    let quiet: Vec<_> = (0..5)
        .map(|_| world.create(alice, ConversationKind::Group, false, &[]))
        .collect();
    let channel = world.create(alice, ConversationKind::Channel, true, &[]);
    for number in 0..60 {
        let stranger = user(&format!("user {number}"));
        assert!(world.subscribe(stranger, channel).is_ok());
    }
    for conversation in quiet {
        assert!(world.owner.conversations.peek(&conversation).is_some());
    }
}

#[test]
fn a_subscription_is_answered_though_its_reader_left_memory() {
    let mut world = small(4);
    let (alice, bob) = (user("alice"), user("bob"));
    let channel = world.create(alice, ConversationKind::Channel, true, &[]);
    assert!(world.subscribe(bob, channel).is_ok());
    world.hold = true;
    let id = world.id();
    world.publish_as(alice, channel, id, text("under way"));
    let origin = world.origin();
    world.said.clear();
    world.send(ToOwner::Subscribe {
        origin,
        slot: 0,
        user: bob,
        conversation: channel,
        cursor: None,
    });
    for number in 0..20 {
        let origin = world.origin();
        let stranger = user(&format!("user {number}"));
        world.send(ToOwner::Describe {
            origin,
            user: stranger,
            conversation: channel,
        });
    }
    world.sync();
    let standing = world
        .said
        .iter()
        .filter(|said| matches!(said, ToEdge::Subscribed { result: Ok(_), .. }))
        .count();
    assert_eq!(standing, 1, "{:?}", world.said);
}

#[test]
fn a_conversation_is_not_created_with_more_members_than_it_may_have() {
    let config = CoreConfig {
        members_per_conversation_max: 2,
        ..CoreConfig::default()
    };
    let mut world = World::with(config, MapStore::default());
    let group = world.create(
        user("alice"),
        ConversationKind::Group,
        false,
        &[user("bob"), user("carol")],
    );
    assert_eq!(world.refusal(), Some(ErrorCode::MemberLimit));
    assert_eq!(
        world.subscribe(user("alice"), group),
        Err(ErrorCode::ConversationNotFound)
    );
}

/// A message a minute.
fn slow_mode() -> Content {
    Content::Settings(v1::Settings {
        slow_mode_s: Some(60),
        ..v1::Settings::default()
    })
}

#[test]
fn slow_mode_outlasts_a_restart() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    seq_of(world.publish(alice, group, slow_mode()));
    seq_of(world.publish(bob, group, text("one")));
    let mut world = world.restart();
    let receipt = world.publish(bob, group, text("two"));
    assert!(
        matches!(
            receipt,
            Receipt::Refused {
                code: ErrorCode::SlowMode,
                ..
            }
        ),
        "{receipt:?}"
    );
}

#[test]
fn slow_mode_goes_on_as_before_once_a_clock_that_leapt_is_set_right() {
    const DAY_MS: u64 = 24 * 3_600 * 1_000;
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    seq_of(world.publish(alice, group, slow_mode()));
    world.now.unix_ms += DAY_MS;
    seq_of(world.publish(bob, group, text("one")));
    world.now.unix_ms -= DAY_MS;
    seq_of(world.publish(bob, group, text("two")));
    for wait_s in [60, 1] {
        assert_eq!(
            world.publish(bob, group, text("too soon")),
            Receipt::Refused {
                code: ErrorCode::SlowMode,
                retry_after_ms: wait_s * 1_000
            }
        );
        world.now.unix_ms += 59_000;
    }
    seq_of(world.publish(bob, group, text("three")));
}

#[test]
fn editing_again_mentions_nobody_again() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    seq_of(world.publish(alice, group, text("hi")));
    for _ in 0..5 {
        let edit = v1::Edit {
            target: 2,
            body: Bytes::from_static(b"x"),
            mentions: vec![bob.to_proto()],
            envelope: None,
        };
        seq_of(world.publish(alice, group, Content::Edit(edit)));
    }
    assert_eq!(world.subscribe(bob, group).unwrap().unread_mentions, 1);
    let mentioned = world
        .notices(bob)
        .iter()
        .filter(|notice| matches!(notice, v1::notice::Notice::Mentioned(_)))
        .count();
    assert_eq!(mentioned, 1);
}

/// Has a user say something, which is so many bytes to be kept.
fn ask(world: &mut World, name: &str, conversation: ConversationId, bytes: u32) {
    let drafts = vec![Draft {
        client_id: world.id(),
        content: text("hi"),
    }];
    let origin = Origin {
        cost: bytes,
        ..world.origin()
    };
    world.send(ToOwner::Append {
        origin,
        author: author(user(name)),
        conversation,
        first: 0,
        drafts,
    });
}

#[test]
fn requests_that_wait_are_bounded_by_their_bytes() {
    let mut world = World::new();
    world.owner.desk.parked.room.bytes = 40_000;
    world.hold_loads = true;
    let nowhere = ConversationId::of_direct(user("alice"), user("bob"));
    for _ in 0..2 {
        ask(&mut world, "alice", nowhere, 6_000);
    }
    assert!(matches!(
        world.receipts()[..],
        [Receipt::Refused {
            code: ErrorCode::Overloaded,
            ..
        }]
    ));
    world.read();
    assert_eq!(world.receipts().len(), 2);
    assert!(world.owner.is_idle());
    let id = world.id();
    world.publish_as(user("alice"), nowhere, id, text("there is room again"));
    assert_eq!(world.receipt(), refused(ErrorCode::ConversationNotFound));
}

/// Has a user ask for conversations that have to be read, each with so many bytes to be kept; how many of them wait.
fn ask_of(world: &mut World, name: &str, count: u16, bytes: u32) -> usize {
    let before = world.owner.desk.parked.count();
    for number in 0..count {
        let nowhere = ConversationId::of_direct(user(name), user(&format!("{name} {number}")));
        ask(world, name, nowhere, bytes);
    }
    world.owner.desk.parked.count() - before
}

#[test]
fn a_few_who_ask_for_much_do_not_keep_out_who_asks_for_little() {
    let mut world = World::new();
    // Half a MiB is for notices, as much for whoever comes; past that each user has 4 KiB.
    world.owner.desk.parked.room.bytes = 2 << 20;
    world.hold_loads = true;
    let much = ask_of(&mut world, "alice", 100, 10_000);
    assert!((40..50).contains(&much), "{much} of alice wait");
    for who in ["bob", "carol", "dave"] {
        assert_eq!(ask_of(&mut world, who, 10, 10_000), 0);
        let little = ask_of(&mut world, who, 10, 100);
        assert!((1..=4).contains(&little), "{little} of {who} wait");
    }
    world.read();
    assert!(world.owner.is_idle());
    assert_eq!(world.owner.desk.parked.users(), 0);
}

#[test]
fn notices_that_wait_leave_room_for_requests() {
    let mut world = World::new();
    world.owner.desk.parked.room.bytes = 40_000;
    world.hold_loads = true;
    for number in 0..20 {
        let client_id = world.id();
        world.send(ToOwner::Notify {
            from: EDGE,
            lane: LaneId(0),
            item: (Position(1), number),
            client_id,
            user: user(&format!("member {number}")),
            notice: Bytes::new(),
            is_outdated: false,
        });
    }
    let parked = world.owner.desk.parked.count();
    assert!((1..10).contains(&parked), "{parked} notices wait");
    let nowhere = ConversationId::of_direct(user("alice"), user("bob"));
    let id = world.id();
    world.publish_as(user("alice"), nowhere, id, text("is there room?"));
    assert_eq!(world.receipts(), [], "it waits for its read");
    world.read();
    assert_eq!(world.receipt(), refused(ErrorCode::ConversationNotFound));
}

#[test]
fn a_batch_larger_than_an_entry_leaves_as_a_whole() {
    let config = CoreConfig {
        entry_bytes_max: 300,
        ..CoreConfig::default()
    };
    let mut world = World::with(config, MapStore::default());
    let alice = user("alice");
    let group = world.create(alice, ConversationKind::Group, false, &[]);
    let drafts = (0..5)
        .map(|_| Draft {
            client_id: world.id(),
            content: text(&"long".repeat(40)),
        })
        .collect();
    let origin = world.origin();
    let ask = ToOwner::Append {
        origin,
        author: author(alice),
        conversation: group,
        first: 0,
        drafts,
    };
    world.owner.take(world.now, ask, &mut world.fx);
    world.owner.close_entries(&mut world.fx);
    let entries = world
        .fx
        .outputs
        .iter()
        .filter(|output| matches!(output, Output::Append(_)))
        .count();
    assert_eq!(entries, 3, "two and two and one");
    world.settle();
    assert_eq!(world.receipts().len(), 5);
}

/// How many signals that say so much wait for a read before more are refused.
fn waiting_signals(custom_bytes: usize) -> usize {
    let mut world = World::with(
        CoreConfig {
            shard_bytes_max: 1 << 20,
            ..CoreConfig::default()
        },
        MapStore::default(),
    );
    world.hold_loads = true;
    for number in 0..1_000_u16 {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let origin = world.origin();
        world.send(ToOwner::Signal {
            origin,
            user: user("alice"),
            conversation: ConversationId::from_bytes(id),
            signal: v1::signalled::Signal::Custom(vec![0; custom_bytes].into()),
        });
    }
    world.owner.desk.parked.count()
}

#[test]
fn what_signals_say_counts_while_they_wait() {
    let (short, long) = (waiting_signals(1), waiting_signals(1_000));
    assert!(long > 0 && long * 3 < short * 2, "{long} of {short}");
}

#[test]
fn while_the_disk_stands_still_no_more_is_taken_than_connections_may_hold() {
    const BYTES_MAX: usize = 1 << 20;
    let mut world = World::with(
        CoreConfig {
            shard_bytes_max: BYTES_MAX,
            ..CoreConfig::default()
        },
        MapStore::default(),
    );
    let alice = user("alice");
    let group = world.create(alice, ConversationKind::Group, false, &[]);
    let long = "long ".repeat(10_000);
    world.hold = true;
    world.said.clear();
    let mut sent = 0;
    while world.receipts().is_empty() {
        let id = world.id();
        world.publish_as(alice, group, id, text(&long));
        sent += 1;
        assert!(sent * long.len() < 2 * BYTES_MAX, "all of it is taken");
    }
    let code = ErrorCode::Overloaded;
    assert!(matches!(world.receipt(), Receipt::Refused { code: told, .. } if told == code));
    assert!(sent * long.len() > BYTES_MAX / 2, "little is taken");
    world.sync();
    seq_of(world.publish(alice, group, text("again")));
}

/// Has a stranger ask what a public conversation is: what is known of him is in memory then.
fn ask_about(world: &mut World, conversation: ConversationId, number: usize) {
    let origin = world.origin();
    world.send(ToOwner::Describe {
        origin,
        user: user(&format!("user {number}")),
        conversation,
    });
}

#[test]
fn very_many_members_of_a_hot_conversation_leave_memory_some_at_a_time() {
    const MEMBERS_MAX: usize = 3 * FREED_AT_ONCE;
    let mut world = small(MEMBERS_MAX);
    let channel = world.create(user("alice"), ConversationKind::Channel, true, &[]);
    while world.owner.desk.members < MEMBERS_MAX {
        let number = world.owner.desk.members;
        ask_about(&mut world, channel, number);
    }
    world.hold_loads = true;
    ask_about(&mut world, channel, MEMBERS_MAX);
    let (ticket, query) = world.held_loads.remove(0);
    let answer = Some(world.store.read(&query));
    world
        .owner
        .handle_loaded(world.now, ticket, answer, &mut world.fx);
    let mut left = world.owner.desk.members;
    assert_eq!(left, MEMBERS_MAX + 1 - FREED_AT_ONCE);
    for _ in 0..2 {
        world.owner.clear_up(world.now, &mut world.fx);
        let members = world.owner.desk.members;
        assert!((1..=FREED_AT_ONCE).contains(&(left - members)));
        left = members;
    }
    assert!(left < 10, "{left} are left");
}

#[test]
fn very_many_members_of_a_conversation_that_leaves_memory_are_freed_some_at_a_time() {
    let config = CoreConfig {
        conversations_max: 1,
        ..CoreConfig::default()
    };
    let mut world = World::with(config, MapStore::default());
    let alice = user("alice");
    let channel = world.create(alice, ConversationKind::Channel, true, &[]);
    let group = world.create(alice, ConversationKind::Group, false, &[]);
    for number in 0..2 * FREED_AT_ONCE + 10 {
        ask_about(&mut world, channel, number);
    }
    let describe = ToOwner::Describe {
        origin: world.origin(),
        user: alice,
        conversation: group,
    };
    world.owner.take(world.now, describe, &mut world.fx);
    assert!(world.owner.conversations.peek(&channel).is_none());
    assert!(world.owner.desk.members < 10, "they do not count any more");
    let mut left = world.owner.desk.remains.len();
    assert!(left > 2 * FREED_AT_ONCE);
    while left > 0 {
        world.owner.clear_up(world.now, &mut world.fx);
        let still_left = world.owner.desk.remains.len();
        assert_eq!(left - still_left, left.min(FREED_AT_ONCE));
        left = still_left;
    }
    world.settle();
    assert!(world.subscribe(user("user 7"), channel).is_ok());
}

/// A message that mentions these.
fn mention(users: impl Iterator<Item = UserId>) -> Content {
    Content::Message(v1::Message {
        body: Bytes::from_static(b"look"),
        mentions: users.map(|user| user.to_proto()).collect(),
        ..v1::Message::default()
    })
}

#[test]
fn strangers_who_are_mentioned_together_cost_one_read() {
    let mut world = World::new();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(user);
    let group = world.create(alice, ConversationKind::Group, false, &[bob, carol]);
    let mut world = world.restart();
    seq_of(world.publish(alice, group, text("she is in memory")));
    world.hold_notices = true;
    let before = world.fx.counters.loads;
    let strangers = (0..48).map(|number| user(&format!("stranger {number}")));
    let all = strangers.chain([bob, carol]);
    seq_of(world.publish(alice, group, mention(all)));
    assert_eq!(world.fx.counters.loads - before, 1 + 2);
    for member in [bob, carol] {
        let standing = world.subscribe(member, group).unwrap();
        assert_eq!(standing.unread_mentions, 1);
    }
}

#[test]
fn who_enters_while_it_is_looked_up_whether_he_is_a_stranger_is_mentioned() {
    let mut world = World::new();
    let [alice, eve, zoe] = ["alice", "eve", "zoe"].map(user);
    let channel = world.create(alice, ConversationKind::Channel, true, &[]);
    world.hold_loads = true;
    let id = world.id();
    world.publish_as(alice, channel, id, mention([eve, zoe].into_iter()));
    let (ticket, query) = world.held_loads.remove(0);
    let stale = world.store.read(&query);
    world.hold_loads = false;
    join(&mut world, eve, channel);
    world
        .owner
        .handle_loaded(world.now, ticket, Some(stale), &mut world.fx);
    world.settle();
    let standing = world.subscribe(eve, channel).unwrap();
    assert_eq!(standing.unread_mentions, 1);
    assert!(world.owner.is_idle());
}

#[test]
fn what_is_deleted_is_not_remembered_for_those_who_wait_for_something_else() {
    let mut world = World::new();
    let alice = user("alice");
    let channel = world.create(alice, ConversationKind::Channel, true, &[]);
    let seq = seq_of(world.publish(alice, channel, text("soon gone")));
    world.hold_loads = true;
    for number in 0..5 {
        ask_about(&mut world, channel, number);
    }
    let delete = Content::Delete(v1::Delete {
        target: seq,
        ..v1::Delete::default()
    });
    seq_of(world.publish(alice, channel, delete));
    let Some(Slot::Present(conversation)) = world.owner.conversations.peek(&channel) else {
        panic!("it is in memory")
    };
    assert_eq!(conversation.deletions_remembered(), 0);
    world.read();
    assert!(world.owner.is_idle());
}
