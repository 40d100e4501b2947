//! Publish and its receipts. Drafts are judged one by one: what is refused here is answered here, and the others go on.

use std::{iter::Peekable, mem};

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    frame::ReceiptBatch,
    ids::{ConversationId, Handle, RequestId, UserId},
    limits,
    plain::{PlainPublish, PlainTarget},
    v1,
};

use super::{
    Edge,
    check::{self, clamped},
    requests::{Call, Refusal},
};
use crate::{
    effects::Effects,
    io::{ConnId, Now},
    message::{Author, Draft, Message, Origin, Plain, PlainBatch, Receipt, Receipted, ToOwner},
    topology::ShardId,
};

/// What a message holds beside its own bytes until it is answered: who wrote it, its place in an entry, its receipt.
const MESSAGE_OVERHEAD_BYTES: u32 = 256;
/// Room that a batch begins with.
const BATCH_DRAFTS: usize = 16;
/// The same for its bytes.
const BATCH_BYTES: usize = 2 << 10;
/// A receipt in a frame, at most: numbers, and an error's text.
const RECEIPT_BYTES_MAX: usize = 256;

/// Drafts of a request that were refused here while others of it are at the owner.
#[derive(Debug)]
pub(super) struct Merge {
    request: RequestId,
    /// By rising index.
    refused: Vec<RefusedDraft>,
}

#[derive(Clone, Copy, Debug)]
struct RefusedDraft {
    index: usize,
    receipt: Receipt,
}

impl Edge {
    pub(super) fn publish(
        &mut self,
        now: Now,
        call: Call,
        publish: v1::Publish,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let conversation = self.target_of(call, publish.target)?;
        let author = author_of(call, &publish.on_behalf_of)?;
        if publish.drafts.is_empty() {
            return Err(ErrorCode::InvalidField.into());
        }
        let overhead = publish.drafts.len() * MESSAGE_OVERHEAD_BYTES as usize;
        let call = call.holding(overhead);
        let (drafts, refused) = self.judge(now, call, author.user, publish.drafts, fx);
        if drafts.is_empty() {
            for RefusedDraft { index, receipt } in refused {
                self.gather(call.conn, call.request, clamped(index), receipt);
            }
            return Ok(());
        }
        if !refused.is_empty()
            && let Some(session) = self.conns.open_mut(call.conn)
        {
            session.work().merges.push(Merge {
                request: call.request,
                refused,
            });
        }
        let origin = self.origin(call);
        self.ask(
            call,
            conversation,
            ToOwner::Append {
                origin,
                author,
                conversation,
                first: 0,
                drafts,
            },
            fx,
        );
        Ok(())
    }

    fn target_of(
        &self,
        call: Call,
        target: Option<v1::publish::Target>,
    ) -> Result<ConversationId, ErrorCode> {
        match target.ok_or(ErrorCode::InvalidField)? {
            v1::publish::Target::Conversation(id) => check::conversation(&id),
            v1::publish::Target::Handle(handle) => self.followed(call.conn, Handle(handle)),
        }
    }

    /// The conversation that a connection follows under this name.
    fn followed(&self, conn: ConnId, handle: Handle) -> Result<ConversationId, ErrorCode> {
        let key = self
            .topics
            .key_of_handle(handle)
            .ok_or(ErrorCode::UnknownHandle)?;
        let session = self.conns.open(conn).ok_or(ErrorCode::UnknownHandle)?;
        session.sub_of(key).ok_or(ErrorCode::UnknownHandle)?;
        Ok(self.topics.at(key).conversation)
    }

    /// Those whose form and turn are right, and those that are refused.
    fn judge(
        &mut self,
        now: Now,
        call: Call,
        author: UserId,
        drafts: Vec<v1::Draft>,
        fx: &mut Effects,
    ) -> (Vec<Draft>, Vec<RefusedDraft>) {
        let body_bytes_max = self.config.body_bytes_max;
        let (allowed, wait_ms) = self.turns(now, call, drafts.len());
        self.note_refusals(call.conn, ErrorCode::RateLimited, drafts.len() - allowed);
        let mut accepted = Vec::with_capacity(allowed);
        let mut refused = Vec::new();
        for (index, draft) in drafts.into_iter().enumerate() {
            let (judged, retry_after_ms) = if index < allowed {
                (check::draft(draft, author, body_bytes_max), 0)
            } else {
                (Err(ErrorCode::RateLimited), wait_ms)
            };
            match judged {
                Ok(draft) => accepted.push(draft),
                Err(code) => {
                    fx.counters.shed("session", code.name());
                    refused.push(RefusedDraft {
                        index,
                        receipt: Receipt::Refused {
                            code,
                            retry_after_ms,
                        },
                    });
                }
            }
        }
        (accepted, refused)
    }

    /// Takes messages in their usual form: they go to their owners with those of the same read.
    pub(super) fn publish_plain(
        &mut self,
        now: Now,
        call: Call,
        publish: &PlainPublish<'_>,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let conversation = match publish.target {
            PlainTarget::Conversation(conversation) => conversation,
            PlainTarget::Handle(handle) => self.followed(call.conn, handle)?,
        };
        let (allowed, wait_ms) = self.turns(now, call, publish.drafts.len());
        let refused = publish.drafts.len() - allowed;
        self.note_refusals(call.conn, ErrorCode::RateLimited, refused);
        let shard = self.topology.shard_of(&conversation);
        let mut charged = 0;
        for (draft, index) in publish.drafts.iter().zip(0_u32..) {
            let code = if index as usize >= allowed {
                Some((ErrorCode::RateLimited, wait_ms))
            } else if draft.body_bytes > self.config.body_bytes_max {
                Some((ErrorCode::BodyTooLarge, 0))
            } else {
                None
            };
            if let Some((code, retry_after_ms)) = code {
                fx.counters.shed("session", code.name());
                let receipt = Receipt::Refused {
                    code,
                    retry_after_ms,
                };
                self.gather(call.conn, call.request, index, receipt);
                continue;
            }
            let cost = clamped(draft.message.len()).saturating_add(MESSAGE_OVERHEAD_BYTES);
            charged += cost as usize;
            let batch = self.open_batch(call, shard, fx);
            let start = batch.bytes.len();
            batch.bytes.extend_from_slice(draft.message);
            batch.drafts.push(Plain {
                conversation,
                client_id: draft.client_id,
                newest_reply: draft.newest_reply,
                request: call.request,
                draft: index,
                cost,
                message: start..batch.bytes.len(),
            });
        }
        self.charge(call.conn, charged);
        Ok(())
    }

    /// The connection's messages for a shard that have not left yet.
    fn open_batch(&mut self, call: Call, shard: ShardId, fx: &mut Effects) -> &mut PlainBatch {
        let place = usize::from(shard.0);
        if self.batches[place]
            .as_ref()
            .is_some_and(|batch| batch.conn != call.conn)
        {
            self.send_batch(shard, fx);
        }
        let edge = self.id;
        self.batches[place].get_or_insert_with(|| {
            let (drafts, bytes) = match fx.spare_batch() {
                Some(spare) => (spare.drafts, spare.bytes),
                None => (
                    Vec::with_capacity(BATCH_DRAFTS),
                    Vec::with_capacity(BATCH_BYTES),
                ),
            };
            PlainBatch {
                edge,
                conn: call.conn,
                author: Author {
                    user: call.user,
                    device: call.device,
                },
                drafts,
                bytes,
            }
        })
    }

    /// Sends the open batch for a shard, before anything that came after it.
    pub(super) fn send_batch(&mut self, shard: ShardId, fx: &mut Effects) {
        if let Some(batch) = self.batches[usize::from(shard.0)].take() {
            fx.send(shard, Message::ToOwner(ToOwner::AppendPlain(batch)));
        }
    }

    /// Sends all open batches: the read that they came with is at its end.
    pub(super) fn send_batches(&mut self, fx: &mut Effects) {
        for shard in (0..self.topology.shards).map(ShardId) {
            self.send_batch(shard, fx);
        }
    }

    /// How many of so many messages the user may publish now, and when the next.
    pub(super) fn turns(&mut self, now: Now, call: Call, messages: usize) -> (usize, u32) {
        if call.service {
            return (messages, 0);
        }
        let taken = self.user_rates.take(call.user, now, messages);
        (taken.allowed, taken.retry_after_ms)
    }

    /// Receipts of messages, of any connections.
    pub(super) fn receipts(&mut self, receipts: Vec<Receipted>, fx: &mut Effects) {
        for receipted in &receipts {
            count_refusal(receipted.receipt, fx);
        }
        self.receipts.extend_from_slice(&receipts);
        fx.take_back_receipts(receipts);
    }

    /// The owner's receipts, among which those of here find their places.
    pub(super) fn appended(
        &mut self,
        origin: Origin,
        first: u32,
        receipts: &[Receipt],
        fx: &mut Effects,
    ) {
        self.credit(origin.conn, origin.cost, fx);
        if self.conns.open(origin.conn).is_none() {
            return;
        }
        let merge = self.take_merge(origin);
        let mut refused = merge.iter().flat_map(|merge| &merge.refused).peekable();
        let mut index = first as usize;
        let mut here = |edge: &mut Self, index: &mut usize| {
            while let Some(draft) = refused.next_if(|draft| draft.index == *index) {
                edge.gather(
                    origin.conn,
                    origin.request,
                    clamped(draft.index),
                    draft.receipt,
                );
                *index += 1;
            }
        };
        for receipt in receipts {
            count_refusal(*receipt, fx);
            here(self, &mut index);
            self.gather(origin.conn, origin.request, clamped(index), *receipt);
            index += 1;
        }
        here(self, &mut index);
    }

    /// The request's drafts that were refused here.
    pub(super) fn take_merge(&mut self, origin: Origin) -> Option<Merge> {
        let session = self.conns.open_mut(origin.conn)?;
        let merges = &mut session.work_if_any()?.merges;
        let place = merges
            .iter()
            .position(|merge| merge.request == origin.request)?;
        let merge = merges.remove(place);
        session.rest();
        Some(merge)
    }

    fn gather(&mut self, conn: ConnId, request: RequestId, draft: u32, receipt: Receipt) {
        self.receipts.push(Receipted {
            conn,
            request,
            draft,
            cost: 0,
            receipt,
        });
    }

    /// Sends what was gathered: one frame a connection, or as few as the frame limit allows.
    pub(super) fn flush_receipts(&mut self, fx: &mut Effects) {
        if self.receipts.is_empty() {
            return;
        }
        let mut gathered = mem::take(&mut self.receipts);
        let mut order = mem::take(&mut self.receipt_order);
        // Numbers are sorted sooner than what they stand for.
        let places = (0_u32..).zip(&gathered);
        order.extend(places.map(|(place, gathered)| (gathered.conn.index, place)));
        order.sort_unstable();
        let conn = |(_, place): &(u32, u32)| gathered[*place as usize].conn;
        for of_one in order.chunk_by(|one, other| conn(one) == conn(other)) {
            let conn = conn(&of_one[0]);
            let of_one = of_one.iter().map(|(_, place)| &gathered[*place as usize]);
            if self.conns.open(conn).is_some() {
                let mut rest = of_one.clone().peekable();
                while rest.peek().is_some() {
                    let frame = self.published(&mut rest);
                    self.send(conn, frame, fx);
                }
            }
            let cost = of_one.fold(0, |cost, gathered| gathered.cost.saturating_add(cost));
            self.credit(conn, cost, fx);
        }
        gathered.clear();
        order.clear();
        (self.receipts, self.receipt_order) = (gathered, order);
    }

    /// A frame with as many of these receipts as it may hold.
    fn published<'a>(
        &mut self,
        receipts: &mut Peekable<impl Iterator<Item = &'a Receipted>>,
    ) -> Bytes {
        let bytes_max = self.config.frame_bytes_max - RECEIPT_BYTES_MAX;
        let buf = &mut self.receipt_buf;
        let mut frame = ReceiptBatch::begin(buf);
        while frame.receipts() < limits::RECEIPTS_MAX
            && frame.bytes(buf) <= bytes_max
            && let Some(gathered) = receipts.next()
        {
            frame.push(buf, &to_proto(gathered));
        }
        frame.finish(buf);
        buf.split().freeze()
    }
}

fn to_proto(receipted: &Receipted) -> v1::Receipt {
    let mut receipt = v1::Receipt {
        request_id: receipted.request.0,
        draft: receipted.draft,
        ..v1::Receipt::default()
    };
    match receipted.receipt {
        Receipt::Kept {
            epoch,
            seq,
            time_ms,
            duplicate,
        } => {
            receipt.epoch = epoch.0;
            receipt.seq = seq.0;
            receipt.time_ms = time_ms;
            receipt.duplicate = duplicate;
        }
        Receipt::Refused {
            code,
            retry_after_ms,
        } => receipt.error = Some(code.to_proto(retry_after_ms)),
    }
    receipt
}

/// What the owner refused.
fn count_refusal(receipt: Receipt, fx: &mut Effects) {
    if let Receipt::Refused { code, .. } = receipt {
        fx.counters.shed("owner", code.name());
    }
}

/// Who is to be the sender.
fn author_of(call: Call, on_behalf_of: &Bytes) -> Result<Author, ErrorCode> {
    match check::optional(on_behalf_of, check::user)? {
        None => Ok(Author {
            user: call.user,
            device: call.device,
        }),
        Some(user) if call.service => Ok(Author {
            user,
            device: call.device,
        }),
        Some(_) => Err(ErrorCode::RoleTooLow),
    }
}
