//! The ways to a client: TCP, TLS and QUIC carry the same frames. What differs stands in [`Wire`]; [`connection`] drives it.

pub(crate) mod certificates;
pub(crate) mod connection;
mod pace;
pub(crate) mod quic;
pub(crate) mod socket;
pub(crate) mod steering;
pub(crate) mod tcp;
pub(crate) mod tls;

use std::{
    io,
    task::{Context, Poll},
};

use bytes::BytesMut;

use crate::shard::link::Outbox;

/// A two-way stream of bytes to a client.
pub(crate) trait Wire: Unpin {
    /// Appends what has arrived, no more than `bytes_max` if the transport can tell beforehand. Gives how many bytes came for
    /// that: over TLS it is more than was appended, which may be nothing. 0: nothing will arrive any more.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        bytes_max: usize,
    ) -> Poll<io::Result<usize>>;

    /// Takes from the front of the outbox, which is not empty, what can be taken now.
    fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<usize>>;

    /// Sends on what was taken and is still held back.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Bytes that are kept of what has arrived, until more of it comes.
    fn kept(&self) -> usize {
        0
    }

    /// Of the bytes that were taken, about how many are held back: no more than [`Self::poll_flush`] has to send on.
    fn held_back(&self) -> usize {
        0
    }

    /// Tells the client that nothing follows; ready once it has everything or is gone. The caller bounds the wait.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}
