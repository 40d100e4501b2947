//! Messages in their usual form: decided in one go where all that they need is in memory, as nearly always. Whatever is not
//! so clear (a conversation or member to be read, a retry, work of the user that waits) becomes a piece of work like any other.

use std::hint::black_box;

use prost::Message as _;
use rialto_protocol::{error::ErrorCode, v1};

use crate::{
    advice::retry_hint_ms,
    effects::Effects,
    io::Now,
    message::{Author, Draft, Origin, Plain, PlainBatch, Receipt, Receipted, ToOwner},
    topology::ShardId,
};

use super::{
    Owner,
    append::{Body, Refusal, may_write},
    conversation::{Conversation, Slot},
    desk::Desk,
    member::Novelty,
    work::Work,
};

impl Owner {
    /// Appends messages, each by itself.
    pub(super) fn append_plain(&mut self, now: Now, batch: &PlainBatch, fx: &mut Effects) {
        if batch.drafts.len() > 1 {
            self.bring_near(batch);
        }
        for draft in &batch.drafts {
            let message = &batch.bytes[draft.message.clone()];
            let receipt = match self.conversations.peek_mut(&draft.conversation) {
                Some(Slot::Present(conversation)) => {
                    conversation.in_use = true;
                    let decided = self
                        .desk
                        .decide(now, conversation, batch.author, draft, message);
                    decided.map(|receipt| (receipt, &**conversation))
                }
                _ => None,
            };
            match receipt {
                Some((receipt, conversation)) => {
                    let receipted = batch.receipted(draft, receipt);
                    self.desk.hand_out(conversation, batch.edge, receipted);
                }
                None => match batch.to_append(draft, message) {
                    Ok(ask) => self.start(now, Work::new(ask), fx),
                    Err(code) => {
                        let receipt = Receipt::Refused {
                            code,
                            retry_after_ms: 0,
                        };
                        self.desk
                            .receipts
                            .push((batch.edge, batch.receipted(draft, receipt)));
                    }
                },
            }
        }
        self.evict();
    }

    /// Looks at the conversations of a batch, so that the processor fetches them from memory side by side. Deciding on one
    /// message after the other, it would wait for each by itself.
    fn bring_near(&self, batch: &PlainBatch) {
        for draft in &batch.drafts {
            if let Some(Slot::Present(conversation)) = self.conversations.peek(&draft.conversation)
            {
                black_box(conversation.look(&batch.author.user));
            }
        }
    }
}

impl Desk {
    /// The answer to a message, if nothing has to be read for it.
    #[inline]
    fn decide(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        draft: &Plain,
        message: &[u8],
    ) -> Option<Receipt> {
        if conversation.has_queue(&author.user)
            || self.lanes.is_lost(conversation.lane)
            || self.lanes.are_full()
        {
            return None;
        }
        let (profile, member) = conversation.parties(&author.user).ok()?;
        if member.novelty(author.device, draft.client_id) != Novelty::New {
            return None;
        }
        let body = Body {
            client_id: draft.client_id,
            newest_reply: draft.newest_reply,
            mentions: &[],
            message,
        };
        let appended = may_write(now, profile, member)
            .and_then(|may| self.write_message(now, conversation, author, &body, may));
        match appended {
            Ok(receipt) => Some(receipt),
            Err(Refusal::Code(code, retry_after_ms)) => Some(Receipt::Refused {
                code,
                retry_after_ms,
            }),
            Err(Refusal::Needs(_)) => None,
        }
    }

    /// Hands a receipt out once everything is durable that the conversation's state rests on.
    fn hand_out(&mut self, conversation: &Conversation, edge: ShardId, receipted: Receipted) {
        let (lane, position) = (conversation.lane, conversation.last_position);
        if self.is_durable(lane, position) {
            self.receipts.push((edge, receipted));
        } else {
            self.lanes.receipt(lane, position, edge, receipted);
        }
    }

    /// A receipt for something that was not kept after all.
    pub(super) fn refuse_receipt(&mut self, edge: ShardId, receipted: Receipted) {
        let code = ErrorCode::StorageUnavailable;
        let receipt = Receipt::Refused {
            code,
            retry_after_ms: retry_hint_ms(code),
        };
        self.receipts.push((
            edge,
            Receipted {
                receipt,
                ..receipted
            },
        ));
    }
}

impl PlainBatch {
    fn receipted(&self, draft: &Plain, receipt: Receipt) -> Receipted {
        Receipted {
            conn: self.conn,
            request: draft.request,
            draft: draft.draft,
            cost: draft.cost,
            receipt,
        }
    }

    /// A message of it as a request of its own.
    fn to_append(&self, draft: &Plain, message: &[u8]) -> Result<ToOwner, ErrorCode> {
        let message = v1::Message::decode(bytes::Bytes::copy_from_slice(message))
            .map_err(|_| ErrorCode::InvalidField)?;
        Ok(ToOwner::Append {
            origin: Origin {
                edge: self.edge,
                conn: self.conn,
                request: draft.request,
                cost: draft.cost,
            },
            author: self.author,
            conversation: draft.conversation,
            first: draft.draft,
            drafts: vec![Draft {
                client_id: draft.client_id,
                content: v1::draft::Content::Message(message),
            }],
        })
    }
}
