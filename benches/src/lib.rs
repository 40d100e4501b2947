//! What the benchmarks share: messages of one size, and a shard of the core with nothing around it.
//!
//! The benchmarks themselves lie in `benches/`, one file a part of the way of a message: `codec`, `conversation`,
//! `journal`, `views`, `fan_out`. `cargo bench -p rialto-benches` runs them all. `rialto-dataset` makes a large data set and
//! measures the store on it.

pub mod dataset;
mod log;
pub mod process;
mod shard;

pub use log::{entry, message_event};
pub use shard::{ShardRig, publish, publishes};

/// Bytes of a message's text in every benchmark.
pub const BODY_BYTES: usize = 100;
