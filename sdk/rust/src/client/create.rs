//! Opening conversations.

use bytes::Bytes;
use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{ConversationId, Cursor, UserId};
use rialto_protocol::{limits, v1};

use super::Client;
use super::requests::at_most;
use crate::client_id;
use crate::error::RequestError;
use crate::requests::Resend;

/// A conversation to open.
#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    /// A fresh one for each [`Client::create`] by default. Of no meaning for `Self` and `Direct`, whose ids are derived.
    pub conversation: Option<ConversationId>,
    /// What it is to be; immutable.
    pub kind: v1::ConversationKind,
    /// Who may read and join.
    pub visibility: v1::Visibility,
    /// At most 200 bytes.
    pub title: String,
    /// Members beside oneself, at most 500; for `Direct` the other user, alone.
    pub members: Vec<UserId>,
    /// The conversation that it hangs below: a thread's forum.
    pub parent: Option<ConversationId>,
}

impl Create {
    /// A private conversation of this kind, without a title or other members.
    #[must_use]
    pub const fn new(kind: v1::ConversationKind) -> Self {
        Self {
            conversation: None,
            kind,
            visibility: v1::Visibility::Private,
            title: String::new(),
            members: Vec::new(),
            parent: None,
        }
    }

    /// The conversation with another user.
    #[must_use]
    pub fn direct(other: UserId) -> Self {
        Self::new(v1::ConversationKind::Direct).member(other)
    }

    /// A group.
    #[must_use]
    pub fn group(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            ..Self::new(v1::ConversationKind::Group)
        }
    }

    /// A public channel.
    #[must_use]
    pub fn channel(title: impl Into<String>) -> Self {
        let visibility = v1::Visibility::Public;
        Self {
            title: title.into(),
            visibility,
            ..Self::new(v1::ConversationKind::Channel)
        }
    }

    /// Under this id, so that it is created once whoever comes first or tries again.
    #[must_use]
    pub const fn id(mut self, conversation: ConversationId) -> Self {
        self.conversation = Some(conversation);
        self
    }

    /// With one more member.
    #[must_use]
    pub fn member(mut self, user: UserId) -> Self {
        self.members.push(user);
        self
    }
}

/// A conversation that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub conversation: ConversationId,
    /// Where its log ends.
    pub head: Cursor,
    /// It had been there before.
    pub existed: bool,
}

impl Client {
    /// Opens a conversation; that it is there already is no error. Sent again by itself after a reconnect, and then, should the
    /// server refuse it for now, 8 times more, which takes about 25 s or as long as the server says. Who may have to ask for it
    /// again himself, after [`crate::Retry::MaybeDuplicate`], names its id beforehand ([`Create::id`] with
    /// [`ConversationId::v7`]): without that each call makes a fresh id, and so another conversation.
    ///
    /// Cancelled, it may be done all the same.
    ///
    /// # Errors
    /// When the server refuses, a limit is broken, or the client is closed. So with every request below.
    pub async fn create(&self, create: Create) -> Result<Created, RequestError> {
        at_most(
            create.members.len(),
            limits::MEMBERS_PER_CREATE_MAX,
            "a conversation begins with at most 500 members",
        )?;
        let derived = matches!(
            create.kind,
            v1::ConversationKind::Self_ | v1::ConversationKind::Direct
        );
        let conversation = match create.conversation {
            _ if derived => Bytes::new(),
            Some(conversation) => conversation.to_proto(),
            None => {
                let no_entropy =
                    |_| RequestError::Invalid("the system gave no random bytes for an id");
                client_id::conversation_id().map_err(no_entropy)?.to_proto()
            }
        };
        let body = v1::Create {
            conversation,
            kind: create.kind.into(),
            visibility: create.visibility.into(),
            title: create.title,
            members: create.members.iter().map(UserId::to_proto).collect(),
            parent: create
                .parent
                .map(|parent| parent.to_proto())
                .unwrap_or_default(),
            client_id: self.shared().client_id().to_proto(),
        };
        let created: v1::CreatedConversation = self
            .request(
                FrameKind::Create,
                &body,
                FrameKind::CreatedConversation,
                Resend::UntilDone,
            )
            .await?;
        Ok(Created {
            conversation: ConversationId::from_slice(&created.conversation)
                .map_err(|_| RequestError::UnexpectedAnswer)?,
            head: created.head.unwrap_or_default().into(),
            existed: created.existed,
        })
    }
}
