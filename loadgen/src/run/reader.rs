//! One connection that reads: counts and examines what comes, and follows on after a lost connection.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ahash::AHashMap;
use rialto_protocol::error::ErrorCode;
use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::ConversationId;
use rialto_protocol::limits::SUBSCRIPTIONS_PER_REQUEST_MAX;
use rialto_protocol::v1;
use tokio::sync::watch;
use tokio::time::timeout;

use super::followed::{Depth, Followed, News};
use super::ledger::Ledger;
use super::local::{Local, Person};
use super::patience::STEPS;
use super::plan::reader_user;
use super::{Check, RunError, Stage};
use crate::checker::Violations;
use crate::wire::connection::{Arrived, Connection, PING, decode, unexpected};
use crate::wire::lost::Lost;
use crate::wire::walk;

/// A reader.
pub(super) struct Reader {
    local: Rc<Local>,
    person: Person,
    followed: Vec<Followed>,
    /// Places in `followed`.
    by_handle: AHashMap<u32, usize>,
    /// The handle of the last frame, which most often is that of the next.
    last: (u32, usize),
    /// Places in `followed` whose subscription has to be asked for.
    wanted: Vec<usize>,
    /// Subscriptions that are not answered.
    asked: usize,
    /// Events and answers that have come: what it waits for, unlike an answer to Ping.
    heard: u64,
}

impl Reader {
    /// Number `index` of the run.
    pub(super) fn new(local: &Rc<Local>, index: usize) -> Result<Self, RunError> {
        let shared = &local.shared;
        let depth = |conversation: usize| match shared.spec.check {
            Check::Full => Depth::Full,
            Check::Sampled(n) if (index + conversation).is_multiple_of(n) => Depth::Full,
            Check::Sampled(_) => Depth::Seqs,
            Check::Off => Depth::Counts,
        };
        let follows = shared.plan.follows(index).into_iter();
        Ok(Self {
            person: local.person(shared.spec.publishers + index, reader_user(index))?,
            local: local.clone(),
            followed: follows
                .map(|conversation| Followed::new(conversation, depth(conversation)))
                .collect(),
            by_handle: AHashMap::new(),
            last: (0, usize::MAX),
            wanted: Vec::new(),
            asked: 0,
            heard: 0,
        })
    }

    /// Connects and follows from now on.
    pub(super) async fn follow(&mut self) -> Result<Connection, RunError> {
        let mut connection = self.local.connect(&self.person).await?;
        loop {
            self.subscribe();
            let subscribed = poll_fn(|context| self.poll_subscribed(&mut connection, context));
            match subscribed.await {
                Ok(()) => return Ok(connection),
                Err(lost) => connection = self.local.reconnect(&self.person, lost).await?,
            }
        }
    }

    /// On a new connection: everything has to be asked for.
    fn subscribe(&mut self) {
        self.by_handle.clear();
        self.last = (0, usize::MAX);
        self.asked = 0;
        self.wanted = (0..self.followed.len()).collect();
    }

    /// Asks for what is wanted.
    fn ask(&mut self, connection: &mut Connection) {
        let plan = &self.local.shared.plan;
        for (request_id, chunk) in (1..).zip(self.wanted.chunks(SUBSCRIPTIONS_PER_REQUEST_MAX)) {
            let subscriptions = chunk.iter().map(|place| {
                let one = &self.followed[*place];
                v1::Subscription {
                    conversation: plan.id(one.conversation).to_proto(),
                    cursor: one.cursor().map(|(epoch, seq)| v1::Cursor { epoch, seq }),
                }
            });
            let subscribe = v1::Subscribe {
                subscriptions: subscriptions.collect(),
            };
            connection.put(FrameKind::Subscribe, request_id, &subscribe);
        }
        self.asked += self.wanted.len();
        self.wanted.clear();
    }

    /// Reads until everything is there that was acknowledged, or nothing has come for too long; then judges.
    pub(super) async fn read(
        mut self,
        mut connection: Connection,
        mut stage: watch::Receiver<Stage>,
    ) -> Result<Violations, RunError> {
        let ledger = loop {
            let reading = poll_fn(|context| self.poll(&mut connection, context));
            tokio::select! {
                lost = reading => self.again(&mut connection, lost).await?,
                drain = stage.wait_for(|stage| matches!(stage, Stage::Drain(_))) => {
                    match drain.as_deref() {
                        Ok(Stage::Drain(ledger)) => break ledger.clone(),
                        _ => return Err(RunError::System("the coordinator is gone".into())),
                    }
                }
            }
        };
        let step = self.local.shared.spec.settle / STEPS;
        let mut left = STEPS;
        while left > 0 && !self.is_complete(&ledger) {
            let before = self.heard;
            let more = poll_fn(|context| self.poll_until(before, &mut connection, context));
            match timeout(step, more).await {
                Ok(Ok(())) => left = STEPS,
                Ok(Err(lost)) => self.again(&mut connection, lost).await?,
                Err(_) => left -= 1,
            }
        }
        let judged = self.followed.iter_mut().map(|one| {
            let entry = &ledger.entries[one.conversation];
            one.judge(entry)
        });
        Ok(judged.fold(Violations::default(), |mut all, one| {
            all.add(&one);
            all
        }))
    }

    fn is_complete(&self, ledger: &Arc<Ledger>) -> bool {
        self.followed
            .iter()
            .all(|one| one.is_complete(&ledger.entries[one.conversation]))
    }

    async fn again(&mut self, connection: &mut Connection, lost: Lost) -> Result<(), RunError> {
        *connection = self.local.reconnect(&self.person, lost).await?;
        self.subscribe();
        Ok(())
    }

    /// Reads until the connection is lost.
    fn poll(&mut self, connection: &mut Connection, context: &mut Context<'_>) -> Poll<Lost> {
        loop {
            match ready!(self.poll_once(connection, context)) {
                Ok(()) => {}
                Err(lost) => return Poll::Ready(lost),
            }
        }
    }

    /// Reads until all subscriptions are answered.
    fn poll_subscribed(
        &mut self,
        connection: &mut Connection,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Lost>> {
        while !self.wanted.is_empty() || self.asked > 0 {
            ready!(self.poll_once(connection, context))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads until something has been heard.
    fn poll_until(
        &mut self,
        before: u64,
        connection: &mut Connection,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Lost>> {
        while self.heard == before {
            ready!(self.poll_once(connection, context))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads something.
    fn poll_once(
        &mut self,
        connection: &mut Connection,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Lost>> {
        if !self.wanted.is_empty() {
            self.ask(connection);
        }
        connection.poll_write(context)?;
        connection.poll_frames(context, |frame| self.take(frame))
    }

    #[inline]
    fn take(&mut self, frame: Arrived<'_>) -> Result<(), Lost> {
        match frame.kind {
            FrameKind::Deliver => self.delivered(frame.body),
            FrameKind::Subscribed => self.subscribed(&decode(frame.body)?),
            FrameKind::Error if frame.request_id == PING => Ok(()),
            FrameKind::SubscriptionEnded => self.ended(&decode(frame.body)?),
            _ => Err(unexpected(frame)),
        }
    }

    fn subscribed(&mut self, subscribed: &v1::Subscribed) -> Result<(), Lost> {
        let plan = &self.local.shared.plan;
        let places: AHashMap<ConversationId, usize> = (0..)
            .zip(&self.followed)
            .map(|(place, one)| (plan.id(one.conversation), place))
            .collect();
        for result in &subscribed.results {
            if let Some(error) = &result.error {
                return Err(Lost::Refused(error.clone()));
            }
            let place = ConversationId::from_slice(&result.conversation)
                .ok()
                .and_then(|id| places.get(&id));
            let Some(place) = place.copied() else {
                return Err(Lost::Protocol(
                    "Subscribed names another conversation".into(),
                ));
            };
            self.asked = self.asked.saturating_sub(1);
            self.heard += 1;
            if result.status() == v1::SubscriptionStatus::Diverged {
                self.diverged(place)?;
                continue;
            }
            let head = result.head.unwrap_or_default();
            self.followed[place].begins_behind(head.epoch, head.seq);
            self.by_handle.insert(result.handle, place);
        }
        Ok(())
    }

    /// A subscription has ended. That its cursor diverged may be found out only while the broker reads the log.
    fn ended(&mut self, ended: &v1::SubscriptionEnded) -> Result<(), Lost> {
        let error = ended.error.clone().unwrap_or_default();
        if ErrorCode::from_proto(&error) != Some(ErrorCode::CursorDiverged) {
            return Err(Lost::Refused(error));
        }
        let Some(place) = self.by_handle.remove(&ended.handle) else {
            return Err(Lost::Protocol(
                "a subscription that is not there ended".into(),
            ));
        };
        self.last = (0, usize::MAX);
        self.diverged(place)
    }

    /// The broker's log does not hold what was seen of a conversation.
    fn diverged(&mut self, place: usize) -> Result<(), Lost> {
        let followed = &mut self.followed[place];
        if followed.cursor() == Some(Followed::BEGINNING) {
            return Err(Lost::Protocol("a log diverged before its beginning".into()));
        }
        followed.diverges();
        self.wanted.push(place);
        Ok(())
    }

    #[inline]
    fn delivered(&mut self, body: &[u8]) -> Result<(), Lost> {
        let shared = &self.local.shared;
        let now_us = shared.clock.now_us();
        let mut tally = self.local.tally.current();
        let mut unknown = None;
        let walked = walk::deliver(body, |handle, event| {
            if self.last.0 != handle || self.last.1 == usize::MAX {
                match self.by_handle.get(&handle) {
                    Some(place) => self.last = (handle, *place),
                    None => {
                        unknown = Some(handle);
                        return;
                    }
                }
            }
            self.heard += 1;
            let followed = &mut self.followed[self.last.1];
            match followed.take(&event, shared.bodies, &shared.senders) {
                News::Message(due_us) => {
                    let phase = self.local.phase_of(due_us);
                    tally.deliver(phase, Some(now_us.saturating_sub(due_us)));
                }
                News::Other if event.message.is_some() => {
                    tally.deliver(self.local.phase_of(now_us), None);
                }
                News::Other => {}
            }
        });
        walked.map_err(|malformed| Lost::Protocol(malformed.to_string()))?;
        match unknown {
            Some(handle) => Err(Lost::Protocol(format!(
                "Deliver of unknown handle {handle}"
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Part, Shape, Spec};
    use super::*;
    use crate::wire::walk::Event;

    /// A reader of this many channels, who has not connected.
    async fn reader(channels: usize) -> Reader {
        let spec = Spec {
            readers: 1,
            parts: vec![Part::of(Shape::Channels { count: channels })],
            ..Spec::now().unwrap()
        };
        Reader::new(&Local::unconnected(spec).await, 0).unwrap()
    }

    /// The answer to a subscription of each channel.
    fn answered(reader: &Reader, statuses: &[v1::SubscriptionStatus]) -> v1::Subscribed {
        let plan = &reader.local.shared.plan;
        let result = |(place, status): (usize, &v1::SubscriptionStatus)| v1::SubscriptionResult {
            conversation: plan.id(place).to_proto(),
            status: (*status).into(),
            handle: u32::try_from(place).unwrap() + 1,
            head: Some(v1::Cursor { epoch: 1, seq: 1 }),
            ..v1::SubscriptionResult::default()
        };
        v1::Subscribed {
            results: statuses.iter().enumerate().map(result).collect(),
        }
    }

    /// A reader who follows two channels and has seen something of the first.
    async fn following() -> Reader {
        let mut reader = reader(2).await;
        let followed = answered(&reader, &[v1::SubscriptionStatus::Following; 2]);
        reader.subscribed(&followed).unwrap();
        let event = Event {
            seq: 2,
            epoch: 1,
            sender: &[],
            message: None,
        };
        let shared = reader.local.shared.clone();
        reader.followed[0].take(&event, shared.bodies, &shared.senders);
        reader
    }

    #[tokio::test]
    async fn a_log_that_ends_before_what_was_seen_has_diverged() {
        let mut reader = following().await;
        reader.subscribe();
        reader.wanted.clear();
        let diverged = answered(&reader, &[v1::SubscriptionStatus::Diverged; 2]);
        reader.subscribed(&diverged).unwrap();
        let found = [0, 1].map(|place| reader.followed[place].violations.diverged);
        assert_eq!(found, [1, 0], "nothing was seen of the second");
        assert_eq!(
            reader.wanted,
            [0, 1],
            "both are followed from the beginning"
        );
        assert_eq!(reader.by_handle.len(), 0);
        let again = reader.subscribed(&diverged);
        assert!(matches!(again, Err(Lost::Protocol(_))), "{again:?}");
    }

    #[tokio::test]
    async fn a_subscription_that_ends_because_its_cursor_diverged_is_no_lost_connection() {
        let mut reader = following().await;
        let ended = |error: ErrorCode| v1::SubscriptionEnded {
            handle: 1,
            error: Some(error.to_proto(0)),
            ..v1::SubscriptionEnded::default()
        };
        let removed = reader.ended(&ended(ErrorCode::NotAMember));
        assert!(matches!(removed, Err(Lost::Refused(_))), "{removed:?}");
        reader.ended(&ended(ErrorCode::CursorDiverged)).unwrap();
        assert_eq!(reader.followed[0].violations.diverged, 1);
        assert_eq!(reader.wanted, [0]);
        assert_eq!(reader.by_handle.get(&2), Some(&1));
    }
}
