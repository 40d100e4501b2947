//! What drafts may say.

use bytes::Bytes;
use rialto_protocol::{error::ErrorCode, ids::UserId, limits, v1};

use super::{
    publish::refusal,
    rig::{Rig, conversation, message, publish, user},
};
use crate::config::CoreConfig;

#[test]
fn a_message_is_checked_in_every_part() {
    let mut rig = Rig::with(CoreConfig {
        publish_per_s: 0,
        ..CoreConfig::default()
    });
    let conn = rig.connect("ann");
    let valid = || v1::Message {
        body: Bytes::from_static(b"hi"),
        ..v1::Message::default()
    };
    let attachment = || v1::Attachment {
        file: "f".into(),
        ..v1::Attachment::default()
    };
    let envelope = || v1::Envelope {
        protocol: "mls10".into(),
        ..v1::Envelope::default()
    };
    let invalid = Some(ErrorCode::InvalidField);
    let binary = Bytes::from_static(&[0xff, 0xfe]);
    let long = |bytes: usize| "x".repeat(bytes);
    let cases = [
        (valid(), None),
        (
            v1::Message {
                body: Bytes::new(),
                ..valid()
            },
            None,
        ),
        (
            v1::Message {
                body: Bytes::new(),
                attachments: vec![attachment()],
                ..valid()
            },
            None,
        ),
        (
            v1::Message {
                body: binary.clone(),
                ..valid()
            },
            Some(ErrorCode::BodyNotUtf8),
        ),
        (
            v1::Message {
                body: binary,
                envelope: Some(envelope()),
                ..valid()
            },
            None,
        ),
        (
            v1::Message {
                body: Bytes::from(vec![b'a'; 65_537]),
                ..valid()
            },
            Some(ErrorCode::BodyTooLarge),
        ),
        (
            v1::Message {
                body: Bytes::from(vec![b'a'; 65_536]),
                ..valid()
            },
            None,
        ),
        (
            v1::Message {
                reply_to: vec![1, 0],
                ..valid()
            },
            invalid,
        ),
        (
            v1::Message {
                mentions: vec![user("bob").to_proto()],
                ..valid()
            },
            None,
        ),
        (
            v1::Message {
                mentions: vec![Bytes::from_static(&[1; 15])],
                ..valid()
            },
            invalid,
        ),
        (
            v1::Message {
                mentions: vec![UserId::SYSTEM.to_proto()],
                ..valid()
            },
            invalid,
        ),
        (
            v1::Message {
                attachments: vec![v1::Attachment {
                    file: String::new(),
                    ..attachment()
                }],
                ..valid()
            },
            invalid,
        ),
        (
            v1::Message {
                attachments: vec![v1::Attachment {
                    file: long(129),
                    ..attachment()
                }],
                ..valid()
            },
            invalid,
        ),
        (
            v1::Message {
                attachments: vec![v1::Attachment {
                    media_type: long(129),
                    ..attachment()
                }],
                ..valid()
            },
            invalid,
        ),
        (
            v1::Message {
                attachments: vec![v1::Attachment {
                    name: long(256),
                    ..attachment()
                }],
                ..valid()
            },
            invalid,
        ),
        (
            v1::Message {
                envelope: Some(v1::Envelope::default()),
                ..valid()
            },
            invalid,
        ),
        (
            v1::Message {
                envelope: Some(v1::Envelope {
                    protocol: long(65),
                    ..envelope()
                }),
                ..valid()
            },
            invalid,
        ),
        (
            v1::Message {
                envelope: Some(v1::Envelope {
                    header: Bytes::from(vec![0; 4_097]),
                    ..envelope()
                }),
                ..valid()
            },
            invalid,
        ),
    ];
    for (message, code) in cases {
        let what = format!("{message:.200?}");
        let publish = publish(conversation(1), vec![v1::draft::Content::Message(message)]);
        assert_eq!(refusal(&mut rig, conn, &publish), code, "{what}");
        assert_eq!(
            rig.asked.drain(..).count(),
            usize::from(code.is_none()),
            "{what}"
        );
    }
}

#[test]
fn other_contents_are_checked_too() {
    use v1::draft::Content;
    use v1::{MembershipAction as Action, Role};

    let mut rig = Rig::with(CoreConfig {
        publish_per_s: 0,
        ..CoreConfig::default()
    });
    let conn = rig.connect("ann");
    let membership = |action: Action, name: &str, role: Role| {
        let user = if name.is_empty() {
            Bytes::new()
        } else {
            user(name).to_proto()
        };
        Content::Membership(v1::Membership {
            action: action as i32,
            user,
            role: role as i32,
            reason: String::new(),
        })
    };
    let none = Role::Unspecified;
    let valid = [
        Content::Edit(v1::Edit {
            target: 1,
            body: Bytes::from_static(b"x"),
            ..v1::Edit::default()
        }),
        Content::Delete(v1::Delete {
            target: 1,
            reason: "r".repeat(200),
        }),
        Content::Reaction(v1::Reaction {
            target: 1,
            emoji: "e".repeat(64),
            off: false,
        }),
        Content::Vote(v1::Vote {
            target: 1,
            value: -1,
        }),
        Content::Pin(v1::Pin {
            target: 1,
            off: true,
        }),
        membership(Action::Join, "", none),
        membership(Action::Leave, "ann", none),
        membership(Action::Invite, "bob", Role::Admin),
        membership(Action::SetRole, "ann", Role::Member),
        Content::Settings(v1::Settings {
            locked: Some(false),
            ..v1::Settings::default()
        }),
        Content::Settings(v1::Settings {
            slow_mode_s: Some(21_600),
            topic: Some("t".repeat(2_000)),
            ..v1::Settings::default()
        }),
    ];
    let invalid = [
        Content::Edit(v1::Edit {
            target: 0,
            body: Bytes::from_static(b"x"),
            ..v1::Edit::default()
        }),
        Content::Delete(v1::Delete {
            target: 1,
            reason: "r".repeat(limits::REASON_BYTES_MAX + 1),
        }),
        Content::Delete(v1::Delete::default()),
        Content::Reaction(v1::Reaction {
            target: 1,
            emoji: String::new(),
            off: false,
        }),
        Content::Reaction(v1::Reaction {
            target: 1,
            emoji: "e".repeat(65),
            off: true,
        }),
        Content::Vote(v1::Vote {
            target: 1,
            value: 2,
        }),
        Content::Vote(v1::Vote {
            target: 0,
            value: 1,
        }),
        Content::Pin(v1::Pin::default()),
        membership(Action::Unspecified, "bob", none),
        membership(Action::Join, "bob", none),
        membership(Action::Leave, "bob", none),
        membership(Action::Join, "", Role::Owner),
        membership(Action::Invite, "", none),
        membership(Action::Invite, "ann", none),
        membership(Action::SetRole, "", Role::Admin),
        membership(Action::Ban, "ann", none),
        membership(Action::Remove, "bob", Role::Member),
        Content::Membership(v1::Membership {
            action: 99,
            user: user("bob").to_proto(),
            ..v1::Membership::default()
        }),
        Content::Settings(v1::Settings::default()),
        Content::Settings(v1::Settings {
            title: Some("t".repeat(201)),
            ..v1::Settings::default()
        }),
        Content::Settings(v1::Settings {
            slow_mode_s: Some(21_601),
            ..v1::Settings::default()
        }),
        Content::Settings(v1::Settings {
            write_role: Some(42),
            ..v1::Settings::default()
        }),
    ];
    let cases = valid.into_iter().map(|content| (content, None));
    let cases = cases.chain(
        invalid
            .into_iter()
            .map(|content| (content, Some(ErrorCode::InvalidField))),
    );
    for (content, code) in cases {
        let what = format!("{content:.200?}");
        assert_eq!(
            refusal(&mut rig, conn, &publish(conversation(1), vec![content])),
            code,
            "{what}"
        );
        rig.asked.clear();
    }
}

#[test]
fn a_publish_without_target_or_drafts_is_invalid() {
    let mut rig = Rig::new();
    let conn = rig.connect("ann");
    let valid = || publish(conversation(1), vec![message("hi")]);
    let short = Some(v1::publish::Target::Conversation(Bytes::from_static(
        &[1; 4],
    )));
    for publish in [
        v1::Publish {
            target: None,
            ..valid()
        },
        v1::Publish {
            target: short,
            ..valid()
        },
        v1::Publish {
            drafts: Vec::new(),
            ..valid()
        },
    ] {
        assert_eq!(
            refusal(&mut rig, conn, &publish),
            Some(ErrorCode::InvalidField)
        );
    }
    let many = v1::Publish {
        drafts: vec![valid().drafts[0].clone(); limits::DRAFTS_MAX + 1],
        ..valid()
    };
    assert_eq!(
        refusal(&mut rig, conn, &many),
        Some(ErrorCode::TooManyElements)
    );
    assert!(rig.was_closed(conn));
}
