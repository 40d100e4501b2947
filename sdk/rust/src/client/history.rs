//! Reading a log by the page.

use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{ConversationId, Cursor, Seq};
use rialto_protocol::v1;

use super::Client;
use crate::error::RequestError;
use crate::requests::Resend;

/// Which part of a log to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    from: u64,
    direction: v1::Direction,
    limit: u32,
}

impl HistoryQuery {
    /// The newest events.
    #[must_use]
    pub const fn latest() -> Self {
        Self {
            from: 0,
            direction: v1::Direction::Backward,
            limit: 0,
        }
    }

    /// From this event upwards, itself included.
    #[must_use]
    pub const fn from(seq: Seq) -> Self {
        Self {
            from: seq.0,
            direction: v1::Direction::Forward,
            limit: 0,
        }
    }

    /// From this event downwards, itself included. The events still come in rising order.
    #[must_use]
    pub const fn back_from(seq: Seq) -> Self {
        Self {
            from: seq.0,
            direction: v1::Direction::Backward,
            limit: 0,
        }
    }

    /// At most so many events, 1 to 1,000; 50 by default. A page may have fewer although there are more.
    #[must_use]
    pub const fn limit(mut self, events_max: u32) -> Self {
        self.limit = events_max;
        self
    }
}

/// A page of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryPage {
    /// In rising order.
    pub events: Vec<v1::Event>,
    /// Where the log ends.
    pub head: Cursor,
    /// First event that is kept.
    pub oldest: Seq,
    /// There is nothing more in this direction.
    pub end: bool,
}

impl Client {
    /// Reads a page of a log.
    ///
    /// Cancelled, it changes nothing.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn history(
        &self,
        conversation: ConversationId,
        query: HistoryQuery,
    ) -> Result<HistoryPage, RequestError> {
        let body = v1::History {
            conversation: conversation.to_proto(),
            from_seq: query.from,
            direction: query.direction.into(),
            limit: query.limit,
        };
        let page: v1::HistoryPage = self
            .request(
                FrameKind::History,
                &body,
                FrameKind::HistoryPage,
                Resend::Yes,
            )
            .await?;
        Ok(HistoryPage {
            events: page.events,
            head: page.head.unwrap_or_default().into(),
            oldest: Seq(page.oldest_seq),
            end: page.end,
        })
    }
}
