//! Who is shown to whom, and what of them.

use super::*;
use rialto_protocol::v1::{
    ConversationKind, Member, MemberState, MembersPage, MembershipAction as Action, Role,
};

fn page(
    world: &mut World,
    asker: UserId,
    conversation: ConversationId,
    after: Option<UserId>,
    limit: u32,
) -> MembersPage {
    let origin = world.origin();
    world.send(ToOwner::Members {
        origin,
        user: asker,
        conversation,
        after,
        limit,
    });
    world.answer(FrameKind::MembersPage)
}

/// All that the asker may see, by pages of two.
fn members(world: &mut World, asker: UserId, conversation: ConversationId) -> Vec<Member> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = page(world, asker, conversation, after, 2);
        all.extend(page.members);
        if page.end {
            return all;
        }
        after = Some(UserId::from_slice(&page.last_user).unwrap());
    }
}

fn of(members: &[Member], user: UserId) -> Option<Member> {
    let mut found = members
        .iter()
        .filter(|member| member.user == user.to_proto());
    let member = found.next().cloned();
    assert_eq!(found.next(), None, "each once");
    member
}

fn read_seq(members: &[Member], user: UserId) -> Option<u64> {
    of(members, user)
        .unwrap()
        .marker
        .map(|marker| marker.read_seq)
}

fn act(world: &mut World, by: UserId, whom: UserId, conversation: ConversationId, action: Action) {
    let whom = (by != whom).then_some(whom);
    seq_of(world.publish(by, conversation, membership(action, whom, Role::Member)));
}

#[test]
fn what_one_says_counts_as_read_wherever_markers_are_shown() {
    let mut world = World::new();
    let (ann, bob) = (user("ann"), user("bob"));
    let group = world.create(ann, ConversationKind::Group, false, &[bob]);
    for number in 2..=4 {
        world.publish(ann, group, text(&format!("{number}")));
    }
    assert_eq!(seq_of(world.publish(bob, group, text("5"))), 5);
    for asker in [ann, bob] {
        let shown = members(&mut world, asker, group);
        assert_eq!(
            (read_seq(&shown, ann), read_seq(&shown, bob)),
            (Some(4), Some(5))
        );
    }
    let mut world = world.restart();
    let shown = members(&mut world, bob, group);
    assert_eq!(read_seq(&shown, bob), Some(5), "one's own is always right");
    assert_eq!(
        read_seq(&shown, ann),
        Some(0),
        "others who have left memory are shown as they marked"
    );
}

#[test]
fn a_marker_is_not_shown_before_what_moved_it_is_durable() {
    let mut world = World::new();
    let (ann, bob) = (user("ann"), user("bob"));
    let group = world.create(ann, ConversationKind::Group, false, &[bob]);
    world.subscribe(ann, group).unwrap();
    world.hold = true;
    let id = world.id();
    world.publish_as(bob, group, id, text("2"));
    world.said.clear();
    let origin = world.origin();
    world.send(ToOwner::Members {
        origin,
        user: ann,
        conversation: group,
        after: None,
        limit: 9,
    });
    let is_page = |said: &ToEdge| matches!(said, ToEdge::Answered { .. });
    assert!(!world.said.iter().any(is_page), "{:?}", world.said);
    world.sync();
    assert!(world.said.iter().any(is_page));
}

#[test]
fn markers_of_others_are_shown_where_few_talk_alone() {
    let mut world = World::new();
    let (ann, bob) = (user("ann"), user("bob"));
    for (kind, public, shows) in [
        (ConversationKind::Direct, false, true),
        (ConversationKind::Group, false, true),
        (ConversationKind::Family, false, true),
        (ConversationKind::Channel, false, false),
        (ConversationKind::Channel, true, false),
        (ConversationKind::Thread, true, false),
    ] {
        let conversation = world.create(ann, kind, public, &[bob]);
        world.publish(ann, conversation, text("hello"));
        let shown = members(&mut world, bob, conversation);
        assert_eq!(shown.len(), 2);
        assert_eq!(read_seq(&shown, ann).is_some(), shows, "{kind:?}");
        assert!(read_seq(&shown, bob).is_some(), "{kind:?}");
    }
    let channel = world.create(ann, ConversationKind::Channel, true, &[bob]);
    let shown = members(&mut world, user("stranger"), channel);
    assert_eq!(shown.len(), 2);
    assert!(shown.iter().all(|member| member.marker.is_none()));
}

#[test]
fn who_is_gone_is_shown_to_moderators_and_to_himself() {
    let mut world = World::new();
    let ann = user("ann");
    let [bob, carl, dora, eve] = ["bob", "carl", "dora", "eve"].map(user);
    let (frank, stranger) = (user("frank"), user("stranger"));
    let channel = world.create(
        ann,
        ConversationKind::Channel,
        true,
        &[bob, carl, dora, eve],
    );
    act(&mut world, carl, carl, channel, Action::Leave);
    act(&mut world, ann, dora, channel, Action::Remove);
    act(&mut world, ann, eve, channel, Action::Ban);
    act(&mut world, ann, frank, channel, Action::Invite);
    let mut states = |asker| {
        let shown = members(&mut world, asker, channel);
        let state = |user| of(&shown, user).map(|member| member.state());
        let gone = [carl, dora, eve].map(state);
        assert_eq!(state(bob), Some(MemberState::Joined));
        assert_eq!(state(frank), Some(MemberState::Invited));
        (gone, shown.len())
    };
    let (left, removed, banned) = (MemberState::Left, MemberState::Removed, MemberState::Banned);
    assert_eq!(states(ann), ([Some(left), Some(removed), Some(banned)], 6));
    assert_eq!(states(bob), ([None; 3], 3));
    assert_eq!(states(stranger), ([None; 3], 3));
    assert_eq!(states(carl), ([Some(left), None, None], 4));
    world.publish(
        ann,
        channel,
        membership(Action::SetRole, Some(bob), Role::Moderator),
    );
    let mut world = world.restart();
    assert_eq!(members(&mut world, bob, channel).len(), 6);
    let origin = world.origin();
    world.send(ToOwner::Members {
        origin,
        user: eve,
        conversation: channel,
        after: None,
        limit: 9,
    });
    assert_eq!(world.refusal(), Some(ErrorCode::Banned));
}

#[test]
fn what_a_member_prefers_is_told_to_himself_alone() {
    let mut world = World::new();
    let (ann, bob) = (user("ann"), user("bob"));
    let group = world.create(ann, ConversationKind::Group, false, &[bob]);
    let origin = world.origin();
    world.send(ToOwner::Prefer {
        origin,
        author: author(bob),
        conversation: group,
        hidden: Some(true),
        muted_until_ms: Some(9),
    });
    for (asker, told) in [(bob, (true, 9)), (ann, (false, 0))] {
        let shown = of(&members(&mut world, asker, group), bob).unwrap();
        assert_eq!((shown.hidden, shown.muted_until_ms), told);
    }
}
