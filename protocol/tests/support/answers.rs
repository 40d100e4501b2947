//! Samples of answers and pushes.

use bytes::Bytes;
use rialto_protocol::error::ErrorCode;
use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{ConversationId, SessionId};
use rialto_protocol::v1;
use v1::event::Content;

use super::*;

pub(super) fn session_answers(samples: &mut Samples) {
    samples.add(
        "error_of_a_request",
        FrameKind::Error,
        4,
        ErrorCode::RateLimited.to_proto(250),
    );
    samples.add(
        "error_of_the_connection",
        FrameKind::Error,
        0,
        ErrorCode::IdleTimeout.to_proto(0),
    );
    samples.add("done", FrameKind::Done, 7, v1::Done {});
    let welcome = v1::Welcome {
        user: ann().to_proto(),
        session: SessionId::v7(TIME_MS, [0x5e; 10]).to_proto(),
        server_time_ms: TIME_MS,
        keep_alive_ms: 30_000,
        token_expires_ms: TIME_MS + 900_000,
        capabilities: vec![v1::Capability::Zstd as i32],
        limits: Some(v1::Limits {
            frame_bytes_max: 262_144,
            body_bytes_max: 65_536,
            in_flight_bytes_max: 1_048_576,
            subscriptions_max: 10_000,
            drafts_max: 256,
            publish_per_s: 50,
            publish_burst: 200,
        }),
    };
    samples.add("welcome", FrameKind::Welcome, 1, welcome);
    samples.add(
        "refreshed",
        FrameKind::Refreshed,
        2,
        v1::Refreshed {
            token_expires_ms: TIME_MS + 900_000,
        },
    );
    samples.add(
        "pong",
        FrameKind::Pong,
        3,
        v1::Pong {
            server_time_ms: TIME_MS,
        },
    );
}

pub(super) fn conversation_answers(samples: &mut Samples) {
    let receipt = v1::Receipt {
        request_id: 4,
        epoch: 3,
        seq: 43,
        time_ms: TIME_MS,
        ..Default::default()
    };
    let receipts = vec![
        receipt.clone(),
        v1::Receipt {
            request_id: 5,
            draft: 1,
            seq: 44,
            duplicate: true,
            ..receipt
        },
        v1::Receipt {
            request_id: 5,
            draft: 2,
            error: error(ErrorCode::TargetDeleted, 0),
            ..Default::default()
        },
    ];
    samples.add(
        "published",
        FrameKind::Published,
        0,
        v1::Published { receipts },
    );
    let following = v1::SubscriptionResult {
        conversation: room().to_proto(),
        status: v1::SubscriptionStatus::Following as i32,
        handle: 7,
        head: cursor(43),
        ordinal: 40,
        oldest_seq: 1,
        marker: marker(),
        unread: 2,
        unread_mentions: 1,
        role: v1::Role::Owner as i32,
        error: None,
    };
    let diverged = v1::SubscriptionResult {
        conversation: ConversationId::of_inbox(ann()).to_proto(),
        status: v1::SubscriptionStatus::Diverged as i32,
        head: cursor(10),
        oldest_seq: 1,
        ..Default::default()
    };
    let denied = v1::SubscriptionResult {
        conversation: ConversationId::of_direct(ann(), bob()).to_proto(),
        status: v1::SubscriptionStatus::Denied as i32,
        error: error(ErrorCode::ConversationNotFound, 0),
        ..Default::default()
    };
    samples.add(
        "subscribed",
        FrameKind::Subscribed,
        6,
        v1::Subscribed {
            results: vec![following, diverged, denied],
        },
    );
    let page = v1::HistoryPage {
        events: every_event(),
        head: cursor(53),
        oldest_seq: 1,
        end: true,
    };
    samples.add("history_page", FrameKind::HistoryPage, 8, page);
    samples.add(
        "marked",
        FrameKind::Marked,
        9,
        v1::Marked {
            marker: marker(),
            unread: 2,
            unread_mentions: 1,
        },
    );
}

pub(super) fn page_answers(samples: &mut Samples) {
    let online = v1::Presence {
        user: ann().to_proto(),
        state: v1::PresenceState::Online as i32,
        last_seen_ms: 0,
    };
    let offline = v1::Presence {
        user: bob().to_proto(),
        state: v1::PresenceState::Offline as i32,
        last_seen_ms: TIME_MS,
    };
    let presences = vec![online, offline.clone()];
    samples.add(
        "presences_answer",
        FrameKind::Presences,
        13,
        v1::Presences { presences },
    );
    samples.add(
        "presences_push",
        FrameKind::Presences,
        0,
        v1::Presences {
            presences: vec![offline],
        },
    );
    let created = v1::CreatedConversation {
        conversation: room().to_proto(),
        head: cursor(1),
        existed: true,
    };
    samples.add(
        "created_conversation",
        FrameKind::CreatedConversation,
        15,
        created,
    );
    let member = v1::Member {
        user: ann().to_proto(),
        state: v1::MemberState::Joined as i32,
        role: v1::Role::Owner as i32,
        since_seq: 1,
        marker: marker(),
        hidden: true,
        muted_until_ms: TIME_MS,
    };
    let description = v1::Description {
        conversation: room().to_proto(),
        kind: v1::ConversationKind::Thread as i32,
        visibility: v1::Visibility::Public as i32,
        title: "Bridge".to_owned(),
        topic: "news".to_owned(),
        slow_mode_s: 10,
        write_role: v1::Role::Member as i32,
        locked: true,
        created_by: ann().to_proto(),
        created_ms: TIME_MS,
        parent: ConversationId::v7(TIME_MS, [0xf0; 10]).to_proto(),
        head: cursor(43),
        ordinal: 40,
        oldest_seq: 1,
        member_count: 2,
        me: Some(member.clone()),
        unread: 2,
        unread_mentions: 1,
    };
    samples.add("description", FrameKind::Description, 17, description);
    let members = vec![
        member,
        v1::Member {
            user: bob().to_proto(),
            state: v1::MemberState::Invited as i32,
            ..Default::default()
        },
    ];
    samples.add(
        "members_page",
        FrameKind::MembersPage,
        18,
        v1::MembersPage {
            members,
            end: true,
            last_user: bob().to_proto(),
        },
    );
    let page = v1::ConversationsPage {
        listings: vec![listing()],
        end: false,
    };
    samples.add("conversations_page", FrameKind::ConversationsPage, 19, page);
}

pub(super) fn pushes(samples: &mut Samples) {
    let deliver = v1::Deliver {
        handle: 7,
        events: vec![event(1, Content::Message(text("hello")))],
    };
    samples.add("deliver", FrameKind::Deliver, 0, deliver);
    samples.add(
        "deliver_every_content",
        FrameKind::Deliver,
        0,
        v1::Deliver {
            handle: 7,
            events: every_event(),
        },
    );
    let signalled = |signal| v1::Signalled {
        handle: 7,
        user: bob().to_proto(),
        signal: Some(signal),
    };
    let typing = v1::signalled::Signal::Typing(v1::Typing { off: true });
    samples.add(
        "signalled_typing",
        FrameKind::Signalled,
        0,
        signalled(typing),
    );
    let custom = v1::signalled::Signal::Custom(Bytes::from_static(b"cursor 3:4"));
    samples.add(
        "signalled_custom",
        FrameKind::Signalled,
        0,
        signalled(custom),
    );
    let moved = v1::signalled::Signal::Marker(v1::Marker {
        read_seq: 43,
        read_ordinal: 40,
        delivered_seq: 43,
    });
    samples.add(
        "signalled_marker",
        FrameKind::Signalled,
        0,
        signalled(moved),
    );
    let ended = v1::SubscriptionEnded {
        conversation: room().to_proto(),
        handle: 7,
        error: error(ErrorCode::NotAMember, 0),
    };
    samples.add("subscription_ended", FrameKind::SubscriptionEnded, 0, ended);
    let go_away = v1::GoAway {
        reason: v1::GoAwayReason::Shutdown as i32,
        reconnect_after_ms: 1000,
        reconnect_window_ms: 30_000,
        endpoints: vec!["quic://rialto.example:7400".to_owned()],
    };
    samples.add("go_away", FrameKind::GoAway, 0, go_away);
}

/// One event of every content.
fn every_event() -> Vec<v1::Event> {
    let mentioned = v1::Mentioned {
        conversation: room().to_proto(),
        seq: 42,
        sender: bob().to_proto(),
        unread_mentions: 1,
        unread: 2,
    };
    let notice = |notice| {
        Content::Notice(v1::Notice {
            notice: Some(notice),
        })
    };
    let contents = vec![
        Content::Created(v1::Created {
            kind: v1::ConversationKind::Channel as i32,
            visibility: v1::Visibility::Public as i32,
            title: "Bridge".to_owned(),
            members: vec![bob().to_proto()],
            parent: Bytes::new(),
        }),
        Content::Message(rich_message()),
        Content::Edit(edit()),
        Content::Delete(delete()),
        Content::Reaction(v1::Reaction {
            target: 41,
            emoji: "👍".to_owned(),
            off: true,
        }),
        Content::Vote(v1::Vote {
            target: 41,
            value: 1,
        }),
        Content::Pin(v1::Pin {
            target: 41,
            off: false,
        }),
        Content::Membership(membership()),
        Content::Settings(v1::Settings {
            locked: Some(true),
            ..Default::default()
        }),
        notice(v1::notice::Notice::Listing(listing())),
        notice(v1::notice::Notice::Mentioned(mentioned)),
        Content::Redacted(v1::Redacted { by_seq: 44 }),
    ];
    contents
        .into_iter()
        .zip(0..)
        .map(|(content, number)| event(number, content))
        .collect()
}

fn event(number: u8, content: Content) -> v1::Event {
    v1::Event {
        seq: 42 + u64::from(number),
        epoch: 3,
        time_ms: TIME_MS + u64::from(number),
        ordinal: 40,
        sender: ann().to_proto(),
        device: device().to_proto(),
        client_id: client_id(number),
        content: Some(content),
    }
}

fn error(code: ErrorCode, retry_after_ms: u32) -> Option<v1::Error> {
    Some(code.to_proto(retry_after_ms))
}
