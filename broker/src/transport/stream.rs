//! Frames over whatever tokio reads and writes as one stream: a TCP socket, or TLS over one.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Wire;
use crate::shard::link::Outbox;

/// Frames of one vectored write. `IOV_MAX` is 1,024; past some hundred a call costs what its bytes cost.
const SLICES_MAX: usize = 256;
/// What a client may still send into a connection that is being closed.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Stream<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> Wire for Stream<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        // The future keeps nothing between polls.
        pin!(self.0.read_buf(buf)).poll(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = outbox.slices(&mut slices);
        let written = ready!(Pin::new(&mut self.0).poll_write_vectored(cx, &slices[..count]))?;
        outbox.consume(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    async fn close(&mut self) {
        if self.0.shutdown().await.is_err() {
            return;
        }
        // A socket that is closed with unread bytes resets the connection, and the client may lose our last frame.
        let mut sink = BytesMut::with_capacity(4 << 10);
        let mut bytes = 0;
        while bytes < LINGER_BYTES_MAX {
            sink.clear();
            match self.0.read_buf(&mut sink).await {
                Ok(0) | Err(_) => return,
                Ok(read) => bytes += read,
            }
        }
    }
}
