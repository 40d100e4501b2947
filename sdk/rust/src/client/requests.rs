//! Everything but publishing: conversations, subscriptions, history, markers, signals, presence.

use bytes::Bytes;
use rialto_protocol::body::Body;
use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{ConversationId, Cursor, Seq, UserId};
use rialto_protocol::{limits, v1};

use super::Client;
use crate::client_id;
use crate::command::{Request, Subscribe, Unsubscribe, What};
use crate::error::{CloseReason, RequestError, Retry};
use crate::events::ConnectionState;
use crate::requests::{self, Answer, Resend};
use crate::subscriptions::{Start, SubscribeAnswer, SubscribeOutcome};
use crate::wire;

/// A conversation to open.
#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    /// A fresh one by default. Of no meaning for `Self` and `Direct`, whose ids are derived.
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

/// Which part of a log to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    from: u64,
    direction: v1::Direction,
    limit: u32,
}

impl HistoryQuery {
    /// The newest events.
    #[must_use]
    pub const fn latest() -> Self {
        Self {
            from: 0,
            direction: v1::Direction::Backward,
            limit: 0,
        }
    }

    /// From this event upwards, itself included.
    #[must_use]
    pub const fn from(seq: Seq) -> Self {
        Self {
            from: seq.0,
            direction: v1::Direction::Forward,
            limit: 0,
        }
    }

    /// From this event downwards, itself included. The events still come in rising order.
    #[must_use]
    pub const fn back_from(seq: Seq) -> Self {
        Self {
            from: seq.0,
            direction: v1::Direction::Backward,
            limit: 0,
        }
    }

    /// At most so many events, 1 to 1,000; 50 by default. A page may have fewer although there are more.
    #[must_use]
    pub const fn limit(mut self, events_max: u32) -> Self {
        self.limit = events_max;
        self
    }
}

/// A page of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryPage {
    /// In rising order.
    pub events: Vec<v1::Event>,
    /// Where the log ends.
    pub head: Cursor,
    /// First event that is kept.
    pub oldest: Seq,
    /// There is nothing more in this direction.
    pub end: bool,
}

/// What is sent at most once and never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The user is typing; ends by itself after 6 s.
    Typing,
    /// The user has stopped.
    NotTyping,
    /// The application's own; at most 1 KiB.
    Custom(Bytes),
}

impl Client {
    /// Opens a conversation; that it is there already is no error. Sent again by itself after a reconnect.
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
                Resend::Yes,
            )
            .await?;
        Ok(Created {
            conversation: ConversationId::from_slice(&created.conversation)
                .map_err(|_| RequestError::UnexpectedAnswer)?,
            head: created.head.unwrap_or_default().into(),
            existed: created.existed,
        })
    }

    /// Follows conversations, any number at once. The outcomes are in the order of the request; their events come through
    /// [`crate::Events`], possibly before this returns. A conversation that is followed already is followed anew from the
    /// given start.
    ///
    /// # Errors
    /// As [`Client::create`]; that a single conversation is denied is an outcome.
    pub async fn subscribe(
        &self,
        subscriptions: Vec<(ConversationId, Start)>,
    ) -> Result<Vec<SubscribeOutcome>, RequestError> {
        let mut seen = std::collections::HashSet::with_capacity(subscriptions.len());
        if !subscriptions
            .iter()
            .all(|(conversation, _)| seen.insert(*conversation))
        {
            return Err(RequestError::Invalid("a conversation is named twice"));
        }
        let mut answers = Vec::new();
        for items in subscriptions.chunks(limits::SUBSCRIPTIONS_PER_REQUEST_MAX) {
            let cost = self.request_credit(items.len() * 48).await?;
            let (answer, answered) = SubscribeAnswer::new();
            self.push(What::Subscribe(Subscribe {
                items: items.to_vec(),
                cost,
                answer,
            }))?;
            answers.push(answered);
        }
        let mut outcomes = Vec::with_capacity(subscriptions.len());
        for answered in answers {
            outcomes.extend(answered.await.unwrap_or_else(|_| Err(gone()))?);
        }
        Ok(outcomes)
    }

    /// Follows conversations no more. Events that wait in [`crate::Events`] stay there.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn unsubscribe(&self, conversations: &[ConversationId]) -> Result<(), RequestError> {
        let mut answers = Vec::new();
        for chunk in conversations.chunks(limits::SUBSCRIPTIONS_PER_REQUEST_MAX) {
            let cost = self.request_credit(chunk.len() * 20).await?;
            let (answer, answered) = Answer::new();
            self.push(What::Unsubscribe(Unsubscribe {
                conversations: chunk.to_vec(),
                cost,
                answer,
            }))?;
            answers.push(answered);
        }
        for answered in answers {
            requests::answer::<v1::Done>(answered, FrameKind::Done).await?;
        }
        Ok(())
    }

    /// Reads a page of a log.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn history(
        &self,
        conversation: ConversationId,
        query: HistoryQuery,
    ) -> Result<HistoryPage, RequestError> {
        let body = v1::History {
            conversation: conversation.to_proto(),
            from_seq: query.from,
            direction: query.direction.into(),
            limit: query.limit,
        };
        let page: v1::HistoryPage = self
            .request(
                FrameKind::History,
                &body,
                FrameKind::HistoryPage,
                Resend::Yes,
            )
            .await?;
        Ok(HistoryPage {
            events: page.events,
            head: page.head.unwrap_or_default().into(),
            oldest: Seq(page.oldest_seq),
            end: page.end,
        })
    }

    /// Marks everything up to this event as read. Never goes back.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn mark_read(
        &self,
        conversation: ConversationId,
        seq: Seq,
    ) -> Result<v1::Marked, RequestError> {
        self.mark(conversation, seq.0, 0, false, Resend::Yes).await
    }

    /// Marks everything up to this event as arrived on a device. Never goes back.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn mark_delivered(
        &self,
        conversation: ConversationId,
        seq: Seq,
    ) -> Result<v1::Marked, RequestError> {
        self.mark(conversation, 0, seq.0, false, Resend::Yes).await
    }

    /// Marks everything after this event as unread; [`Seq`] 0: all.
    ///
    /// # Errors
    /// As [`Client::create`], and [`RequestError::Disconnected`]: sent again later, it could undo what was read meanwhile.
    pub async fn mark_unread(
        &self,
        conversation: ConversationId,
        seq: Seq,
    ) -> Result<v1::Marked, RequestError> {
        self.mark(conversation, seq.0, 0, true, Resend::No).await
    }

    async fn mark(
        &self,
        conversation: ConversationId,
        read_seq: u64,
        delivered_seq: u64,
        unread: bool,
        resend: Resend,
    ) -> Result<v1::Marked, RequestError> {
        let body = v1::Mark {
            conversation: conversation.to_proto(),
            read_seq,
            delivered_seq,
            unread,
        };
        self.request(FrameKind::Mark, &body, FrameKind::Marked, resend)
            .await
    }

    /// Sends a signal, at most once: without a connection it is dropped, and nothing is said if the server refuses it.
    ///
    /// # Errors
    /// When it is too long, or the client is closed.
    pub async fn signal(
        &self,
        conversation: ConversationId,
        signal: Signal,
    ) -> Result<(), RequestError> {
        if !matches!(
            *self.shared().state().borrow(),
            ConnectionState::Connected { .. }
        ) {
            return Ok(());
        }
        let signal = match signal {
            Signal::Typing => v1::signal::Signal::Typing(v1::Typing { off: false }),
            Signal::NotTyping => v1::signal::Signal::Typing(v1::Typing { off: true }),
            Signal::Custom(bytes) => {
                at_most(
                    bytes.len(),
                    limits::CUSTOM_SIGNAL_BYTES_MAX,
                    "a signal has at most 1 KiB",
                )?;
                v1::signal::Signal::Custom(bytes)
            }
        };
        let body = wire::encode(&v1::Signal {
            conversation: conversation.to_proto(),
            signal: Some(signal),
        });
        let cost = self.request_credit(body.len()).await?;
        self.push(What::Signal { body, cost })
    }

    /// Tells the conversation that the user is typing.
    ///
    /// # Errors
    /// As [`Client::signal`].
    pub async fn typing(&self, conversation: ConversationId) -> Result<(), RequestError> {
        self.signal(conversation, Signal::Typing).await
    }

    /// Watches the presence of these users and of no others, at most 1,000. Changes come through [`crate::Events`].
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn watch(&self, users: &[UserId]) -> Result<Vec<v1::Presence>, RequestError> {
        at_most(
            users.len(),
            limits::WATCHED_USERS_MAX,
            "a session watches at most 1,000 users",
        )?;
        let body = v1::Watch {
            users: users.iter().map(UserId::to_proto).collect(),
        };
        let presences: v1::Presences = self
            .request(FrameKind::Watch, &body, FrameKind::Presences, Resend::Yes)
            .await?;
        Ok(presences.presences)
    }

    /// What others see of this session: online, or away.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn set_presence(&self, state: v1::PresenceState) -> Result<(), RequestError> {
        let body = v1::SetPresence {
            state: state.into(),
        };
        self.request::<v1::Done>(FrameKind::SetPresence, &body, FrameKind::Done, Resend::Yes)
            .await
            .map(|_| ())
    }

    /// What a conversation is.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn describe(
        &self,
        conversation: ConversationId,
    ) -> Result<v1::Description, RequestError> {
        let body = v1::Describe {
            conversation: conversation.to_proto(),
        };
        self.request(
            FrameKind::Describe,
            &body,
            FrameKind::Description,
            Resend::Yes,
        )
        .await
    }

    /// A page of a conversation's members: those after `after`, or the first; at most `members_max`, 1 to 500, 0 for 100.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn members(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        members_max: u32,
    ) -> Result<v1::MembersPage, RequestError> {
        let after_user = after.map(|user| user.to_proto()).unwrap_or_default();
        let body = v1::Members {
            conversation: conversation.to_proto(),
            after_user,
            limit: members_max,
        };
        self.request(
            FrameKind::Members,
            &body,
            FrameKind::MembersPage,
            Resend::Yes,
        )
        .await
    }

    /// A page of the user's conversations: those after `after`, or the first; at most `conversations_max`, 1 to 500, 0 for 100.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn conversations(
        &self,
        after: Option<ConversationId>,
        conversations_max: u32,
    ) -> Result<v1::ConversationsPage, RequestError> {
        let after_conversation = after
            .map(|conversation| conversation.to_proto())
            .unwrap_or_default();
        let body = v1::Conversations {
            after_conversation,
            limit: conversations_max,
        };
        self.request(
            FrameKind::Conversations,
            &body,
            FrameKind::ConversationsPage,
            Resend::Yes,
        )
        .await
    }

    /// Changes what the user alone sees of a conversation; what is `None` stays. `muted_until_ms`: milliseconds since 1970,
    /// 0 not muted, `u64::MAX` for good.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn prefer(
        &self,
        conversation: ConversationId,
        hidden: Option<bool>,
        muted_until_ms: Option<u64>,
    ) -> Result<(), RequestError> {
        let body = v1::Prefer {
            conversation: conversation.to_proto(),
            hidden,
            muted_until_ms,
        };
        self.request::<v1::Done>(FrameKind::Prefer, &body, FrameKind::Done, Resend::Yes)
            .await
            .map(|_| ())
    }

    async fn request<T: Body>(
        &self,
        kind: FrameKind,
        body: &impl prost::Message,
        answer_kind: FrameKind,
        resend: Resend,
    ) -> Result<T, RequestError> {
        let body = wire::encode(body);
        let cost = self.request_credit(body.len()).await?;
        let (answer, answered) = Answer::new();
        self.push(What::Request(Request {
            kind,
            body,
            resend,
            cost,
            answer,
        }))?;
        requests::answer(answered, answer_kind).await
    }

    async fn request_credit(&self, bytes: usize) -> Result<u32, RequestError> {
        let closed = |reason| RequestError::Closed {
            reason,
            retry: Retry::Safe,
        };
        self.shared()
            .take_credit(Self::cost_of(bytes))
            .await
            .map_err(closed)
    }

    fn push(&self, what: What) -> Result<(), RequestError> {
        self.shared()
            .push(what)
            .map_err(|reason| RequestError::Closed {
                reason,
                retry: Retry::Safe,
            })
    }
}

fn at_most(count: usize, count_max: usize, otherwise: &'static str) -> Result<(), RequestError> {
    if count > count_max {
        Err(RequestError::Invalid(otherwise))
    } else {
        Ok(())
    }
}

/// The session's task ended without a word: its runtime is gone.
const fn gone() -> RequestError {
    RequestError::Closed {
        reason: CloseReason::Asked,
        retry: Retry::MaybeDuplicate,
    }
}
