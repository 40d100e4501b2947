//! The broker over real sockets: one behaviour a file. `support` holds a small client that speaks frames and nothing more.

// What cannot go on here fails its test.
#![allow(clippy::unwrap_used)]

mod across_shards;
mod address_change;
mod broken_frames;
mod busy_storage;
mod catch_up_streams;
mod certificate_reload;
mod connection_limits;
mod credit;
mod handshake;
mod idle;
mod large_and_small;
mod large_packets;
mod operations;
mod parting;
mod poisoned_journal;
mod publish_and_deliver;
mod restart;
mod retention;
mod slow_reader;
mod starting;
mod stopping;
mod support;
mod unfinished_records;
mod windows;
