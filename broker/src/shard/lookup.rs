//! Reads: what the core asks for, in the words of storage, and back.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rialto_core::io::{Answer, Query, SentEvent, StoredConversation, StoredSent};
use rialto_protocol::{
    event::{self, EventError},
    ids::{ConversationId, Cursor, Seq},
    record::Table,
    v1,
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
    /// An edit cannot be decoded.
    #[error("an edit in conversation {0} is damaged")]
    Edit(ConversationId),
    /// There are events but no profile, which the first event brings along.
    #[error("conversation {0} has no profile")]
    Profile(ConversationId),
}

impl LookupError {
    /// Storage was too busy: the read is to be tried again.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Views(ViewsError::Busy) | Self::Directory(DirectoryError::Busy)
        )
    }

    /// What is stored is not as it was written: reading it again would bring no more.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Views(error) => matches!(error, ViewsError::Damaged(_)),
            Self::Directory(_) => false,
            Self::Event(_) | Self::Tombstone(_) | Self::Edit(_) | Self::Profile(_) => true,
        }
    }
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
            let (mut rows, found) = tokio::try_join!(
                store.rows(conversation, Table::Member, vec![key]),
                store.sent(conversation, user),
            )?;
            let row = rows.pop().flatten();
            let sent = found.devices.into_iter().map(|sent| StoredSent {
                device: sent.device,
                newest: sent.newest,
                seq: sent.seq,
                ordinal: sent.ordinal,
            });
            Answer::Member {
                row,
                sent: sent.collect(),
                more_devices: found.more,
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
            let event = found.map(|sent| SentEvent {
                epoch: sent.epoch,
                seq: sent.seq,
                time_ms: sent.time_ms,
            });
            let as_of_ms = store.sent_as_of_ms();
            Answer::Sent { event, as_of_ms }
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
            let mut tombstones = match events.first().zip(events.last()) {
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
            tombstones.extend(find_dead_edits(&*store, conversation, &events).await?);
            tombstones.sort_unstable();
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

/// Edits among the events whose message was deleted: their text goes with it. Each with the seq of the delete event.
async fn find_dead_edits(
    store: &dyn Store,
    conversation: ConversationId,
    events: &[Bytes],
) -> Result<Vec<(Seq, Seq)>, LookupError> {
    let mut edits = Vec::new();
    for event in events {
        if event::content_field(event)? != event::CONTENT_EDIT {
            continue;
        }
        let decoded =
            v1::Event::decode(event.clone()).map_err(|_| LookupError::Edit(conversation))?;
        if let Some(v1::event::Content::Edit(edit)) = decoded.content {
            edits.push((Seq(decoded.seq), key(edit.target)));
        }
    }
    if edits.is_empty() {
        return Ok(Vec::new());
    }
    let targets = edits.iter().map(|(_, target)| target.clone()).collect();
    let rows = store.rows(conversation, Table::Tombstone, targets).await?;
    let mut dead = Vec::new();
    for ((seq, _), row) in edits.into_iter().zip(rows) {
        if let Some(row) = row {
            let by = number(&row).ok_or(LookupError::Tombstone(conversation))?;
            dead.push((seq, Seq(by)));
        }
    }
    Ok(dead)
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

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use futures_util::FutureExt;
    use rialto_protocol::{
        event::EventHead,
        ids::{ClientId, DeviceId, Epoch, LaneId, Ordinal, Position, UserId},
        record,
        v1::event::Content,
    };
    use rialto_storage::{journal::Entry, memory::MemoryStore};

    use super::*;

    fn put(buf: &mut BytesMut, conversation: ConversationId, seq: u64, content: &Content) {
        let head = EventHead {
            seq: Seq(seq),
            epoch: Epoch(1),
            time_ms: 1,
            ordinal: Ordinal(1),
            sender: UserId::from_name("ann"),
            device: DeviceId::from_bytes([1; 16]),
            client_id: ClientId::v7(seq, [0; 10]),
        };
        record::put_event(buf, &conversation, |buf| {
            event::encode_into(buf, &head, content);
        });
    }

    #[test]
    fn the_text_of_an_edit_goes_with_its_deleted_message() {
        let store = MemoryStore::new(1);
        let conversation = ConversationId::from_bytes([7; 16]);
        let edit = |target| {
            Content::Edit(v1::Edit {
                target,
                body: Bytes::from_static(b"new"),
                ..v1::Edit::default()
            })
        };
        let mut records = BytesMut::new();
        put(
            &mut records,
            conversation,
            1,
            &Content::Message(v1::Message::default()),
        );
        put(
            &mut records,
            conversation,
            2,
            &Content::Message(v1::Message::default()),
        );
        put(&mut records, conversation, 3, &edit(1));
        put(&mut records, conversation, 4, &edit(2));
        let bury = |records: &mut BytesMut, target, seq| {
            let delete = v1::Delete {
                target,
                reason: String::new(),
            };
            put(records, conversation, seq, &Content::Delete(delete));
            let (key, value) = (key(target), key(seq));
            record::put_row(records, &conversation, Table::Tombstone, &key, &value);
        };
        bury(&mut records, 1, 5);
        put(
            &mut records,
            conversation,
            6,
            &Content::Message(v1::Message::default()),
        );
        bury(&mut records, 6, 7);
        let claim = store.claim_now(&[LaneId(0)]).unwrap().remove(0);
        let entry = Entry {
            lane: LaneId(0),
            epoch: claim.epoch,
            position: Position(1),
            time_ms: 1,
            records: records.freeze(),
        };
        store.append_now(vec![entry]).unwrap();
        let query = Query::Events {
            conversation,
            from: Seq(2),
            to: Seq(7),
            bytes_max: 1 << 20,
            backward: false,
        };
        let answered = answer(Arc::new(store), query)
            .now_or_never()
            .unwrap()
            .unwrap();
        let Answer::Events { events, tombstones } = answered else {
            panic!("{answered:?}");
        };
        assert_eq!(events.len(), 6);
        assert_eq!(
            tombstones,
            [(Seq(3), Seq(5)), (Seq(6), Seq(7))],
            "all of them rise, edits among messages"
        );
    }
}
