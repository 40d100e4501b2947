//! Reads: what the core asks for, in the words of storage, and back.

use std::sync::Arc;

use bytes::Bytes;
use rialto_core::io::{Answer, Query, SentEvent, StoredConversation, StoredSent};
use rialto_protocol::{
    event::{self, EventError},
    ids::{ConversationId, Cursor, Seq},
    record::Table,
};
use rialto_storage::{
    Store,
    directory::DirectoryError,
    views::{Order, Range, Scan, ViewsError},
};

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The views cannot be read.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The directory cannot be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// An event is not as an owner writes it.
    #[error("a stored event is damaged: {0}")]
    Event(#[from] EventError),
    /// A tombstone's key or value is no number.
    #[error("a tombstone of conversation {0} is damaged")]
    Tombstone(ConversationId),
    /// There are events but no profile, which the first event brings along.
    #[error("conversation {0} has no profile")]
    Profile(ConversationId),
}

/// Answers a query of the core.
///
/// # Errors
/// When storage cannot be read, or what it holds is damaged.
pub async fn answer(store: Arc<dyn Store>, query: Query) -> Result<Answer, LookupError> {
    Ok(match query {
        Query::Conversation { conversation } => {
            Answer::Conversation(find_conversation(&*store, conversation).await?)
        }
        Query::Member { conversation, user } => {
            let key = Bytes::copy_from_slice(user.as_bytes());
            let row = store
                .rows(conversation, Table::Member, vec![key])
                .await?
                .pop()
                .flatten();
            let sent = store.sent(conversation, user).await?.into_iter();
            let sent = sent.map(|sent| StoredSent {
                device: sent.device,
                newest: sent.newest,
                seq: sent.seq,
                ordinal: sent.ordinal,
            });
            Answer::Member {
                row,
                sent: sent.collect(),
            }
        }
        Query::FindSent {
            conversation,
            user,
            device,
            client_id,
        } => {
            let found = store
                .find_sent(conversation, user, device, client_id)
                .await?;
            Answer::Sent(found.map(|sent| SentEvent {
                epoch: sent.epoch,
                seq: sent.seq,
                time_ms: sent.time_ms,
            }))
        }
        Query::Events {
            conversation,
            from,
            to,
            bytes_max,
            backward,
        } => {
            let order = if backward {
                Order::Backward
            } else {
                Order::Forward
            };
            let events = store
                .events(Range {
                    conversation,
                    from,
                    to,
                    bytes_max,
                    order,
                })
                .await?;
            // Of those that were read, not of all that were asked for: the range may have been cut to a page.
            let tombstones = match events.first().zip(events.last()) {
                Some((first, last)) => {
                    find_tombstones(
                        &*store,
                        conversation,
                        event::peek(first)?.seq,
                        event::peek(last)?.seq,
                    )
                    .await?
                }
                None => Vec::new(),
            };
            Answer::Events { events, tombstones }
        }
        Query::Scan {
            conversation,
            table,
            after,
            limit,
        } => {
            let scan = Scan {
                conversation,
                table,
                after,
                through: Bytes::new(),
                limit,
            };
            Answer::Scan(store.scan(scan).await?)
        }
        Query::Rows {
            conversation,
            table,
            keys,
        } => Answer::Rows(store.rows(conversation, table, keys).await?),
        Query::LastSeen { users } => Answer::LastSeen(store.last_seen(users).await?),
    })
}

async fn find_conversation(
    store: &dyn Store,
    conversation: ConversationId,
) -> Result<Option<StoredConversation>, LookupError> {
    let Some(head) = store.head(conversation).await? else {
        return Ok(None);
    };
    let rows = store
        .rows(conversation, Table::Profile, vec![Bytes::new()])
        .await?;
    let profile = rows
        .into_iter()
        .flatten()
        .next()
        .ok_or(LookupError::Profile(conversation))?;
    Ok(Some(StoredConversation {
        head: Cursor {
            epoch: head.epoch,
            seq: head.seq,
        },
        ordinal: head.ordinal,
        time_ms: head.time_ms,
        oldest: head.oldest,
        profile,
    }))
}

/// Tombstones of `from..=to`, by pages.
async fn find_tombstones(
    store: &dyn Store,
    conversation: ConversationId,
    from: Seq,
    to: Seq,
) -> Result<Vec<(Seq, Seq)>, LookupError> {
    const PAGE: usize = 1_000;
    let mut tombstones = Vec::new();
    // `after` is exclusive and empty stands for the start, which is where seq 0 is.
    let mut after = from.0.checked_sub(1).map_or_else(Bytes::new, key);
    loop {
        let scan = Scan {
            conversation,
            table: Table::Tombstone,
            after,
            through: key(to.0),
            limit: PAGE,
        };
        let rows = store.scan(scan).await?;
        for (key, value) in &rows {
            let pair = number(key)
                .zip(number(value))
                .ok_or(LookupError::Tombstone(conversation))?;
            tombstones.push((Seq(pair.0), Seq(pair.1)));
        }
        match rows.last() {
            Some((last, _)) if rows.len() >= PAGE => after = last.clone(),
            _ => return Ok(tombstones),
        }
    }
}

fn key(seq: u64) -> Bytes {
    Bytes::copy_from_slice(&seq.to_be_bytes())
}

/// Keys and values of tombstones: seqs, big endian.
fn number(bytes: &Bytes) -> Option<u64> {
    bytes
        .first_chunk()
        .filter(|_| bytes.len() == 8)
        .map(|bytes| u64::from_be_bytes(*bytes))
}
