//! Requests that set what a later one has set since: given once more behind it, they would undo it.

use rialto_protocol::body;
use rialto_protocol::frame::FrameKind;
use rialto_protocol::v1;

use super::{InFlight, Resend, Table};
use crate::command::Request;

/// What a request sets of a conversation.
#[derive(Debug)]
enum Setting {
    Preferences(v1::Prefer),
    Marker(v1::Mark),
}

impl Setting {
    fn of(request: &Request) -> Option<Self> {
        match request.kind {
            FrameKind::Prefer => body::decode(&request.body).ok().map(Self::Preferences),
            FrameKind::Mark => body::decode(&request.body).ok().map(Self::Marker),
            _ => None,
        }
    }

    /// Whether another one can undo it. Markers only rise, in whatever order, unless the reader went back.
    const fn can_be_undone(&self) -> bool {
        match self {
            Self::Preferences(_) => true,
            Self::Marker(mark) => mark.unread,
        }
    }

    fn undoes(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::Preferences(one), Self::Preferences(later)) => {
                let hidden = one.hidden.is_some() && later.hidden.is_some();
                let muted = one.muted_until_ms.is_some() && later.muted_until_ms.is_some();
                one.conversation == later.conversation && (hidden || muted)
            }
            (Self::Marker(one), Self::Marker(later)) => {
                one.conversation == later.conversation && one.read_seq > later.read_seq
            }
            _ => false,
        }
    }
}

impl Table<InFlight> {
    /// The server has done that, and with it, one way or the other, whatever of the same conversation was sent before it: the
    /// answers alone may come in another order. What would undo it is not given once more.
    pub(crate) fn done(&mut self, order: u64, request: &Request) {
        let Some(set) = Setting::of(request).filter(Setting::can_be_undone) else {
            return;
        };
        for in_flight in self.values_mut() {
            if let InFlight::Request(earlier, other) = in_flight
                && *earlier < order
                && Setting::of(other).is_some_and(|other| other.undoes(&set))
            {
                other.resend = Resend::No;
            }
        }
    }
}
