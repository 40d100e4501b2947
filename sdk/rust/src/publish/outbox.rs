//! What is not acknowledged: the drafts of each Publish in flight, and those that wait to be sent again.

use std::collections::HashMap;

use rialto_protocol::error::ErrorCode;
use rialto_protocol::ids::ConversationId;
use rialto_protocol::v1;
use tokio::time::Instant;

use super::Pending;
use crate::command::{Command, What};

/// The drafts of one Publish frame that is in flight, each with its place in the order of commands.
#[derive(Debug)]
pub(crate) struct Batch {
    drafts: Vec<Option<(u64, Pending)>>,
    open: usize,
}

impl Batch {
    pub(crate) fn new(drafts: Vec<(u64, Pending)>) -> Self {
        let open = drafts.len();
        Self {
            drafts: drafts.into_iter().map(Some).collect(),
            open,
        }
    }

    /// Whether all of it is.
    pub(crate) const fn is_done(&self) -> bool {
        self.open == 0
    }

    /// What is not acknowledged, as commands to be given once more; it may have been appended.
    pub(crate) fn into_commands(self) -> impl Iterator<Item = Command> {
        self.drafts
            .into_iter()
            .flatten()
            .map(|(order, mut pending)| {
                pending.attempts.doubt();
                Command {
                    order,
                    what: What::Publish(pending),
                }
            })
    }
}

/// Drafts that the server refused for now, until they are sent again.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    delayed: Vec<Command>,
    /// Where later drafts have to wait for them, and until when.
    conversations: HashMap<ConversationId, Instant>,
    /// When the first of these is due, or earlier.
    due: Option<Instant>,
    token_expired: bool,
}

impl Outbox {
    /// Takes a receipt of a batch. The credit that is free again; none when the receipt is of no open draft.
    pub(crate) fn receipt(
        &mut self,
        batch: &mut Batch,
        receipt: v1::Receipt,
        now: Instant,
    ) -> Option<u32> {
        let slot = usize::try_from(receipt.draft)
            .ok()
            .and_then(|index| batch.drafts.get_mut(index))?;
        let (order, pending) = slot.take()?;
        batch.open -= 1;
        let cost = pending.cost;
        self.note(receipt.error.as_ref());
        match pending.settle(receipt) {
            Some((pending, wait)) => {
                self.delay(order, pending, now + wait);
                Some(0)
            }
            None => Some(cost),
        }
    }

    /// Takes the refusal of a whole Publish. The credit that is free again.
    pub(crate) fn refusal(&mut self, batch: Batch, error: &v1::Error, now: Instant) -> u32 {
        self.note(Some(error));
        let mut freed = 0;
        for (order, pending) in batch.drafts.into_iter().flatten() {
            let cost = pending.cost;
            match pending.refuse(error.clone().into()) {
                Some((pending, wait)) => self.delay(order, pending, now + wait),
                None => freed += cost,
            }
        }
        freed
    }

    fn note(&mut self, error: Option<&v1::Error>) {
        let code = error.and_then(ErrorCode::from_proto);
        self.token_expired |= code == Some(ErrorCode::TokenExpired);
    }

    /// Whether a draft was refused since the last call because the token had expired.
    pub(crate) fn take_token_expired(&mut self) -> bool {
        std::mem::take(&mut self.token_expired)
    }

    /// Keeps a draft back that has to wait for an earlier one of its conversation; others come back.
    pub(crate) fn pass(&mut self, order: u64, pending: Pending) -> Option<Pending> {
        if self.conversations.is_empty() || !self.conversations.contains_key(&pending.conversation)
        {
            return Some(pending);
        }
        self.delayed.push(Command {
            order,
            what: What::Publish(pending),
        });
        None
    }

    fn delay(&mut self, order: u64, pending: Pending, due: Instant) {
        let until = self
            .conversations
            .entry(pending.conversation)
            .or_insert(due);
        *until = due.max(*until);
        self.delayed.push(Command {
            order,
            what: What::Publish(pending),
        });
        self.due = Some(self.due.map_or(due, |first| first.min(due)));
    }

    /// When to look at [`Outbox::take_due`].
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.delayed.is_empty()
    }

    /// What waits in conversations where the wait is over, in no particular order.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Command> {
        let waits = &mut self.conversations;
        waits.retain(|_, until| *until > now);
        self.due = waits.values().min().copied();
        let (waiting, due) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition(|command| match &command.what {
                What::Publish(pending) => waits.contains_key(&pending.conversation),
                _ => false,
            });
        self.delayed = waiting;
        due
    }

    /// All that waits, in no particular order.
    pub(crate) fn take(&mut self) -> Vec<Command> {
        self.due = None;
        self.conversations.clear();
        std::mem::take(&mut self.delayed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rialto_protocol::ids::ClientId;
    use rialto_protocol::limits::FRAME_BYTES_MAX_DEFAULT;

    use super::super::{Publishing, encode_draft};
    use super::*;
    use crate::attempts::AGAIN;
    use crate::content::Content;
    use crate::error::{CloseReason, PublishError, Retry};

    const ROOM: ConversationId = ConversationId::from_bytes([1; 16]);

    fn pending(text: &str, time_ms: u64) -> (Pending, Publishing) {
        pending_in(ROOM, text, time_ms)
    }

    fn pending_in(room: ConversationId, text: &str, time_ms: u64) -> (Pending, Publishing) {
        let draft = encode_draft(&Content::text(text), FRAME_BYTES_MAX_DEFAULT).unwrap();
        Pending::new(room, None, ClientId::v7(time_ms, [9; 10]), draft, 100)
    }

    fn refused(code: ErrorCode) -> v1::Receipt {
        v1::Receipt {
            error: Some(code.to_proto(0)),
            ..v1::Receipt::default()
        }
    }

    #[tokio::test]
    async fn the_servers_own_troubles_are_waited_out_and_the_callers_are_told() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        let (first, told) = pending("a", 1);
        let (second, waiting) = pending("b", 2);
        let mut batch = Batch::new(vec![(1, first), (2, second)]);
        assert_eq!(
            outbox.receipt(&mut batch, refused(ErrorCode::NotAMember), now),
            Some(100)
        );
        let again = v1::Receipt {
            draft: 1,
            ..refused(ErrorCode::StorageUnavailable)
        };
        assert_eq!(outbox.receipt(&mut batch, again.clone(), now), Some(0));
        assert_eq!(
            outbox.receipt(&mut batch, again, now),
            None,
            "a receipt counts once"
        );
        assert!(batch.is_done());
        assert_eq!(outbox.due(), Some(now + AGAIN));
        assert!(
            told.await
                .unwrap_err()
                .refusal()
                .unwrap()
                .is(ErrorCode::NotAMember)
        );
        for command in outbox.take() {
            command.fail(&CloseReason::Asked, Retry::MaybeDuplicate);
        }
        assert!(matches!(
            waiting.await,
            Err(PublishError::Closed {
                retry: Retry::MaybeDuplicate,
                ..
            })
        ));
    }

    #[test]
    fn a_long_wait_in_one_conversation_is_none_in_another() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        let other = ConversationId::from_bytes([2; 16]);
        let mut publishings = Vec::new();
        let mut wait = |order, room, after_ms| {
            let (pending, publishing) = pending_in(room, "a", order);
            publishings.push(publishing);
            let refusal = ErrorCode::StorageUnavailable.to_proto(after_ms);
            let batch = Batch::new(vec![(order, pending)]);
            assert_eq!(outbox.refusal(batch, &refusal, now), 0);
        };
        wait(1, ROOM, 30_000);
        wait(2, other, 100);
        wait(3, ROOM, 100);
        let orders = |commands: Vec<Command>| {
            let mut orders: Vec<_> = commands.iter().map(|command| command.order).collect();
            orders.sort_unstable();
            orders
        };
        let soon = now + Duration::from_millis(100);
        assert_eq!(outbox.due(), Some(soon));
        assert_eq!(orders(outbox.take_due(soon)), [2]);
        let (late, _late) = pending_in(other, "b", 4);
        assert!(outbox.pass(4, late).is_some());
        let (late, _late) = pending_in(ROOM, "b", 5);
        assert!(outbox.pass(5, late).is_none());
        let later = now + Duration::from_millis(30_000);
        assert_eq!(outbox.due(), Some(later));
        assert_eq!(orders(outbox.take_due(later)), [1, 3, 5]);
        assert!(outbox.due().is_none() && outbox.is_empty());
    }
}
