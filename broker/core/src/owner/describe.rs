//! Describing conversations and members, in the words of the wire.

use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::{
    ids::UserId,
    v1::{self, MemberState},
};

use super::{conversation::Conversation, desk::Stop, member::MemberRow};

/// A member as a page of members shows it; what is private only to the member himself.
pub(super) fn stored_member(key: &Bytes, row: &Bytes, asker: &UserId) -> Option<v1::Member> {
    let row = MemberRow::decode(row.clone()).ok()?;
    let user = UserId::from_slice(key).ok()?;
    let own = user == *asker;
    Some(v1::Member {
        user: user.to_proto(),
        state: row.state,
        role: row.role,
        since_seq: row.since_seq,
        marker: Some(v1::Marker {
            read_seq: row.read_seq,
            read_ordinal: row.read_ordinal,
            delivered_seq: row.delivered_seq,
        }),
        hidden: own && row.hidden,
        muted_until_ms: if own { row.muted_until_ms } else { 0 },
    })
}

/// What a conversation is, and how the asker stands to it.
pub(super) fn describe(
    conversation: &Conversation,
    user: &UserId,
) -> Result<v1::Description, Stop> {
    let (profile, member) = conversation.parties(user)?;
    let is_member = member.row.state() != MemberState::Unspecified;
    let me = is_member.then(|| v1::Member {
        user: user.to_proto(),
        state: member.row.state,
        role: member.row.role,
        since_seq: member.row.since_seq,
        marker: Some(member.marker()),
        hidden: member.row.hidden,
        muted_until_ms: member.row.muted_until_ms,
    });
    Ok(v1::Description {
        conversation: conversation.id.to_proto(),
        kind: profile.kind,
        visibility: profile.visibility,
        title: profile.title.clone(),
        topic: profile.topic.clone(),
        slow_mode_s: profile.slow_mode_s,
        write_role: profile.write_role,
        locked: profile.locked,
        created_by: profile.created_by.clone(),
        created_ms: profile.created_ms,
        parent: profile.parent.clone(),
        head: Some(conversation.visible().into()),
        ordinal: conversation.durable.ordinal.0,
        oldest_seq: conversation.oldest.0,
        member_count: profile.members,
        me,
        unread: if member.is_joined() {
            member.unread(conversation.durable.ordinal)
        } else {
            0
        },
        unread_mentions: member.unread_mentions(),
    })
}
