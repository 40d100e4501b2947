//! A connection's life apart from its requests: accepted, read, written, refused, closed, timed out; and the byte credit
//! that its requests hold.

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    frame::{self, Frame, FrameKind, FrameRef, Sender},
    ids::RequestId,
    limits,
};

use super::{
    Edge,
    check::clamped,
    orphans::Orphan,
    session::{Session, State},
};
use crate::{
    advice::retry_hint_ms,
    effects::Effects,
    io::{ConnId, Identity, KeyTag, Now, Output, TakenIn, Transport, Via},
    message::Origin,
};

/// How much longer it may while a new one is being verified that came within that time.
const REFRESH_GRACE_MS: u64 = 10_000;
/// From the end of one session whose key was withdrawn to that of the next: a shard shakes hands with a thousand clients a second.
const WITHDRAWN_EVERY_MS: u64 = 1;
/// A deadline that is farther away is looked at again after so long, microseconds: what the timers hold of a connection that is
/// gone stays for as long at most, and not until its token would have ended.
const LOOK_AGAIN_US: u64 = 600_000_000;
/// Bytes of messages that take about as long as a short message as such.
const MESSAGE_WORK_BYTES: usize = 512;
/// Bytes of a request that do: naming one more conversation takes 20, and as long as seven short messages.
const REQUEST_WORK_BYTES: usize = 3;
/// What of the time that answers took is counted at most, in short messages: a few turns, whatever was caught up with.
const OWED_WORK_MAX: u32 = 2_048;
/// Bytes of frames kept while the token is being verified.
const PARKED_BYTES_MAX: usize = 4 * limits::FRAME_BYTES_MAX_UNAUTHENTICATED;

/// What frames of a read took that their lengths do not tell.
#[derive(Debug, Default)]
pub(super) struct Toil {
    /// Bytes that the body of the newest had more before it was compressed.
    pub(super) inflated_bytes: usize,
    /// Publish requests that were refused as a whole.
    pub(super) refused: usize,
}

impl Edge {
    pub(super) fn opened(
        &mut self,
        now: Now,
        conn: ConnId,
        transport: Transport,
        fx: &mut Effects,
    ) {
        if let Some(former) = self.conns.occupant(conn.index) {
            self.closed(now, former, fx);
        }
        self.conns
            .insert(conn, Session::new(transport, now.mono_us));
        self.arm(now, conn);
    }

    /// Takes in what was read from a connection: whole frames of it, as long as it has credit and its turn lasts, which is for
    /// `work_max` short messages.
    ///
    /// # Errors
    /// What follows is no frame: the connection was told, and nothing more is to be read from it.
    pub fn receive(
        &mut self,
        now: Now,
        conn: ConnId,
        bytes: &[u8],
        work_max: usize,
        fx: &mut Effects,
    ) -> Result<TakenIn, ErrorCode> {
        let mut taken = 0;
        let mut work = self.work_owed(conn, work_max);
        let mut requests = 0;
        let receipts_before = self.receipts.len();
        let mut begun = false;
        self.toil = Toil::default();
        let frame_bytes_max = self.frame_bytes_max(conn);
        let result = loop {
            // Messages that are refused here are answered here, like requests.
            let refused = self.receipts.len() - receipts_before + self.toil.refused;
            if work + refused >= work_max
                || ((taken == 0 || requests + refused > 0) && self.rests(now, conn))
                || !self.conns.may_read(conn)
            {
                break Ok(());
            }
            match frame::peek(&bytes[taken..], frame_bytes_max) {
                Ok(Some(frame)) => {
                    taken += frame.bytes();
                    let is_publish = frame.kind == FrameKind::Publish;
                    requests += usize::from(!is_publish);
                    let work_bytes = if is_publish {
                        MESSAGE_WORK_BYTES
                    } else {
                        REQUEST_WORK_BYTES
                    };
                    let body_bytes = frame.body.len();
                    fx.counters.frames_in += 1;
                    self.frame(now, conn, frame, fx);
                    let inflated_bytes = std::mem::take(&mut self.toil.inflated_bytes);
                    work += 1 + (body_bytes + inflated_bytes) / work_bytes;
                }
                Ok(None) => {
                    begun = taken < bytes.len();
                    break Ok(());
                }
                Err(error) => {
                    self.fail(now, conn, error.code(), fx);
                    break Err(error.code());
                }
            }
        };
        self.heard(now, conn, taken > 0, begun);
        self.send_batches(fx);
        result.map(|()| TakenIn { bytes: taken, work })
    }

    /// Takes in that whole frames came, or the beginning of one.
    fn heard(&mut self, now: Now, conn: ConnId, whole: bool, begun: bool) {
        let Some(session) = self.conns.get_mut(conn) else {
            return;
        };
        let begins = begun && !session.begun;
        session.begun = begun;
        if session.state != State::Open || !(whole || begins) {
            return;
        }
        session.heard_us = now.mono_us;
        if begins && session.transport.keeps_alive {
            self.arm(now, conn);
        }
    }

    fn frame(&mut self, now: Now, conn: ConnId, frame: FrameRef<'_>, fx: &mut Effects) {
        let Some(session) = self.conns.get_mut(conn) else {
            return;
        };
        match session.state {
            State::Closing => {}
            _ if frame.kind.sender() == Sender::Server => {
                self.fail(now, conn, ErrorCode::UnexpectedKind, fx);
            }
            State::Open => self.request(now, conn, frame, fx),
            State::Unauthenticated if frame.kind == FrameKind::Hello => {
                self.hello(now, conn, &frame.to_frame(), fx);
            }
            State::Unauthenticated => self.fail(now, conn, ErrorCode::NotAuthenticated, fx),
            State::Authenticating => {
                let frame = frame.to_frame();
                let bytes = parked_bytes(&frame);
                session.work().parked.push(frame);
                self.charge(conn, bytes);
            }
        }
    }

    pub(super) fn written(&mut self, conn: ConnId, bytes: usize, fx: &mut Effects) {
        self.conns.written(conn, bytes);
        self.resume(conn, fx);
        self.pump(conn, fx);
    }

    pub(super) fn closed(&mut self, now: Now, conn: ConnId, fx: &mut Effects) {
        self.leave(now, conn, fx);
        self.conns.remove(conn);
    }

    /// Refuses the connection as such: an error about it, then its end.
    pub(super) fn fail(&mut self, now: Now, conn: ConnId, code: ErrorCode, fx: &mut Effects) {
        if self
            .conns
            .get(conn)
            .is_none_or(|session| session.state == State::Closing)
        {
            return;
        }
        fx.counters.shed("session", code.name());
        let error = frame::error(RequestId::PUSH, code, retry_hint_ms(code));
        self.send(conn, error, fx);
        self.close(now, conn, fx);
    }

    /// Ends a connection once its queue is written.
    pub(super) fn close(&mut self, now: Now, conn: ConnId, fx: &mut Effects) {
        self.leave(now, conn, fx);
        self.conns.close(conn);
        fx.outputs.push(Output::Close { conn });
    }

    /// Ends a session; what remains of it takes nothing in any more. What it followed and watched is taken apart later.
    fn leave(&mut self, now: Now, conn: ConnId, fx: &mut Effects) {
        let Some(session) = self.conns.get_mut(conn) else {
            return;
        };
        let was_open = session.state == State::Open;
        let mut left = Session::new(session.transport, now.mono_us);
        left.state = State::Closing;
        std::mem::swap(session, &mut left);
        let orphan = Orphan::of(&mut left);
        self.conns.leave_behind(conn, left.in_flight_bytes, orphan);
        if was_open {
            self.open -= 1;
            let work = left.take_work();
            self.estates.add(conn, left.subs, left.watched, work);
            let state = self.presence.left(left.user, left.away);
            self.report(now, left.user, state, fx);
        }
    }

    /// Sees to it that the session's deadline is noticed.
    pub(super) fn arm(&mut self, now: Now, conn: ConnId) {
        let Some(session) = self.conns.get(conn) else {
            return;
        };
        let Some(due_us) = self.due_us(now, session) else {
            return;
        };
        let due_us = due_us.min(now.mono_us + LOOK_AGAIN_US);
        if let Some(session) = self.conns.get_mut(conn)
            && due_us < session.timer_us
        {
            session.timer_us = due_us;
            self.timers.push(due_us, conn);
        }
    }

    /// An entry of the timers has come up: the connection's time is over, or the entry moves on. Says whether it is over.
    pub(super) fn timed(&mut self, now: Now, at_us: u64, conn: ConnId, fx: &mut Effects) -> bool {
        let Some(session) = self.conns.get_mut(conn) else {
            return false;
        };
        if session.timer_us != at_us {
            return false;
        }
        session.timer_us = u64::MAX;
        let code = self
            .conns
            .get(conn)
            .and_then(|session| self.overdue(now, session));
        match code {
            Some(code) => self.fail(now, conn, code, fx),
            None => self.arm(now, conn),
        }
        code.is_some()
    }

    /// Ends the sessions with tokens of keys that are not trusted any more, as if their tokens had expired: so many at a time that
    /// those who come again with new ones can be served.
    pub(crate) fn withdraw(&mut self, now: Now, is_trusted: impl Fn(KeyTag) -> bool) {
        let mut ends_ms = now.unix_ms.saturating_sub(Identity::GRACE_MS);
        for conn in self.conns.ids() {
            let Some(session) = self.conns.open_mut(conn) else {
                continue;
            };
            if session.key.is_none_or(&is_trusted) {
                continue;
            }
            session.token_expires_ms = session.token_expires_ms.min(ends_ms);
            ends_ms += WITHDRAWN_EVERY_MS;
            self.arm(now, conn);
        }
    }

    fn overdue(&self, now: Now, session: &Session) -> Option<ErrorCode> {
        match session.state {
            State::Unauthenticated | State::Authenticating => (now.mono_us
                >= self.handshake_due_us(session))
            .then_some(ErrorCode::HandshakeTimeout),
            State::Open
                if self
                    .idle_due_us(session)
                    .is_some_and(|due_us| now.mono_us >= due_us) =>
            {
                Some(ErrorCode::IdleTimeout)
            }
            State::Open if now.unix_ms >= token_due_ms(session) => Some(ErrorCode::TokenExpired),
            State::Open | State::Closing => None,
        }
    }

    fn due_us(&self, now: Now, session: &Session) -> Option<u64> {
        match session.state {
            State::Unauthenticated | State::Authenticating => Some(self.handshake_due_us(session)),
            State::Open => {
                let left_ms = token_due_ms(session).saturating_sub(now.unix_ms);
                let token_due_us = now.mono_us.saturating_add(left_ms.saturating_mul(1_000));
                Some(
                    self.idle_due_us(session)
                        .map_or(token_due_us, |idle_us| idle_us.min(token_due_us)),
                )
            }
            State::Closing => None,
        }
    }

    fn handshake_due_us(&self, session: &Session) -> u64 {
        session.heard_us + u64::from(self.config.handshake_timeout_ms) * 1_000
    }

    /// `None`: idle sessions stay. A transport that keeps itself alive does so for who waits, not for half a frame.
    fn idle_due_us(&self, session: &Session) -> Option<u64> {
        if session.transport.keeps_alive && !session.begun {
            return None;
        }
        let patience_us =
            u64::from(self.config.keep_alive_ms) * limits::KEEP_ALIVE_PATIENCE * 1_000;
        (patience_us > 0).then(|| session.heard_us + patience_us)
    }

    /// Queues a frame that may not be lost.
    pub(super) fn send(&mut self, conn: ConnId, frame: Bytes, fx: &mut Effects) {
        self.conns.send(conn, frame, Via::Main, fx);
    }

    /// Queues an answer, compressed if that was agreed and helps.
    pub(super) fn send_answer(&mut self, conn: ConnId, frame: Bytes, fx: &mut Effects) {
        let frame = self.shrunk(conn, frame);
        self.send(conn, frame, fx);
    }

    /// The frame, compressed if that was agreed and helps; the connection has less of its next turn for it.
    pub(super) fn shrunk(&mut self, conn: ConnId, frame: Bytes) -> Bytes {
        if frame.len() < limits::COMPRESS_BYTES_MIN {
            return frame;
        }
        let Some(session) = self
            .conns
            .open_mut(conn)
            .filter(|session| session.agreed.zstd)
        else {
            return frame;
        };
        let work = clamped(frame.len() / MESSAGE_WORK_BYTES);
        session.owed_work = session.owed_work.saturating_add(work).min(OWED_WORK_MAX);
        frame::compress(&frame).unwrap_or(frame)
    }

    /// What a turn begins with having done: a part of what answers took, which leaves room for a frame.
    fn work_owed(&mut self, conn: ConnId, work_max: usize) -> usize {
        let work_max = clamped(work_max.saturating_sub(1));
        let Some(session) = self.conns.open_mut(conn) else {
            return 0;
        };
        let work = session.owed_work.min(work_max);
        session.owed_work -= work;
        work as usize
    }

    /// An owner's answer that needs nothing done here.
    pub(super) fn answered(
        &mut self,
        origin: Origin,
        kind: FrameKind,
        body: &[u8],
        fx: &mut Effects,
    ) {
        self.credit(origin.conn, origin.cost, fx);
        self.send_answer(origin.conn, frame::wrap(kind, origin.request, body), fx);
    }

    /// An owner's refusal of a whole request.
    pub(super) fn refused(
        &mut self,
        origin: Origin,
        code: ErrorCode,
        retry_after_ms: u32,
        fx: &mut Effects,
    ) {
        self.credit(origin.conn, origin.cost, fx);
        fx.counters.shed("owner", code.name());
        self.note_refusals(origin.conn, code, 1);
        self.take_merge(origin);
        // A signal without a request id did not ask to hear of it.
        if origin.request != RequestId::PUSH {
            self.send(
                origin.conn,
                frame::error(origin.request, code, retry_after_ms),
                fx,
            );
        }
    }

    /// Takes byte credit for what waits for an answer.
    pub(super) fn charge(&mut self, conn: ConnId, bytes: usize) {
        let Some(session) = self.conns.get_mut(conn) else {
            return;
        };
        session.in_flight_bytes += bytes;
        self.conns.charge(bytes);
        let share = self.conns.in_flight_share();
        let Some(session) = self.conns.get(conn) else {
            return;
        };
        let bytes_max = in_flight_bytes_max_of(session, share);
        if session.in_flight_bytes >= bytes_max {
            self.conns.throttle(conn);
        }
    }

    /// Gives it back.
    pub(super) fn credit(&mut self, conn: ConnId, bytes: u32, fx: &mut Effects) {
        let Some(session) = self
            .conns
            .get_mut(conn)
            .filter(|session| session.state != State::Closing)
        else {
            return self.conns.answered(conn, bytes as usize, fx);
        };
        let bytes = session.in_flight_bytes.min(bytes as usize);
        session.in_flight_bytes -= bytes;
        self.conns.credit(bytes);
        self.resume(conn, fx);
    }

    /// Lets a connection be read again once half of its credit is back.
    pub(super) fn resume(&mut self, conn: ConnId, fx: &mut Effects) {
        if self.conns.may_read(conn) {
            return;
        }
        let Some(session) = self.conns.get(conn) else {
            return;
        };
        let below = session.in_flight_bytes
            <= in_flight_bytes_max_of(session, self.conns.in_flight_share()) / 2;
        self.conns.resume(conn, below, fx);
    }
}

/// When the session is over for want of a token, milliseconds since 1970. What comes after the grace does not put it off, and a
/// Refresh that is verified for too long no further either.
fn token_due_ms(session: &Session) -> u64 {
    let due_ms = session.token_expires_ms.saturating_add(Identity::GRACE_MS);
    match session.refreshing_since_ms() {
        Some(since_ms) if since_ms < due_ms => due_ms.saturating_add(REFRESH_GRACE_MS),
        _ => due_ms,
    }
}

/// What a frame holds that waits until the token is verified. Of a small one most is not its bytes.
pub(super) fn parked_bytes(frame: &Frame) -> usize {
    size_of::<Frame>() + frame::HEADER_BYTES + frame.body.len()
}

fn in_flight_bytes_max_of(session: &Session, configured: usize) -> usize {
    if session.state == State::Open {
        configured
    } else {
        configured.min(PARKED_BYTES_MAX)
    }
}
