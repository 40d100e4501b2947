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
    assert_eq!(world.notices(bob).len(), 2, "neither is lost");
}

#[test]
fn nor_does_it_after_a_crash_between_both() {
    let mut world = World::new();
    let (bob, group, [_, put_out]) = in_and_out(&mut world);
    world.send(put_out);
    let mut world = world.restart();
    assert_eq!(world.listed(bob, group), MemberState::Removed);
    assert_eq!(world.notices(bob).len(), 2);
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
