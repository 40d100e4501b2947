//! What one reader saw of one conversation.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use prost::Message as _;
use rialto_protocol::ids::{ClientId, Epoch, Ordinal, Seq, UserId};
use rialto_protocol::v1;
use rialto_protocol::v1::event::Content;

use super::NO_SENDER;

/// A hash of bytes, equal for equal bytes within one process and build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher =
            RandomState::with_seeds(0x7269_616c, 0x746f, 0x6c6f_6164, 0x0067_656e).build_hasher();
        hasher.write(bytes);
        Self(hasher.finish())
    }
}

/// What a message says, as far as the script knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// By whom.
    pub sender: UserId,
    /// Its text.
    pub body: Fingerprint,
    /// The events that it answers.
    pub reply_to: Box<[Seq]>,
}

/// An event as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its number.
    pub seq: Seq,
    /// Its owner's epoch.
    pub epoch: Epoch,
    /// Its journal time, milliseconds since 1970.
    pub time_ms: u64,
    /// Messages up to it.
    pub ordinal: Ordinal,
    /// Its idempotency key; all zero when its bytes were no id.
    pub client_id: ClientId,
    /// Of all that it is.
    pub print: Fingerprint,
    /// What it says, when it is a message.
    pub said: Option<Said>,
}

impl Observed {
    /// What of an event matters for the verdict.
    #[must_use]
    pub fn of(event: &v1::Event) -> Self {
        let said = match &event.content {
            Some(Content::Message(message)) => Some(Said {
                sender: UserId::from_slice(&event.sender).unwrap_or(NO_SENDER),
                body: Fingerprint::of(&message.body),
                reply_to: message.reply_to.iter().copied().map(Seq).collect(),
            }),
            _ => None,
        };
        Self {
            seq: Seq(event.seq),
            epoch: Epoch(event.epoch),
            time_ms: event.time_ms,
            ordinal: Ordinal(event.ordinal),
            client_id: ClientId::from_slice(&event.client_id)
                .unwrap_or(ClientId::from_bytes([0; 16])),
            print: Fingerprint::of(&event.encode_to_vec()),
            said,
        }
    }
}

/// One reader's log of one conversation, from its first event on.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Names the reader in examples.
    pub reader: String,
    /// In the order of arrival.
    pub events: Vec<Observed>,
}

impl Reading {
    /// A reading that has seen nothing yet.
    #[must_use]
    pub fn new(reader: impl Into<String>) -> Self {
        Self {
            reader: reader.into(),
            events: Vec::new(),
        }
    }

    /// Message events in it, repeats included.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.events
            .iter()
            .filter(|event| event.said.is_some())
            .count()
    }
}
