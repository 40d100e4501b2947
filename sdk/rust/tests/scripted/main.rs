//! The client against a server that does what a test tells it to, over real sockets on loopback.

// Helpers beside the tests are tests too.
#![allow(clippy::unwrap_used)]

mod again;
mod buffer;
mod following;
mod moving;
mod publishing;
mod server;
mod session;
mod transports;
