//! Describing conversations and members, in the words of the wire.

use bytes::Bytes;
use rialto_protocol::{
    ids::UserId,
    v1::{self, MemberState, Role},
};

use super::{conversation::Conversation, desk::Stop, member::Member, profile::Profile};

/// Who asks for members, and what of them he may see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Viewer {
    user: UserId,
    /// Who left, was removed or banned.
    sees_gone: bool,
    /// How far others have read.
    sees_markers: bool,
}

impl Viewer {
    pub(super) fn new(user: UserId, profile: &Profile, member: &Member) -> Self {
        Self {
            user,
            sees_gone: member.role() >= Role::Moderator,
            sees_markers: profile.shows_markers(),
        }
    }

    pub(super) fn user(&self) -> UserId {
        self.user
    }

    /// A member as a page of members shows it; `None`: the viewer may not see this one. What is in memory of the conversation
    /// is newer than the row: that somebody has read what he himself wrote is not written.
    pub(super) fn show(
        &self,
        user: UserId,
        row: &Bytes,
        conversation: Option<&Conversation>,
    ) -> Option<v1::Member> {
        let stored = Member::load(Some(row), &[], false)?;
        let member = conversation
            .and_then(|conversation| conversation.member(&user))
            .unwrap_or(&stored);
        let is_own = user == self.user;
        let is_gone = !matches!(
            member.row.state(),
            MemberState::Joined | MemberState::Invited
        );
        if is_gone && !is_own && !self.sees_gone {
            return None;
        }
        Some(v1::Member {
            marker: (is_own || self.sees_markers).then(|| member.marker()),
            hidden: is_own && member.row.hidden,
            muted_until_ms: if is_own { member.row.muted_until_ms } else { 0 },
            ..shown(&user, member)
        })
    }
}

/// All of a member.
fn shown(user: &UserId, member: &Member) -> v1::Member {
    v1::Member {
        user: user.to_proto(),
        state: member.row.state,
        role: member.row.role,
        since_seq: member.row.since_seq,
        marker: Some(member.marker()),
        hidden: member.row.hidden,
        muted_until_ms: member.row.muted_until_ms,
    }
}

/// What a conversation is, and how the asker stands to it.
pub(super) fn describe(
    conversation: &Conversation,
    user: &UserId,
) -> Result<v1::Description, Stop> {
    let (profile, member) = conversation.parties(user)?;
    let is_member = member.row.state() != MemberState::Unspecified;
    let me = is_member.then(|| shown(user, member));
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
        unread: member.unread(conversation.durable.ordinal),
        unread_mentions: member.unread_mentions(),
    })
}
