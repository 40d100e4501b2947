//! One frame or more of every kind, as Rust values: what `vectors/` holds in hex.

mod answers;
mod requests;

use bytes::Bytes;
use rialto_protocol::body::Body;
use rialto_protocol::frame::{self, FrameKind};
use rialto_protocol::ids::{
    ClientId, ConversationId, Cursor, DeviceId, Epoch, RequestId, Seq, UserId,
};
use rialto_protocol::v1;

/// 2023-11-14T22:13:20Z.
const TIME_MS: u64 = 1_700_000_000_000;

/// A frame with a name.
#[allow(dead_code)] // Not every test reads all of it.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) kind: FrameKind,
    pub(crate) request_id: u32,
    /// Encoded.
    pub(crate) frame: Bytes,
    /// Whether these bytes decode to the value that was encoded.
    pub(crate) decodes: Box<dyn Fn(&Bytes) -> bool>,
}

struct Samples(Vec<Sample>);

impl Samples {
    fn add<T: Body + PartialEq + Clone + 'static>(
        &mut self,
        name: &'static str,
        kind: FrameKind,
        request_id: u32,
        body: T,
    ) {
        let frame = frame::encode(kind, RequestId(request_id), &body);
        let decodes = Box::new(move |bytes: &Bytes| {
            rialto_protocol::body::decode::<T>(bytes).as_ref() == Ok(&body)
        });
        self.0.push(Sample {
            name,
            kind,
            request_id,
            frame,
            decodes,
        });
    }
}

/// All of them, by rising kind.
pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = Samples(Vec::new());
    requests::session_requests(&mut samples);
    requests::conversation_requests(&mut samples);
    requests::user_requests(&mut samples);
    answers::session_answers(&mut samples);
    answers::conversation_answers(&mut samples);
    answers::page_answers(&mut samples);
    answers::pushes(&mut samples);
    samples.0
}

fn ann() -> UserId {
    UserId::from_name("ann")
}

fn bob() -> UserId {
    UserId::from_name("bob")
}

fn device() -> DeviceId {
    DeviceId::v4([0xd1; 16])
}

fn room() -> ConversationId {
    ConversationId::v7(TIME_MS, [0xc0; 10])
}

fn client_id(number: u8) -> Bytes {
    ClientId::v7(TIME_MS + u64::from(number), [number; 10]).to_proto()
}

fn cursor(seq: u64) -> Option<v1::Cursor> {
    Some(
        Cursor {
            epoch: Epoch(3),
            seq: Seq(seq),
        }
        .into(),
    )
}

fn text(body: &'static str) -> v1::Message {
    v1::Message {
        body: Bytes::from_static(body.as_bytes()),
        ..Default::default()
    }
}

fn rich_message() -> v1::Message {
    v1::Message {
        body: Bytes::from_static(b"@bob see this"),
        reply_to: vec![1, 300],
        mentions: vec![bob().to_proto()],
        attachments: vec![v1::Attachment {
            file: "f_01".to_owned(),
            media_type: "image/png".to_owned(),
            name: "rialto.png".to_owned(),
            size_bytes: 70_000,
        }],
        envelope: None,
    }
}

fn edit() -> v1::Edit {
    v1::Edit {
        target: 41,
        body: Bytes::from_static(b"better"),
        mentions: vec![bob().to_proto()],
        envelope: None,
    }
}

fn delete() -> v1::Delete {
    v1::Delete {
        target: 40,
        reason: "said twice".to_owned(),
    }
}

fn membership() -> v1::Membership {
    v1::Membership {
        action: v1::MembershipAction::Invite as i32,
        user: bob().to_proto(),
        role: v1::Role::Moderator as i32,
        reason: "helps out".to_owned(),
    }
}

fn settings() -> v1::Settings {
    v1::Settings {
        title: Some("Bridge".to_owned()),
        topic: Some(String::new()),
        slow_mode_s: Some(10),
        write_role: Some(v1::Role::Moderator as i32),
        locked: Some(false),
    }
}

fn listing() -> v1::Listing {
    v1::Listing {
        conversation: room().to_proto(),
        kind: v1::ConversationKind::Group as i32,
        visibility: v1::Visibility::Private as i32,
        title: "Bridge".to_owned(),
        state: v1::MemberState::Joined as i32,
        role: v1::Role::Owner as i32,
        hidden: false,
        muted_until_ms: u64::MAX,
        marker: marker(),
        peer: Bytes::new(),
    }
}

fn marker() -> Option<v1::Marker> {
    Some(v1::Marker {
        read_seq: 40,
        read_ordinal: 38,
        delivered_seq: 42,
    })
}
