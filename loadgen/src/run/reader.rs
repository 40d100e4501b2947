//! One connection that reads: counts and examines what comes, and follows on after a lost connection.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ahash::AHashMap;
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
    /// Subscriptions that are not answered.
    asked: usize,
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
            asked: 0,
        })
    }

    /// Connects and follows from now on.
    pub(super) async fn follow(&mut self) -> Result<Connection, RunError> {
        let mut connection = self.local.connect(&self.person).await?;
        loop {
            self.subscribe(&mut connection);
            let subscribed = connection.until(|frame| {
                self.take(frame)?;
                Ok(self.asked == 0)
            });
            match subscribed.await {
                Ok(()) => return Ok(connection),
                Err(lost) => connection = self.local.reconnect(&self.person, lost).await?,
            }
        }
    }

    fn subscribe(&mut self, connection: &mut Connection) {
        self.by_handle.clear();
        self.last = (0, usize::MAX);
        self.asked = self.followed.len();
        let plan = &self.local.shared.plan;
        for (request_id, chunk) in (1..).zip(self.followed.chunks(SUBSCRIPTIONS_PER_REQUEST_MAX)) {
            let subscriptions = chunk.iter().map(|one| v1::Subscription {
                conversation: plan.id(one.conversation).to_proto(),
                cursor: one.cursor().map(|(epoch, seq)| v1::Cursor { epoch, seq }),
            });
            let subscribe = v1::Subscribe {
                subscriptions: subscriptions.collect(),
            };
            connection.put(FrameKind::Subscribe, request_id, &subscribe);
        }
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
            let more = poll_fn(|context| self.poll_once(&mut connection, context));
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
        self.subscribe(connection);
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

    /// Reads something.
    fn poll_once(
        &mut self,
        connection: &mut Connection,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Lost>> {
        connection.poll_write(context)?;
        connection.poll_frames(context, |frame| self.take(frame))
    }

    #[inline]
    fn take(&mut self, frame: Arrived<'_>) -> Result<(), Lost> {
        match frame.kind {
            FrameKind::Deliver => self.delivered(frame.body),
            FrameKind::Subscribed => self.subscribed(&decode(frame.body)?),
            FrameKind::Error if frame.request_id == PING => Ok(()),
            FrameKind::SubscriptionEnded => {
                let ended: v1::SubscriptionEnded = decode(frame.body)?;
                Err(Lost::Refused(ended.error.unwrap_or_default()))
            }
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
            let head = result.head.unwrap_or_default();
            self.followed[place].begins_behind(head.epoch, head.seq);
            self.by_handle.insert(result.handle, place);
            self.asked = self.asked.saturating_sub(1);
        }
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
            let followed = &mut self.followed[self.last.1];
            if event.message.is_some() {
                tally.delivered += 1;
            }
            if let News::Message(due_us) = followed.take(&event, shared.bodies, &shared.senders) {
                tally.deliveries.record_us(now_us.saturating_sub(due_us));
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
