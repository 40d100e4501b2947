//! From frames to answers and events.

use rialto_protocol::body::{self, Body};
use rialto_protocol::frame::{Frame, FrameKind};
use rialto_protocol::ids::{RequestId, UserId};
use rialto_protocol::v1;
use tokio::time::Instant;

use super::{End, Link, Session};
use crate::command::{Request, Subscribe};
use crate::error::{RequestError, Retry, ServerError, TransportError};
use crate::events::Event;
use crate::requests::{InFlight, refusal};

impl Session {
    /// Takes the frames that are there, for as long as the session reads. Whether there was one.
    pub(super) fn take_frames(&mut self, link: &mut Link) -> Result<bool, End> {
        let now = Instant::now();
        let mut taken = false;
        while self.reads()
            && let Some(frame) = link.next_frame()?
        {
            self.frame(frame, now)?;
            taken = true;
        }
        Ok(taken)
    }

    /// Takes one frame.
    fn frame(&mut self, mut frame: Frame, now: Instant) -> Result<(), End> {
        if matches!(
            frame.kind,
            FrameKind::Deliver | FrameKind::Signalled | FrameKind::Presences
        ) {
            frame.body = self.sink.keep(frame.body);
        }
        match frame.kind {
            FrameKind::Published => self.published(decoded(&frame)?, now),
            FrameKind::Deliver => {
                let deliver = decoded(&frame)?;
                self.subscriptions
                    .deliver(deliver, frame.body.len(), &self.sink, now);
            }
            FrameKind::Signalled => self.signalled(decoded(&frame)?, frame.body.len()),
            FrameKind::Presences if frame.request_id == RequestId::PUSH => {
                self.presences(&frame)?;
            }
            FrameKind::SubscriptionEnded => {
                self.subscriptions.ended(decoded(&frame)?, &self.sink, now);
            }
            FrameKind::GoAway => {
                let push: v1::GoAway = decoded(&frame)?;
                let reconnect_in = self.reconnect.go_away(&push, now);
                if self.sink.has_room() {
                    self.sink.send(Event::GoAway {
                        reason: push.reason(),
                        reconnect_in,
                    });
                }
            }
            FrameKind::Error if frame.request_id == RequestId::PUSH => {
                let error = ServerError::from(decoded::<v1::Error>(&frame)?);
                return Err(TransportError::Refused(error).into());
            }
            _ => self.answer(frame, now)?,
        }
        Ok(())
    }

    fn published(&mut self, published: v1::Published, now: Instant) {
        let mut freed = 0;
        for receipt in published.receipts {
            let id = RequestId(receipt.request_id);
            let Some(InFlight::Publish(batch)) = self.in_flight.get_mut(id) else {
                continue;
            };
            freed += self.outbox.receipt(batch, receipt, now).unwrap_or(0);
            if batch.is_done() {
                self.in_flight.remove(id);
            }
        }
        self.shared.release(freed);
        self.renew_if_expired(now);
    }

    /// A draft was refused because the token had expired: it waits for the next one.
    fn renew_if_expired(&mut self, now: Instant) {
        if self.outbox.take_token_expired() {
            self.tokens.expired(now);
        }
    }

    /// Without room it is lost: signals may be.
    fn signalled(&self, push: v1::Signalled, bytes: usize) {
        if !self.sink.has_room() {
            return;
        }
        let conversation = self.subscriptions.conversation(push.handle);
        if let (Some(conversation), Ok(user), Some(signal)) =
            (conversation, UserId::from_slice(&push.user), push.signal)
        {
            let event = Event::Signalled {
                conversation,
                user,
                signal,
            };
            self.sink.send_of(event, bytes);
        }
    }

    /// Without room they are asked for again when there is.
    fn presences(&mut self, frame: &Frame) -> Result<(), End> {
        if self.sink.has_room() {
            let presences = decoded::<v1::Presences>(frame)?.presences;
            self.sink
                .send_of(Event::Presence(presences), frame.body.len());
        } else {
            self.standing.missed(FrameKind::Watch);
        }
        Ok(())
    }

    /// Takes an answer, unless nobody waits for it.
    fn answer(&mut self, frame: Frame, now: Instant) -> Result<(), End> {
        let Some(in_flight) = self.in_flight.remove(frame.request_id) else {
            return Ok(());
        };
        match in_flight {
            InFlight::Publish(batch) => match refusal(&frame) {
                Some(error) => {
                    let freed = self.outbox.refusal(batch, &error, now);
                    self.shared.release(freed);
                    self.renew_if_expired(now);
                }
                None => {
                    // On the next connection they are sent again.
                    self.in_flight.insert(InFlight::Publish(batch));
                    return Err(unexpected(&frame));
                }
            },
            InFlight::Request(order, request) => self.answer_request(order, request, frame, now),
            InFlight::Unsubscribe(_, unsubscribe) => {
                self.shared.release(unsubscribe.cost);
                unsubscribe.answer.send(self.judge(frame, now));
            }
            InFlight::Subscribe(_, subscribe, generations) => {
                self.shared.release(subscribe.cost);
                return self.answer_subscribe(subscribe, generations, frame, now);
            }
            InFlight::Resubscribe(asked) => match refusal(&frame) {
                Some(error) => {
                    self.subscriptions
                        .all_refused(&asked, &error.into(), &self.sink, now);
                }
                None => {
                    let results = subscribed(&frame, asked.len())?;
                    self.subscriptions
                        .answered(&asked, results, false, &self.sink, now);
                }
            },
            InFlight::Refresh => self.refreshed(&frame, now)?,
            InFlight::Renewal(kind) => match refusal(&frame).map(ServerError::from) {
                Some(error) if error.retry() != Retry::Never => {
                    self.standing.refused(kind, error.retry_after(), now);
                }
                None if frame.kind == FrameKind::Presences => self.presences(&frame)?,
                _ => {}
            },
            InFlight::Own => {}
        }
        Ok(())
    }

    fn answer_request(&mut self, order: u64, mut request: Request, frame: Frame, now: Instant) {
        let answer = match self.judge(frame, now) {
            Err(RequestError::Refused(error)) => match request.refuse(error) {
                Ok(wait) => return self.postponed.add(order, request, now + wait),
                Err(error) => Err(RequestError::Refused(error)),
            },
            answer => answer,
        };
        self.shared.release(request.cost);
        if answer.is_ok() {
            self.in_flight.done(order, &request);
        }
        let taken = answer.is_ok().then_some(&request.body);
        self.standing.answered(request.kind, order, taken);
        request.answer.send(answer);
    }

    fn answer_subscribe(
        &mut self,
        subscribe: Subscribe,
        generations: Vec<u64>,
        frame: Frame,
        now: Instant,
    ) -> Result<(), End> {
        let conversations = subscribe
            .items
            .iter()
            .map(|(conversation, _)| *conversation);
        let asked: Vec<_> = conversations.zip(generations).collect();
        let results = match self.judge(frame, now) {
            Ok(frame) => subscribed(&frame, asked.len())
                .map_err(|end| (RequestError::UnexpectedAnswer, Err(end))),
            Err(error) => Err((error, Ok(()))),
        };
        match results {
            Ok(results) => {
                let outcomes = self
                    .subscriptions
                    .answered(&asked, results, true, &self.sink, now);
                subscribe.answer.send(Ok(outcomes));
                Ok(())
            }
            Err((error, end)) => {
                let after = error.refusal().and_then(ServerError::retry_after);
                self.subscriptions.all_undone(&asked, after, now);
                subscribe.answer.send(Err(error));
                end
            }
        }
    }

    /// A refusal as an error. One of an expired token is a reason to get another.
    fn judge(&mut self, frame: Frame, now: Instant) -> Result<Frame, RequestError> {
        let Some(error) = refusal(&frame) else {
            return Ok(frame);
        };
        let error = ServerError::from(error);
        if error.is(rialto_protocol::error::ErrorCode::TokenExpired) {
            self.tokens.expired(now);
        }
        Err(RequestError::Refused(error))
    }

    fn refreshed(&mut self, frame: &Frame, now: Instant) -> Result<(), End> {
        if let Some(error) = refusal(frame) {
            let error = ServerError::from(error);
            tracing::warn!(%error, "the server refused a new access token");
            // The provider may have another.
            self.tokens.failed(Retry::Safe, now);
            return Ok(());
        }
        let refreshed: v1::Refreshed = decoded(frame)?;
        self.tokens.renewed(refreshed.token_expires_ms, now);
        Ok(())
    }
}

fn subscribed(frame: &Frame, asked: usize) -> Result<Vec<v1::SubscriptionResult>, End> {
    if frame.kind != FrameKind::Subscribed {
        return Err(unexpected(frame));
    }
    let results = decoded::<v1::Subscribed>(frame)?.results;
    if results.len() != asked {
        return Err(TransportError::Protocol(format!(
            "{} results to {asked} subscriptions",
            results.len()
        ))
        .into());
    }
    Ok(results)
}

fn decoded<T: Body>(frame: &Frame) -> Result<T, End> {
    body::decode(&frame.body)
        .map_err(|error| TransportError::Protocol(format!("{}: {error}", frame.kind)).into())
}

fn unexpected(frame: &Frame) -> End {
    TransportError::Protocol(format!("{} does not answer what was asked", frame.kind)).into()
}
