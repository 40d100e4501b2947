//! Who comes, goes and may do what.

use super::*;
use crate::owner::conversation::Slot;
use rialto_protocol::v1::{ConversationKind, MembershipAction as Action, Role};

fn act(
    world: &mut World,
    by: UserId,
    conversation: ConversationId,
    action: Action,
    whom: Option<UserId>,
) -> Receipt {
    world.publish(
        by,
        conversation,
        membership(action, whom, Role::Unspecified),
    )
}

#[test]
fn the_one_removed_receives_nothing_after_it() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    world.subscribe(bob, group).unwrap();
    world.said.clear();
    assert_eq!(
        seq_of(act(&mut world, alice, group, Action::Remove, Some(bob))),
        2
    );
    let ended = world.said.iter().find_map(|said| match said {
        ToEdge::Deliver {
            conversation,
            ended,
            ..
        } if *conversation == group => Some(ended.clone()),
        _ => None,
    });
    assert_eq!(&ended.unwrap()[..], [(bob, Seq(2), ErrorCode::NotAMember)]);
    assert_eq!(world.subscribe(bob, group), Err(ErrorCode::NotAMember));
    assert_eq!(
        world.publish(bob, group, text("still here?")),
        refused(ErrorCode::NotAMember)
    );
    let catch_up = ToOwner::CatchUp {
        edge: EDGE,
        conn: ConnId {
            index: 0,
            generation: 0,
        },
        user: bob,
        conversation: group,
        from: Seq(1),
        verify: None,
        bytes_max: 1 << 16,
    };
    world.send(catch_up);
    assert_eq!(world.refusal(), Some(ErrorCode::NotAMember));
}

#[test]
fn a_removal_is_named_with_the_event_that_says_so_and_what_follows_shares_its_frame() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    world.subscribe(bob, group).unwrap();
    world.said.clear();
    let removal = membership(Action::Remove, Some(bob), Role::Unspecified);
    let drafts = [text("before"), removal, text("after"), text("and more")];
    let drafts = drafts.map(|content| Draft {
        client_id: world.id(),
        content,
    });
    let origin = world.origin();
    world.send(ToOwner::Append {
        origin,
        author: author(alice),
        conversation: group,
        first: 0,
        drafts: drafts.into(),
    });
    let told = world.said.iter().filter_map(|said| match said {
        ToEdge::Deliver {
            conversation,
            first,
            last,
            ended,
            ..
        } if *conversation == group => Some((first.0, last.0, ended.to_vec())),
        _ => None,
    });
    let removed = (bob, Seq(3), ErrorCode::NotAMember);
    assert_eq!(told.collect::<Vec<_>>(), [(2, 5, vec![removed])]);
}

#[test]
fn those_who_leave_together_are_told_of_in_as_many_frames_as_their_events_take() {
    for (frame_bytes_max, frames) in [(64 << 10, 1), (4_000, 10)] {
        let config = CoreConfig {
            frame_bytes_max,
            ..CoreConfig::default()
        };
        let mut world = World::with(config, MapStore::default());
        let alice = user("alice");
        let channel = world.create(alice, ConversationKind::Channel, true, &[]);
        let others: Vec<UserId> = (0..200)
            .map(|number| user(&format!("user {number}")))
            .collect();
        for other in &others {
            seq_of(act(&mut world, *other, channel, Action::Join, None));
        }
        world.subscribe(alice, channel).unwrap();
        world.said.clear();
        world.hold = true;
        let ids: Vec<ClientId> = others.iter().map(|_| world.id()).collect();
        for (other, client_id) in others.iter().zip(&ids) {
            let origin = world.origin();
            let draft = Draft {
                client_id: *client_id,
                content: membership(Action::Leave, None, Role::Unspecified),
            };
            world.owner.take(
                world.now,
                ToOwner::Append {
                    origin,
                    author: author(*other),
                    conversation: channel,
                    first: 0,
                    drafts: vec![draft],
                },
                &mut world.fx,
            );
        }
        world.settle();
        world.sync();
        let told = world.said.iter().filter_map(|said| match said {
            ToEdge::Deliver {
                first, last, ended, ..
            } => Some((first.0, last.0, ended.clone())),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        assert!(told.len() <= frames, "{} frames", told.len());
        let mut ended = Vec::new();
        for (first, last, of_frame) in told {
            let within = |(_, seq, _): &(UserId, Seq, ErrorCode)| (first..=last).contains(&seq.0);
            assert!(of_frame.iter().all(within));
            ended.extend(of_frame.iter().map(|(user, seq, _)| (*user, seq.0)));
        }
        assert!(ended.into_iter().eq(others.into_iter().zip(202..)));
    }
}

#[test]
fn a_foreign_private_conversation_looks_like_none() {
    let mut world = World::new();
    let group = world.create(user("alice"), ConversationKind::Group, false, &[]);
    let eve = user("eve");
    assert_eq!(
        world.subscribe(eve, group),
        Err(ErrorCode::ConversationNotFound)
    );
    assert_eq!(
        world.publish(eve, group, text("hi")),
        refused(ErrorCode::ConversationNotFound)
    );
    assert_eq!(
        act(&mut world, eve, group, Action::Join, None),
        refused(ErrorCode::ConversationNotFound)
    );
    assert_eq!(
        act(&mut world, eve, group, Action::Leave, None),
        refused(ErrorCode::ConversationNotFound)
    );
    let ask = ToOwner::Describe {
        origin: world.origin(),
        user: eve,
        conversation: group,
    };
    world.send(ask);
    assert_eq!(world.refusal(), Some(ErrorCode::ConversationNotFound));
}

#[test]
fn an_invitation_is_needed_and_enough_where_it_is_private() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let channel = world.create(alice, ConversationKind::Channel, false, &[]);
    assert_eq!(
        act(&mut world, bob, channel, Action::Join, None),
        refused(ErrorCode::ConversationNotFound)
    );
    world.publish(
        alice,
        channel,
        membership(Action::Invite, Some(bob), Role::Moderator),
    );
    assert_eq!(world.subscribe(bob, channel), Err(ErrorCode::NotAMember));
    act(&mut world, bob, channel, Action::Join, None);
    assert_eq!(world.subscribe(bob, channel).unwrap().role, Role::Moderator);
    assert_eq!(
        act(&mut world, bob, channel, Action::Join, None),
        refused(ErrorCode::MembershipUnchanged)
    );
    let listed = world.notices(bob);
    assert_eq!(listed.len(), 2, "invited, then joined: {listed:?}");
}

#[test]
fn anybody_enters_what_is_public_unless_banned() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let channel = world.create(alice, ConversationKind::Channel, true, &[]);
    assert!(
        world.subscribe(bob, channel).is_ok(),
        "reading needs no membership"
    );
    assert_eq!(
        world.publish(bob, channel, text("hi")),
        refused(ErrorCode::NotAMember)
    );
    act(&mut world, bob, channel, Action::Join, None);
    seq_of(world.publish(bob, channel, text("hi")));
    seq_of(act(&mut world, alice, channel, Action::Ban, Some(bob)));
    assert_eq!(world.subscribe(bob, channel), Err(ErrorCode::Banned));
    assert_eq!(
        act(&mut world, bob, channel, Action::Join, None),
        refused(ErrorCode::Banned)
    );
    seq_of(act(&mut world, alice, channel, Action::Unban, Some(bob)));
    seq_of(act(&mut world, bob, channel, Action::Join, None));
}

#[test]
fn who_comes_and_goes_waits_before_coming_back() {
    const DAY_MS: u64 = 24 * 3_600 * 1_000;
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let channel = world.create(alice, ConversationKind::Channel, true, &[]);
    let too_soon = |retry_after_ms| Receipt::Refused {
        code: ErrorCode::SlowMode,
        retry_after_ms,
    };
    seq_of(act(&mut world, bob, channel, Action::Join, None));
    seq_of(act(&mut world, bob, channel, Action::Leave, None));
    assert_eq!(
        act(&mut world, bob, channel, Action::Join, None),
        too_soon(5_000)
    );
    let mut world = world.restart();
    world.now.unix_ms += 4_000;
    assert_eq!(
        act(&mut world, bob, channel, Action::Join, None),
        too_soon(1_000),
        "a restart makes no difference"
    );
    world.now.unix_ms += 1_000;
    seq_of(act(&mut world, bob, channel, Action::Join, None));
    for _ in 0..2 {
        seq_of(act(&mut world, bob, channel, Action::Leave, None));
        assert_eq!(
            act(&mut world, alice, channel, Action::Invite, Some(bob)),
            too_soon(5_000)
        );
        world.now.unix_ms += 5_000;
        seq_of(act(&mut world, alice, channel, Action::Invite, Some(bob)));
    }
    seq_of(act(&mut world, bob, channel, Action::Join, None));
    world.now.unix_ms += DAY_MS;
    seq_of(act(&mut world, bob, channel, Action::Leave, None));
    world.now.unix_ms -= DAY_MS;
    seq_of(act(&mut world, bob, channel, Action::Join, None));
    seq_of(act(&mut world, alice, channel, Action::Remove, Some(bob)));
    seq_of(act(&mut world, bob, channel, Action::Join, None));
}

#[test]
fn nobody_rises_above_who_gives_the_role() {
    let mut world = World::new();
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob, carol]);
    let set = |user, role| membership(Action::SetRole, Some(user), role);
    assert_eq!(
        world.publish(bob, group, set(carol, Role::Admin)),
        refused(ErrorCode::RoleTooLow)
    );
    seq_of(world.publish(alice, group, set(bob, Role::Admin)));
    assert_eq!(
        world.publish(bob, group, set(carol, Role::Admin)),
        refused(ErrorCode::RoleTooLow)
    );
    assert_eq!(
        world.publish(bob, group, set(alice, Role::Member)),
        refused(ErrorCode::RoleTooLow)
    );
    seq_of(world.publish(bob, group, set(carol, Role::Moderator)));
    assert_eq!(
        act(&mut world, carol, group, Action::Remove, Some(bob)),
        refused(ErrorCode::RoleTooLow)
    );
    assert_eq!(
        act(&mut world, alice, group, Action::Leave, None),
        refused(ErrorCode::LastOwner)
    );
    let step_down = membership(Action::SetRole, None, Role::Member);
    assert_eq!(
        world.publish(alice, group, step_down.clone()),
        refused(ErrorCode::LastOwner)
    );
    seq_of(world.publish(alice, group, set(bob, Role::Owner)));
    seq_of(world.publish(alice, group, step_down));
    seq_of(act(&mut world, alice, group, Action::Leave, None));
}

#[test]
fn both_sides_of_a_pair_find_the_same_conversation() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let one = world.create(alice, ConversationKind::Direct, false, &[bob]);
    let other = world.create(bob, ConversationKind::Direct, false, &[alice]);
    assert_eq!(one, other);
    assert!(
        world
            .answer::<v1::CreatedConversation>(FrameKind::CreatedConversation)
            .existed
    );
    seq_of(world.publish(alice, one, text("hi")));
    seq_of(world.publish(bob, one, text("ho")));
    assert_eq!(
        act(&mut world, alice, one, Action::Leave, None),
        refused(ErrorCode::KindRefused)
    );
    assert_eq!(
        world.subscribe(user("eve"), one),
        Err(ErrorCode::ConversationNotFound)
    );
}

#[test]
fn settings_are_for_admins_and_bind_everybody_below() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    let lock = |locked| {
        Content::Settings(v1::Settings {
            locked: Some(locked),
            ..v1::Settings::default()
        })
    };
    assert_eq!(
        world.publish(bob, group, lock(true)),
        refused(ErrorCode::RoleTooLow)
    );
    seq_of(world.publish(alice, group, lock(true)));
    assert_eq!(
        world.publish(bob, group, text("hi")),
        refused(ErrorCode::ConversationLocked)
    );
    seq_of(world.publish(alice, group, text("hi")));
    seq_of(world.publish(alice, group, lock(false)));
    let slow = Content::Settings(v1::Settings {
        slow_mode_s: Some(60),
        ..v1::Settings::default()
    });
    seq_of(world.publish(alice, group, slow));
    seq_of(world.publish(bob, group, text("one")));
    world.now.unix_ms += 10_000;
    let receipt = world.publish(bob, group, text("two"));
    assert_eq!(
        receipt,
        Receipt::Refused {
            code: ErrorCode::SlowMode,
            retry_after_ms: 50_000
        }
    );
    world.now.unix_ms += 50_000;
    seq_of(world.publish(bob, group, text("two")));
}

#[test]
fn membership_survives_a_restart() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    seq_of(act(&mut world, alice, group, Action::Ban, Some(bob)));
    let mut world = world.restart();
    assert_eq!(
        world.publish(bob, group, text("hi")),
        refused(ErrorCode::Banned)
    );
    let ask = ToOwner::Describe {
        origin: world.origin(),
        user: alice,
        conversation: group,
    };
    world.send(ask);
    let description = world.answer::<v1::Description>(FrameKind::Description);
    assert_eq!(description.member_count, 1);
}

#[test]
fn who_talks_to_whom_is_nobody_elses_business() {
    let mut world = World::new();
    let (alice, bob, eve) = (user("alice"), user("bob"), user("eve"));
    let direct = world.create(alice, ConversationKind::Direct, false, &[bob]);
    seq_of(world.publish(alice, ConversationId::of_self(alice), text("milk")));
    world
        .subscribe(alice, ConversationId::of_inbox(alice))
        .unwrap();
    let settings = Content::Settings(v1::Settings {
        locked: Some(true),
        ..v1::Settings::default()
    });
    let contents = [
        text("hi"),
        settings,
        membership(Action::Join, None, Role::Unspecified),
        membership(Action::Leave, None, Role::Unspecified),
        membership(Action::Invite, Some(bob), Role::Unspecified),
        membership(Action::SetRole, Some(bob), Role::Unspecified),
        membership(Action::Ban, Some(bob), Role::Unspecified),
        Content::Edit(v1::Edit {
            target: 1,
            ..v1::Edit::default()
        }),
        Content::Delete(v1::Delete {
            target: 1,
            ..v1::Delete::default()
        }),
        Content::Reaction(v1::Reaction {
            target: 1,
            emoji: "x".to_owned(),
            off: false,
        }),
        Content::Vote(v1::Vote {
            target: 1,
            value: 1,
        }),
        Content::Pin(v1::Pin {
            target: 1,
            off: false,
        }),
    ];
    let nowhere = ConversationId::of_direct(user("nobody"), user("no one"));
    for conversation in [
        nowhere,
        direct,
        ConversationId::of_self(alice),
        ConversationId::of_inbox(alice),
    ] {
        for content in &contents {
            let receipt = world.publish(eve, conversation, content.clone());
            assert_eq!(
                receipt,
                refused(ErrorCode::ConversationNotFound),
                "{content:?}"
            );
        }
        let origin = world.origin();
        let signal = v1::signalled::Signal::Typing(v1::Typing { off: false });
        world.send(ToOwner::Signal {
            origin,
            user: eve,
            conversation,
            signal,
        });
        assert_eq!(world.refusal(), Some(ErrorCode::ConversationNotFound));
    }
}

#[test]
fn everybody_may_step_down() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    let set = |role| membership(Action::SetRole, Some(bob), role);
    seq_of(world.publish(alice, group, set(Role::Moderator)));
    assert_eq!(
        world.publish(bob, group, set(Role::Admin)),
        refused(ErrorCode::RoleTooLow)
    );
    seq_of(world.publish(bob, group, set(Role::Member)));
    seq_of(world.publish(bob, group, set(Role::ReadOnly)));
    assert_eq!(
        world.publish(bob, group, set(Role::Member)),
        refused(ErrorCode::RoleTooLow)
    );
}

#[test]
fn who_created_and_was_put_out_does_not_learn_how_it_goes_on() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = world.create(alice, ConversationKind::Group, false, &[bob]);
    let set = membership(Action::SetRole, Some(bob), Role::Owner);
    seq_of(world.publish(alice, group, set));
    let create = v1::Create {
        conversation: group.to_proto(),
        kind: ConversationKind::Group as i32,
        client_id: world.id().to_proto(),
        ..v1::Create::default()
    };
    let ask = |world: &mut World| ToOwner::Create {
        origin: world.origin(),
        author: author(alice),
        conversation: group,
        create: create.clone(),
        service: false,
    };
    let again = ask(&mut world);
    world.send(again);
    assert!(
        world
            .answer::<v1::CreatedConversation>(FrameKind::CreatedConversation)
            .existed
    );
    seq_of(act(&mut world, bob, group, Action::Remove, Some(alice)));
    let again = ask(&mut world);
    world.send(again);
    assert_eq!(world.refusal(), Some(ErrorCode::NotAMember));
}

/// The role in which a user is, or was the last time.
fn role_of(world: &mut World, user: UserId, conversation: ConversationId) -> Role {
    let ask = ToOwner::Describe {
        origin: world.origin(),
        user,
        conversation,
    };
    world.send(ask);
    let description = world.answer::<v1::Description>(FrameKind::Description);
    description.me.unwrap().role()
}

#[test]
fn who_may_only_read_does_not_write_by_going_and_coming_again() {
    let mut world = World::new();
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let channel = world.create(alice, ConversationKind::Channel, true, &[bob, carol]);
    let hush = membership(Action::SetRole, Some(bob), Role::ReadOnly);
    seq_of(world.publish(alice, channel, hush));
    let ways: [&[(UserId, Action)]; 4] = [
        &[(bob, Action::Leave), (bob, Action::Join)],
        &[(alice, Action::Remove), (bob, Action::Join)],
        &[
            (alice, Action::Ban),
            (alice, Action::Unban),
            (bob, Action::Join),
        ],
        &[
            (bob, Action::Leave),
            (carol, Action::Invite),
            (bob, Action::Leave),
            (carol, Action::Invite),
            (bob, Action::Join),
        ],
    ];
    for way in ways {
        for (by, action) in way {
            let whom = (*by != bob).then_some(bob);
            seq_of(act(&mut world, *by, channel, *action, whom));
            world.now.unix_ms += 5_000;
        }
        world = world.restart();
        assert_eq!(
            world.publish(bob, channel, text("hi")),
            refused(ErrorCode::RoleTooLow),
            "{way:?}"
        );
        assert_eq!(role_of(&mut world, bob, channel), Role::ReadOnly);
    }
    // Whoever may give roles gives one by inviting.
    seq_of(act(&mut world, bob, channel, Action::Leave, None));
    world.now.unix_ms += 5_000;
    seq_of(act(&mut world, alice, channel, Action::Invite, Some(bob)));
    seq_of(act(&mut world, bob, channel, Action::Join, None));
    seq_of(world.publish(bob, channel, text("hi")));
}

#[test]
fn roles_other_than_that_of_a_reader_are_lost_with_the_place() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let channel = world.create(alice, ConversationKind::Channel, true, &[bob]);
    let raise = membership(Action::SetRole, Some(bob), Role::Admin);
    seq_of(world.publish(alice, channel, raise));
    seq_of(act(&mut world, bob, channel, Action::Leave, None));
    assert_eq!(role_of(&mut world, bob, channel), Role::Unspecified);
    world.now.unix_ms += 5_000;
    seq_of(act(&mut world, bob, channel, Action::Join, None));
    assert_eq!(role_of(&mut world, bob, channel), Role::Member);
}

#[test]
fn who_may_not_give_roles_invites_nobody_who_may_only_read() {
    let mut world = World::new();
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let channel = world.create(alice, ConversationKind::Channel, true, &[bob]);
    let invite = |role| membership(Action::Invite, Some(carol), role);
    assert_eq!(
        world.publish(bob, channel, invite(Role::ReadOnly)),
        refused(ErrorCode::RoleTooLow)
    );
    seq_of(world.publish(bob, channel, invite(Role::Member)));
    seq_of(act(&mut world, alice, channel, Action::Remove, Some(carol)));
    seq_of(world.publish(alice, channel, invite(Role::ReadOnly)));
    seq_of(act(&mut world, carol, channel, Action::Join, None));
    assert_eq!(role_of(&mut world, carol, channel), Role::ReadOnly);
}

#[test]
fn what_is_public_keeps_its_owner_be_he_alone() {
    let mut world = World::new();
    let (alice, bob) = (user("alice"), user("bob"));
    for kind in [ConversationKind::Channel, ConversationKind::Thread] {
        let public = world.create(alice, kind, true, &[]);
        assert_eq!(
            act(&mut world, alice, public, Action::Leave, None),
            refused(ErrorCode::LastOwner)
        );
        seq_of(act(&mut world, bob, public, Action::Join, None));
        let hand_over = membership(Action::SetRole, Some(bob), Role::Owner);
        seq_of(world.publish(alice, public, hand_over));
        seq_of(act(&mut world, alice, public, Action::Leave, None));
        assert_eq!(
            act(&mut world, bob, public, Action::Leave, None),
            refused(ErrorCode::LastOwner)
        );
    }
    let group = world.create(alice, ConversationKind::Group, false, &[]);
    seq_of(act(&mut world, alice, group, Action::Leave, None));
}

#[test]
fn a_group_that_its_last_owner_left_belongs_to_the_first_invited_one_who_enters() {
    let mut world = World::new();
    let (alice, carol, eve) = (user("alice"), user("carol"), user("eve"));
    let [bob, dora] = ["bob", "dora"].map(user);
    let group = world.create(alice, ConversationKind::Group, false, &[]);
    let invited = [
        (bob, Role::ReadOnly),
        (carol, Role::Member),
        (dora, Role::Moderator),
    ];
    for (user, role) in invited {
        let invite = membership(Action::Invite, Some(user), role);
        seq_of(world.publish(alice, group, invite));
    }
    seq_of(act(&mut world, alice, group, Action::Leave, None));
    let mut world = world.restart();
    for (user, role) in [
        (bob, Role::ReadOnly),
        (carol, Role::Owner),
        (dora, Role::Moderator),
    ] {
        seq_of(act(&mut world, user, group, Action::Join, None));
        assert_eq!(role_of(&mut world, user, group), role);
    }
    let mut world = world.restart();
    let raise = membership(Action::SetRole, Some(bob), Role::Member);
    seq_of(world.publish(carol, group, raise));
    seq_of(act(&mut world, carol, group, Action::Invite, Some(eve)));
    assert_eq!(
        act(&mut world, carol, group, Action::Leave, None),
        refused(ErrorCode::LastOwner)
    );
}

/// A channel with two admins and a member that has lost its owner, as some had before the last one was kept.
fn channel_without_owner(world: &mut World) -> ConversationId {
    let [alice, bob, carol, dora] = ["alice", "bob", "carol", "dora"].map(user);
    let channel = world.create(alice, ConversationKind::Channel, true, &[bob, carol, dora]);
    for admin in [bob, carol] {
        let raise = membership(Action::SetRole, Some(admin), Role::Admin);
        seq_of(world.publish(alice, channel, raise));
    }
    let for_owners = Content::Settings(v1::Settings {
        write_role: Some(Role::Owner as i32),
        ..v1::Settings::default()
    });
    seq_of(world.publish(alice, channel, for_owners));
    let Some(Slot::Present(conversation)) = world.owner.conversations.get_mut(&channel) else {
        panic!("it is in memory")
    };
    let owner = conversation.member_mut(&alice).expect("she is in memory");
    owner.row.set_state(v1::MemberState::Left);
    owner.row.set_role(Role::Unspecified);
    let profile = conversation.profile.as_mut().expect("it exists");
    (profile.members, profile.owners) = (profile.members - 1, 0);
    channel
}

#[test]
fn admins_count_as_owners_while_there_are_members_and_no_owner() {
    let mut world = World::new();
    let [bob, carol, dora] = ["bob", "carol", "dora"].map(user);
    let channel = channel_without_owner(&mut world);
    seq_of(world.publish(bob, channel, text("owners may write")));
    assert_eq!(
        world.publish(dora, channel, text("and members may not")),
        refused(ErrorCode::RoleTooLow)
    );
    let set = |user, role| membership(Action::SetRole, Some(user), role);
    assert_eq!(
        world.publish(dora, channel, set(dora, Role::Owner)),
        refused(ErrorCode::RoleTooLow)
    );
    seq_of(world.publish(bob, channel, set(bob, Role::Owner)));
    assert_eq!(role_of(&mut world, bob, channel), Role::Owner);
    for role in [Role::Admin, Role::Owner] {
        assert_eq!(
            world.publish(carol, channel, set(dora, role)),
            refused(ErrorCode::RoleTooLow),
            "there is an owner again"
        );
    }
    assert_eq!(
        act(&mut world, bob, channel, Action::Leave, None),
        refused(ErrorCode::LastOwner)
    );
}

#[test]
fn an_admin_puts_another_out_only_while_there_is_no_owner() {
    let mut world = World::new();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(user);
    let channel = channel_without_owner(&mut world);
    seq_of(act(&mut world, bob, channel, Action::Ban, Some(carol)));
    let owned = world.create(alice, ConversationKind::Channel, true, &[bob, carol]);
    for admin in [bob, carol] {
        let raise = membership(Action::SetRole, Some(admin), Role::Admin);
        seq_of(world.publish(alice, owned, raise));
    }
    assert_eq!(
        act(&mut world, bob, owned, Action::Ban, Some(carol)),
        refused(ErrorCode::RoleTooLow)
    );
}
