//! What client handles and the session's task share: the queue of commands, byte credit, and the state for everybody to see.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{ClientId, ConversationId, UserId};
use rialto_protocol::v1;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::attempts::Attempts;
use crate::client_id::{self, ClientIds};
use crate::credit::Credit;
use crate::error::{CloseReason, Retry};
use crate::events::ConnectionState;
use crate::publish::{Pending, Publishing};
use crate::requests::{Answer, Resend};
use crate::subscriptions::{Start, SubscribeAnswer};

/// Time for what is open when a client is closed, unless its caller names another.
pub(crate) const CLOSE_PATIENCE: Duration = Duration::from_secs(30);
/// In place of a time that no clock reaches.
const FOR_EVER: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Something to do, with its place among everything that was ever asked of this client.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) order: u64,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    Publish(Pending),
    Request(Request),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    /// A Signal's body; dropped when there is no connection.
    Signal {
        body: Bytes,
        cost: u32,
    },
}

/// A request whose answer the caller decodes.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) kind: FrameKind,
    pub(crate) body: Bytes,
    pub(crate) resend: Resend,
    pub(crate) attempts: Attempts,
    pub(crate) cost: u32,
    pub(crate) answer: Answer,
}

#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) items: Vec<(ConversationId, Start)>,
    pub(crate) cost: u32,
    pub(crate) answer: SubscribeAnswer,
}

#[derive(Debug)]
pub(crate) struct Unsubscribe {
    pub(crate) conversations: Vec<ConversationId>,
    pub(crate) cost: u32,
    pub(crate) answer: Answer,
}

#[derive(Debug)]
struct Queue {
    commands: VecDeque<Command>,
    orders: u64,
    client_ids: ClientIds,
    /// When the client closes at the latest, once that was asked for.
    close_at: Option<Instant>,
    closed: Option<CloseReason>,
    clients_gone: bool,
    events_gone: bool,
}

/// Shared by all handles of a client and its session.
#[derive(Debug)]
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    /// Wakes a session that is between connections: for nothing but to close.
    close: Notify,
    credit: Credit,
    state: watch::Sender<ConnectionState>,
    limits: Mutex<v1::Limits>,
}

impl Shared {
    pub(crate) fn new(
        state: ConnectionState,
        limits: v1::Limits,
        in_flight_bytes: usize,
        random: [u8; 6],
    ) -> Self {
        Self {
            queue: Mutex::new(Queue {
                commands: VecDeque::new(),
                orders: 0,
                client_ids: ClientIds::new(random),
                close_at: None,
                closed: None,
                clients_gone: false,
                events_gone: false,
            }),
            wake: Notify::new(),
            close: Notify::new(),
            credit: Credit::new(in_flight_bytes, &limits),
            state: watch::Sender::new(state),
            limits: Mutex::new(limits),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` more may be in flight. What was taken: to be given back with [`Shared::release`].
    pub(crate) async fn take_credit(&self, bytes: usize) -> Result<u32, CloseReason> {
        let taken = self.credit.take(bytes).await;
        taken.ok_or_else(|| self.close_reason())
    }

    /// As [`Shared::take_credit`], if there is enough.
    pub(crate) fn try_take_credit(&self, bytes: usize) -> Option<u32> {
        self.credit.try_take(bytes)
    }

    pub(crate) fn release(&self, cost: u32) {
        self.credit.release(cost);
    }

    fn close_reason(&self) -> CloseReason {
        self.queue().closed.clone().unwrap_or(CloseReason::Gone)
    }

    /// Refuses when the client is closed, or about to be.
    pub(crate) fn check_open(&self) -> Result<(), CloseReason> {
        self.queue().check_open()
    }

    /// Queues a command, unless the client is closed.
    pub(crate) fn push(&self, what: What) -> Result<(), CloseReason> {
        let mut queue = self.queue();
        queue.check_open()?;
        queue.push(what);
        let first = queue.commands.len() == 1;
        drop(queue);
        if first {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Queues drafts under new client ids, all in one go, or one under the id that it was sent with before. Each is the bytes of
    /// a Draft whose client id is yet to be filled in.
    pub(crate) fn push_drafts(
        &self,
        conversation: ConversationId,
        on_behalf_of: Option<UserId>,
        client_id: Option<ClientId>,
        drafts: impl Iterator<Item = (BytesMut, u32)>,
        mut each: impl FnMut(Publishing),
    ) -> Result<(), CloseReason> {
        let now_ms = client_id::now_ms();
        let mut queue = self.queue();
        queue.check_open()?;
        let idle = queue.commands.is_empty();
        for (draft, cost) in drafts {
            let id = client_id.unwrap_or_else(|| queue.client_ids.next(now_ms));
            let (mut pending, publishing) =
                Pending::new(conversation, on_behalf_of, id, draft, cost);
            if client_id.is_some() {
                pending.sent_before();
            }
            queue.push(What::Publish(pending));
            each(publishing);
        }
        drop(queue);
        if idle {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// A client id outside of drafts.
    pub(crate) fn client_id(&self) -> ClientId {
        self.queue().client_ids.next(client_id::now_ms())
    }

    /// Moves all queued commands behind those of `commands`.
    pub(crate) fn take_commands(&self, commands: &mut VecDeque<Command>) {
        let mut queue = self.queue();
        if commands.is_empty() {
            std::mem::swap(commands, &mut queue.commands);
        } else {
            commands.append(&mut queue.commands);
        }
    }

    /// Throws queued signals away.
    pub(crate) fn purge_signals(&self) {
        let mut queue = self.queue();
        queue.commands.retain(|command| self.keeps(command));
    }

    /// False for a signal, whose credit is free again.
    pub(crate) fn keeps(&self, command: &Command) -> bool {
        match command.what {
            What::Signal { cost, .. } => {
                self.release(cost);
                false
            }
            _ => true,
        }
    }

    /// Has the client closed: when everything is answered, and within `patience` in any case. Nothing more is taken.
    pub(crate) fn close(&self, patience: Duration) {
        self.queue().close(patience);
        self.wake();
        self.close.notify_one();
    }

    /// When the client closes at the latest, if it is to be closed.
    pub(crate) fn close_at(&self) -> Option<Instant> {
        self.queue().close_at
    }

    /// Whether the client is to be closed and no command waits to be taken.
    pub(crate) fn is_closing_idle(&self) -> bool {
        let queue = self.queue();
        queue.close_at.is_some() && queue.commands.is_empty()
    }

    pub(crate) fn clients_dropped(&self) {
        let mut queue = self.queue();
        queue.clients_gone = true;
        self.close_if_abandoned(queue);
    }

    pub(crate) fn events_dropped(&self) {
        let mut queue = self.queue();
        queue.events_gone = true;
        self.close_if_abandoned(queue);
    }

    /// Nobody can ask for anything or see anything any more.
    fn close_if_abandoned(&self, mut queue: MutexGuard<'_, Queue>) {
        if queue.clients_gone && queue.events_gone {
            queue.close(CLOSE_PATIENCE);
        }
        drop(queue);
        self.wake();
        self.close.notify_one();
    }

    /// From now on everything is refused. What was queued comes back, the first time.
    pub(crate) fn shut(&self, reason: &CloseReason) -> Option<VecDeque<Command>> {
        let mut queue = self.queue();
        if queue.closed.is_some() {
            return None;
        }
        queue.closed = Some(reason.clone());
        let commands = std::mem::take(&mut queue.commands);
        drop(queue);
        self.credit.close();
        Some(commands)
    }

    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for a reason to look at the queue, or at the room for events.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Waits, without a connection, until it is of no use to make another: the client is to be closed, and nothing is open or
    /// the time for that is over. `is_idle`: nothing is open beside what is queued here.
    pub(crate) async fn close_due(&self, is_idle: bool) {
        loop {
            if is_idle && self.is_closing_idle() {
                return;
            }
            match self.close_at() {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => return,
                    () = self.close.notified() => {}
                },
                None => self.close.notified().await,
            }
        }
    }

    pub(crate) fn set_state(&self, state: ConnectionState) {
        self.state.send_replace(state);
    }

    pub(crate) fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    /// What a new connection says: its limits, and the server's time, which client ids are not before.
    pub(crate) fn connected(&self, limits: v1::Limits, server_time_ms: u64) {
        self.credit.limit(&limits);
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
        self.queue().client_ids.not_before(server_time_ms);
    }

    pub(crate) fn limits(&self) -> v1::Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn check_open(&self) -> Result<(), CloseReason> {
        match (&self.closed, self.close_at) {
            (Some(reason), _) => Err(reason.clone()),
            (None, Some(_)) => Err(CloseReason::Asked),
            (None, None) => Ok(()),
        }
    }

    fn close(&mut self, patience: Duration) {
        let now = Instant::now();
        let at = now.checked_add(patience).unwrap_or(now + FOR_EVER);
        self.close_at = Some(self.close_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn push(&mut self, what: What) {
        self.orders += 1;
        self.commands.push_back(Command {
            order: self.orders,
            what,
        });
    }
}

impl Command {
    /// Tells whoever waits for it that the client is closed.
    pub(crate) fn fail(self, reason: &CloseReason, retry: Retry) {
        match self.what {
            What::Publish(pending) => pending.close(reason, retry),
            What::Request(request) => request.answer.close(reason, retry),
            What::Subscribe(subscribe) => subscribe.answer.close(reason, retry),
            What::Unsubscribe(unsubscribe) => unsubscribe.answer.close(reason, retry),
            What::Signal { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queued_signals_are_thrown_away_and_their_credit_is_free_again() {
        let state = ConnectionState::Closed(CloseReason::Asked);
        let limits = v1::Limits {
            in_flight_bytes_max: 200,
            ..v1::Limits::default()
        };
        let shared = Shared::new(state, limits, 200, [0; 6]);
        let cost = shared.try_take_credit(200).unwrap();
        let body = Bytes::new();
        shared.push(What::Signal { body, cost }).unwrap();
        assert_eq!(shared.try_take_credit(200), None);
        shared.purge_signals();
        assert_eq!(shared.try_take_credit(200), Some(cost));
        let mut commands = VecDeque::new();
        shared.take_commands(&mut commands);
        assert!(commands.is_empty());
    }
}
