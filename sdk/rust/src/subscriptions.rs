//! Subscriptions: a cursor each, which moves with every event that is handed to the caller. From it follow the absence of
//! gaps and repeats: what is behind the cursor is dropped, what is beyond the next event is held back, and what does
//! not come is asked for again from the cursor.

mod answers;
mod outcome;
mod reorder;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rialto_protocol::ids::{ConversationId, Cursor, Seq};
use rialto_protocol::{limits, v1};
use tokio::time::Instant;

use crate::events::EventSender;
use crate::reconnect;

pub(crate) use outcome::SubscribeAnswer;
pub use outcome::{Start, SubscribeOutcome, SubscribeStatus};
use reorder::{HoldBack, Orphans, Run};

/// Bytes of events that are held back until those before them arrive, of all subscriptions together.
const HOLD_BYTES_MAX: usize = 8 << 20;
/// How long events are waited for that other streams may carry.
const GAP_PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait before the first and before any further try to subscribe again.
const AGAIN_MS: u64 = 100;
const AGAIN_MS_MAX: u64 = 20_000;

/// How a subscription stands with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To be asked for.
    Waiting,
    /// Asked for.
    Asked,
    /// Answered.
    Following,
    /// Left, because the caller had no room for events that came ahead of an answer; to be asked for when he has.
    Starved,
}

/// How far the caller is in a log.
#[derive(Clone, Copy, Debug)]
struct Position {
    /// The last event that he has; none before a live start is answered.
    cursor: Option<Cursor>,
    /// The next event that he gets.
    next: u64,
}

#[derive(Debug)]
struct Subscription {
    /// Tells it from an earlier one of the same conversation.
    generation: u64,
    phase: Phase,
    handle: Option<u32>,
    at: Position,
    /// Answered once: the caller has been told that it follows.
    established: bool,
    /// Where the one before it was, to go on there should the server refuse this one for now.
    fallback: Option<Position>,
    hold: HoldBack,
    /// Not to be asked for before that.
    ask_at: Option<Instant>,
    /// Since when the next event is missing though later ones are there.
    gap_since: Option<Instant>,
    /// A deadline is set for that.
    gap_watched: bool,
    /// Events had to be thrown away, or were never there.
    overflowed: bool,
    /// Tries to subscribe again since the last event.
    tries: u32,
}

/// All subscriptions of a client.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    by_id: HashMap<ConversationId, Subscription>,
    /// What each names now: the server may give one to another conversation when it has ended the subscription that had it.
    handles: HashMap<u32, ConversationId>,
    orphans: Orphans,
    held_bytes: usize,
    generations: u64,
    /// Subscribe requests in flight.
    asked: usize,
    /// Those that are [`Phase::Starved`], and of these the ones that the server is yet to be told.
    starved: Vec<ConversationId>,
    leaving: Vec<ConversationId>,
    /// When to look at a subscription again.
    deadlines: BTreeSet<(Instant, ConversationId)>,
    /// The connection has more than one stream for events.
    streams: bool,
}

impl Subscriptions {
    /// A new connection: the server knows of no subscription, and all are due.
    pub(crate) fn connected(&mut self, streams: bool, now: Instant) {
        self.streams = streams;
        self.disconnected();
        self.deadlines = self
            .by_id
            .keys()
            .map(|conversation| (now, *conversation))
            .collect();
    }

    /// The connection is gone, and what it announced with it.
    pub(crate) fn disconnected(&mut self) {
        self.handles.clear();
        self.orphans.clear();
        self.deadlines.clear();
        self.starved.clear();
        self.leaving.clear();
        self.held_bytes = 0;
        self.asked = 0;
        for subscription in self.by_id.values_mut() {
            subscription.phase = Phase::Waiting;
            subscription.handle = None;
            subscription.hold = HoldBack::default();
            subscription.ask_at = None;
            subscription.gap_since = None;
            subscription.gap_watched = false;
            subscription.overflowed = false;
        }
    }

    /// Begins a subscription that is about to be asked for, in place of any other of the conversation, which it remembers until
    /// it is answered. Its generation.
    pub(crate) fn begin(&mut self, conversation: ConversationId, start: Start) -> u64 {
        let before = self.by_id.get(&conversation);
        let fallback = before.and_then(Subscription::confirmed);
        self.remove(conversation);
        self.generations += 1;
        let cursor = start.cursor();
        let subscription = Subscription {
            generation: self.generations,
            phase: Phase::Asked,
            handle: None,
            at: Position {
                cursor,
                next: cursor.unwrap_or_default().seq.next().0,
            },
            established: false,
            fallback,
            hold: HoldBack::default(),
            ask_at: None,
            gap_since: None,
            gap_watched: false,
            overflowed: false,
            tries: 0,
        };
        self.by_id.insert(conversation, subscription);
        self.generations
    }

    /// Ends one.
    pub(crate) fn remove(&mut self, conversation: ConversationId) {
        let Some(subscription) = self.by_id.remove(&conversation) else {
            return;
        };
        if let Some(handle) = subscription.handle
            && self.handles.get(&handle) == Some(&conversation)
        {
            self.handles.remove(&handle);
        }
        self.held_bytes -= subscription.hold.bytes();
    }

    /// Ends one that was begun and refused for now, or never answered. What was followed before it is followed on, from where
    /// that was.
    pub(crate) fn undo(
        &mut self,
        conversation: ConversationId,
        generation: u64,
        after: Option<Duration>,
        now: Instant,
    ) {
        let Some(one) = self.by_id.get_mut(&conversation) else {
            return;
        };
        if one.generation != generation {
            return;
        }
        let Some(fallback) = one.fallback.take() else {
            self.remove(conversation);
            return;
        };
        one.at = fallback;
        one.established = true;
        one.tries += 1;
        self.again(conversation, after, now);
    }

    /// A Subscribe goes out.
    pub(crate) const fn asked(&mut self) {
        self.asked += 1;
    }

    /// The conversation's subscription as it is asked for.
    pub(crate) fn to_proto(&self, conversation: ConversationId) -> v1::Subscription {
        let cursor = self
            .by_id
            .get(&conversation)
            .and_then(|subscription| subscription.at.cursor);
        v1::Subscription {
            conversation: conversation.to_proto(),
            cursor: cursor.map(Into::into),
        }
    }

    /// When [`Subscriptions::due`] has something.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// At most `count_max` subscriptions to be asked for now, with their generations; from now on they are asked for.
    pub(crate) fn due(
        &mut self,
        count_max: usize,
        sink: &EventSender,
        now: Instant,
    ) -> Vec<(ConversationId, u64)> {
        let mut due = Vec::new();
        while due.len() < count_max
            && let Some((at, conversation)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            let Some(subscription) = self.by_id.get_mut(&conversation) else {
                continue;
            };
            match subscription.look(sink, now) {
                Look::Ask => due.push((conversation, subscription.generation)),
                Look::Later(at) => {
                    self.deadlines.insert((at, conversation));
                }
                Look::Nothing => {}
            }
        }
        due
    }

    /// Has it asked for again, from the cursor: at once, or in a random time after what the server advises, if it was asked for
    /// in vain. Others that follow the conversation may have been told the same at the same moment.
    fn again(&mut self, conversation: ConversationId, after: Option<Duration>, now: Instant) {
        let Some(subscription) = self.by_id.get_mut(&conversation) else {
            return;
        };
        subscription.phase = Phase::Waiting;
        subscription.overflowed = false;
        let backoff = match subscription.tries {
            0 => Duration::ZERO,
            tries => reconnect::jitter((AGAIN_MS << tries.min(20)).min(AGAIN_MS_MAX)),
        };
        let wait = after.unwrap_or_default() + backoff;
        subscription.tries += 1;
        subscription.ask_at = Some(now + wait);
        self.deadlines.insert((now + wait, conversation));
    }

    /// Which conversation a handle names.
    pub(crate) fn conversation(&self, handle: u32) -> Option<ConversationId> {
        self.handles.get(&handle).copied()
    }

    /// Takes the events of a Deliver whose body had `bytes` bytes.
    pub(crate) fn deliver(
        &mut self,
        deliver: v1::Deliver,
        bytes: usize,
        sink: &EventSender,
        now: Instant,
    ) {
        let run = Run {
            events: deliver.events,
            bytes,
        };
        match self.handles.get(&deliver.handle) {
            Some(conversation) => self.accept(*conversation, run, sink, now),
            // The answer that announces the handle may come on another stream, and later. On one alone these are of a subscription
            // that was ended, be it of the same handle.
            None if self.streams && self.asked > 0 => {
                let room = HOLD_BYTES_MAX - self.held_bytes.min(HOLD_BYTES_MAX);
                self.held_bytes += self.orphans.hold(deliver.handle, run, room);
            }
            None => {}
        }
    }

    fn accept(&mut self, conversation: ConversationId, run: Run, sink: &EventSender, now: Instant) {
        let Some(subscription) = self.by_id.get_mut(&conversation) else {
            return;
        };
        let Some(first) = run.first() else { return };
        if !sink.has_room() {
            self.starve(conversation);
            return;
        }
        if subscription.phase == Phase::Starved {
            return;
        }
        if !run.is_consecutive() {
            subscription.overflowed = true;
        } else if first <= subscription.at.next {
            subscription.hand_over(conversation, run, sink);
            self.held_bytes -= subscription.release(conversation, sink);
            subscription.gap_since = (!subscription.hold.is_empty()).then_some(now);
            if subscription.hold.is_empty() {
                return;
            }
        } else if self.streams {
            self.held_bytes += match HOLD_BYTES_MAX.checked_sub(self.held_bytes + run.bytes) {
                Some(_) => subscription.hold.insert(run),
                None => {
                    subscription.overflowed = true;
                    0
                }
            };
            subscription.gap_since.get_or_insert(now);
        }
        self.gap(conversation, now);
    }

    /// The caller has no room for the next events, and what is behind them may not wait. They are asked for again from the
    /// cursor, when he has; until then the server need not send more.
    ///
    /// Ahead of an answer they are, on one stream, of the subscription before, and come again behind it. On several they may be
    /// what follows the answer, and would not.
    fn starve(&mut self, conversation: ConversationId) {
        let Some(subscription) = self.by_id.get_mut(&conversation) else {
            return;
        };
        match subscription.phase {
            Phase::Following => {
                subscription.phase = Phase::Starved;
                self.held_bytes -= std::mem::take(&mut subscription.hold).bytes();
                self.starved.push(conversation);
                self.leaving.push(conversation);
            }
            Phase::Asked => subscription.overflowed |= self.streams,
            // Asked for from the cursor in any case.
            Phase::Waiting | Phase::Starved => {}
        }
    }

    /// At most as many as a request may name that the server is to be told to send nothing more of.
    pub(crate) fn take_leaving(&mut self) -> Option<Vec<ConversationId>> {
        let rest = self
            .leaving
            .len()
            .saturating_sub(limits::SUBSCRIPTIONS_PER_REQUEST_MAX);
        let leaving = self.leaving.split_off(rest);
        (!leaving.is_empty()).then_some(leaving)
    }

    /// The caller has room again.
    pub(crate) fn has_room(&mut self, now: Instant) {
        for conversation in std::mem::take(&mut self.starved) {
            if self
                .by_id
                .get(&conversation)
                .is_some_and(|one| one.phase == Phase::Starved)
            {
                self.again(conversation, None, now);
            }
        }
    }

    /// Events are there beyond the next one: on several streams that may pass. On one alone it is an error, unless they are of the
    /// subscription before the one that is asked for.
    fn gap(&mut self, conversation: ConversationId, now: Instant) {
        let Some(subscription) = self.by_id.get_mut(&conversation) else {
            return;
        };
        if subscription.phase != Phase::Following {
            return;
        }
        if !self.streams || subscription.overflowed {
            tracing::warn!(%conversation, next = subscription.at.next, "events are missing; subscribing again");
            self.again(conversation, None, now);
        } else if let Some(since) = subscription.gap_since
            && !std::mem::replace(&mut subscription.gap_watched, true)
        {
            self.deadlines.insert((since + GAP_PATIENCE, conversation));
        }
    }

    /// Bytes that are held back, for the checks of tests.
    #[cfg(test)]
    const fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

/// What a deadline of a subscription comes to.
enum Look {
    /// It is to be asked for.
    Ask,
    /// There is time yet.
    Later(Instant),
    Nothing,
}

impl Subscription {
    /// How far the caller is with what he has been told that he follows.
    fn confirmed(&self) -> Option<Position> {
        if self.established {
            Some(self.at)
        } else {
            self.fallback
        }
    }

    /// What there is to do at its deadline.
    fn look(&mut self, sink: &EventSender, now: Instant) -> Look {
        match self.phase {
            Phase::Waiting => {
                if self.ask_at.is_some_and(|at| at > now) {
                    return Look::Nothing;
                }
            }
            Phase::Asked | Phase::Starved => return Look::Nothing,
            Phase::Following => {
                self.gap_watched = false;
                if !sink.has_room() {
                    // Nothing is read: what is missing may be there.
                    self.gap_since = self.gap_since.map(|_| now);
                }
                let Some(since) = self.gap_since else {
                    return Look::Nothing;
                };
                if now < since + GAP_PATIENCE {
                    self.gap_watched = true;
                    return Look::Later(since + GAP_PATIENCE);
                }
                tracing::warn!(next = self.at.next, "events are missing; subscribing again");
                self.tries += 1;
            }
        }
        self.phase = Phase::Asked;
        self.ask_at = None;
        self.gap_since = None;
        Look::Ask
    }

    /// Hands on what the caller does not have yet of a run that begins with the next event at the latest.
    fn hand_over(&mut self, conversation: ConversationId, mut run: Run, sink: &EventSender) {
        run.skip_below(self.at.next);
        let Some(last) = run.events.last() else {
            return;
        };
        let cursor = Cursor {
            epoch: rialto_protocol::ids::Epoch(last.epoch),
            seq: Seq(last.seq),
        };
        self.at = Position {
            cursor: Some(cursor),
            next: cursor.seq.next().0,
        };
        self.tries = 0;
        sink.deliver(conversation, run.events, run.bytes);
    }

    /// Hands on what was held back and is next now. How many bytes are held no more.
    fn release(&mut self, conversation: ConversationId, sink: &EventSender) -> usize {
        let held = self.hold.bytes();
        while let Some(run) = self.hold.take_up_to(self.at.next) {
            self.hand_over(conversation, run, sink);
        }
        held - self.hold.bytes()
    }
}

#[cfg(test)]
mod tests;
