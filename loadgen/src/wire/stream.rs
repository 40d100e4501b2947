//! The byte stream of a connection, whatever carries it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Bytes both ways. Dropping it closes it.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Quic(Box<QuicStream>),
}

/// The one bidirectional stream of a QUIC connection.
pub(crate) struct QuicStream {
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
    pub(super) connection: Connection,
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

impl Stream {
    /// Reads what is there, up to the room in `buf`; 0 at the end.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        let read = match self {
            Self::Tcp(stream) => AsyncRead::poll_read(Pin::new(stream), context, &mut buf),
            Self::Tls(stream) => AsyncRead::poll_read(Pin::new(stream), context, &mut buf),
            Self::Quic(stream) => {
                AsyncRead::poll_read(Pin::new(&mut stream.receive), context, &mut buf)
            }
        };
        read.map_ok(|()| buf.filled().len())
    }

    /// Writes as much as is taken now.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => AsyncWrite::poll_write(Pin::new(stream), context, bytes),
            Self::Tls(stream) => AsyncWrite::poll_write(Pin::new(stream), context, bytes),
            Self::Quic(stream) => {
                AsyncWrite::poll_write(Pin::new(&mut stream.send), context, bytes)
            }
        }
    }

    /// Sends what the transport holds back.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // Neither holds anything back.
            Self::Tcp(_) | Self::Quic(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => AsyncWrite::poll_flush(Pin::new(stream), context),
        }
    }
}
