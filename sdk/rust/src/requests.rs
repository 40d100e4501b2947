//! Requests in flight: a table by request id, and who waits for the answer.

mod undoing;

use std::time::Duration;

use rialto_protocol::body::{self, Body};
use rialto_protocol::frame::{Frame, FrameKind};
use rialto_protocol::ids::{ConversationId, RequestId};
use rialto_protocol::v1;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::command::{Command, Request, Subscribe, Unsubscribe, What};
use crate::error::{CloseReason, RequestError, Retry, ServerError};
use crate::publish::Batch;

/// Whether a request is sent again by itself when it is not known what became of it: after the connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resend {
    /// Doing it twice is as good as once. Where that ends, it becomes [`Resend::No`].
    Yes,
    /// So too, but what its caller would ask for in its place is another thing: what may have been done is asked for until the
    /// server says that it is.
    UntilDone,
    /// Its caller is told.
    No,
}

/// Who waits for an answer.
#[derive(Debug)]
pub(crate) struct Answer(oneshot::Sender<Result<Frame, RequestError>>);

/// Where the answer arrives.
pub(crate) type Answered = oneshot::Receiver<Result<Frame, RequestError>>;

impl Answer {
    pub(crate) fn new() -> (Self, Answered) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    pub(crate) fn send(self, answer: Result<Frame, RequestError>) {
        // Whoever asked may have lost interest.
        let _ = self.0.send(answer);
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_in_vain(&self) -> bool {
        self.0.is_closed()
    }

    pub(crate) fn close(self, reason: &CloseReason, retry: Retry) {
        self.send(Err(RequestError::Closed {
            reason: reason.clone(),
            retry,
        }));
    }
}

/// Waits for an answer and decodes it.
pub(crate) async fn answer<T: Body>(
    answered: Answered,
    kind: FrameKind,
) -> Result<T, RequestError> {
    let closed = RequestError::Closed {
        reason: CloseReason::Gone,
        retry: Retry::MaybeDuplicate,
    };
    let frame = answered.await.unwrap_or(Err(closed))?;
    if frame.kind != kind {
        return Err(RequestError::UnexpectedAnswer);
    }
    body::decode(&frame.body).map_err(|_| RequestError::UnexpectedAnswer)
}

/// What a request id stands for.
#[derive(Debug)]
pub(crate) enum InFlight {
    Publish(Batch),
    Request(u64, Request),
    /// With the generation of each subscription.
    Subscribe(u64, Subscribe, Vec<u64>),
    /// Subscriptions made anew by the session itself, with their generations.
    Resubscribe(Vec<(ConversationId, u64)>),
    Unsubscribe(u64, Unsubscribe),
    /// A Watch or a SetPresence told anew by the session itself.
    Renewal(FrameKind),
    /// Nothing: only the id counts.
    Own,
    Refresh,
}

impl InFlight {
    /// What is to be done about it after the connection broke: commands to be given once more.
    pub(crate) fn lost(self, commands: &mut Vec<Command>, mut release: impl FnMut(u32)) {
        match self {
            Self::Publish(batch) => commands.extend(batch.into_commands()),
            Self::Request(order, mut request) if request.resend != Resend::No => {
                if request.resend == Resend::UntilDone {
                    request.attempts.doubt();
                }
                commands.push(Command {
                    order,
                    what: What::Request(request),
                });
            }
            Self::Request(_, request) => {
                release(request.cost);
                request.answer.send(Err(RequestError::Disconnected {
                    retry: Retry::MaybeDuplicate,
                }));
            }
            Self::Subscribe(order, subscribe, _) => {
                commands.push(Command {
                    order,
                    what: What::Subscribe(subscribe),
                });
            }
            // The server's subscriptions ended with the connection, but a Subscribe before it may be given once more.
            Self::Unsubscribe(order, unsubscribe) => {
                commands.push(Command {
                    order,
                    what: What::Unsubscribe(unsubscribe),
                });
            }
            Self::Resubscribe(_) | Self::Renewal(_) | Self::Own | Self::Refresh => {}
        }
    }

    /// Whether somebody waits for the answer.
    pub(crate) const fn is_awaited(&self) -> bool {
        !matches!(
            self,
            Self::Resubscribe(_) | Self::Renewal(_) | Self::Own | Self::Refresh
        )
    }
}

impl Request {
    /// It was refused. How long to wait before it is asked again by itself, or the error that its caller is told.
    pub(crate) fn refuse(&mut self, error: ServerError) -> Result<Duration, ServerError> {
        if self.attempts.leaves_open(&error)
            && let Some(wait) = self.attempts.again(&error)
        {
            return Ok(wait);
        }
        Err(self.attempts.told(error))
    }
}

/// Requests that the server refused for now, until they are asked again.
#[derive(Debug, Default)]
pub(crate) struct Postponed(Vec<(Instant, Command)>);

impl Postponed {
    pub(crate) fn add(&mut self, order: u64, request: Request, due: Instant) {
        let what = What::Request(request);
        self.0.push((due, Command { order, what }));
    }

    /// When [`Postponed::take_due`] has something.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.0.iter().map(|(due, _)| *due).min()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those whose wait is over.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Command> {
        let due = self.0.extract_if(.., |(due, _)| *due <= now);
        due.map(|(_, command)| command).collect()
    }

    /// All of them.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Command> {
        self.0.drain(..).map(|(_, command)| command)
    }
}

/// The code and text of a refusal.
pub(crate) fn refusal(frame: &Frame) -> Option<v1::Error> {
    (frame.kind == FrameKind::Error).then(|| body::decode(&frame.body).unwrap_or_default())
}

const INDEX_BITS: u32 = 20;
const GENERATIONS: u32 = 1 << (32 - INDEX_BITS);

/// Values by request id. An id is a slot's index with a generation above it, so that a late answer to an id that was
/// used before finds nothing.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    /// 1 to `GENERATIONS - 1`: so no id is 0.
    generation: u32,
    /// The value, and since when it is there.
    value: Option<(Instant, T)>,
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn any(&self, is: impl Fn(&T) -> bool) -> bool {
        self.slots
            .iter()
            .filter_map(|slot| slot.value.as_ref())
            .any(|(_, value)| is(value))
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let values = self.slots.iter_mut().filter_map(|slot| slot.value.as_mut());
        values.map(|(_, value)| value)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    /// Since when the oldest value is there.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let values = self.slots.iter().filter_map(|slot| slot.value.as_ref());
        values.map(|(since, _)| *since).min()
    }

    /// The id that the value has from now on.
    pub(crate) fn insert(&mut self, value: T) -> RequestId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                value: None,
            });
            u32::try_from(self.slots.len() - 1).expect("byte credit bounds the requests in flight")
        });
        assert!(
            index < 1 << INDEX_BITS,
            "byte credit bounds the requests in flight"
        );
        let slot = &mut self.slots[index as usize];
        slot.generation = if slot.generation + 1 == GENERATIONS {
            1
        } else {
            slot.generation + 1
        };
        slot.value = Some((Instant::now(), value));
        RequestId(slot.generation << INDEX_BITS | index)
    }

    /// An id whose answer nobody waits for.
    pub(crate) fn skip(&mut self, value: T) -> RequestId {
        let id = self.insert(value);
        self.remove(id);
        id
    }

    fn slot(&mut self, id: RequestId) -> Option<&mut Slot<T>> {
        let slot = self
            .slots
            .get_mut((id.0 & ((1 << INDEX_BITS) - 1)) as usize)?;
        (slot.generation == id.0 >> INDEX_BITS).then_some(slot)
    }

    pub(crate) fn get_mut(&mut self, id: RequestId) -> Option<&mut T> {
        self.slot(id)?.value.as_mut().map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, id: RequestId) -> Option<T> {
        let (_, value) = self.slot(id)?.value.take()?;
        self.free.push(id.0 & ((1 << INDEX_BITS) - 1));
        Some(value)
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        let mut values = Vec::new();
        for (index, slot) in (0_u32..).zip(&mut self.slots) {
            if let Some((_, value)) = slot.value.take() {
                self.free.push(index);
                values.push(value);
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_finds_its_value_once_and_never_that_of_another() {
        let mut table = Table::new();
        let first = table.insert("a");
        let second = table.insert("b");
        assert_eq!(table.remove(first), Some("a"));
        let third = table.insert("c");
        assert!(first != third && second != third);
        assert_eq!(
            (table.remove(first), table.get_mut(third).copied()),
            (None, Some("c"))
        );
        assert_eq!(table.drain().len(), 2);
        assert!(!table.any(|_| true) && table.remove(second).is_none());
    }

    #[test]
    fn no_id_is_that_of_a_push() {
        let mut table = Table::new();
        for _ in 0..2 * GENERATIONS {
            assert_ne!(table.skip(()), RequestId::PUSH);
        }
        assert_eq!(table.slots.len(), 1);
    }
}
