//! Subscribing: an edge is attached to a conversation, and told how its reader stands.

use rialto_protocol::{
    error::ErrorCode,
    ids::{ConversationId, Cursor, UserId},
};

use crate::{
    effects::Effects,
    message::{Message, Origin, Standing, ToEdge, ToOwner},
};

use super::{
    conversation::Conversation,
    desk::{Desk, Stop},
    entry::Waiting,
    rules,
    work::Work,
};

/// A subscription that is about to be answered.
#[derive(Clone, Debug)]
pub(super) struct Joining {
    pub(super) origin: Origin,
    pub(super) slot: u16,
    pub(super) user: UserId,
    pub(super) conversation: ConversationId,
    pub(super) cursor: Option<Cursor>,
}

impl Joining {
    /// What was asked.
    pub(super) fn into_ask(self) -> ToOwner {
        let Self {
            origin,
            slot,
            user,
            conversation,
            cursor,
        } = self;
        ToOwner::Subscribe {
            origin,
            slot,
            user,
            conversation,
            cursor,
        }
    }

    pub(super) fn refused(self, code: ErrorCode) -> ToEdge {
        self.answered(Err(code))
    }

    fn answered(self, result: Result<Standing, ErrorCode>) -> ToEdge {
        let Self {
            origin,
            slot,
            user,
            conversation,
            cursor,
        } = self;
        ToEdge::Subscribed {
            origin,
            slot,
            user,
            conversation,
            cursor,
            result,
        }
    }
}

impl Desk {
    /// Judges the reader. The answer waits until everything is durable that the judgement rests on.
    pub(super) fn subscribe(
        &mut self,
        conversation: &mut Conversation,
        work: &Work,
        fx: &mut Effects,
    ) -> Result<(), Stop> {
        let ToOwner::Subscribe {
            origin,
            slot,
            user,
            cursor,
            ..
        } = &work.ask
        else {
            return Ok(());
        };
        let (profile, member) = conversation.parties(user)?;
        rules::may_read(profile, member)?;
        self.require_oldest(conversation)?;
        let joining = Joining {
            origin: *origin,
            slot: *slot,
            user: *user,
            conversation: conversation.id,
            cursor: *cursor,
        };
        if self.is_durable(conversation.lane, conversation.last_position) {
            self.answer_subscribed(conversation, &joining, fx);
        } else {
            self.lanes.wait(
                conversation.lane,
                conversation.last_position,
                Waiting::Subscribed(joining),
            );
        }
        Ok(())
    }

    /// Attaches the reader's edge and tells how the reader stands, both as of what is durable.
    pub(super) fn answer_subscribed(
        &mut self,
        conversation: &Conversation,
        joining: &Joining,
        fx: &mut Effects,
    ) {
        let edge = joining.origin.edge;
        let changed = conversation.member(&joining.user);
        let changed = changed.map(|member| member.membership);
        if let Some(position) = changed
            && !self.is_durable(conversation.lane, position)
        {
            // He has come or gone since he asked: whether he is in is told once it is certain.
            let waiting = Waiting::Subscribed(joining.clone());
            self.lanes.wait(conversation.lane, position, waiting);
            return;
        }
        let result = conversation
            .parties(&joining.user)
            .map_err(|_| ErrorCode::StorageUnavailable)
            .and_then(|(profile, member)| {
                rules::may_read(profile, member)?;
                Ok(Standing {
                    handle: self.attachments.attach(conversation.id, edge),
                    head: conversation.visible(),
                    ordinal: conversation.durable.ordinal,
                    oldest: conversation.oldest,
                    marker: member.marker(),
                    unread: member.unread(conversation.durable.ordinal),
                    unread_mentions: member.unread_mentions(),
                    role: member.role(),
                })
            });
        let is_refused = result.is_err();
        let message = Message::ToEdge(joining.clone().answered(result));
        if is_refused {
            // What takes the right away may be on its way to the disk.
            self.reply(conversation, edge, message, fx);
        } else {
            fx.send(edge, message);
        }
    }
}
