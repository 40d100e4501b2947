//! What happens without being asked for, on its way to the caller. The buffer is bounded: when it is full, the session stops
//! reading, or drops what it can get again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rialto_protocol::ids::{ConversationId, Cursor, Seq, SessionId, UserId};
use rialto_protocol::v1;
use tokio::sync::mpsc;

use crate::command::Shared;
use crate::endpoint::Endpoint;
use crate::error::{CloseReason, DisconnectCause, ServerError};

/// Bytes of decoded events that may wait for the caller, beside their number.
const BUFFER_BYTES_MAX: usize = 8 << 20;
/// Events that may wait in the buffers which they were read into: each may keep a whole one, whatever else that held.
const SHARING_MAX: usize = 64;
/// Least bytes of a frame whose events may wait there even so.
const SHARED_BYTES_MIN: usize = 16 * 1024;

/// Something that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The next events of a subscription: without a gap, without a repeat.
    Delivered {
        /// Where.
        conversation: ConversationId,
        /// Consecutive; at least one. Byte fields are slices of a read buffer of up to 128 KiB: copy what you keep for long.
        events: Vec<v1::Event>,
    },
    /// The oldest events after the cursor are gone from the server: what comes next begins at `oldest`.
    Truncated {
        /// Where.
        conversation: ConversationId,
        /// First event that is kept.
        oldest: Seq,
    },
    /// A signal in a subscribed conversation.
    Signalled {
        /// Where.
        conversation: ConversationId,
        /// Who.
        user: UserId,
        /// What.
        signal: v1::signalled::Signal,
    },
    /// Presence of watched users changed; after a reconnect, all of them.
    Presence(Vec<v1::Presence>),
    /// A subscription ended without being asked to.
    SubscriptionEnded {
        /// Which.
        conversation: ConversationId,
        /// Why.
        reason: EndReason,
    },
    /// The connection broke, or is there again. Nothing has to be done. Of a break that there was no room for nothing is told;
    /// [`crate::Client::state`] always is as it is.
    Connection(ConnectionState),
    /// The server asked for a reconnect. Nothing has to be done.
    GoAway {
        /// Why.
        reason: v1::GoAwayReason,
        /// When this client will do so.
        reconnect_in: Duration,
    },
}

/// Why a subscription ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The server refuses it.
    Refused(ServerError),
    /// The log does not hold the cursor's event: it is not the log that was read. Discard what is stored of it.
    Diverged {
        /// Where the log ends; none when the divergence was found while reading.
        head: Option<Cursor>,
    },
}

/// How the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// There.
    Connected {
        /// Through which endpoint.
        endpoint: Endpoint,
        /// The session's name in the server's logs.
        session: SessionId,
    },
    /// Broken; another one is being made.
    Reconnecting {
        /// Attempts since a connection last held for 10 s, this one included.
        attempt: u32,
        /// Why the connection broke, or why the attempt before this one failed.
        cause: DisconnectCause,
    },
    /// Over.
    Closed(CloseReason),
}

/// What happens, in order. Dropping it discards what comes.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::UnboundedReceiver<Queued>,
    room: Arc<Room>,
    shared: Arc<Shared>,
}

impl Events {
    /// The next one; none when the client is closed and everything has been taken. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        let queued = self.receiver.recv().await?;
        Some(self.take(queued))
    }

    /// The next one, if it is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        let queued = self.receiver.try_recv().ok()?;
        Some(self.take(queued))
    }

    /// Waits for the next one, and appends it with all others that are there already, at most `events_max`, to `batch`. How
    /// many they are; 0 when the client is closed. Cancel safe.
    pub async fn next_batch(&mut self, batch: &mut Vec<Event>, events_max: usize) -> usize {
        if events_max == 0 {
            return 0;
        }
        let Some(first) = self.next().await else {
            return 0;
        };
        batch.push(first);
        let mut count = 1;
        while count < events_max {
            let Some(event) = self.try_next() else { break };
            batch.push(event);
            count += 1;
        }
        count
    }

    fn take(&self, queued: Queued) -> Event {
        if self.room.release(queued.count, queued.bytes) {
            self.shared.wake();
        }
        queued.event
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // From now on there is room for everything.
        self.receiver.close();
        self.shared.events_dropped();
    }
}

#[derive(Debug)]
struct Queued {
    event: Event,
    count: usize,
    bytes: usize,
}

/// How much waits for the caller.
#[derive(Debug)]
struct Room {
    count: AtomicUsize,
    bytes: AtomicUsize,
    count_max: usize,
}

impl Room {
    fn is_left(&self) -> bool {
        self.count.load(Ordering::Acquire) < self.count_max
            && self.bytes.load(Ordering::Acquire) < BUFFER_BYTES_MAX
    }

    fn occupy(&self, count: usize, bytes: usize) {
        self.count.fetch_add(count, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn is_half_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) <= self.count_max / 2
            && self.bytes.load(Ordering::Acquire) <= BUFFER_BYTES_MAX / 2
    }

    /// Whether there was no room before and is now, or half of it was taken and is not any more.
    fn release(&self, count: usize, bytes: usize) -> bool {
        let count_before = self.count.fetch_sub(count, Ordering::AcqRel);
        let bytes_before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        let was_full = count_before >= self.count_max || bytes_before >= BUFFER_BYTES_MAX;
        let was_half_full =
            count_before > self.count_max / 2 || bytes_before > BUFFER_BYTES_MAX / 2;
        was_full && self.is_left() || was_half_full && self.is_half_empty()
    }
}

/// The session's end of the buffer.
pub(crate) struct EventSender {
    sender: mpsc::UnboundedSender<Queued>,
    room: Arc<Room>,
}

impl EventSender {
    pub(crate) fn new(shared: &Arc<Shared>, count_max: usize) -> (Self, Events) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Room {
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            count_max: count_max.max(1),
        });
        let events = Events {
            receiver,
            room: room.clone(),
            shared: shared.clone(),
        };
        (Self { sender, room }, events)
    }

    /// Whether the session may go on reading.
    pub(crate) fn has_room(&self) -> bool {
        self.room.is_left() || self.sender.is_closed()
    }

    /// Whether to ask for what there was no room for: not as soon as there is room for a little.
    pub(crate) fn is_half_empty(&self) -> bool {
        self.room.is_half_empty() || self.sender.is_closed()
    }

    /// The body of a frame that is to be decoded and to wait here: in memory of its own if it is small and the caller is behind.
    pub(crate) fn keep(&self, body: Bytes) -> Bytes {
        let is_behind = self.room.count.load(Ordering::Acquire) >= SHARING_MAX;
        if is_behind && body.len() < SHARED_BYTES_MIN && !self.sender.is_closed() {
            Bytes::copy_from_slice(&body)
        } else {
            body
        }
    }

    /// Hands events over that were decoded from `bytes` bytes.
    pub(crate) fn deliver(
        &self,
        conversation: ConversationId,
        events: Vec<v1::Event>,
        bytes: usize,
    ) {
        let count = events.len();
        self.push(
            Event::Delivered {
                conversation,
                events,
            },
            count,
            bytes,
        );
    }

    pub(crate) fn send(&self, event: Event) {
        self.send_of(event, 0);
    }

    /// One with `bytes` bytes of a frame in it.
    pub(crate) fn send_of(&self, event: Event, bytes: usize) {
        self.push(event, 1, size_of::<Event>() + bytes);
    }

    fn push(&self, event: Event, count: usize, bytes: usize) {
        self.room.occupy(count, bytes);
        // Without a receiver there is nobody to miss it.
        let _ = self.sender.send(Queued {
            event,
            count,
            bytes,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_frames_keep_no_read_buffer_while_the_caller_is_behind() {
        let state = ConnectionState::Closed(CloseReason::Asked);
        let shared = Arc::new(Shared::new(state, v1::Limits::default(), 1, [0; 6]));
        let (sink, mut events) = EventSender::new(&shared, 1_000);
        let buffer = Bytes::from(vec![0; 2 * SHARED_BYTES_MIN]);
        let (small, large) = (buffer.slice(..100), buffer.slice(..SHARED_BYTES_MIN));
        let keeps = |body: &Bytes| {
            let kept = sink.keep(body.clone());
            buffer.as_ptr_range().contains(&kept.as_ptr())
        };
        assert!(keeps(&small));
        for _ in 0..SHARING_MAX {
            sink.send(Event::Presence(Vec::new()));
        }
        assert!(!keeps(&small) && keeps(&large));
        assert!(events.try_next().is_some());
        assert!(keeps(&small));
    }
}
