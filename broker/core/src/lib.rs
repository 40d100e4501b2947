//! The decisions of the broker, without any I/O: what comes in is an [`io::Input`] with the time, what is to be done about
//! it is an [`io::Output`].
//!
//! A [`Shard`] has two halves that share nothing and talk in [`message`]s alone, whether they sit in one shard or in two:
//! the **edge** ([`edge`]) keeps connections, subscriptions and presence watches; the **owner** ([`owner`]) keeps lanes,
//! conversations and their rules. No clock, no randomness, no socket, no file and no runtime enter this crate, so that the
//! whole broker runs in a deterministic simulation.

#![forbid(unsafe_code)]

pub mod advice;
pub mod config;
pub mod counters;
pub mod counts;
pub mod edge;
pub mod effects;
pub mod io;
pub mod message;
pub mod owner;
pub mod shard;
pub mod topology;

pub use shard::Shard;
