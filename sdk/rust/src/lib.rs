//! Client library of Rialto.
//!
//! One [`Client`] is one session: it keeps a connection over QUIC or TCP, makes a new one when that breaks, and carries
//! on where it was. What the caller sees of it are answers and [`Events`].
//!
//! ```no_run
//! use rialto_sdk::{Client, Content, ConversationId, Event, Roots, Start};
//!
//! # async fn example(room: ConversationId) -> Result<(), Box<dyn std::error::Error>> {
//! let (client, mut events) = Client::builder()
//!     .endpoint("quic://broker.example:4400")
//!     .endpoint("tls://broker.example:4401")
//!     .roots(Roots::File("ca.pem".into()))
//!     .token(std::env::var("RIALTO_TOKEN")?)
//!     .connect()
//!     .await?;
//! client.join(room).await?.await?;
//! client.subscribe(vec![(room, Start::Live)]).await?;
//!
//! let first = client.publish(room, Content::text("What news on the Rialto?")).await?;
//! let second = client.publish(room, Content::text("None yet.")).await?; // does not wait for the first
//! println!("{} and {}", first.await?.seq, second.await?.seq);
//!
//! while let Some(event) = events.next().await {
//!     if let Event::Delivered { conversation, events } = event {
//!         println!("{} new events in {conversation}", events.len());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//! - **Events**: for each subscription the caller sees every event after its start exactly once, in order, across
//!   reconnects and restarts of the broker. Should the broker have dropped old events meanwhile, [`Event::Truncated`]
//!   says so; should its log be another one, [`Event::SubscriptionEnded`] does.
//! - **Publishing**: drafts go out in the order of the calls, with rising client ids. What was not acknowledged when a
//!   connection broke is sent again on the next one, in the same order and under the same client ids, and is
//!   therefore appended once. The order in the log is the same, but for a draft that the server could not store for a
//!   while: it lands behind those that were under way ([`Client::publish`]). What waits to be sent does not survive the
//!   process.
//! - **Memory**: drafts and requests wait for byte credit, events for the caller. For a caller who does not take his events
//!   the socket is not read, unless he waits for an answer: events that come ahead of it are left out then, and got again
//!   from the server when he has taken half of what waits for him. A task of its own for the events saves that. Over QUIC up
//!   to 8 MiB more lie in the transport.
//! - **Time**: an attempt to connect and closing have an end each ([`ClientBuilder::connect_timeout_ms`],
//!   [`Client::close_within`]). What is not answered in time is asked again on another connection
//!   ([`ClientBuilder::answer_timeout_ms`]), and waiting for one has no end, unless [`ReconnectPolicy::attempts_max`] says so:
//!   put a timeout around what must not wait. A request whose time is over is not sent any more, nor again after a break.
//! - **Cancelling**: every future may be dropped. [`Client::publish`] and its like have then sent nothing, unless they have
//!   returned; a [`Publishing`] that is dropped changes nothing. A request that was sent may be done although nobody takes its
//!   answer; one that waits for a connection is not sent any more, but for [`Client::subscribe`] and [`Client::unsubscribe`].
//!   [`Events::next`] loses nothing.
//! - **Errors** answer `retry()`: whether the same may be tried again, and how.

#![forbid(unsafe_code)]

mod attempts;
mod builder;
mod client;
mod client_id;
mod command;
mod content;
mod credit;
mod endpoint;
mod error;
mod events;
mod handshake;
mod publish;
mod reconnect;
mod requests;
mod session;
mod subscriptions;
mod token;
mod transport;
mod wire;

pub use rialto_protocol as protocol;
pub use rialto_protocol::error::ErrorCode;
pub use rialto_protocol::ids::{
    ClientId, ConversationId, Cursor, DeviceId, Epoch, Ordinal, Seq, SessionId, UserId,
};
pub use rialto_protocol::v1;

pub use builder::{ClientBuilder, Roots};
pub use client::{Client, Create, Created, HistoryPage, HistoryQuery, Signal};
pub use client_id::ClientIds;
pub use content::Content;
pub use endpoint::{Endpoint, EndpointError, Transport};
pub use error::{
    CloseReason, ConnectError, DisconnectCause, EndpointFailure, PublishError, RequestError, Retry,
    ServerError, TransportError,
};
pub use events::{ConnectionState, EndReason, Event, Events};
pub use publish::{Publishing, Receipt};
pub use reconnect::ReconnectPolicy;
pub use subscriptions::{Start, SubscribeOutcome, SubscribeStatus};
pub use token::{TokenError, TokenProvider};
pub use transport::quic::QuicSocket;
