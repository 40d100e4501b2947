//! The client against the real broker: every transport, restarts in the middle, refusals.

// What cannot go on here fails its test.
#![allow(clippy::unwrap_used)]

mod conversations;
mod node;
mod restarts;
mod transports;
