//! Notices on their way to inboxes: how many there may be, when they are sent again, and in which order they count.

use super::*;
use rialto_protocol::{
    ids::Position,
    v1::{ConversationKind, MemberState, MembershipAction as Action, Role},
};

/// Of a notice: its lane and item.
fn item_of(notice: &ToOwner) -> (LaneId, (Position, u16)) {
    match notice {
        ToOwner::Notify { lane, item, .. } => (*lane, *item),
        other => panic!("a notice was expected, {other:?} came"),
    }
}

fn inbox_of(notice: &ToOwner) -> UserId {
    match notice {
        ToOwner::Notify { user, .. } => *user,
        other => panic!("a notice was expected, {other:?} came"),
    }
}

impl World {
    /// Takes the notices that are held back.
    fn take_notices(&mut self) -> Vec<ToOwner> {
        std::mem::take(&mut self.held_notices)
    }

    /// Lets an inbox refuse a notice.
    fn refuse_notice(&mut self, notice: &ToOwner) {
        let (lane, item) = item_of(notice);
        self.send(ToOwner::PassedOn {
            lane,
            item,
            kept: false,
        });
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now.mono_us += ms * 1_000;
        self.now.unix_ms += ms;
        self.owner.handle_tick(self.now, &mut self.fx);
        self.settle();
    }

    /// As [`World::pass_ms`], with a tick whenever one is due.
    fn pass_ms_ticking(&mut self, ms: u64) {
        let until_us = self.now.mono_us + ms * 1_000;
        while let Some(due_us) = self
            .owner
            .deadline_us()
            .filter(|due_us| *due_us <= until_us)
        {
            self.now.mono_us = due_us.max(self.now.mono_us);
            self.owner.handle_tick(self.now, &mut self.fx);
            self.settle();
        }
        self.now.mono_us = until_us;
    }

    /// How the user's list shows the conversation.
    fn listed(&mut self, user: UserId, conversation: ConversationId) -> MemberState {
        let origin = self.origin();
        self.send(ToOwner::Conversations {
            origin,
            user,
            after: None,
            limit: 100,
        });
        let page = self.answer::<v1::ConversationsPage>(FrameKind::ConversationsPage);
        let mut listings = page.listings.iter();
        listings
            .find(|listing| listing.conversation == conversation.to_proto())
            .expect("it is in the list")
            .state()
    }

    fn shed_notices(&self, reason: &str) -> u64 {
        let mut shed = self.fx.counters.shed.iter();
        let found = shed.find(|(shed, _)| (shed.queue, shed.reason) == ("notices", reason));
        found.map_or(0, |(_, count)| *count)
    }

    fn mark_unread(&mut self, user: UserId, conversation: ConversationId) -> Option<ErrorCode> {
        let origin = self.origin();
        self.send(ToOwner::Mark {
            origin,
            author: author(user),
            conversation,
            read: Seq(1),
            delivered: Seq(1),
            unread: true,
        });
        self.refusal()
    }
}

/// A group that Bob was put into and put out of again, and both notices for him, which no inbox has.
fn in_and_out(world: &mut World) -> (UserId, ConversationId, [ToOwner; 2]) {
    let (alice, bob) = (user("alice"), user("bob"));
    world.hold_notices = true;
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    seq_of(world.publish(
        alice,
        group,
        membership(Action::Remove, Some(bob), Role::Unspecified),
    ));
    let mut notices = world.take_notices();
    notices.retain(|notice| inbox_of(notice) == bob);
    let notices = notices.try_into().expect("two notices");
    (bob, group, notices)
}

/// How whoever follows the user's inbox is told that conversations stand, one after the other.
fn told(world: &mut World, user: UserId) -> Vec<MemberState> {
    let notices = world.notices(user);
    let states = notices.iter().filter_map(|notice| match notice {
        v1::notice::Notice::Listing(listing) => Some(listing.state()),
        v1::notice::Notice::Mentioned(_) => None,
    });
    states.collect()
}

#[test]
fn a_notice_that_is_sent_again_does_not_replace_what_a_later_one_wrote() {
    let mut world = World::new();
    let (bob, group, [put_in, put_out]) = in_and_out(&mut world);
    world.refuse_notice(&put_in);
    world.send(put_out);
    world.pass_ms(1_000);
    let again = world.take_notices();
    assert_eq!(again.len(), 1);
    assert_eq!(item_of(&again[0]), item_of(&put_in));
    world.send(again[0].clone());
    assert_eq!(world.listed(bob, group), MemberState::Removed);
    assert_eq!(told(&mut world, bob), [MemberState::Removed]);
    world.pass_ms(60_000);
    assert!(world.take_notices().is_empty(), "it does not come again");
    let mut world = world.restart();
    assert_eq!(told(&mut world, bob), [MemberState::Removed]);
}

#[test]
fn a_late_mention_is_told_whatever_followed_it() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    world.hold_notices = true;
    let mention = v1::Message {
        mentions: vec![bob.to_proto()],
        ..v1::Message::default()
    };
    seq_of(world.publish(alice, group, Content::Message(mention)));
    let mentioned = world.take_notices();
    world.refuse_notice(&mentioned[0]);
    seq_of(world.publish(
        alice,
        group,
        membership(Action::Remove, Some(bob), Role::Unspecified),
    ));
    for notice in world.take_notices() {
        world.send(notice);
    }
    world.pass_ms(1_000);
    for notice in world.take_notices() {
        world.send(notice);
    }
    let last = world.notices(bob).pop();
    assert!(matches!(last, Some(v1::notice::Notice::Mentioned(_))));
}

#[test]
fn nor_does_it_after_a_crash_between_both() {
    let mut world = World::new();
    let (bob, group, [_, put_out]) = in_and_out(&mut world);
    world.send(put_out);
    let mut world = world.restart();
    assert_eq!(world.listed(bob, group), MemberState::Removed);
    assert_eq!(told(&mut world, bob), [MemberState::Removed]);
}

#[test]
fn after_a_crash_the_list_shows_the_newest_of_what_was_left() {
    let mut world = World::new();
    let (bob, group, [put_in, _]) = in_and_out(&mut world);
    world.send(put_in);
    assert_eq!(world.listed(bob, group), MemberState::Joined);
    let mut world = world.restart();
    assert_eq!(world.listed(bob, group), MemberState::Removed);
}

#[test]
fn what_makes_notices_is_refused_while_too_many_are_on_their_way() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let overloaded = Receipt::Refused {
        code: ErrorCode::Overloaded,
        retry_after_ms: 1_000,
    };
    world.hold_notices = true;
    world.owner.desk.notices_max = 2;
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    assert_eq!(world.refusal(), None);
    world.create(alice, ConversationKind::Group, false, &[bob]);
    assert!(matches!(
        world.said.last(),
        Some(ToEdge::Refused {
            code: ErrorCode::Overloaded,
            retry_after_ms: 1_000,
            ..
        })
    ));
    let mention = Content::Message(v1::Message {
        mentions: vec![bob.to_proto()],
        ..v1::Message::default()
    });
    let put_out = membership(Action::Remove, Some(bob), Role::Unspecified);
    for content in [mention.clone(), put_out] {
        assert_eq!(world.publish(alice, group, content), overloaded);
    }
    let origin = world.origin();
    world.send(ToOwner::Prefer {
        origin,
        author: author(bob),
        conversation: group,
        hidden: Some(true),
        muted_until_ms: None,
    });
    assert_eq!(world.refusal(), Some(ErrorCode::Overloaded));
    assert_eq!(world.mark_unread(bob, group), Some(ErrorCode::Overloaded));
    assert_eq!(
        world.subscribe(alice, ConversationId::of_self(alice)),
        Err(ErrorCode::Overloaded),
        "notes are listed once they are opened"
    );
    assert_eq!(world.shed_notices("full"), 6);
    seq_of(world.publish(alice, group, text("nobody is told of this")));
    for notice in world.take_notices() {
        world.send(notice);
    }
    seq_of(world.publish(alice, group, mention));
}

fn people(count: usize) -> Vec<UserId> {
    (0..count)
        .map(|number| user(&format!("user {number}")))
        .collect()
}

#[test]
fn one_user_takes_a_sixteenth_of_the_room_for_notices_and_leaves_the_rest_to_others() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    world.hold_notices = true;
    world.owner.desk.notices_max = 160;
    let group = world.create(
        alice,
        ConversationKind::Group,
        false,
        &[&people(8)[..], &[bob]].concat(),
    );
    assert_eq!(world.refusal(), None);
    world.create(alice, ConversationKind::Group, false, &[]);
    assert_eq!(world.refusal(), Some(ErrorCode::Overloaded));
    assert_eq!(
        world.mark_unread(alice, group),
        Some(ErrorCode::Overloaded),
        "whatever it is that makes notices"
    );
    assert_eq!(world.shed_notices("user"), 2);
    assert_eq!(world.mark_unread(bob, group), None);
    world.create(bob, ConversationKind::Group, false, &people(9));
    assert_eq!(world.refusal(), Some(ErrorCode::Overloaded));
    world.create(user("carol"), ConversationKind::Group, false, &people(99));
    assert_eq!(world.refusal(), None, "who has none on the way may");
    for notice in world.take_notices() {
        world.send(notice);
    }
    world.take_notices();
    assert_eq!(world.mark_unread(alice, group), None);
    assert_eq!(world.shed_notices("full"), 0);
}

#[test]
fn a_create_is_refused_for_which_there_is_no_room_as_a_whole() {
    let mut world = World::new();
    world.hold_notices = true;
    world.owner.desk.notices_max = 160;
    world.create(user("alice"), ConversationKind::Group, false, &people(160));
    assert_eq!(world.refusal(), Some(ErrorCode::Overloaded));
    assert_eq!(world.owner.desk.lanes.notices().count(), 0);
    assert_eq!(world.shed_notices("full"), 1);
}

#[test]
fn what_services_create_is_on_nobodys_account() {
    let mut world = World::new();
    let service = user("service");
    world.hold_notices = true;
    world.service = true;
    world.owner.desk.notices_max = 160;
    for _ in 0..16 {
        world.create(service, ConversationKind::Group, false, &people(9));
        assert_eq!(world.refusal(), None);
    }
    world.create(service, ConversationKind::Group, false, &[]);
    assert_eq!(world.refusal(), Some(ErrorCode::Overloaded));
    assert_eq!(world.shed_notices("full"), 1);
}

#[test]
fn notices_of_entries_that_were_not_kept_take_no_room() {
    // Of each lane an entry is on its way to the disk, others wait, and one is being filled.
    let config = CoreConfig {
        entries_in_flight_max: 1,
        entry_bytes_max: 1,
        ..CoreConfig::default()
    };
    let mut world = World::with(config, MapStore::default());
    let (alice, bob) = (user("alice"), user("bob"));
    world.hold = true;
    for _ in 0..20 {
        world.create(alice, ConversationKind::Group, false, &[bob]);
    }
    assert_eq!(world.owner.desk.lanes.notices().count(), 40);
    world.fail(AppendFailure::NothingKept);
    assert_eq!(world.owner.desk.lanes.notices().count(), 0);
    world.create(alice, ConversationKind::Group, false, &[bob]);
    assert_eq!(
        world.owner.desk.lanes.notices().count(),
        0,
        "all have arrived"
    );
}

#[test]
fn refused_notices_are_sent_again_some_at_a_time_in_the_order_of_their_refusals() {
    let mut world = World::new();
    let others = people(499);
    world.hold_notices = true;
    for _ in 0..5 {
        world.create(user("alice"), ConversationKind::Group, false, &others);
        world.pass_ms(5);
    }
    let notices = world.take_notices();
    assert_eq!(notices.len(), 2_500);
    for notice in &notices {
        world.refuse_notice(notice);
    }
    world.pass_ms(999);
    assert!(world.take_notices().is_empty());
    let mut again = Vec::new();
    for (wait_ms, sent) in [(1, 1_000), (99, 0), (1, 1_000), (100, 500), (1_000, 0)] {
        world.pass_ms(wait_ms);
        let now = world.take_notices();
        assert_eq!(now.len(), sent);
        again.extend(now.iter().map(item_of));
    }
    assert!(again.into_iter().eq(notices.iter().map(item_of)));

    // After a start as well.
    let mut fx = Effects::default();
    let claims = world.store.claims(TOPOLOGY.lanes);
    let owner = Owner::new(EDGE, TOPOLOGY, Arc::default(), claims, &mut fx);
    assert_eq!(fx.messages.len(), 1_000);
    assert!(owner.deadline_us().is_some());
}

/// The world after eight Creates of 500 that became durable at once, whose notices the test holds back.
fn after_many_creates() -> World {
    let mut world = World::new();
    (world.hold, world.hold_notices) = (true, true);
    let others = people(499);
    for number in 0..8 {
        let creator = user(&format!("creator {number}"));
        world.create(creator, ConversationKind::Group, false, &others);
    }
    assert!(world.take_notices().is_empty());
    world.sync();
    world
}

#[test]
fn notices_that_become_durable_together_are_sent_some_at_a_time_in_order() {
    let mut world = after_many_creates();
    let mut sent = Vec::new();
    for (wait_ms, count) in [
        (0, 512),
        (4, 0),
        (1, 512),
        (4, 512),
        (40, 2_464),
        (1_000, 0),
    ] {
        world.pass_ms_ticking(wait_ms);
        let now = world.take_notices();
        assert_eq!(now.len(), count, "after {wait_ms} ms");
        assert_eq!(world.owner.desk.lanes.notices().count(), 4_000);
        sent.extend(now);
    }
    for lane in 0..TOPOLOGY.lanes {
        let of_lane = sent.iter().map(item_of).filter(|item| item.0.0 == lane);
        assert!(
            of_lane.is_sorted(),
            "those of a lane are sent as they became durable"
        );
    }
    for notice in sent {
        world.send(notice);
    }
    assert_eq!(world.owner.desk.lanes.notices().count(), 0);
}

#[test]
fn a_create_is_told_at_once_and_the_next_too_unless_very_many_are() {
    let mut world = World::new();
    world.hold_notices = true;
    for _ in 0..50 {
        world.create(user("alice"), ConversationKind::Group, false, &people(9));
        assert_eq!(world.take_notices().len(), 10);
    }
    world.create(user("bob"), ConversationKind::Group, false, &people(19));
    assert_eq!(world.take_notices().len(), 12);
    assert!(world.owner.deadline_us().is_some());
    world.pass_ms(1);
    assert_eq!(world.take_notices().len(), 8);
}

#[test]
fn notices_that_were_not_sent_before_a_crash_are_after_it() {
    let mut world = after_many_creates();
    let sent = world.take_notices();
    assert_eq!(sent.len(), 512);
    for notice in sent {
        world.send(notice);
    }
    // The journal is told how far they are passed on, and of no more.
    world.pass_ms(11_000);
    world.take_notices();
    let mut world = world.restart();
    world.pass_ms_ticking(10_000);
    assert_eq!(world.owner.desk.lanes.notices().count(), 0);
    for member in people(499).into_iter().step_by(50) {
        assert_eq!(world.notices(member).len(), 8);
    }
}
