//! The requests that have no file of their own: subscriptions, markers, signals, presence, lists.

use bytes::Bytes;
use rialto_protocol::body::Body;
use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{ConversationId, Seq, UserId};
use rialto_protocol::{limits, v1};

use super::Client;
use crate::attempts::Attempts;
use crate::command::{Request, Subscribe, Unsubscribe, What};
use crate::error::{CloseReason, RequestError, Retry};
use crate::events::ConnectionState;
use crate::requests::{self, Answer, Resend};
use crate::subscriptions::{Start, SubscribeAnswer, SubscribeOutcome};
use crate::wire;

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
    /// Follows conversations, any number at once. The outcomes are in the order of the request; their events come through
    /// [`crate::Events`], possibly before this returns. A conversation that is followed already is followed anew from the
    /// given start; if the server refuses that for now, it is followed on from where it was.
    ///
    /// Cancelled, some or all may be followed all the same.
    ///
    /// # Errors
    /// As [`Client::create`]; that a conversation is denied is an outcome, and so is the refusal of one of the requests of 256
    /// conversations each that this makes, if others were answered. After an error no more is followed than before.
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
        let mut refused = None;
        let mut refusals = 0;
        let requests = answers.len();
        let chunks = subscriptions.chunks(limits::SUBSCRIPTIONS_PER_REQUEST_MAX);
        for (answered, items) in answers.into_iter().zip(chunks) {
            match answered.await.unwrap_or_else(|_| Err(gone())) {
                Ok(answer) => outcomes.extend(answer),
                Err(RequestError::Refused(error)) => {
                    outcomes.extend(items.iter().map(|(conversation, _)| {
                        SubscribeOutcome::denied(*conversation, error.clone())
                    }));
                    refusals += 1;
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) if refusals == requests => Err(RequestError::Refused(error)),
            _ => Ok(outcomes),
        }
    }

    /// Follows conversations no more. Events that wait in [`crate::Events`] stay there.
    ///
    /// Cancelled, it may be done all the same.
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

    /// Marks everything up to this event as read. Never goes back.
    ///
    /// Cancelled, it may be done all the same.
    ///
    /// # Errors
    /// As [`Client::create`], and [`RequestError::Disconnected`] where a later [`Client::mark_unread`] was done.
    pub async fn mark_read(
        &self,
        conversation: ConversationId,
        seq: Seq,
    ) -> Result<v1::Marked, RequestError> {
        self.mark(conversation, seq.0, 0, false, Resend::Yes).await
    }

    /// Marks everything up to this event as arrived on a device. Never goes back.
    ///
    /// Cancelled, it may be done all the same.
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
    /// Cancelled, it may be done all the same.
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

    /// Sends a signal, at most once: without a connection or byte credit it is dropped, and nothing is said if the server refuses
    /// it.
    ///
    /// It does not wait.
    ///
    /// # Errors
    /// When it is too long, or the client is closed.
    pub async fn signal(
        &self,
        conversation: ConversationId,
        signal: Signal,
    ) -> Result<(), RequestError> {
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
        self.shared().check_open().map_err(closed)?;
        let state = self.shared().state();
        if !matches!(*state.borrow(), ConnectionState::Connected { .. }) {
            return Ok(());
        }
        // Waiting would make it untrue.
        match self.shared().try_take_credit(Self::cost_of(body.len())) {
            Some(cost) => self.push(What::Signal { body, cost }),
            None => Ok(()),
        }
    }

    /// Tells the conversation that the user is typing.
    ///
    /// It does not wait.
    ///
    /// # Errors
    /// As [`Client::signal`].
    pub async fn typing(&self, conversation: ConversationId) -> Result<(), RequestError> {
        self.signal(conversation, Signal::Typing).await
    }

    /// Watches the presence of these users and of no others, at most 1,000. They come in any order, later changes through
    /// [`crate::Events`].
    ///
    /// Cancelled, it may be done all the same.
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
    /// Cancelled, it may be done all the same.
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
    /// Cancelled, it changes nothing.
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

    /// A page of a conversation's members: those after `after`, which is `last_user` of the page before, or the first; at most
    /// `members_max`, 1 to 500, 0 for 100. Members whom the user may not see are left out: a page may be short, or empty.
    ///
    /// Cancelled, it changes nothing.
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
    /// Cancelled, it changes nothing.
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
    /// Cancelled, it may be done all the same.
    ///
    /// # Errors
    /// As [`Client::create`], and [`RequestError::Disconnected`] where a later call has changed the same: that one would be undone
    /// by sending this one again.
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

    pub(super) async fn request<T: Body>(
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
            attempts: Attempts::default(),
            cost,
            answer,
        }))?;
        requests::answer(answered, answer_kind).await
    }

    async fn request_credit(&self, bytes: usize) -> Result<u32, RequestError> {
        let cost = self.shared().take_credit(Self::cost_of(bytes));
        cost.await.map_err(closed)
    }

    fn push(&self, what: What) -> Result<(), RequestError> {
        self.shared().push(what).map_err(closed)
    }
}

/// The error of what was not sent.
const fn closed(reason: CloseReason) -> RequestError {
    RequestError::Closed {
        reason,
        retry: Retry::Safe,
    }
}

pub(super) fn at_most(
    count: usize,
    count_max: usize,
    otherwise: &'static str,
) -> Result<(), RequestError> {
    if count > count_max {
        Err(RequestError::Invalid(otherwise))
    } else {
        Ok(())
    }
}

/// The session's task ended without a word.
const fn gone() -> RequestError {
    RequestError::Closed {
        reason: CloseReason::Gone,
        retry: Retry::MaybeDuplicate,
    }
}
