//! The people of a log, and the connections that they speak through: one each, or a few that they share.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use rialto_protocol::ids::{ClientId, ConversationId, UserId};
use rialto_sdk::{Client, ConnectError, Content, PublishError, Publishing};
use tokio::sync::{OnceCell, Semaphore};

use super::names;
use crate::dial::Dialer;

/// Connections that are opened, or closed, at the same time.
const OPENING_MAX: usize = 64;

/// Everybody who speaks in a replay.
#[derive(Debug)]
pub(super) struct Crowd {
    dialer: Arc<Dialer>,
    users: Vec<UserId>,
    lines: Vec<OnceCell<Client>>,
    sharing: Sharing,
    opening: Semaphore,
}

/// Who has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Every nick has one of its own, opened when it first speaks.
    None,
    /// Every conversation is played over one of so many.
    Among(usize),
}

/// Somebody speaking through a connection.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    client: Client,
    on_behalf_of: Option<UserId>,
}

impl Crowd {
    /// Of these nicks. No connection is opened yet.
    #[must_use]
    pub(super) fn new(dialer: Arc<Dialer>, nicks: &[String], sharing: Sharing) -> Self {
        let lines = match sharing {
            Sharing::None => nicks.len(),
            Sharing::Among(connections) => connections.max(1),
        };
        Self {
            dialer,
            users: nicks.iter().map(|nick| names::speaker(nick)).collect(),
            lines: std::iter::repeat_with(OnceCell::new).take(lines).collect(),
            sharing,
            opening: Semaphore::new(OPENING_MAX),
        }
    }

    /// The user behind a nick.
    #[must_use]
    pub(super) fn user(&self, nick: usize) -> UserId {
        self.users[nick]
    }

    /// The voice of a nick in a log; opens its connection if it has none yet.
    ///
    /// # Errors
    /// When the connection is refused, or cannot be made in time.
    pub(super) async fn voice(&self, nick: usize, log: usize) -> Result<Voice, ConnectError> {
        let (line, user, on_behalf_of) = match self.sharing {
            Sharing::None => (nick, self.users[nick], None),
            Sharing::Among(_) => {
                let line = log % self.lines.len();
                (
                    line,
                    names::staff(&format!("publisher {line}")),
                    Some(self.users[nick]),
                )
            }
        };
        let client = self.lines[line].get_or_try_init(|| async {
            // The semaphore is never closed; were it, the connection would merely be opened at once.
            let _turn = self.opening.acquire().await;
            self.dialer.connect_writer(user).await
        });
        Ok(Voice {
            client: client.await?.clone(),
            on_behalf_of,
        })
    }

    /// Closes every connection that was opened.
    pub(super) async fn close(&self) {
        let open = self.lines.iter().filter_map(OnceCell::get);
        stream::iter(open)
            .for_each_concurrent(OPENING_MAX, Client::close)
            .await;
    }
}

impl Voice {
    /// Says something, without waiting for the answer.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub(super) async fn publish(
        &self,
        conversation: ConversationId,
        content: Content,
    ) -> Result<Publishing, PublishError> {
        match self.on_behalf_of {
            None => self.client.publish(conversation, content).await,
            Some(user) => self.client.publish_as(user, conversation, content).await,
        }
    }

    /// Says it again under the id that it had.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub(super) async fn publish_again(
        &self,
        client_id: ClientId,
        conversation: ConversationId,
        content: Content,
    ) -> Result<Publishing, PublishError> {
        let client = &self.client;
        match self.on_behalf_of {
            None => client.publish_again(client_id, conversation, content).await,
            Some(user) => {
                client
                    .publish_again_as(user, client_id, conversation, content)
                    .await
            }
        }
    }
}
