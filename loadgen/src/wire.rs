//! The wire as `run` and `idle` speak it: no queue, task or allocation for a message.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `dial`, `stream` | TCP, TLS and QUIC from addresses of one's own |
//! | `connection` | a session: Hello, frames in, frames out, Ping |
//! | `publish` | Publish frames of one draft, written in place |
//! | `walk` | receipts and events as bytes |
//! | `lost` | why a connection is gone |

pub(crate) mod connection;
pub(crate) mod dial;
pub mod lost;
pub(crate) mod publish;
pub(crate) mod stream;
pub(crate) mod walk;
