//! What the server answers to Subscribe, and when it ends a subscription by itself.

use std::time::Duration;

use rialto_protocol::error::ErrorCode;
use rialto_protocol::ids::ConversationId;
use rialto_protocol::v1;
use tokio::time::Instant;
use v1::SubscriptionStatus as Status;

use super::{GAP_PATIENCE, Phase, SubscribeOutcome, SubscribeStatus, Subscriptions};
use crate::error::{Retry, ServerError};
use crate::events::{EndReason, Event, EventSender};

impl Subscriptions {
    /// Applies the answer to a Subscribe of the caller's, or of the session itself, which then tells the caller what is bad.
    pub(crate) fn answered(
        &mut self,
        asked: &[(ConversationId, u64)],
        results: Vec<v1::SubscriptionResult>,
        by_caller: bool,
        sink: &EventSender,
        now: Instant,
    ) -> Vec<SubscribeOutcome> {
        let mut outcomes = Vec::with_capacity(results.len());
        for ((conversation, generation), result) in asked.iter().zip(results) {
            let outcome = SubscribeOutcome::new(*conversation, &result);
            if self
                .by_id
                .get(conversation)
                .is_some_and(|one| one.generation == *generation && one.phase == Phase::Asked)
            {
                let asked = (*conversation, *generation);
                self.apply(asked, &result, &outcome, by_caller, sink, now);
            }
            outcomes.push(outcome);
        }
        self.settle();
        outcomes
    }

    /// A Subscribe has been answered.
    fn settle(&mut self) {
        self.asked = self.asked.saturating_sub(1);
        if self.asked == 0 {
            self.held_bytes -= self.orphans.clear();
        }
    }

    fn apply(
        &mut self,
        (conversation, generation): (ConversationId, u64),
        result: &v1::SubscriptionResult,
        outcome: &SubscribeOutcome,
        by_caller: bool,
        sink: &EventSender,
        now: Instant,
    ) {
        match result.status() {
            Status::Following | Status::Truncated => {
                self.follow(conversation, result, outcome, by_caller, sink);
                let (runs, overflowed) = self.orphans.take(result.handle);
                if let Some(subscription) = self.by_id.get_mut(&conversation) {
                    subscription.overflowed |= overflowed;
                }
                for run in runs {
                    self.held_bytes -= run.bytes;
                    self.accept(conversation, run, sink, now);
                }
                self.look_after(conversation, sink, now);
            }
            _ if by_caller => match &outcome.status {
                SubscribeStatus::Denied(error) if error.retry() != Retry::Never => {
                    self.undo(conversation, generation, error.retry_after(), now);
                }
                _ => self.remove(conversation),
            },
            Status::Diverged => self.end(
                conversation,
                EndReason::Diverged {
                    head: Some(outcome.head),
                },
                sink,
            ),
            Status::Denied | Status::Unspecified => {
                self.refused(
                    conversation,
                    result.error.clone().unwrap_or_default().into(),
                    sink,
                    now,
                );
            }
        }
    }

    /// What was lost or is still held back when a subscription begins may leave a gap that no later event shows.
    fn look_after(&mut self, conversation: ConversationId, sink: &EventSender, now: Instant) {
        let Some(subscription) = self.by_id.get_mut(&conversation) else {
            return;
        };
        if subscription.overflowed && !sink.has_room() {
            self.starve(conversation);
        } else if subscription.overflowed {
            self.again(conversation, None, now);
        } else if !subscription.hold.is_empty() {
            subscription.gap_since = Some(now);
            subscription.gap_watched = true;
            self.deadlines.insert((now + GAP_PATIENCE, conversation));
        }
    }

    fn follow(
        &mut self,
        conversation: ConversationId,
        result: &v1::SubscriptionResult,
        outcome: &SubscribeOutcome,
        by_caller: bool,
        sink: &EventSender,
    ) {
        let Some(subscription) = self.by_id.get_mut(&conversation) else {
            return;
        };
        subscription.phase = Phase::Following;
        subscription.established = true;
        subscription.fallback = None;
        subscription.gap_watched = false;
        if let Some(old) = subscription.handle.replace(result.handle)
            && self.handles.get(&old) == Some(&conversation)
        {
            self.handles.remove(&old);
        }
        self.handles.insert(result.handle, conversation);
        let at = &mut subscription.at;
        if at.cursor.is_none() {
            at.cursor = Some(outcome.head);
            at.next = outcome.head.seq.next().0;
        }
        if result.status() == Status::Truncated && result.oldest_seq > at.next {
            at.next = result.oldest_seq;
            if !by_caller {
                sink.send(Event::Truncated {
                    conversation,
                    oldest: outcome.oldest,
                });
            }
        }
    }

    /// A whole Subscribe of the session's own was refused.
    pub(crate) fn all_refused(
        &mut self,
        asked: &[(ConversationId, u64)],
        error: &ServerError,
        sink: &EventSender,
        now: Instant,
    ) {
        self.settle();
        for (conversation, generation) in asked {
            if self
                .by_id
                .get(conversation)
                .is_some_and(|one| one.generation == *generation)
            {
                self.refused(*conversation, error.clone(), sink, now);
            }
        }
    }

    /// A whole Subscribe of the caller's was refused. It changed nothing on the server either.
    pub(crate) fn all_undone(
        &mut self,
        asked: &[(ConversationId, u64)],
        after: Option<Duration>,
        now: Instant,
    ) {
        self.settle();
        for (conversation, generation) in asked {
            self.undo(*conversation, *generation, after, now);
        }
    }

    /// The server ended or did not renew a subscription: another try, or the end.
    fn refused(
        &mut self,
        conversation: ConversationId,
        error: ServerError,
        sink: &EventSender,
        now: Instant,
    ) {
        if error.is(ErrorCode::CursorDiverged) {
            self.end(conversation, EndReason::Diverged { head: None }, sink);
        } else if error.retry() == Retry::Never {
            self.end(conversation, EndReason::Refused(error), sink);
        } else {
            if let Some(subscription) = self.by_id.get_mut(&conversation) {
                subscription.tries += 1;
            }
            self.again(conversation, error.retry_after(), now);
        }
    }

    fn end(&mut self, conversation: ConversationId, reason: EndReason, sink: &EventSender) {
        self.remove(conversation);
        sink.send(Event::SubscriptionEnded {
            conversation,
            reason,
        });
    }

    /// The server ended a subscription by itself.
    pub(crate) fn ended(&mut self, push: v1::SubscriptionEnded, sink: &EventSender, now: Instant) {
        let Ok(conversation) = ConversationId::from_slice(&push.conversation) else {
            return;
        };
        let Some(subscription) = self.by_id.get(&conversation) else {
            return;
        };
        // One that is being renewed is judged by the answer to that.
        let is_open = matches!(subscription.phase, Phase::Following | Phase::Starved);
        if is_open && subscription.handle == Some(push.handle) {
            self.refused(
                conversation,
                push.error.unwrap_or_default().into(),
                sink,
                now,
            );
        }
    }
}
