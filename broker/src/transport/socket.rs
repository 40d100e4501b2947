//! Frames over a TCP socket.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::Shutdown,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{BufMut, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::Wire;
use crate::shard::link::Outbox;

/// Frames of one vectored write. `IOV_MAX` is 1,024; past some hundred a call costs what its bytes cost.
const SLICES_MAX: usize = 256;
/// What a client may still send into a connection that is being closed.
const LINGER_BYTES_MAX: usize = 1 << 20;
/// Read at once of what nobody looks at.
const SINK_BYTES: usize = 32 << 10;

/// A socket without encryption.
#[derive(Debug)]
pub(crate) struct Plain {
    stream: TcpStream,
    parting: Parting,
}

impl Plain {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            parting: Parting::default(),
        }
    }
}

impl Wire for Plain {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        bytes_max: usize,
    ) -> Poll<io::Result<usize>> {
        // The future keeps nothing between polls.
        pin!(self.stream.read_buf(&mut buf.limit(bytes_max))).poll(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        // Most often it is one frame, for which there is a shorter way through the kernel.
        let written = ready!(match outbox.only() {
            Some(frame) => stream.poll_write(cx, frame),
            None => {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = outbox.slices(&mut slices);
                stream.poll_write_vectored(cx, &slices[..count])
            }
        })?;
        outbox.consume(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.parting.poll(&mut self.stream, cx)
    }
}

/// The end of a socket: what the client still sends is read, because a socket that is closed with unread bytes resets the
/// connection, and the client may lose our last frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parting {
    /// Bytes that may still be read; none: it has not begun.
    left: Option<usize>,
}

impl Parting {
    /// Ready once the client has closed its side too, or is gone, or sends too much.
    pub(super) fn poll(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        if self.left.is_none() && SockRef::from(&*stream).shutdown(Shutdown::Write).is_err() {
            return Poll::Ready(());
        }
        let left = self.left.get_or_insert(LINGER_BYTES_MAX);
        let mut sink = [MaybeUninit::uninit(); SINK_BYTES];
        while *left > 0 {
            let mut buf = ReadBuf::uninit(&mut sink);
            if ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf)).is_err()
                || buf.filled().is_empty()
            {
                break;
            }
            *left = left.saturating_sub(buf.filled().len());
        }
        Poll::Ready(())
    }
}
