//! From commands to frames: as many as there are go into one buffer, which is written at once.

use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{ConversationId, RequestId};
use rialto_protocol::{limits, v1};
use tokio::time::Instant;

use super::{Link, OUT_BYTES_MAX, Session};
use crate::command::{Command, Request, Subscribe, Unsubscribe, What};
use crate::error::RequestError;
use crate::publish::{self, Batch, Pending};
use crate::requests::InFlight;
use crate::wire;

impl Session {
    /// Makes frames of what was asked for, until enough wait to be written. On a connection that is being left nothing more is
    /// begun: the next one gets it.
    pub(super) fn fill(&mut self, link: &mut Link) {
        let now = Instant::now();
        self.make_good(link, now);
        while link.connected.writer.out.len() < OUT_BYTES_MAX && !self.reconnect.is_leaving(now) {
            let Some(command) = self.next_command() else {
                break;
            };
            let Command { order, what } = command;
            match what {
                What::Publish(pending) => self.publish(link, order, pending),
                What::Request(request) => self.request(link, order, request),
                What::Subscribe(subscribe) => self.subscribe(link, order, subscribe),
                What::Unsubscribe(unsubscribe) => self.unsubscribe(link, order, unsubscribe),
                What::Signal { body, cost } => {
                    self.shared.release(cost);
                    let out = &mut link.connected.writer.out;
                    wire::put_frame(out, FrameKind::Signal, RequestId::PUSH, &body);
                }
            }
        }
    }

    fn next_command(&mut self) -> Option<Command> {
        if self.commands.is_empty() {
            self.shared.take_commands(&mut self.commands);
        }
        self.commands.pop_front()
    }

    /// One Publish of this draft and of those behind it that go with it.
    fn publish(&mut self, link: &mut Link, order: u64, first: Pending) {
        let Some(first) = self.outbox.pass(order, first) else {
            return;
        };
        let frame_bytes_max = link.limits.frame_bytes_max as usize;
        let Some(first) = first.fitting(frame_bytes_max, |cost| self.shared.release(cost)) else {
            return;
        };
        let mut listed_bytes = first.listed_bytes();
        let mut drafts = vec![(order, first)];
        while let Some(Command {
            what: What::Publish(next),
            ..
        }) = self.commands.front()
            && drafts[0].1.goes_with(next)
            && drafts.len() < link.limits.drafts_max as usize
            && publish::fits(drafts.len(), listed_bytes, next, frame_bytes_max)
        {
            listed_bytes += next.listed_bytes();
            if let Some(Command {
                order,
                what: What::Publish(next),
            }) = self.commands.pop_front()
            {
                drafts.push((order, next));
            }
        }
        // The frame is written before its drafts move into the table, under the id that they will have there.
        let id = self.in_flight.insert(InFlight::Own);
        publish::put_frame(&mut link.connected.writer.out, id, &drafts);
        if let Some(slot) = self.in_flight.get_mut(id) {
            *slot = InFlight::Publish(Batch::new(drafts));
        }
    }

    fn request(&mut self, link: &mut Link, order: u64, request: Request) {
        // Who has dropped the call wants it done no more, least of all behind a break that came of waiting for its answer.
        let in_vain = request.answer.is_in_vain();
        if in_vain || !link.carries(&request.body) {
            self.shared.release(request.cost);
            self.standing.answered(request.kind, order, None);
            let invalid = RequestError::Invalid("the request does not fit into a frame");
            return request.answer.send(Err(invalid));
        }
        self.standing.asked(request.kind, order);
        let (kind, body) = (request.kind, request.body.clone());
        self.ask(link, kind, &body, InFlight::Request(order, request));
    }

    /// A request frame, and what its answer is for.
    pub(super) fn ask(&mut self, link: &mut Link, kind: FrameKind, body: &[u8], what: InFlight) {
        let id = self.in_flight.insert(what);
        wire::put_frame(&mut link.connected.writer.out, kind, id, body);
    }

    /// A request frame whose answer nobody waits for.
    fn ask_in_vain(&mut self, link: &mut Link, kind: FrameKind, body: &[u8]) {
        let id = self.in_flight.skip(InFlight::Own);
        wire::put_frame(&mut link.connected.writer.out, kind, id, body);
    }

    fn subscribe(&mut self, link: &mut Link, order: u64, subscribe: Subscribe) {
        let items = subscribe.items.iter();
        let generations = items
            .map(|(conversation, start)| self.subscriptions.begin(*conversation, *start))
            .collect();
        let body = self.subscribe_body(
            subscribe
                .items
                .iter()
                .map(|(conversation, _)| *conversation),
        );
        let what = InFlight::Subscribe(order, subscribe, generations);
        self.ask(link, FrameKind::Subscribe, &body, what);
    }

    /// Asks for what nobody but the session itself asks for: what was promised to the caller and is not as promised.
    fn make_good(&mut self, link: &mut Link, now: Instant) {
        while let Some(starved) = self.subscriptions.take_leaving() {
            let conversations = starved.iter().map(ConversationId::to_proto).collect();
            let body = wire::encode(&v1::Unsubscribe { conversations });
            // Should it be refused, more comes for which there is no room.
            self.ask_in_vain(link, FrameKind::Unsubscribe, &body);
        }
        if self.sink.is_half_empty() {
            self.subscriptions.has_room(now);
            self.standing.has_room(now);
        }
        while let Some((kind, body)) = self.standing.take_due(now) {
            if link.carries(&body) {
                self.ask(link, kind, &body, InFlight::Renewal(kind));
            }
        }
        self.subscribe_again(link, now);
    }

    /// Renews the subscriptions that are due for it: all of them on a new connection.
    fn subscribe_again(&mut self, link: &mut Link, now: Instant) {
        while self
            .subscriptions
            .deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            let count_max = limits::SUBSCRIPTIONS_PER_REQUEST_MAX;
            let due = self.subscriptions.due(count_max, &self.sink, now);
            if !due.is_empty() {
                let body = self.subscribe_body(due.iter().map(|(conversation, _)| *conversation));
                self.ask(
                    link,
                    FrameKind::Subscribe,
                    &body,
                    InFlight::Resubscribe(due),
                );
            }
        }
    }

    fn subscribe_body(
        &mut self,
        conversations: impl Iterator<Item = ConversationId>,
    ) -> bytes::Bytes {
        let subscriptions = conversations
            .map(|conversation| self.subscriptions.to_proto(conversation))
            .collect();
        self.subscriptions.asked();
        wire::encode(&v1::Subscribe { subscriptions })
    }

    /// Names all to the server: it may follow one that is not known here any more, when it refused an earlier Unsubscribe.
    fn unsubscribe(&mut self, link: &mut Link, order: u64, unsubscribe: Unsubscribe) {
        for conversation in &unsubscribe.conversations {
            self.subscriptions.remove(*conversation);
        }
        let conversations = unsubscribe.conversations.iter();
        let body = wire::encode(&v1::Unsubscribe {
            conversations: conversations.map(ConversationId::to_proto).collect(),
        });
        self.ask(
            link,
            FrameKind::Unsubscribe,
            &body,
            InFlight::Unsubscribe(order, unsubscribe),
        );
    }

    pub(super) fn ping(&mut self, link: &mut Link, now: Instant) {
        self.ask_in_vain(link, FrameKind::Ping, &[]);
        link.keep_alive.pinged(now);
    }

    pub(super) fn refresh(&mut self, link: &mut Link, token: String) {
        let body = wire::encode(&v1::Refresh { token });
        self.ask(link, FrameKind::Refresh, &body, InFlight::Refresh);
    }
}
