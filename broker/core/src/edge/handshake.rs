//! Who is it? Hello and its answer, and a new token on an open session.

use rialto_protocol::{
    body,
    error::ErrorCode,
    frame::{self, Flags, Frame, FrameKind},
    ids::{DeviceId, RequestId, SessionId, UserId},
    limits, v1,
};

use super::{
    Edge,
    check::clamped,
    life::parked_bytes,
    requests::{Call, Refusal},
    session::{Agreed, State, WaitingRefresh},
};
use crate::{
    advice::retry_hint_ms,
    effects::Effects,
    io::{ConnId, Identity, Now, Output, Transport},
};

impl Edge {
    pub(super) fn hello(&mut self, now: Now, conn: ConnId, frame: &Frame, fx: &mut Effects) {
        if frame.flags.contains(Flags::COMPRESSED) {
            return self.fail(now, conn, ErrorCode::DecompressionFailed, fx);
        }
        if frame.request_id == RequestId::PUSH {
            return self.fail(now, conn, ErrorCode::RequestIdMissing, fx);
        }
        let hello: v1::Hello = match body::decode(&frame.body) {
            Ok(hello) => hello,
            Err(error) => return self.fail(now, conn, error.code(), fx),
        };
        let checked = if self.draining {
            Err(ErrorCode::ShuttingDown)
        } else {
            device_of(&hello)
        };
        match checked {
            Ok(device) => {
                let Some(session) = self.conns.get_mut(conn) else {
                    return;
                };
                session.state = State::Authenticating;
                session.hello = frame.request_id;
                session.device = device;
                session.agreed = agree(session.transport, &hello);
                fx.outputs.push(Output::Authenticate {
                    conn,
                    token: hello.token,
                });
            }
            Err(code) => self.refuse_hello(now, conn, frame.request_id, code, fx),
        }
    }

    /// Answers Hello with an error. The connection stays only where another Hello can do better.
    fn refuse_hello(
        &mut self,
        now: Now,
        conn: ConnId,
        request: RequestId,
        code: ErrorCode,
        fx: &mut Effects,
    ) {
        fx.counters.shed("session", code.name());
        self.send(conn, frame::error(request, code, 0), fx);
        if code.closes_handshake() {
            self.close(now, conn, fx);
        }
    }

    pub(super) fn authenticated(
        &mut self,
        now: Now,
        conn: ConnId,
        result: Result<Identity, ErrorCode>,
        fx: &mut Effects,
    ) {
        let Some((state, request)) = self
            .conns
            .get(conn)
            .map(|session| (session.state, session.hello))
        else {
            return;
        };
        let result = result.and_then(|identity| {
            if identity.user == UserId::SYSTEM {
                Err(ErrorCode::TokenClaimsRefused)
            } else {
                Ok(identity)
            }
        });
        match (state, result) {
            (State::Authenticating, Ok(_)) if self.draining => {
                self.refuse_hello(now, conn, request, ErrorCode::ShuttingDown, fx);
            }
            (State::Authenticating, Ok(identity)) => self.welcome(now, conn, &identity, fx),
            (State::Authenticating, Err(code)) => {
                // Whatever the reason, there is no session: the connection is of no use.
                fx.counters.shed("session", code.name());
                let error = frame::error(request, code, retry_hint_ms(code));
                self.send(conn, error, fx);
                self.close(now, conn, fx);
            }
            (State::Open, result) => self.refreshed(now, conn, result, fx),
            (State::Unauthenticated | State::Closing, _) => {}
        }
    }

    fn welcome(&mut self, now: Now, conn: ConnId, identity: &Identity, fx: &mut Effects) {
        let Some(session) = self.conns.get_mut(conn) else {
            return;
        };
        session.state = State::Open;
        session.user = identity.user;
        session.service = identity.service;
        session.token_expires_ms = identity.expires_ms;
        session.key = identity.key;
        session.heard_us = now.mono_us;
        let (request, agreed) = (session.hello, session.agreed);
        let keep_alive_ms = match session.transport.keeps_alive {
            true => 0,
            false => self.config.keep_alive_ms,
        };
        let parked = session
            .work_if_any()
            .map(|work| std::mem::take(&mut work.parked))
            .unwrap_or_default();
        session.rest();
        self.open += 1;
        let state = self.presence.joined(identity.user);
        self.report(now, identity.user, state, fx);
        let welcome = v1::Welcome {
            user: identity.user.to_proto(),
            session: self.session_id(now, conn).to_proto(),
            server_time_ms: now.unix_ms,
            keep_alive_ms,
            token_expires_ms: identity.expires_ms,
            capabilities: capabilities(agreed),
            limits: Some(self.limits_of(identity)),
        };
        self.send(
            conn,
            frame::encode(FrameKind::Welcome, request, &welcome),
            fx,
        );
        self.arm(now, conn);
        for frame in parked {
            let bytes = clamped(parked_bytes(&frame));
            self.credit(conn, bytes, fx);
            if self.conns.open(conn).is_some() {
                self.request(now, conn, frame.as_ref(), fx);
            }
        }
        self.send_batches(fx);
        self.resume(conn, fx);
    }

    /// Unique on this node for as long as connections are: made of time, shard, slot and generation, because there is no
    /// randomness here.
    fn session_id(&self, now: Now, conn: ConnId) -> SessionId {
        let mut entropy = [0; 10];
        entropy[..2].copy_from_slice(&self.id.0.to_be_bytes());
        entropy[2..6].copy_from_slice(&conn.index.to_be_bytes());
        entropy[6..].copy_from_slice(&conn.generation.to_be_bytes());
        SessionId::v7(now.unix_ms, entropy)
    }

    fn limits_of(&self, identity: &Identity) -> v1::Limits {
        let publish_per_s = if identity.service {
            0
        } else {
            self.config.publish_per_s
        };
        v1::Limits {
            frame_bytes_max: clamped(self.config.frame_bytes_max),
            body_bytes_max: clamped(self.config.body_bytes_max),
            in_flight_bytes_max: clamped(self.config.in_flight_bytes_max),
            subscriptions_max: clamped(self.config.subscriptions_max),
            drafts_max: clamped(limits::DRAFTS_MAX),
            publish_per_s,
            publish_burst: self.config.publish_burst,
        }
    }

    /// A new token. One is verified at a time, so that the answers need no names.
    pub(super) fn refresh(
        &mut self,
        now: Now,
        call: Call,
        refresh: v1::Refresh,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        check_token(&refresh.token)?;
        self.charge(call.conn, call.cost as usize);
        if let Some(session) = self.conns.open_mut(call.conn) {
            let token = Some(refresh.token);
            session.work().refreshes.push_back(WaitingRefresh {
                request: call.request,
                cost: call.cost,
                since_ms: now.unix_ms,
                token,
            });
            self.verify_next(call.conn, fx);
        }
        Ok(())
    }

    fn verify_next(&mut self, conn: ConnId, fx: &mut Effects) {
        let Some(session) = self.conns.open_mut(conn) else {
            return;
        };
        let first = session
            .work_if_any()
            .and_then(|work| work.refreshes.front_mut());
        if let Some(token) = first.and_then(|refresh| refresh.token.take()) {
            fx.outputs.push(Output::Authenticate { conn, token });
        }
        session.rest();
    }

    fn refreshed(
        &mut self,
        now: Now,
        conn: ConnId,
        result: Result<Identity, ErrorCode>,
        fx: &mut Effects,
    ) {
        let Some(session) = self.conns.open_mut(conn) else {
            return;
        };
        let Some(refresh) = session
            .work_if_any()
            .and_then(|work| work.refreshes.pop_front())
        else {
            return;
        };
        let result = result.and_then(|identity| {
            if identity.user == session.user {
                Ok(identity)
            } else {
                Err(ErrorCode::TokenOfAnotherUser)
            }
        });
        let frame = match result {
            Ok(identity) => {
                session.token_expires_ms = identity.expires_ms;
                session.key = identity.key;
                session.service = identity.service;
                let refreshed = v1::Refreshed {
                    token_expires_ms: identity.expires_ms,
                };
                frame::encode(FrameKind::Refreshed, refresh.request, &refreshed)
            }
            Err(code) => {
                fx.counters.shed("session", code.name());
                frame::error(refresh.request, code, 0)
            }
        };
        self.send(conn, frame, fx);
        self.credit(conn, refresh.cost, fx);
        self.arm(now, conn);
        self.verify_next(conn, fx);
    }
}

fn device_of(hello: &v1::Hello) -> Result<DeviceId, ErrorCode> {
    check_token(&hello.token)?;
    if hello.sdk.len() > limits::SDK_BYTES_MAX {
        return Err(ErrorCode::InvalidField);
    }
    let device = DeviceId::from_slice(&hello.device).map_err(|_| ErrorCode::DeviceInvalid)?;
    if device.as_bytes() == &[0; 16] {
        Err(ErrorCode::DeviceInvalid)
    } else {
        Ok(device)
    }
}

fn check_token(token: &str) -> Result<(), ErrorCode> {
    if token.is_empty() || token.len() > limits::TOKEN_BYTES_MAX {
        Err(ErrorCode::TokenMalformed)
    } else {
        Ok(())
    }
}

/// What both sides can do. Capabilities of later versions are passed over.
fn agree(transport: Transport, hello: &v1::Hello) -> Agreed {
    let offered = |capability: v1::Capability| hello.capabilities.contains(&(capability as i32));
    Agreed {
        zstd: offered(v1::Capability::Zstd),
        catch_up_streams: transport.catch_up_streams && offered(v1::Capability::CatchUpStreams),
        datagrams: transport.datagrams && offered(v1::Capability::SignalDatagrams),
    }
}

fn capabilities(agreed: Agreed) -> Vec<i32> {
    [
        (agreed.zstd, v1::Capability::Zstd),
        (agreed.catch_up_streams, v1::Capability::CatchUpStreams),
        (agreed.datagrams, v1::Capability::SignalDatagrams),
    ]
    .into_iter()
    .filter_map(|(agreed, capability)| agreed.then_some(capability as i32))
    .collect()
}
