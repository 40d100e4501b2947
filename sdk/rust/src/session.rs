//! The task behind a client: one at a time, it holds a connection, and between them makes the next one. Everything that
//! happens to a client happens here, in turn; handles only queue commands.

mod keep_alive;
mod receive;
mod send;
mod standing;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::error::ErrorCode;
use rialto_protocol::frame::{Frame, HEADER_BYTES};
use rialto_protocol::ids::UserId;
use rialto_protocol::v1;
use tokio::time::{Instant, Sleep};

use crate::command::{Command, Shared};
use crate::error::{
    CloseReason, ConnectError, DisconnectCause, Retry, ServerError, TransportError,
};
use crate::events::{ConnectionState, Event, EventSender};
use crate::handshake::{self, Identity, Welcomed};
use crate::publish::Outbox;
use crate::reconnect::Reconnect;
use crate::requests::{InFlight, Postponed, Table};
use crate::subscriptions::Subscriptions;
use crate::token::{TokenRenewal, TokenSource};
use crate::transport::{Connected, Connector};

use keep_alive::KeepAlive;
use standing::Standing;

/// Bytes of frames that wait to be written, beyond which no more are made.
const OUT_BYTES_MAX: usize = 256 * 1024;
/// Longest time for the last bytes of a client that closes.
const FINISH: Duration = Duration::from_secs(5);
/// When nothing else is due.
const FAR: Duration = Duration::from_secs(3600);

/// A client's task.
pub(crate) struct Session {
    shared: Arc<Shared>,
    sink: EventSender,
    connector: Connector,
    identity: Identity,
    reconnect: Reconnect,
    tokens: TokenRenewal,
    commands: VecDeque<Command>,
    in_flight: Table<InFlight>,
    outbox: Outbox,
    postponed: Postponed,
    subscriptions: Subscriptions,
    standing: Standing,
    /// Longest time for an answer.
    answer_timeout: Duration,
    /// What the caller was told last is that there is a connection.
    told_connected: bool,
    /// Why there was no connection the last time.
    cause: DisconnectCause,
}

/// The connection of a session, and its clockwork.
struct Link {
    connected: Connected,
    /// What came beside the main stream and is yet to be taken.
    side_frames: VecDeque<Frame>,
    limits: v1::Limits,
    keep_alive: KeepAlive,
    /// When to look whether a request waits for too long.
    answers_due: Instant,
}

/// Why a connection ended.
enum End {
    /// The client is done.
    Closed,
    /// Another connection is to be made.
    Lost(TransportError),
    /// The server there will not have this client.
    Refused(ServerError),
}

impl From<TransportError> for End {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Refused(error)
                if error.retry() == Retry::Never && !error.is(ErrorCode::TokenExpired) =>
            {
                Self::Refused(error)
            }
            other => Self::Lost(other),
        }
    }
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        sink: EventSender,
        connector: Connector,
        identity: Identity,
        tokens: TokenSource,
        reconnect: Reconnect,
        answer_timeout: Duration,
    ) -> Self {
        Self {
            shared,
            sink,
            tokens: TokenRenewal::new(tokens, identity.connect_timeout),
            connector,
            identity,
            reconnect,
            commands: VecDeque::new(),
            in_flight: Table::new(),
            outbox: Outbox::default(),
            postponed: Postponed::default(),
            subscriptions: Subscriptions::default(),
            standing: Standing::new(),
            answer_timeout,
            told_connected: false,
            cause: DisconnectCause::Lost(TransportError::Closed),
        }
    }

    /// Until the client is closed.
    pub(crate) async fn run(mut self, first: Welcomed) {
        let user = first.user;
        let mut welcomed = Some(first);
        let reason = loop {
            if let Some(welcomed) = welcomed.take() {
                let endpoint = welcomed.endpoint.clone();
                let end = Box::pin(self.hold(welcomed)).await;
                self.disconnected();
                let error = match end {
                    End::Closed => break CloseReason::Asked,
                    End::Refused(error) => {
                        if !self.reconnect.shun(endpoint) {
                            break CloseReason::Refused(error);
                        }
                        TransportError::Refused(error)
                    }
                    End::Lost(error) => error,
                };
                tracing::debug!(%error, "connection lost");
                self.reconnect.refused(error.retry_after());
                self.cause = DisconnectCause::Lost(error);
            }
            match self.connect_again(user).await {
                Ok(next) => welcomed = next,
                Err(reason) => break reason,
            }
        };
        self.close(&reason);
    }

    /// Holds a connection for as long as it lasts.
    async fn hold(&mut self, welcomed: Welcomed) -> End {
        let mut link = self.begin(welcomed);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let end = loop {
            match self.turn(&mut link, timer.as_mut()).await {
                Ok(()) if self.is_done(&link) => break End::Closed,
                Ok(()) => {}
                Err(end) => break end,
            }
        };
        if matches!(end, End::Closed) {
            let now = Instant::now();
            let until = self.shared.close_at().unwrap_or(now).min(now + FINISH);
            // What was asked for is answered, or failed: nothing depends on how this ends.
            let _ = tokio::time::timeout_at(until, link.connected.writer.finish()).await;
        }
        end
    }

    fn begin(&mut self, welcomed: Welcomed) -> Link {
        let now = Instant::now();
        let streams = welcomed.catch_up_streams();
        let Welcomed {
            connected,
            endpoint,
            session,
            welcome,
            limits,
            ..
        } = welcomed;
        self.reconnect.connected(now);
        self.tokens
            .began(welcome.server_time_ms, welcome.token_expires_ms, now);
        self.subscriptions.connected(streams, now);
        self.shared.connected(limits, welcome.server_time_ms);
        let state = ConnectionState::Connected { endpoint, session };
        self.shared.set_state(state.clone());
        if !std::mem::replace(&mut self.told_connected, true) {
            self.sink.send(Event::Connection(state));
        }
        self.standing.connected(now);
        Link {
            connected,
            side_frames: VecDeque::new(),
            limits,
            keep_alive: KeepAlive::new(welcome.keep_alive_ms, now),
            answers_due: now + self.answer_timeout,
        }
    }

    /// Does what there is to do, then waits for more.
    async fn turn(&mut self, link: &mut Link, mut timer: Pin<&mut Sleep>) -> Result<(), End> {
        self.fill(link);
        if self.take_frames(link)? || self.is_done(link) {
            // There may be more to do; or nothing at all, and then nothing would end the waiting below.
            return Ok(());
        }
        let now = Instant::now();
        if self.reconnect.is_leaving(now) && self.has_finished(link) {
            return Err(End::Lost(TransportError::Closed));
        }
        let reading = self.reads();
        if let Some(due) = self.due(now)
            && due < timer.deadline()
        {
            timer.as_mut().reset(due);
        }
        let Connected {
            reader,
            writer,
            side,
        } = &mut link.connected;
        tokio::select! {
            written = writer.write(), if !writer.is_idle() => {
                written.map_err(TransportError::from)?;
                link.keep_alive.said(Instant::now());
            }
            read = reader.read(), if reading => {
                if read.map_err(TransportError::from)? == 0 {
                    return Err(End::Lost(TransportError::Closed));
                }
                link.heard();
            }
            frames = side.next(), if reading => {
                link.side_frames.extend(frames);
                link.heard();
            }
            () = self.shared.woken() => {}
            answer = self.tokens.answer() => match answer {
                Ok(token) => self.refresh(link, token),
                Err(error) => {
                    tracing::warn!(%error, "no access token to go on with");
                    self.tokens.failed(error.retry(), Instant::now());
                }
            },
            () = timer.as_mut() => {
                let now = Instant::now();
                self.tick(link, reading, now)?;
                let due = [self.due(now), link.keep_alive.due(), Some(link.answers_due)];
                let due = due.into_iter().flatten().min();
                timer.as_mut().reset(due.unwrap_or(now + FAR));
            }
        }
        Ok(())
    }

    /// Whether to read: while there is room for events, and while an answer is waited for, which may be behind many of them.
    fn reads(&self) -> bool {
        self.sink.has_room() || !self.in_flight.is_empty()
    }

    /// When something is to be done, the clockwork of the connection aside.
    fn due(&self, now: Instant) -> Option<Instant> {
        [
            self.outbox.due(),
            self.postponed.due(),
            self.subscriptions.deadline(),
            self.tokens.due(),
            self.standing.due(),
            self.reconnect.leave_due(now),
            self.shared.close_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn tick(&mut self, link: &mut Link, reading: bool, now: Instant) -> Result<(), End> {
        if self.shared.close_at().is_some_and(|at| at <= now) {
            return Err(End::Closed);
        }
        if link.answers_due <= now {
            self.look_after_answers(link, now)?;
        }
        if self.reconnect.is_to_leave(now) {
            return Err(End::Lost(TransportError::Closed));
        }
        self.tokens.tick(now);
        if self.outbox.due().is_some_and(|due| due <= now) {
            let delayed = self.outbox.take_due(now);
            self.give_back(delayed);
        }
        let postponed = self.postponed.take_due(now);
        self.give_back(postponed);
        if !reading {
            // The silence is our own.
            link.heard();
        }
        if link.keep_alive.due().is_some_and(|due| due <= now) {
            if link.keep_alive.is_pinged() {
                return Err(End::Lost(TransportError::Silent));
            }
            self.ping(link, now);
        }
        Ok(())
    }

    /// Leaves a connection whose server does not answer a request, whatever else it says. On the next one it is asked again.
    fn look_after_answers(&self, link: &mut Link, now: Instant) -> Result<(), End> {
        let oldest = self.in_flight.oldest().unwrap_or(now);
        link.answers_due = oldest + self.answer_timeout;
        if link.answers_due <= now {
            let ms = u64::try_from(self.answer_timeout.as_millis()).unwrap_or(u64::MAX);
            return Err(End::Lost(TransportError::Timeout(ms)));
        }
        Ok(())
    }

    /// Commands that are to be given once more, each in its place.
    fn give_back(&mut self, mut commands: Vec<Command>) {
        if commands.is_empty() {
            return;
        }
        commands.extend(self.commands.drain(..));
        commands.sort_by_key(|command| command.order);
        self.commands = commands.into();
    }

    /// The connection is gone: what was in flight becomes commands again, or fails.
    fn disconnected(&mut self) {
        let now = Instant::now();
        self.reconnect.disconnected(now);
        let mut commands = self.outbox.take();
        commands.extend(self.postponed.take());
        for in_flight in self.in_flight.drain() {
            if let InFlight::Subscribe(_, subscribe, generations) = &in_flight {
                for ((conversation, _), generation) in subscribe.items.iter().zip(generations) {
                    self.subscriptions
                        .undo(*conversation, *generation, None, now);
                }
            }
            in_flight.lost(&mut commands, |cost| self.shared.release(cost));
        }
        self.subscriptions.disconnected();
        self.give_back(commands);
        // By the time that signals could go out, they would not be true any more.
        self.commands.retain(|command| self.shared.keeps(command));
        self.shared.purge_signals();
    }

    /// The next attempt at a connection; none when it failed. What waits was asked for in this user's name, and in no other it
    /// is sent.
    async fn connect_again(&mut self, user: UserId) -> Result<Option<Welcomed>, CloseReason> {
        let Some((at, endpoints, attempt)) = self.reconnect.next(Instant::now()) else {
            return Err(CloseReason::GaveUp(self.reconnect.failed()));
        };
        // What was given back waits for a connection.
        let is_idle = self.commands.is_empty();
        if is_idle && self.shared.is_closing_idle() {
            return Err(CloseReason::Asked);
        }
        let state = ConnectionState::Reconnecting {
            attempt,
            cause: self.cause.clone(),
        };
        self.shared.set_state(state.clone());
        // Once for each break, and while there is room: nobody may be there to take what comes of a line that is down and up for
        // months.
        if self.told_connected && self.sink.has_room() {
            self.told_connected = false;
            self.sink.send(Event::Connection(state));
        }
        let tokens = self.tokens.source();
        let attempt = async {
            tokio::time::sleep_until(at).await;
            Box::pin(handshake::connect(
                &self.connector,
                &self.identity,
                tokens,
                &endpoints,
            ))
            .await
        };
        let result = tokio::select! {
            result = attempt => result,
            () = self.shared.close_due(is_idle) => return Err(CloseReason::Asked),
        };
        match result {
            Ok(welcomed) if welcomed.user != user => {
                let error = ErrorCode::TokenOfAnotherUser.to_proto(0);
                Err(CloseReason::Refused(error.into()))
            }
            Ok(welcomed) => Ok(Some(welcomed)),
            Err(ConnectError::Refused(error)) if self.is_final(&error) => {
                Err(CloseReason::Refused(error))
            }
            Err(ConnectError::Token(error)) if error.retry() == Retry::Never => {
                Err(CloseReason::Token(error))
            }
            Err(error) => {
                tracing::debug!(%error, "not connected");
                self.reconnect.refused(error.retry_after());
                self.cause = DisconnectCause::NotConnected(error);
                Ok(None)
            }
        }
    }

    /// Whether the server would refuse a new token too.
    fn is_final(&self, error: &ServerError) -> bool {
        let renewable = matches!(
            error.known(),
            Some(ErrorCode::TokenExpired | ErrorCode::TokenKeyUnknown)
        );
        error.retry() == Retry::Never && (self.tokens.source().is_fixed() || !renewable)
    }

    /// Whether the client is to be closed, and nothing is left to do before.
    fn is_done(&self, link: &Link) -> bool {
        self.shared.is_closing_idle()
            && self.commands.is_empty()
            && self.outbox.is_empty()
            && self.postponed.is_empty()
            && self.has_finished(link)
    }

    /// Whether nothing is under way on the connection that somebody waits for.
    fn has_finished(&self, link: &Link) -> bool {
        !self.in_flight.any(InFlight::is_awaited) && link.connected.writer.is_idle()
    }

    /// Ends everything that is still waited for; once.
    fn close(&mut self, reason: &CloseReason) {
        let Some(untouched) = self.shared.shut(reason) else {
            return;
        };
        self.disconnected();
        for command in self.commands.drain(..) {
            command.fail(reason, Retry::MaybeDuplicate);
        }
        for command in untouched {
            command.fail(reason, Retry::Safe);
        }
        let state = ConnectionState::Closed(reason.clone());
        self.shared.set_state(state.clone());
        self.sink.send(Event::Connection(state));
    }
}

impl Drop for Session {
    /// However the task ends, with its runtime or in a panic too, nobody is left waiting.
    fn drop(&mut self) {
        self.close(&CloseReason::Gone);
    }
}

impl Link {
    /// Whether the server takes a frame of this body. It ends the connection for a larger one, and would end the next.
    fn carries(&self, body: &[u8]) -> bool {
        HEADER_BYTES + body.len() <= self.limits.frame_bytes_max as usize
    }

    /// Something came from the server.
    fn heard(&mut self) {
        self.keep_alive.heard(Instant::now());
    }

    /// The next frame of those that are there.
    fn next_frame(&mut self) -> Result<Option<Frame>, TransportError> {
        if let Some(frame) = self.side_frames.pop_front() {
            return Ok(Some(frame));
        }
        let frame = self.connected.reader.next();
        frame.map_err(|error| TransportError::Protocol(error.to_string()))
    }
}
