//! The running broker: sockets, threads and clocks around the decisions of `rialto-core`.
//!
//! One pinned thread a shard, each with a runtime of its own: connections are accepted, read and written there, and their
//! frames go into that shard's state machine, whose outputs a pump carries out. Shards share no memory; what one has for
//! another leaves in batches through a bounded mailbox. Nothing on a message's way takes a lock or wakes a thread for it alone.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`config`] | what can be configured |
//! | [`auth`] | access tokens |
//! | [`broker`] | start, drain, stop |
//! | `shard` | the thread around one state machine |
//! | `transport` | TCP, TLS and QUIC |
//! | [`ops`] | the operations port: metrics, health, status |

pub mod admission;
pub mod auth;
pub mod broker;
mod clock;
pub mod config;
mod fate;
mod listen;
pub mod ops;
mod shard;
mod transport;

pub use auth::Authenticator;
pub use broker::{Addresses, Broker, Preparation, StartError};
pub use config::{BrokerConfig, TlsIdentity};
pub use fate::{StopError, StopReason};
pub use shard::lookup;
pub use transport::certificates::IdentityError;
