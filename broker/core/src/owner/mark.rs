//! What a member says of himself in a conversation: how far he has read, what he wants to see, that he is typing.

use rialto_protocol::{
    error::ErrorCode,
    frame::{self, FrameKind},
    ids::{RequestId, Seq, UserId},
    v1::{self, ConversationKind, Role},
};

use crate::{
    effects::Effects,
    io::Now,
    message::{Message, ToEdge, ToOwner},
};

use super::{
    conversation::Conversation,
    desk::{Desk, Stop},
    rules,
    work::{Need, Work},
};

impl Desk {
    /// Moves markers.
    pub(super) fn mark(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        work: &Work,
        fx: &mut Effects,
    ) -> Result<(), Stop> {
        let ToOwner::Mark {
            origin,
            author,
            read,
            delivered,
            unread,
            ..
        } = &work.ask
        else {
            return Ok(());
        };
        let (profile, member) = conversation.parties(&author.user)?;
        rules::has_role(profile, member, Role::ReadOnly)?;
        if profile.kind() != ConversationKind::Inbox {
            self.may_notify(author.user, 1, fx)?;
        }
        let visible = conversation.visible().seq;
        if *read > visible || *delivered > visible {
            return Err(ErrorCode::TargetNotFound.into());
        }
        let has_read = member.read();
        let marked = if *unread || *read > has_read.0 {
            let ordinal = match (conversation.ordinal_at(*read), work.known.target(*read)) {
                (Some(ordinal), _) => ordinal,
                (None, Some(target)) => target.as_ref().ok_or(ErrorCode::TargetNotFound)?.ordinal,
                (None, None) => return Err(Need::Target(*read).into()),
            };
            Some((*read, ordinal))
        } else {
            // What one says counts as read without being written or told: marking it does both.
            (*read > Seq(member.row.read_seq)).then_some(has_read)
        };
        let before = member.marker();
        let head = conversation.head.cursor.seq;
        let Some(member) = conversation.member_mut(&author.user) else {
            return Ok(());
        };
        if let Some((seq, ordinal)) = marked {
            member.row.read_seq = seq.0;
            member.row.read_ordinal = ordinal.0;
            if *unread {
                member.row.unread_at_seq = head.0;
            }
            let read = member.read().0.0;
            member.row.mentions.retain(|mention| *mention > read);
        }
        member.row.delivered_seq = before.delivered_seq.max(delivered.0).max(read.0);
        if marked.is_some() || member.marker() != before {
            self.markers_moved(now, conversation, author.user);
        }
        let (_, member) = conversation.parties(&author.user)?;
        let body = v1::Marked {
            marker: Some(member.marker()),
            unread: member.unread(conversation.durable.ordinal),
            unread_mentions: member.unread_mentions(),
        };
        self.answer(conversation, *origin, FrameKind::Marked, &body, fx);
        Ok(())
    }

    fn markers_moved(&mut self, now: Now, conversation: &mut Conversation, user: UserId) {
        self.lanes.begin(conversation.lane, now);
        self.write_member(conversation, &user);
        let Some(profile) = &conversation.profile else {
            return;
        };
        let (kind, shows_markers) = (profile.kind(), profile.shows_markers());
        if kind != ConversationKind::Inbox {
            self.list(conversation, user, &user);
        }
        if !shows_markers {
            return;
        }
        let Some(member) = conversation.member(&user) else {
            return;
        };
        let signal = v1::signalled::Signal::Marker(member.marker());
        for (edge, message) in self.signalled(conversation, user, signal) {
            let waiting = super::entry::Waiting::Message(edge, message);
            self.lanes
                .wait(conversation.lane, conversation.last_position, waiting);
        }
    }

    /// Changes what the user alone sees.
    pub(super) fn prefer(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        work: &Work,
        fx: &mut Effects,
    ) -> Result<(), Stop> {
        let ToOwner::Prefer {
            origin,
            author,
            hidden,
            muted_until_ms,
            ..
        } = &work.ask
        else {
            return Ok(());
        };
        let (profile, member) = conversation.parties(&author.user)?;
        rules::has_role(profile, member, Role::ReadOnly)?;
        if profile.kind() == ConversationKind::Inbox {
            return Err(ErrorCode::KindRefused.into());
        }
        self.may_notify(author.user, 1, fx)?;
        if let Some(member) = conversation.member_mut(&author.user) {
            member.row.hidden = hidden.unwrap_or(member.row.hidden);
            member.row.muted_until_ms = muted_until_ms.unwrap_or(member.row.muted_until_ms);
        }
        self.lanes.begin(conversation.lane, now);
        self.write_member(conversation, &author.user);
        self.list(conversation, author.user, &author.user);
        self.answer(conversation, *origin, FrameKind::Done, &v1::Done {}, fx);
        Ok(())
    }

    /// Passes a signal on to whoever follows, at once: it is never stored.
    pub(super) fn signal(
        &mut self,
        conversation: &mut Conversation,
        work: &Work,
        fx: &mut Effects,
    ) -> Result<(), Stop> {
        let ToOwner::Signal { user, signal, .. } = &work.ask else {
            return Ok(());
        };
        let (profile, member) = conversation.parties(user)?;
        rules::may_take_part(profile, member)?;
        for (edge, message) in self.signalled(conversation, *user, signal.clone()) {
            fx.send(edge, message);
        }
        Ok(())
    }

    fn signalled(
        &self,
        conversation: &Conversation,
        user: UserId,
        signal: v1::signalled::Signal,
    ) -> Vec<(crate::topology::ShardId, Message)> {
        let Some(attachment) = self.attachments.get(&conversation.id) else {
            return Vec::new();
        };
        let body = v1::Signalled {
            handle: attachment.handle.0,
            user: user.to_proto(),
            signal: Some(signal),
        };
        let frame = frame::encode(FrameKind::Signalled, RequestId::PUSH, &body);
        let message = |edge: &crate::topology::ShardId| {
            let (conversation, frame) = (conversation.id, frame.clone());
            (
                *edge,
                Message::ToEdge(ToEdge::Signalled {
                    conversation,
                    user,
                    frame,
                }),
            )
        };
        attachment.edges.iter().map(message).collect()
    }
}
