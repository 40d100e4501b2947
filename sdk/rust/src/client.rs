//! The handle to a client: what can be asked for. Handles are cheap to clone; each call is a command to the session's task.

mod create;
mod history;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rialto_protocol::ids::{ClientId, ConversationId, DeviceId, UserId};
use rialto_protocol::v1;
use tokio::sync::watch;

use crate::builder::ClientBuilder;
use crate::command::{CLOSE_PATIENCE, Shared};
use crate::content::Content;
use crate::credit::COST_MIN;
use crate::error::{CloseReason, PublishError, Retry};
use crate::events::ConnectionState;
use crate::publish::{self, FRAME_HEAD_BYTES, Pending, Publishing};

pub use create::{Create, Created};
pub use history::{HistoryPage, HistoryQuery};
pub use requests::Signal;

/// A session with a broker that outlives its connections. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    user: UserId,
    device: DeviceId,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.clients_dropped();
    }
}

impl Client {
    /// Begins the making of one.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    pub(crate) fn new(shared: Arc<Shared>, user: UserId, device: DeviceId) -> Self {
        Self {
            handle: Arc::new(Handle {
                shared,
                user,
                device,
            }),
        }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// The user whom the token names.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.handle.user
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.handle.device
    }

    /// The server's limits, as of the last connection.
    #[must_use]
    pub fn limits(&self) -> v1::Limits {
        self.shared().limits()
    }

    /// How the connection is, and when it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.shared().state()
    }

    /// Sends a draft. This returns as soon as the draft is queued, which takes no time while there is byte credit; what
    /// it returns resolves when the draft has become an event, or has been refused.
    ///
    /// Drafts go out in the order in which these calls return. While there is no connection they wait for the next one, and
    /// what is not acknowledged is sent again there: without an end, if need be. None of them survives this process. A draft
    /// that the server refuses for reasons of its own is sent again 8 times, which takes about 25 s without advice of the
    /// server's, and so is one that it refuses for now and that was sent before without an answer; later drafts of its
    /// conversation wait meanwhile, but those that had gone out already may get ahead of it in the log. Where the order counts,
    /// wait for the receipt. Without byte credit this waits until there is some, or the client is closed.
    ///
    /// Cancelled, it has sent nothing.
    ///
    /// # Errors
    /// When the draft breaks a limit of the protocol, or the client is closed. Nothing was sent then.
    pub async fn publish(
        &self,
        conversation: ConversationId,
        content: impl Into<Content>,
    ) -> Result<Publishing, PublishError> {
        self.publish_one(conversation, None, None, &content.into())
            .await
    }

    /// Sends a draft in the name of another user, whose membership and role count. For service tokens.
    ///
    /// Cancelled, it has sent nothing.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn publish_as(
        &self,
        user: UserId,
        conversation: ConversationId,
        content: impl Into<Content>,
    ) -> Result<Publishing, PublishError> {
        self.publish_one(conversation, Some(user), None, &content.into())
            .await
    }

    /// Sends a draft once more that may have arrived ([`Retry::MaybeDuplicate`]), with the client id that it had: it is
    /// appended once, if the device is the same too. An older id than those published since costs the server a look-up. Refused
    /// for now, it still may have arrived before, and is to be sent once more in this way.
    ///
    /// Cancelled, it has sent nothing now.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn publish_again(
        &self,
        client_id: ClientId,
        conversation: ConversationId,
        content: impl Into<Content>,
    ) -> Result<Publishing, PublishError> {
        self.publish_one(conversation, None, Some(client_id), &content.into())
            .await
    }

    /// As [`Client::publish_again`], of a draft that was sent with [`Client::publish_as`], in the name of the same user.
    ///
    /// Cancelled, it has sent nothing now.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn publish_again_as(
        &self,
        user: UserId,
        client_id: ClientId,
        conversation: ConversationId,
        content: impl Into<Content>,
    ) -> Result<Publishing, PublishError> {
        self.publish_one(conversation, Some(user), Some(client_id), &content.into())
            .await
    }

    async fn publish_one(
        &self,
        conversation: ConversationId,
        on_behalf_of: Option<UserId>,
        client_id: Option<ClientId>,
        content: &Content,
    ) -> Result<Publishing, PublishError> {
        let draft = publish::encode_draft(content, self.limits().frame_bytes_max as usize)?;
        let retry = client_id.map_or(Retry::Safe, |_| Retry::MaybeDuplicate);
        let closed = |reason| PublishError::Closed { reason, retry };
        let cost = self.shared().take_credit(draft.len() + FRAME_HEAD_BYTES);
        let cost = cost.await.map_err(closed)?;
        let mut publishing = None;
        self.shared()
            .push_drafts(
                conversation,
                on_behalf_of,
                client_id,
                std::iter::once((draft, cost)),
                |one| {
                    publishing = Some(one);
                },
            )
            .map_err(closed)?;
        publishing.ok_or_else(|| closed(CloseReason::Gone))
    }

    /// Sends drafts one right after the other: as [`Client::publish`] for each, with less work. All of them are checked before
    /// any is sent. What [`Client::publish`] would return for each is appended to `publishings`, in order, as the drafts are
    /// queued. Cancelled, it has sent as many as it has appended. When the client is closed in the middle, the rest is appended
    /// too: as failed, with [`Retry::Safe`].
    ///
    /// # Errors
    /// When a draft breaks a limit of the protocol. Nothing was sent then, and nothing appended.
    pub async fn publish_batch(
        &self,
        conversation: ConversationId,
        contents: &[Content],
        publishings: &mut Vec<Publishing>,
    ) -> Result<(), PublishError> {
        let frame_bytes_max = self.limits().frame_bytes_max as usize;
        for content in contents {
            publish::check_draft(content, frame_bytes_max)?;
        }
        let mut ready = Vec::new();
        let mut ready_bytes = 0;
        for content in contents {
            let draft = publish::encode_draft(content, frame_bytes_max)?;
            let bytes = draft.len() + FRAME_HEAD_BYTES;
            let cost = match self.shared().try_take_credit(bytes) {
                Some(cost) => cost,
                None => {
                    // What is ready goes out first, or its credit would never come back.
                    self.push_ready(conversation, &mut ready, publishings);
                    ready_bytes = 0;
                    // Closed, it is refused when it is pushed.
                    self.shared().take_credit(bytes).await.unwrap_or(0)
                }
            };
            ready_bytes += bytes;
            ready.push((draft, cost));
            if ready_bytes >= frame_bytes_max {
                self.push_ready(conversation, &mut ready, publishings);
                ready_bytes = 0;
            }
        }
        self.push_ready(conversation, &mut ready, publishings);
        Ok(())
    }

    fn push_ready(
        &self,
        conversation: ConversationId,
        ready: &mut Vec<(BytesMut, u32)>,
        publishings: &mut Vec<Publishing>,
    ) {
        let mut drafts = ready.drain(..);
        let pushed = self
            .shared()
            .push_drafts(conversation, None, None, &mut drafts, |one| {
                publishings.push(one);
            });
        if let Err(reason) = pushed {
            for (draft, cost) in drafts {
                let client_id = self.shared().client_id();
                let (pending, publishing) =
                    Pending::new(conversation, None, client_id, draft, cost);
                pending.close(&reason, Retry::Safe);
                publishings.push(publishing);
            }
        }
    }

    /// Accepts an invitation to a conversation, or enters a public one.
    ///
    /// Cancelled, it has sent nothing.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn join(&self, conversation: ConversationId) -> Result<Publishing, PublishError> {
        self.publish(conversation, Content::join()).await
    }

    /// Leaves a conversation.
    ///
    /// Cancelled, it has sent nothing.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn leave(&self, conversation: ConversationId) -> Result<Publishing, PublishError> {
        self.publish(conversation, Content::leave()).await
    }

    /// Invites a user.
    ///
    /// Cancelled, it has sent nothing.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn invite(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Publishing, PublishError> {
        self.publish(conversation, Content::invite(user)).await
    }

    /// Removes a member.
    ///
    /// Cancelled, it has sent nothing.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn remove(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Publishing, PublishError> {
        self.publish(conversation, Content::remove(user)).await
    }

    /// As [`Client::close_within`] 30 s. Dropping all handles and [`crate::Events`] does the same, without waiting for it.
    pub async fn close(&self) {
        self.close_within(CLOSE_PATIENCE).await;
    }

    /// Closes the client, for all of its handles: nothing more is taken; what was asked for before is sent, on another
    /// connection if need be, and its answers are waited for. Then, or when `patience` is over, the connection ends, and what
    /// is not answered fails. Without anything open it closes at once. Cancel safe: the client closes all the same.
    pub async fn close_within(&self, patience: Duration) {
        self.shared().close(patience);
        let mut state = self.shared().state();
        // It cannot fail while this handle is there.
        let _ = state
            .wait_for(|state| matches!(state, ConnectionState::Closed(_)))
            .await;
    }

    fn cost_of(bytes: usize) -> usize {
        bytes + COST_MIN
    }
}
