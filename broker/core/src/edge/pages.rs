//! Requests that are answered by a page: how long it may be, and what it holds of the connection's credit until it comes.

use rialto_protocol::{
    error::ErrorCode,
    ids::{ConversationId, Seq},
    limits, v1,
};

use super::{
    Edge, check,
    check::clamped,
    requests::{Call, Refusal},
};
use crate::{effects::Effects, message::ToOwner};

/// Bytes that a page leaves for what stands beside its events.
const PAGE_HEAD_BYTES: usize = 256;
/// What an event of a page is taken to have, for the credit that the answer holds. However short the page is, it may be one of the
/// longest.
const EVENT_BYTES_GUESS: usize = 1024;
/// The same of a member, and of a listing.
const ROW_BYTES_GUESS: usize = 256;

impl Edge {
    pub(super) fn history(
        &mut self,
        call: Call,
        request: &v1::History,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let conversation = check::conversation(&request.conversation)?;
        let backward = match v1::Direction::try_from(request.direction) {
            Ok(v1::Direction::Forward) => false,
            Ok(v1::Direction::Backward) => true,
            Ok(v1::Direction::Unspecified) | Err(_) => return Err(ErrorCode::InvalidField.into()),
        };
        let limit = check::limit(
            request.limit,
            limits::HISTORY_EVENTS_DEFAULT,
            limits::HISTORY_EVENTS_MAX,
        )?;
        self.costs(call, limit as usize);
        let frame_bytes_max = self.conns.answer_bytes_max(self.config.frame_bytes_max);
        let bytes_max = frame_bytes_max.saturating_sub(PAGE_HEAD_BYTES);
        let guessed = (limit as usize * EVENT_BYTES_GUESS).max(self.config.body_bytes_max);
        let call = call.holding(bytes_max.min(guessed));
        let (origin, user, from) = (self.origin(call), call.user, Seq(request.from_seq));
        let ask = ToOwner::History {
            origin,
            user,
            conversation,
            from,
            backward,
            limit,
            bytes_max,
        };
        self.ask(call, conversation, ask, fx);
        Ok(())
    }

    pub(super) fn members(
        &mut self,
        call: Call,
        request: &v1::Members,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let conversation = check::conversation(&request.conversation)?;
        let after = check::optional(&request.after_user, check::user)?;
        let (default, max) = (limits::MEMBERS_PAGE_DEFAULT, limits::MEMBERS_PAGE_MAX);
        let (call, limit) = self.rows_of_a_page(call, request.limit, default, max)?;
        let (origin, user) = (self.origin(call), call.user);
        self.ask(
            call,
            conversation,
            ToOwner::Members {
                origin,
                user,
                conversation,
                after,
                limit,
            },
            fx,
        );
        Ok(())
    }

    /// How many rows a page has for which so many were asked, and the call that pays for them. Pages are short while the shard is
    /// over its budget.
    fn rows_of_a_page(
        &mut self,
        call: Call,
        asked: u32,
        default: usize,
        max: usize,
    ) -> Result<(Call, u32), Refusal> {
        let limit = check::limit(asked, default, max)?;
        self.costs(call, limit as usize);
        let bytes = self
            .conns
            .answer_bytes_max(limit as usize * ROW_BYTES_GUESS);
        let limit = clamped(bytes / ROW_BYTES_GUESS).max(1);
        Ok((call.holding(limit as usize * ROW_BYTES_GUESS), limit))
    }

    pub(super) fn conversations(
        &mut self,
        call: Call,
        request: &v1::Conversations,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let after = check::optional(&request.after_conversation, check::conversation)?;
        let (default, max) = (
            limits::CONVERSATIONS_PAGE_DEFAULT,
            limits::CONVERSATIONS_PAGE_MAX,
        );
        let (call, limit) = self.rows_of_a_page(call, request.limit, default, max)?;
        let (origin, user) = (self.origin(call), call.user);
        let inbox = ConversationId::of_inbox(user);
        self.ask(
            call,
            inbox,
            ToOwner::Conversations {
                origin,
                user,
                after,
                limit,
            },
            fx,
        );
        Ok(())
    }
}
