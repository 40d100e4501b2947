//! Publish and its receipts. Drafts are judged one by one: what is refused here is answered here, and the others go on.

use std::mem;

use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::{
    error::ErrorCode,
    frame::{self, FrameKind, HEADER_BYTES},
    ids::{ConversationId, Handle, RequestId, UserId},
    limits, v1,
};
use smallvec::SmallVec;

use super::{
    Edge,
    check::{self, clamped},
    requests::{Call, Refusal},
};
use crate::{
    effects::Effects,
    io::{ConnId, Now},
    message::{Author, Draft, Origin, Receipt, ToOwner},
};

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
        let (drafts, refused) = self.judge(now, call, author.user, publish.drafts, fx);
        if drafts.is_empty() {
            for RefusedDraft { index, receipt } in refused {
                self.gather(call.conn, call.request, index, receipt);
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
            v1::publish::Target::Handle(handle) => {
                let key = self
                    .topics
                    .key_of_handle(Handle(handle))
                    .ok_or(ErrorCode::UnknownHandle)?;
                let session = self.conns.open(call.conn).ok_or(ErrorCode::UnknownHandle)?;
                session.sub_of(key).ok_or(ErrorCode::UnknownHandle)?;
                Ok(self.topics.at(key).conversation)
            }
        }
    }

    /// Those whose form and turn are right, and those that are refused.
    fn judge(
        &mut self,
        now: Now,
        call: Call,
        author: UserId,
        drafts: Vec<v1::Draft>,
        fx: &mut Effects,
    ) -> (SmallVec<[Draft; 1]>, Vec<RefusedDraft>) {
        let body_bytes_max = self.config.body_bytes_max;
        let (allowed, wait_ms) = if call.service {
            (drafts.len(), 0)
        } else {
            let taken = self.user_rates.take(call.user, now, drafts.len());
            (taken.allowed, taken.retry_after_ms)
        };
        let mut accepted = SmallVec::with_capacity(allowed);
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

    /// The owner's receipts, among which those of here find their places.
    pub(super) fn appended(&mut self, origin: Origin, receipts: &[Receipt], fx: &mut Effects) {
        self.credit(origin.conn, origin.cost, fx);
        if self.conns.open(origin.conn).is_none() {
            return;
        }
        let merge = self.take_merge(origin);
        let mut refused = merge.iter().flat_map(|merge| &merge.refused).peekable();
        let mut index = 0;
        let mut here = |edge: &mut Self, index: &mut usize| {
            while let Some(draft) = refused.next_if(|draft| draft.index == *index) {
                edge.gather(origin.conn, origin.request, draft.index, draft.receipt);
                *index += 1;
            }
        };
        for receipt in receipts {
            here(self, &mut index);
            self.gather(origin.conn, origin.request, index, *receipt);
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

    fn gather(&mut self, conn: ConnId, request: RequestId, draft: usize, receipt: Receipt) {
        let mut gathered = v1::Receipt {
            request_id: request.0,
            draft: clamped(draft),
            ..v1::Receipt::default()
        };
        match receipt {
            Receipt::Kept {
                epoch,
                seq,
                time_ms,
                duplicate,
            } => {
                gathered.epoch = epoch.0;
                gathered.seq = seq.0;
                gathered.time_ms = time_ms;
                gathered.duplicate = duplicate;
            }
            Receipt::Refused {
                code,
                retry_after_ms,
            } => gathered.error = Some(code.to_proto(retry_after_ms)),
        }
        self.receipts.push((conn, gathered));
    }

    /// Sends what was gathered: one frame a connection, or as few as the frame limit allows.
    pub(super) fn flush_receipts(&mut self, fx: &mut Effects) {
        if self.receipts.is_empty() {
            return;
        }
        let mut gathered = mem::take(&mut self.receipts);
        gathered.sort_by_key(|(conn, _)| *conn);
        let mut published = v1::Published::default();
        let mut frame_bytes = HEADER_BYTES;
        let mut current = None;
        for (conn, receipt) in gathered.drain(..) {
            let bytes =
                1 + prost::length_delimiter_len(receipt.encoded_len()) + receipt.encoded_len();
            let full = frame_bytes + bytes > self.config.frame_bytes_max
                || published.receipts.len() >= limits::RECEIPTS_MAX;
            if current != Some(conn) || full {
                self.send_receipts(current, &mut published, fx);
                current = Some(conn);
                frame_bytes = HEADER_BYTES;
            }
            frame_bytes += bytes;
            published.receipts.push(receipt);
        }
        self.send_receipts(current, &mut published, fx);
        self.receipts = gathered;
    }

    fn send_receipts(
        &mut self,
        conn: Option<ConnId>,
        published: &mut v1::Published,
        fx: &mut Effects,
    ) {
        if let Some(conn) = conn {
            self.send(
                conn,
                frame::encode(FrameKind::Published, RequestId::PUSH, published),
                fx,
            );
            published.receipts.clear();
        }
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
