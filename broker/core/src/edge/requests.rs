//! Requests of an open session: their turn, their kind, their form; then off to the owner of the conversation.

use bytes::Bytes;
use rialto_protocol::{
    body::{self, BodyError},
    error::ErrorCode,
    frame::{self, Flags, Frame, FrameKind, FrameRef},
    ids::{ConversationId, DeviceId, RequestId, Seq, UserId},
    limits,
    plain::PlainPublish,
    v1,
};

use super::{Edge, check, check::clamped, session::Session};
use crate::{
    advice::retry_hint_ms,
    effects::Effects,
    io::{ConnId, Now},
    message::{Author, Message, Origin, ToOwner},
};

/// So many events, rows, conversations or users that a request asks for cost what a request does.
const ASKED_PER_REQUEST: usize = 100;
/// So many members of a new conversation cost what a message does.
const MEMBERS_PER_MESSAGE: usize = 8;

/// A request and who sends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) conn: ConnId,
    pub(super) request: RequestId,
    /// Byte credit that it holds while it waits.
    pub(super) cost: u32,
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) service: bool,
}

impl Call {
    fn author(&self) -> Author {
        Author {
            user: self.user,
            device: self.device,
        }
    }

    /// With credit for more than its own bytes, where it asks for much or makes much.
    pub(super) fn holding(self, more_bytes: usize) -> Self {
        Self {
            cost: self.cost.saturating_add(clamped(more_bytes)),
            ..self
        }
    }
}

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The connection is done for.
    Connection(ErrorCode),
    /// The request alone, and when it is worth another try, milliseconds.
    Request(ErrorCode, u32),
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::Connection(error.code())
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Request(code, retry_hint_ms(code))
    }
}

impl Edge {
    pub(super) fn request(
        &mut self,
        now: Now,
        conn: ConnId,
        frame: FrameRef<'_>,
        fx: &mut Effects,
    ) {
        let Some(session) = self.conns.open_mut(conn) else {
            return;
        };
        let call = Call {
            conn,
            request: frame.request_id,
            cost: clamped(frame.bytes()),
            user: session.user,
            device: session.device,
            service: session.service,
        };
        if frame.kind == FrameKind::Hello {
            return self.fail(now, conn, ErrorCode::AlreadyAuthenticated, fx);
        }
        // Without an id there is nothing to answer to: the error is about the connection.
        if call.request == RequestId::PUSH && frame.kind != FrameKind::Signal {
            return self.fail(now, conn, ErrorCode::RequestIdMissing, fx);
        }
        if frame.kind != FrameKind::Publish && !call.service {
            let taken = match frame.kind {
                // Whatever other sessions of the user do, this one can be kept.
                FrameKind::Ping | FrameKind::Refresh => {
                    self.request_rate.take(&mut session.requests, now, 1)
                }
                _ => self.request_rates.take(session.user, now, 1),
            };
            if taken.allowed == 0 {
                return self.refuse(call, ErrorCode::RateLimited, taken.retry_after_ms, fx);
            }
        }
        if asks_much(frame.kind) && self.conns.are_full() {
            let code = ErrorCode::Overloaded;
            return self.refuse(call, code, retry_hint_ms(code), fx);
        }
        let result = if frame.kind == FrameKind::Publish
            && frame.flags == Flags::NONE
            && let Some(publish) = PlainPublish::read(frame.body)
        {
            self.publish_plain(now, call, &publish, fx)
        } else {
            self.decoded(now, call, frame, fx)
        };
        match result {
            Ok(()) => {}
            Err(Refusal::Connection(code)) => self.fail(now, conn, code, fx),
            Err(Refusal::Request(code, retry_after_ms)) => {
                self.toil.refused += usize::from(frame.kind == FrameKind::Publish);
                self.refuse(call, code, retry_after_ms, fx);
            }
        }
    }

    /// A request whose body has to be decoded.
    fn decoded(
        &mut self,
        now: Now,
        call: Call,
        frame: FrameRef<'_>,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let frame_bytes_max = self.config.frame_bytes_max;
        let Some(session) = self.conns.open(call.conn) else {
            return Ok(());
        };
        let came_bytes = frame.body.len();
        let frame =
            inflated(session, frame.to_frame(), frame_bytes_max).map_err(Refusal::Connection)?;
        self.toil.inflated_bytes = frame.body.len().saturating_sub(came_bytes);
        let call = Call {
            cost: clamped(frame::HEADER_BYTES + frame.body.len()),
            ..call
        };
        self.dispatch(now, call, frame.kind, &frame.body, fx)
    }

    /// A request asks for so much at once that it costs as several do.
    pub(super) fn costs(&mut self, call: Call, asked: usize) {
        if !call.service {
            let more = asked.saturating_sub(1) / ASKED_PER_REQUEST;
            self.request_rates.owe(call.user, more);
        }
    }

    /// Answers a request with an error.
    fn refuse(&mut self, call: Call, code: ErrorCode, retry_after_ms: u32, fx: &mut Effects) {
        fx.counters.shed("session", code.name());
        self.conns.note_refusals(call.conn, 1);
        if call.request != RequestId::PUSH {
            self.send(
                call.conn,
                frame::error(call.request, code, retry_after_ms),
                fx,
            );
        }
    }

    fn dispatch(
        &mut self,
        now: Now,
        call: Call,
        kind: FrameKind,
        body: &Bytes,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        match kind {
            FrameKind::Publish => self.publish(now, call, body::decode(body)?, fx),
            FrameKind::Ping => {
                body::decode::<v1::Ping>(body)?;
                let pong = v1::Pong {
                    server_time_ms: now.unix_ms,
                };
                self.send(
                    call.conn,
                    frame::encode(FrameKind::Pong, call.request, &pong),
                    fx,
                );
                Ok(())
            }
            FrameKind::Refresh => self.refresh(now, call, body::decode(body)?, fx),
            FrameKind::Subscribe => self.subscribe(call, &body::decode(body)?, fx),
            FrameKind::Unsubscribe => self.unsubscribe(call, &body::decode(body)?, fx),
            FrameKind::History => self.history(call, &body::decode(body)?, fx),
            FrameKind::Mark => self.mark(call, &body::decode(body)?, fx),
            FrameKind::Signal => self.signal(call, body::decode(body)?, fx),
            FrameKind::Watch => self.watch(call, &body::decode(body)?, fx),
            FrameKind::SetPresence => self.set_presence(now, call, body::decode(body)?, fx),
            FrameKind::Create => self.create(now, call, body::decode(body)?, fx),
            FrameKind::Describe => self.describe(call, &body::decode(body)?, fx),
            FrameKind::Members => self.members(call, &body::decode(body)?, fx),
            FrameKind::Conversations => self.conversations(call, &body::decode(body)?, fx),
            FrameKind::Prefer => self.prefer(call, &body::decode(body)?, fx),
            // Hello is dealt with before, kinds of servers before that.
            _ => Err(Refusal::Connection(ErrorCode::UnexpectedKind)),
        }
    }

    /// Answers with "it is done".
    pub(super) fn done(&mut self, conn: ConnId, request: RequestId, fx: &mut Effects) {
        self.send(
            conn,
            frame::encode(FrameKind::Done, request, &v1::Done {}),
            fx,
        );
    }

    pub(super) fn origin(&self, call: Call) -> Origin {
        Origin {
            edge: self.id,
            conn: call.conn,
            request: call.request,
            cost: call.cost,
        }
    }

    /// Sends a request on to the conversation's owner; it holds byte credit until the answer comes.
    pub(super) fn ask(
        &mut self,
        call: Call,
        conversation: ConversationId,
        request: ToOwner,
        fx: &mut Effects,
    ) {
        self.charge(call.conn, call.cost as usize);
        self.tell(conversation, request, fx);
    }

    /// Sends the conversation's owner a message.
    pub(super) fn tell(
        &mut self,
        conversation: ConversationId,
        message: ToOwner,
        fx: &mut Effects,
    ) {
        let shard = self.topology.shard_of(&conversation);
        self.send_batch(shard, fx);
        fx.send(shard, Message::ToOwner(message));
    }

    fn mark(&mut self, call: Call, request: &v1::Mark, fx: &mut Effects) -> Result<(), Refusal> {
        let conversation = check::conversation(&request.conversation)?;
        let ask = ToOwner::Mark {
            origin: self.origin(call),
            author: call.author(),
            conversation,
            read: Seq(request.read_seq),
            delivered: Seq(request.delivered_seq),
            unread: request.unread,
        };
        self.ask(call, conversation, ask, fx);
        Ok(())
    }

    /// Has no answer, so it holds no credit.
    fn signal(&mut self, call: Call, request: v1::Signal, fx: &mut Effects) -> Result<(), Refusal> {
        let conversation = check::conversation(&request.conversation)?;
        let signal = match request.signal.ok_or(ErrorCode::InvalidField)? {
            v1::signal::Signal::Typing(typing) => v1::signalled::Signal::Typing(typing),
            v1::signal::Signal::Custom(custom)
                if custom.len() <= limits::CUSTOM_SIGNAL_BYTES_MAX =>
            {
                // It may wait for long, and the frame that it came in may be large.
                v1::signalled::Signal::Custom(Bytes::copy_from_slice(&custom))
            }
            v1::signal::Signal::Custom(_) => return Err(ErrorCode::InvalidField.into()),
        };
        let origin = Origin {
            cost: 0,
            ..self.origin(call)
        };
        self.tell(
            conversation,
            ToOwner::Signal {
                origin,
                user: call.user,
                conversation,
                signal,
            },
            fx,
        );
        Ok(())
    }

    /// Costs as much as messages do: there is an event of it, and every member's inbox is told.
    fn create(
        &mut self,
        now: Now,
        call: Call,
        request: v1::Create,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let (conversation, create) = check::create(request, call.user)?;
        let (allowed, retry_after_ms) = self.turns(now, call, 1);
        if allowed == 0 {
            return Err(Refusal::Request(ErrorCode::RateLimited, retry_after_ms));
        }
        if !call.service {
            let more = create.members.len() / MEMBERS_PER_MESSAGE;
            self.user_rates.owe(call.user, more);
        }
        let (origin, author) = (self.origin(call), call.author());
        self.ask(
            call,
            conversation,
            ToOwner::Create {
                origin,
                author,
                conversation,
                create,
                service: call.service,
            },
            fx,
        );
        Ok(())
    }

    fn describe(
        &mut self,
        call: Call,
        request: &v1::Describe,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let conversation = check::conversation(&request.conversation)?;
        let (origin, user) = (self.origin(call), call.user);
        self.ask(
            call,
            conversation,
            ToOwner::Describe {
                origin,
                user,
                conversation,
            },
            fx,
        );
        Ok(())
    }

    fn prefer(
        &mut self,
        call: Call,
        request: &v1::Prefer,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let conversation = check::conversation(&request.conversation)?;
        let &v1::Prefer {
            hidden,
            muted_until_ms,
            ..
        } = request;
        if hidden.is_none() && muted_until_ms.is_none() {
            return Err(ErrorCode::InvalidField.into());
        }
        let (origin, author) = (self.origin(call), call.author());
        self.ask(
            call,
            conversation,
            ToOwner::Prefer {
                origin,
                author,
                conversation,
                hidden,
                muted_until_ms,
            },
            fx,
        );
        Ok(())
    }
}

/// Whether the answer, or what has to be kept until it comes, is larger than the request.
fn asks_much(kind: FrameKind) -> bool {
    matches!(
        kind,
        FrameKind::Subscribe
            | FrameKind::History
            | FrameKind::Watch
            | FrameKind::Describe
            | FrameKind::Members
            | FrameKind::Conversations
    )
}

/// The frame as it was before compression.
fn inflated(session: &Session, frame: Frame, frame_bytes_max: usize) -> Result<Frame, ErrorCode> {
    if !frame.flags.contains(Flags::COMPRESSED) {
        Ok(frame)
    } else if session.agreed.zstd {
        frame::decompress(frame, frame_bytes_max).map_err(|error| error.code())
    } else {
        Err(ErrorCode::DecompressionFailed)
    }
}
