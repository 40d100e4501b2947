//! What may be created, and under which id.

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    frame::FrameKind,
    ids::{ConversationId, UserId},
    v1,
};

use super::{
    requests::outcome,
    rig::{Rig, client_id, conversation, decode, user},
};
use crate::{io::Transport, message::ToOwner};

fn create(kind: v1::ConversationKind) -> v1::Create {
    v1::Create {
        conversation: conversation(1).to_proto(),
        kind: kind as i32,
        client_id: client_id(1).to_proto(),
        ..v1::Create::default()
    }
}

#[test]
fn ids_of_conversations_with_oneself_and_in_pairs_are_derived() {
    use v1::ConversationKind as Kind;

    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let (ann, bob) = (user("ann"), user("bob"));
    let notes = v1::Create {
        conversation: Bytes::new(),
        ..create(Kind::Self_)
    };
    let direct = |members: &[UserId]| v1::Create {
        conversation: Bytes::new(),
        members: members.iter().map(UserId::to_proto).collect(),
        ..create(Kind::Direct)
    };
    for (request, id) in [
        (notes, ConversationId::of_self(ann)),
        (
            direct(&[bob, ann, bob]),
            ConversationId::of_direct(bob, ann),
        ),
    ] {
        let Ok(ToOwner::Create {
            conversation,
            create,
            ..
        }) = outcome(&mut rig, conn, FrameKind::Create, &request)
        else {
            panic!("Create")
        };
        assert_eq!((conversation, create.conversation), (id, id.to_proto()));
        assert_eq!(create.visibility, v1::Visibility::Private as i32);
    }
    for request in [
        direct(&[]),
        direct(&[ann]),
        direct(&[bob, user("eve")]),
        create(Kind::Self_),
    ] {
        let refused = outcome(&mut rig, conn, FrameKind::Create, &request).unwrap_err();
        assert_eq!(refused, ErrorCode::InvalidField);
    }
}

#[test]
fn what_can_be_created_depends_on_its_kind() {
    use v1::ConversationKind as Kind;

    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let public = |kind| v1::Create {
        visibility: v1::Visibility::Public as i32,
        ..create(kind)
    };
    let cases = [
        (create(Kind::Group), None),
        (create(Kind::Family), None),
        (public(Kind::Channel), None),
        (public(Kind::Thread), None),
        (public(Kind::Group), Some(ErrorCode::KindRefused)),
        (create(Kind::Inbox), Some(ErrorCode::KindRefused)),
        (create(Kind::Unspecified), Some(ErrorCode::InvalidField)),
        (
            v1::Create {
                kind: 77,
                ..create(Kind::Group)
            },
            Some(ErrorCode::InvalidField),
        ),
        (
            v1::Create {
                visibility: 9,
                ..create(Kind::Channel)
            },
            Some(ErrorCode::InvalidField),
        ),
        (
            v1::Create {
                conversation: Bytes::new(),
                ..create(Kind::Group)
            },
            Some(ErrorCode::InvalidField),
        ),
        (
            v1::Create {
                conversation: Bytes::from_static(&[1; 16]),
                ..create(Kind::Group)
            },
            Some(ErrorCode::InvalidField),
        ),
        (
            v1::Create {
                client_id: Bytes::new(),
                ..create(Kind::Group)
            },
            Some(ErrorCode::ClientIdInvalid),
        ),
        (
            v1::Create {
                title: "t".repeat(201),
                ..create(Kind::Group)
            },
            Some(ErrorCode::InvalidField),
        ),
        (
            v1::Create {
                parent: Bytes::from_static(b"x"),
                ..create(Kind::Thread)
            },
            Some(ErrorCode::InvalidField),
        ),
        (
            v1::Create {
                members: vec![Bytes::new()],
                ..create(Kind::Group)
            },
            Some(ErrorCode::InvalidField),
        ),
    ];
    for (request, code) in cases {
        let result = outcome(&mut rig, conn, FrameKind::Create, &request);
        assert_eq!(result.err(), code, "{request:?}");
    }
}

#[test]
fn members_are_named_once_and_the_creator_not_at_all() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let members = ["bob", "ann", "bob"]
        .map(|name| user(name).to_proto())
        .to_vec();
    let request = v1::Create {
        members,
        ..create(v1::ConversationKind::Group)
    };
    let Ok(ToOwner::Create { create, .. }) = outcome(&mut rig, conn, FrameKind::Create, &request)
    else {
        panic!("Create")
    };
    assert_eq!(create.members, [user("bob").to_proto()]);
}

#[test]
fn a_create_costs_as_a_message_does_and_one_more_for_each_eight_members() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let members = |count: usize| {
        let users = (0..count).map(|number| user(&format!("user {number}")).to_proto());
        v1::Create {
            members: users.collect(),
            ..create(v1::ConversationKind::Group)
        }
    };
    // Of thirty at once.
    for _ in 0..29 {
        assert!(outcome(&mut rig, conn, FrameKind::Create, &members(7)).is_ok());
    }
    // What it costs beyond what is left is owed.
    assert!(outcome(&mut rig, conn, FrameKind::Create, &members(500)).is_ok());
    rig.send(conn, FrameKind::Create, 6, &members(0));
    let error: v1::Error = decode(&rig.frame(conn));
    assert_eq!(ErrorCode::from_proto(&error), Some(ErrorCode::RateLimited));
    assert_eq!(error.retry_after_ms, 6_300);
    rig.pass_ms(6_300);
    assert!(outcome(&mut rig, conn, FrameKind::Create, &members(0)).is_ok());
    let service = rig.connect_as("bridge", Transport::default(), &[], true);
    for _ in 0..100 {
        let asked = outcome(&mut rig, service, FrameKind::Create, &members(500));
        assert!(matches!(asked, Ok(ToOwner::Create { service: true, .. })));
    }
}

#[test]
fn what_stays_of_a_request_that_creates_does_not_keep_its_frame() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let request = v1::Create {
        parent: conversation(2).to_proto(),
        ..create(v1::ConversationKind::Thread)
    };
    let asked = outcome(&mut rig, conn, FrameKind::Create, &request);
    let Ok(ToOwner::Create { create, .. }) = asked else {
        panic!("Create")
    };
    assert_eq!(create.parent, request.parent);
    assert!(create.parent.is_unique(), "it is no slice of the frame");
}
