//! What messages hold in memory while they wait.

use bytes::Bytes;
use rialto_protocol::v1;

use super::{Message, ToEdge, ToHome, ToOwner};

impl Message {
    /// Bytes that it holds beside itself, about.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::ToOwner(message) => message.payload_bytes(),
            Self::ToEdge(ToEdge::Answered { body, .. }) => body.len(),
            Self::ToEdge(ToEdge::CaughtUp {
                result: Ok(events), ..
            }) => events.iter().map(Bytes::len).sum(),
            Self::ToEdge(ToEdge::Deliver { frame, .. } | ToEdge::Signalled { frame, .. }) => {
                frame.len()
            }
            Self::ToEdge(ToEdge::Receipts(receipts)) => size_of_val(&receipts[..]),
            Self::ToEdge(ToEdge::Presence { presences, .. }) => size_of_val(&presences[..]),
            Self::ToHome(ToHome::Watch { users, .. } | ToHome::Unwatch { users, .. }) => {
                size_of_val(&users[..])
            }
            Self::ToEdge(_) | Self::ToHome(_) => 0,
        }
    }
}

impl ToOwner {
    /// Bytes that it holds beside itself, about.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        match self {
            // What they say are slices of their frame, whose size the edge took as credit.
            Self::Append { origin, .. } | Self::Create { origin, .. } => origin.cost as usize,
            Self::AppendPlain(batch) => batch.bytes.len() + size_of_val(&batch.drafts[..]),
            Self::Notify { notice, .. } => notice.len(),
            Self::Signal {
                signal: v1::signalled::Signal::Custom(custom),
                ..
            } => custom.len(),
            _ => 0,
        }
    }
}
