//! The wire of Rialto: messages, frames, ids, limits and error codes.
//!
//! Nothing here reads a socket, a file, a clock or a source of randomness: bytes and numbers come in, bytes and numbers
//! go out. docs/PROTOCOL.md describes the same in prose; `vectors/` holds frames that every implementation must agree on.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`v1`] | the messages of `proto/rialto/v1`, generated |
//! | [`ids`] | ids, numbers and how they are derived |
//! | [`frame`] | frames: splitting, encoding, compression |
//! | [`body`] | bodies: checked first, then decoded |
//! | [`plain`] | the usual messages, read in place |
//! | [`event`] | events as bytes, without decoding them |
//! | [`error`] | error codes |
//! | [`limits`] | every limit of the wire |
//! | [`record`] | records of the journal |
//! | [`planted`] | mistakes on purpose, which no build that is shipped has |

#![forbid(unsafe_code)]

pub mod body;
pub mod error;
pub mod event;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod plain;
pub mod planted;
pub mod record;
mod wire;

/// The messages of `proto/rialto/v1`, generated at build time. `bytes` fields are slices of what was decoded.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/rialto.v1.rs"));
}
