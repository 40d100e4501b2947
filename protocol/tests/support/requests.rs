//! Samples of requests.

use bytes::Bytes;
use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::ConversationId;
use rialto_protocol::v1;
use v1::draft::Content as DraftContent;

use super::*;

pub(super) fn session_requests(samples: &mut Samples) {
    let hello = v1::Hello {
        token: "dev:ann".to_owned(),
        device: device().to_proto(),
        sdk: "rialto-rust/0.1.0".to_owned(),
        capabilities: vec![
            v1::Capability::Zstd as i32,
            v1::Capability::CatchUpStreams as i32,
        ],
    };
    samples.add("hello", FrameKind::Hello, 1, hello.clone());
    samples.add(
        "hello_least",
        FrameKind::Hello,
        u32::MAX,
        v1::Hello {
            sdk: String::new(),
            capabilities: Vec::new(),
            ..hello
        },
    );
    samples.add(
        "refresh",
        FrameKind::Refresh,
        2,
        v1::Refresh {
            token: "dev:ann".to_owned(),
        },
    );
    samples.add("ping", FrameKind::Ping, 3, v1::Ping {});
}

fn draft(number: u8, content: DraftContent) -> v1::Draft {
    v1::Draft {
        client_id: client_id(number),
        content: Some(content),
    }
}

fn publish(target: v1::publish::Target, drafts: Vec<v1::Draft>) -> v1::Publish {
    v1::Publish {
        target: Some(target),
        drafts,
        on_behalf_of: Bytes::new(),
    }
}

pub(super) fn conversation_requests(samples: &mut Samples) {
    use v1::publish::Target;
    let by_id = || Target::Conversation(room().to_proto());
    let message = |number, message| draft(number, DraftContent::Message(message));
    samples.add(
        "publish_by_id",
        FrameKind::Publish,
        4,
        publish(by_id(), vec![message(1, text("hello"))]),
    );
    let every_content = vec![
        message(2, rich_message()),
        message(3, sealed_message()),
        draft(4, DraftContent::Edit(edit())),
        draft(5, DraftContent::Delete(delete())),
        draft(
            6,
            DraftContent::Reaction(v1::Reaction {
                target: 41,
                emoji: "👍".to_owned(),
                off: false,
            }),
        ),
        draft(
            7,
            DraftContent::Vote(v1::Vote {
                target: 41,
                value: -1,
            }),
        ),
        draft(
            8,
            DraftContent::Pin(v1::Pin {
                target: 41,
                off: true,
            }),
        ),
        draft(9, DraftContent::Membership(membership())),
        draft(10, DraftContent::Settings(settings())),
    ];
    samples.add(
        "publish_by_handle_every_content",
        FrameKind::Publish,
        5,
        publish(Target::Handle(7), every_content),
    );
    let on_behalf = v1::Publish {
        on_behalf_of: bob().to_proto(),
        ..publish(by_id(), vec![message(11, text("from elsewhere"))])
    };
    samples.add("publish_on_behalf", FrameKind::Publish, 5, on_behalf);
    let subscription = |conversation: ConversationId, cursor| v1::Subscription {
        conversation: conversation.to_proto(),
        cursor,
    };
    let subscriptions = vec![
        subscription(room(), cursor(41)),
        subscription(ConversationId::of_inbox(ann()), Some(v1::Cursor::default())),
        subscription(ConversationId::of_direct(ann(), bob()), None),
    ];
    samples.add(
        "subscribe",
        FrameKind::Subscribe,
        6,
        v1::Subscribe { subscriptions },
    );
    let conversations = vec![room().to_proto(), ConversationId::of_self(ann()).to_proto()];
    samples.add(
        "unsubscribe",
        FrameKind::Unsubscribe,
        7,
        v1::Unsubscribe { conversations },
    );
    let history = v1::History {
        conversation: room().to_proto(),
        from_seq: 0,
        direction: v1::Direction::Backward as i32,
        limit: 20,
    };
    samples.add("history", FrameKind::History, 8, history);
    let mark = v1::Mark {
        conversation: room().to_proto(),
        read_seq: 41,
        delivered_seq: 42,
        unread: false,
    };
    samples.add("mark", FrameKind::Mark, 9, mark.clone());
    samples.add(
        "mark_unread_from_the_start",
        FrameKind::Mark,
        10,
        v1::Mark {
            read_seq: 0,
            delivered_seq: 0,
            unread: true,
            ..mark
        },
    );
    let signal = |signal| v1::Signal {
        conversation: room().to_proto(),
        signal: Some(signal),
    };
    let typing = v1::signal::Signal::Typing(v1::Typing { off: false });
    samples.add("signal_typing", FrameKind::Signal, 11, signal(typing));
    let custom = v1::signal::Signal::Custom(Bytes::from_static(b"cursor 3:4"));
    samples.add("signal_custom", FrameKind::Signal, 12, signal(custom));
}

pub(super) fn user_requests(samples: &mut Samples) {
    samples.add(
        "watch",
        FrameKind::Watch,
        13,
        v1::Watch {
            users: vec![ann().to_proto(), bob().to_proto()],
        },
    );
    let state = v1::PresenceState::Away as i32;
    samples.add(
        "set_presence",
        FrameKind::SetPresence,
        14,
        v1::SetPresence { state },
    );
    let create = v1::Create {
        conversation: room().to_proto(),
        kind: v1::ConversationKind::Group as i32,
        visibility: v1::Visibility::Private as i32,
        title: "Bridge".to_owned(),
        members: vec![bob().to_proto()],
        parent: Bytes::new(),
        client_id: client_id(1),
    };
    samples.add("create_group", FrameKind::Create, 15, create.clone());
    let direct = v1::Create {
        conversation: Bytes::new(),
        kind: v1::ConversationKind::Direct as i32,
        visibility: v1::Visibility::Unspecified as i32,
        title: String::new(),
        ..create
    };
    samples.add("create_direct", FrameKind::Create, 16, direct);
    samples.add(
        "describe",
        FrameKind::Describe,
        17,
        v1::Describe {
            conversation: room().to_proto(),
        },
    );
    let members = v1::Members {
        conversation: room().to_proto(),
        after_user: ann().to_proto(),
        limit: 500,
    };
    samples.add("members", FrameKind::Members, 18, members);
    let conversations = v1::Conversations {
        after_conversation: Bytes::new(),
        limit: 100,
    };
    samples.add("conversations", FrameKind::Conversations, 19, conversations);
    let prefer = v1::Prefer {
        conversation: room().to_proto(),
        hidden: Some(false),
        muted_until_ms: Some(0),
    };
    samples.add(
        "prefer_to_show_and_unmute",
        FrameKind::Prefer,
        20,
        prefer.clone(),
    );
    let mute = v1::Prefer {
        hidden: None,
        muted_until_ms: Some(u64::MAX),
        ..prefer
    };
    samples.add("prefer_to_mute_for_good", FrameKind::Prefer, 21, mute);
}

fn sealed_message() -> v1::Message {
    v1::Message {
        body: Bytes::from_static(&[0x00, 0xff, 0x80, 0x7f]),
        envelope: Some(v1::Envelope {
            protocol: "mls10".to_owned(),
            header: Bytes::from_static(&[1, 2, 3]),
        }),
        ..Default::default()
    }
}
