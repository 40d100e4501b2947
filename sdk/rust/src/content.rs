//! What a draft says, built without touching the wire's messages.

use bytes::Bytes;
use rialto_protocol::ids::{Seq, UserId};
use rialto_protocol::limits;
use rialto_protocol::v1;
use v1::draft::Content as Wire;

use crate::error::PublishError;

/// What a draft says: `Content::text("yes").reply_to(Seq(7)).mention(user)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Content(Wire);

impl Content {
    /// A message of text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::message(Bytes::from(text.into()))
    }

    /// A message whose body is ciphertext of an end-to-end protocol such as `mls10`; `header` is the protocol's data that
    /// stands outside of it.
    #[must_use]
    pub fn encrypted(protocol: impl Into<String>, header: Bytes, ciphertext: Bytes) -> Self {
        let envelope = v1::Envelope {
            protocol: protocol.into(),
            header,
        };
        let message = v1::Message {
            body: ciphertext,
            envelope: Some(envelope),
            ..v1::Message::default()
        };
        Self(Wire::Message(message))
    }

    /// A message with this body, which must be UTF-8.
    #[must_use]
    pub fn message(body: Bytes) -> Self {
        Self(Wire::Message(v1::Message {
            body,
            ..v1::Message::default()
        }))
    }

    /// A new text for a message of one's own.
    #[must_use]
    pub fn edit(target: Seq, text: impl Into<String>) -> Self {
        let body = Bytes::from(text.into());
        Self(Wire::Edit(v1::Edit {
            target: target.0,
            body,
            ..v1::Edit::default()
        }))
    }

    /// Takes a message away.
    #[must_use]
    pub fn delete(target: Seq) -> Self {
        Self(Wire::Delete(v1::Delete {
            target: target.0,
            reason: String::new(),
        }))
    }

    /// An emoji on a message.
    #[must_use]
    pub fn react(target: Seq, emoji: impl Into<String>) -> Self {
        Self(Wire::Reaction(v1::Reaction {
            target: target.0,
            emoji: emoji.into(),
            off: false,
        }))
    }

    /// The emoji off it again.
    #[must_use]
    pub fn unreact(target: Seq, emoji: impl Into<String>) -> Self {
        Self(Wire::Reaction(v1::Reaction {
            target: target.0,
            emoji: emoji.into(),
            off: true,
        }))
    }

    /// A vote on a message: 1, 0 (taken back) or -1.
    #[must_use]
    pub const fn vote(target: Seq, value: i32) -> Self {
        Self(Wire::Vote(v1::Vote {
            target: target.0,
            value,
        }))
    }

    /// Pins a message.
    #[must_use]
    pub const fn pin(target: Seq) -> Self {
        Self(Wire::Pin(v1::Pin {
            target: target.0,
            off: false,
        }))
    }

    /// Takes the pin away.
    #[must_use]
    pub const fn unpin(target: Seq) -> Self {
        Self(Wire::Pin(v1::Pin {
            target: target.0,
            off: true,
        }))
    }

    /// Accepts an invitation, or enters what is public.
    #[must_use]
    pub fn join() -> Self {
        Self::membership(v1::MembershipAction::Join, None)
    }

    /// Leaves.
    #[must_use]
    pub fn leave() -> Self {
        Self::membership(v1::MembershipAction::Leave, None)
    }

    /// Invites a user to be a member; see also [`Content::as_role`].
    #[must_use]
    pub fn invite(user: UserId) -> Self {
        Self::membership(v1::MembershipAction::Invite, Some(user))
    }

    /// Removes a member, who may be invited again.
    #[must_use]
    pub fn remove(user: UserId) -> Self {
        Self::membership(v1::MembershipAction::Remove, Some(user))
    }

    /// Removes a user and keeps him out.
    #[must_use]
    pub fn ban(user: UserId) -> Self {
        Self::membership(v1::MembershipAction::Ban, Some(user))
    }

    /// Lets a banned user in again.
    #[must_use]
    pub fn unban(user: UserId) -> Self {
        Self::membership(v1::MembershipAction::Unban, Some(user))
    }

    /// Changes a member's role.
    #[must_use]
    pub fn set_role(user: UserId, role: v1::Role) -> Self {
        Self::membership(v1::MembershipAction::SetRole, Some(user)).as_role(role)
    }

    /// Changes settings; what is `None` stays.
    #[must_use]
    pub const fn settings(settings: v1::Settings) -> Self {
        Self(Wire::Settings(settings))
    }

    fn membership(action: v1::MembershipAction, user: Option<UserId>) -> Self {
        let user = user.map(|user| user.to_proto()).unwrap_or_default();
        Self(Wire::Membership(v1::Membership {
            action: action.into(),
            user,
            ..v1::Membership::default()
        }))
    }

    /// With an invitation or a change of role: the role. No effect on anything else.
    #[must_use]
    pub fn as_role(mut self, role: v1::Role) -> Self {
        if let Wire::Membership(membership) = &mut self.0 {
            membership.role = role.into();
        }
        self
    }

    /// Why a message is deleted or a membership changed. No effect on anything else.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        match &mut self.0 {
            Wire::Delete(delete) => delete.reason = reason.into(),
            Wire::Membership(membership) => membership.reason = reason.into(),
            _ => {}
        }
        self
    }

    /// The message answers that event; may be called several times. No effect on what is no message.
    #[must_use]
    pub fn reply_to(mut self, target: Seq) -> Self {
        if let Wire::Message(message) = &mut self.0 {
            message.reply_to.push(target.0);
        }
        self
    }

    /// Mentions a user; may be called several times. No effect on what is neither a message nor an edit.
    #[must_use]
    pub fn mention(mut self, user: UserId) -> Self {
        match &mut self.0 {
            Wire::Message(message) => message.mentions.push(user.to_proto()),
            Wire::Edit(edit) => edit.mentions.push(user.to_proto()),
            _ => {}
        }
        self
    }

    /// Adds a file, by reference; may be called several times. No effect on what is no message.
    #[must_use]
    pub fn attach(mut self, attachment: v1::Attachment) -> Self {
        if let Wire::Message(message) = &mut self.0 {
            message.attachments.push(attachment);
        }
        self
    }

    /// As it goes over the wire.
    #[must_use]
    pub const fn as_wire(&self) -> &Wire {
        &self.0
    }

    /// Refuses what the server would close the connection for: lists that are too long.
    pub(crate) fn check(&self) -> Result<(), PublishError> {
        let (reply_to, mentions, attachments) = match &self.0 {
            Wire::Message(message) => (
                message.reply_to.len(),
                message.mentions.len(),
                message.attachments.len(),
            ),
            Wire::Edit(edit) => (0, edit.mentions.len(), 0),
            _ => return Ok(()),
        };
        if reply_to > limits::REPLY_TO_MAX {
            return Err(PublishError::Invalid("a message answers at most 16 events"));
        }
        if mentions > limits::MENTIONS_MAX {
            return Err(PublishError::Invalid("a message mentions at most 50 users"));
        }
        if attachments > limits::ATTACHMENTS_MAX {
            return Err(PublishError::Invalid(
                "a message has at most 10 attachments",
            ));
        }
        Ok(())
    }
}

impl From<Wire> for Content {
    fn from(content: Wire) -> Self {
        Self(content)
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_what_was_added_to_it() {
        let user = UserId::from_name("ann");
        let content = Content::text("yes")
            .reply_to(Seq(7))
            .mention(user)
            .because("ignored");
        let Wire::Message(message) = content.as_wire() else {
            panic!("no message")
        };
        assert_eq!(
            (&message.body[..], &message.reply_to[..]),
            (&b"yes"[..], &[7][..])
        );
        assert_eq!(message.mentions, [user.to_proto()]);
    }

    #[test]
    fn lists_that_would_close_the_connection_are_refused_here() {
        let many = |count: usize| {
            (0..count).fold(Content::text(""), |content, _| content.reply_to(Seq(1)))
        };
        assert_eq!(many(limits::REPLY_TO_MAX).check(), Ok(()));
        assert!(many(limits::REPLY_TO_MAX + 1).check().is_err());
        let user = UserId::from_name("ann");
        let edit = (0..=limits::MENTIONS_MAX).fold(Content::edit(Seq(1), ""), |content, _| {
            content.mention(user)
        });
        assert!(edit.check().is_err());
    }
}
