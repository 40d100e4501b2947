//! Subscribe and Unsubscribe: many conversations at once, each asked of its owner, answered together.
//!
//! Requests that name the same conversation have their effects, and are answered, in the order they came: an Unsubscribe has
//! its effect at once, a Subscribe with its result. A result that comes after a later effect is told to the client, no more.

use rialto_protocol::{
    error::ErrorCode,
    frame::{self, FrameKind},
    ids::{ConversationId, Cursor, Epoch, RequestId, Seq},
    limits::SUBSCRIPTIONS_PER_REQUEST_MAX,
    planted::{self, Mistake},
    v1,
};

use super::{
    Edge, check,
    requests::{Call, Refusal},
    session::Session,
    subscription::{Behind, SubState},
    topic::TopicKey,
};
use crate::{
    advice::retry_hint_ms,
    effects::Effects,
    io::ConnId,
    message::{Origin, Standing, ToOwner},
};

/// What one result of a Subscribe holds in memory, for the credit that the request takes.
const RESULT_BYTES: usize =
    size_of::<ConversationId>() + size_of::<Option<v1::SubscriptionResult>>();

const _: () = assert!(
    SUBSCRIPTIONS_PER_REQUEST_MAX <= 1 << 16,
    "a slot numbers the subscriptions of a request"
);

/// A Subscribe or Unsubscribe that is not answered.
#[derive(Debug)]
pub(super) struct WaitingFollow {
    request: RequestId,
    cost: u32,
    serial: u32,
    /// The newest of the earlier ones that name one of its conversations; answered before it. 0: none.
    after: u32,
    /// Which answer it gets: Subscribed or Done.
    answer: FrameKind,
    /// In the order of the request.
    conversations: Vec<ConversationId>,
    /// Of a Subscribe one a conversation, as they come; of an Unsubscribe none.
    results: Vec<Option<v1::SubscriptionResult>>,
    /// Results that have not come.
    missing: usize,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    At {
        next: Seq,
        verify: Option<Epoch>,
        status: v1::SubscriptionStatus,
    },
    Nowhere,
}

impl WaitingFollow {
    /// The credit that it holds, and how many results are still to come for it.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.cost as usize, self.missing)
    }
}

impl Edge {
    pub(super) fn subscribe(
        &mut self,
        call: Call,
        body: &v1::Subscribe,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let items = items_of(body)?;
        self.costs(call, items.len());
        let mut taken = self.taken(call.conn);
        let cost = call.cost + check::clamped(items.len() * RESULT_BYTES);
        let Some(mut waiting) = self.waiting_follow(call, cost, FrameKind::Subscribed) else {
            return Ok(());
        };
        for (slot, (conversation, cursor)) in (0..=u16::MAX).zip(items) {
            let is_new = !self.is_wanted(call.conn, conversation);
            let refusal = if is_new {
                self.refusal_of_one_more(conversation, taken)
            } else {
                None
            };
            self.name(
                call.conn,
                &mut waiting,
                conversation,
                refusal.is_none().then_some(slot),
            );
            waiting.results.push(if let Some(code) = refusal {
                fx.counters.shed("session", code.name());
                self.note_refusals(call.conn, code, 1);
                Some(denied(conversation, code))
            } else {
                taken += usize::from(is_new);
                waiting.missing += 1;
                self.ask_to_subscribe(call, slot, conversation, cursor, fx);
                None
            });
        }
        self.enqueue(call.conn, waiting, fx);
        Ok(())
    }

    /// The next in the session's order of Subscribes and Unsubscribes, naming nothing yet.
    fn waiting_follow(
        &mut self,
        call: Call,
        cost: u32,
        answer: FrameKind,
    ) -> Option<WaitingFollow> {
        let work = self.conns.open_mut(call.conn)?.work();
        work.serial += 1;
        Some(WaitingFollow {
            request: call.request,
            cost,
            serial: work.serial,
            after: 0,
            answer,
            conversations: Vec::new(),
            results: Vec::new(),
            missing: 0,
        })
    }

    /// Makes a request the newest that names a conversation; without a slot it has its effect now.
    fn name(
        &mut self,
        conn: ConnId,
        waiting: &mut WaitingFollow,
        conversation: ConversationId,
        slot: Option<u16>,
    ) {
        waiting.conversations.push(conversation);
        let Some(session) = self.conns.open_mut(conn) else {
            return;
        };
        let named = session.work().named.entry(conversation).or_default();
        if named.serial != waiting.serial {
            waiting.after = waiting.after.max(named.serial);
            named.serial = waiting.serial;
        }
        named.wanted = slot.is_some();
        if slot.is_none() {
            named.done = (waiting.serial, u16::MAX);
        }
    }

    /// Puts a request behind those before it, and answers what can be.
    fn enqueue(&mut self, conn: ConnId, waiting: WaitingFollow, fx: &mut Effects) {
        self.charge(conn, waiting.cost as usize);
        if let Some(session) = self.conns.open_mut(conn) {
            session.work().follows.push(waiting);
        }
        self.announce_ready(conn, fx);
    }

    fn ask_to_subscribe(
        &mut self,
        call: Call,
        slot: u16,
        conversation: ConversationId,
        cursor: Option<Cursor>,
        fx: &mut Effects,
    ) {
        let key = self.topics.key_or_insert(conversation);
        self.topics.ask(key);
        // The credit is held by the whole request.
        let origin = Origin {
            cost: 0,
            ..self.origin(call)
        };
        self.tell(
            conversation,
            ToOwner::Subscribe {
                origin,
                slot,
                user: call.user,
                conversation,
                cursor,
            },
            fx,
        );
    }

    /// Subscriptions that the session has, and those that are on their way.
    fn taken(&self, conn: ConnId) -> usize {
        let Some(session) = self.conns.open(conn) else {
            return 0;
        };
        let coming = session
            .coming()
            .filter(|coming| self.sub_of(conn, *coming).is_none());
        session.subs.len() + coming.count()
    }

    /// Whether the session has the subscription, or it is on its way.
    fn is_wanted(&mut self, conn: ConnId, conversation: ConversationId) -> bool {
        self.sub_of(conn, conversation).is_some()
            || self
                .conns
                .open_mut(conn)
                .and_then(Session::work_if_any)
                .and_then(|work| work.named.get(&conversation))
                .is_some_and(|named| named.wanted)
    }

    /// One result has come.
    pub(super) fn subscribed(
        &mut self,
        origin: Origin,
        slot: u16,
        conversation: ConversationId,
        cursor: Option<Cursor>,
        result: Result<Standing, ErrorCode>,
        fx: &mut Effects,
    ) {
        self.conns.part_answered(origin.conn, fx);
        let Some(key) = self.topics.key(conversation) else {
            return;
        };
        self.topics.answered(key);
        match &result {
            Ok(standing) => {
                self.topics.attach(key, standing);
                // It may have overtaken word of events that were left out on the way.
                let next = standing.head.seq.next();
                if next > self.topics.at(key).next_live {
                    self.leave_out(key, next, fx);
                }
            }
            Err(code) => self.note_refusals(origin.conn, *code, 1),
        }
        if let Some((start, serial)) = self.settle(origin, slot, conversation, cursor, result) {
            if let Some(start) = start {
                self.begin(origin.conn, key, start, serial, fx);
            }
            self.announce_ready(origin.conn, fx);
        }
        self.release(key, fx);
    }

    /// Fills a result in; returns where its subscription begins, unless a later request has had its effect, and the serial.
    fn settle(
        &mut self,
        origin: Origin,
        slot: u16,
        conversation: ConversationId,
        cursor: Option<Cursor>,
        result: Result<Standing, ErrorCode>,
    ) -> Option<(Option<Start>, u32)> {
        let work = self.conns.open_mut(origin.conn)?.work_if_any()?;
        let place = usize::from(slot);
        let waiting = work.follows.iter_mut().find(|waiting| {
            let result = waiting.results.get(place);
            waiting.request == origin.request && result.is_some_and(Option::is_none)
        })?;
        let serial = waiting.serial;
        let (start, told) = match result {
            Ok(standing) => {
                let start = start_of(cursor, &standing);
                (start, result_of(conversation, &standing, start))
            }
            Err(code) => (Start::Nowhere, denied(conversation, code)),
        };
        waiting.results[place] = Some(told);
        waiting.missing -= 1;
        let named = work.named.get_mut(&conversation)?;
        let holds = (serial, slot) > named.done;
        named.done = named.done.max((serial, slot));
        Some((holds.then_some(start), serial))
    }

    /// The newest result is what holds, also where there was a subscription before.
    fn begin(&mut self, conn: ConnId, key: TopicKey, start: Start, serial: u32, fx: &mut Effects) {
        match start {
            Start::At { next, verify, .. } => {
                let (held, ended) = (serial, None);
                self.install(
                    conn,
                    key,
                    Behind {
                        next,
                        verify,
                        held,
                        ended,
                        turn: 0,
                    },
                );
            }
            Start::Nowhere => {
                if let Some(sub) = self
                    .conns
                    .open(conn)
                    .and_then(|session| session.sub_of(key))
                {
                    self.end(sub, None, fx);
                }
            }
        }
    }

    /// Answers those that have all their results and none to wait for.
    fn announce_ready(&mut self, conn: ConnId, fx: &mut Effects) {
        while let Some(work) = self.conns.open_mut(conn).and_then(Session::work_if_any) {
            let oldest = work.follows.first().map_or(0, |waiting| waiting.serial);
            let is_ready = |waiting: &WaitingFollow| waiting.missing == 0 && waiting.after < oldest;
            let Some(place) = work.follows.iter().position(is_ready) else {
                break;
            };
            let waiting = work.follows.remove(place);
            for conversation in &waiting.conversations {
                if work
                    .named
                    .get(conversation)
                    .is_some_and(|named| named.serial == waiting.serial)
                {
                    work.named.remove(conversation);
                }
            }
            self.announce(conn, waiting, fx);
        }
        if let Some(session) = self.conns.open_mut(conn) {
            session.rest();
        }
    }

    /// Answers a Subscribe and lets its subscriptions go, or an Unsubscribe.
    fn announce(&mut self, conn: ConnId, waiting: WaitingFollow, fx: &mut Effects) {
        if waiting.answer == FrameKind::Done {
            self.done(conn, waiting.request, fx);
        } else {
            let subscribed = v1::Subscribed {
                results: waiting.results.into_iter().flatten().collect(),
            };
            let frame = frame::encode(FrameKind::Subscribed, waiting.request, &subscribed);
            self.send_answer(conn, frame, fx);
        }
        self.credit(conn, waiting.cost, fx);
        for conversation in waiting.conversations {
            let Some(sub) = self.sub_of(conn, conversation) else {
                continue;
            };
            if let SubState::Behind(behind) = &mut self.subs[sub.0 as usize].state
                && behind.held == waiting.serial
            {
                behind.held = 0;
                match behind.ended {
                    Some(code) => self.end(sub, Some(code), fx),
                    None => self.follow_on(sub),
                }
            }
        }
        self.pump(conn, fx);
    }

    /// Takes effect at once; the answer keeps the order of the requests.
    pub(super) fn unsubscribe(
        &mut self,
        call: Call,
        body: &v1::Unsubscribe,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        if body.conversations.is_empty() {
            return Err(ErrorCode::InvalidField.into());
        }
        let conversations = body
            .conversations
            .iter()
            .map(check::conversation)
            .collect::<Result<Vec<ConversationId>, ErrorCode>>()?;
        let Some(mut waiting) = self.waiting_follow(call, call.cost, FrameKind::Done) else {
            return Ok(());
        };
        for conversation in conversations {
            self.name(call.conn, &mut waiting, conversation, None);
            if let Some(sub) = self.sub_of(call.conn, conversation) {
                self.end(sub, None, fx);
            }
        }
        self.enqueue(call.conn, waiting, fx);
        Ok(())
    }
}

/// What is to be followed, and from where.
fn items_of(body: &v1::Subscribe) -> Result<Vec<(ConversationId, Option<Cursor>)>, ErrorCode> {
    if body.subscriptions.is_empty() {
        return Err(ErrorCode::InvalidField);
    }
    let items = body.subscriptions.iter().map(|item| {
        let conversation = check::conversation(&item.conversation)?;
        Ok((conversation, item.cursor.map(Cursor::from)))
    });
    items.collect()
}

/// Where to begin, from what the client has and what the log holds.
fn start_of(cursor: Option<Cursor>, standing: &Standing) -> Start {
    let head = standing.head;
    let following = |next, verify| Start::At {
        next,
        verify,
        status: v1::SubscriptionStatus::Following,
    };
    let Some(cursor) = cursor else {
        return following(head.seq.next(), None);
    };
    let other_head = cursor.seq == head.seq && cursor.epoch != head.epoch && cursor.seq != Seq(0);
    if cursor.seq > head.seq || cursor.epoch > head.epoch || other_head {
        return Start::Nowhere;
    }
    let mut next = cursor.seq.next();
    if planted::strikes(Mistake::ResumeOffByOne) && cursor.seq < head.seq {
        next = next.next();
    }
    if standing.oldest > next {
        return Start::At {
            next: standing.oldest,
            verify: None,
            status: v1::SubscriptionStatus::Truncated,
        };
    }
    // The event at the cursor has to be there to be looked at, and at the head it has been.
    let verifiable = cursor.seq >= standing.oldest && cursor.seq > Seq(0) && cursor.seq < head.seq;
    following(next, verifiable.then_some(cursor.epoch))
}

fn denied(conversation: ConversationId, code: ErrorCode) -> v1::SubscriptionResult {
    v1::SubscriptionResult {
        conversation: conversation.to_proto(),
        status: v1::SubscriptionStatus::Denied as i32,
        error: Some(code.to_proto(retry_hint_ms(code))),
        ..v1::SubscriptionResult::default()
    }
}

fn result_of(
    conversation: ConversationId,
    standing: &Standing,
    start: Start,
) -> v1::SubscriptionResult {
    let (status, handle) = match start {
        Start::At { status, .. } => (status, standing.handle.0),
        Start::Nowhere => (v1::SubscriptionStatus::Diverged, 0),
    };
    v1::SubscriptionResult {
        conversation: conversation.to_proto(),
        status: status as i32,
        handle,
        head: Some(standing.head.into()),
        ordinal: standing.ordinal.0,
        oldest_seq: standing.oldest.0,
        marker: Some(standing.marker),
        unread: standing.unread,
        unread_mentions: standing.unread_mentions,
        role: standing.role as i32,
        error: None,
    }
}
