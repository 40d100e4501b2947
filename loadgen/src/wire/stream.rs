//! The byte stream of a connection, whatever carries it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use quinn::{Connection, RecvStream, SendStream, VarInt};
use rialto_tls::{Buffers, TlsStream};
use rustls::client::UnbufferedClientConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes both ways. Dropping it closes it.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<Encrypted>),
    Quic(Box<QuicStream>),
}

/// A socket with encryption, and the buffers of the thread.
pub(crate) struct Encrypted {
    stream: TlsStream<UnbufferedClientConnection>,
    buffers: Rc<RefCell<Buffers>>,
}

impl Encrypted {
    /// Shakes hands.
    pub(super) async fn connect(
        socket: TcpStream,
        session: UnbufferedClientConnection,
        buffers: &Rc<RefCell<Buffers>>,
    ) -> io::Result<Self> {
        let mut stream = TlsStream::new(socket, session);
        let mut spoken = false;
        poll_fn(|context| {
            stream.poll_handshake(context, &mut buffers.borrow_mut(), |_| spoken = true)
        })
        .await?;
        if spoken {
            // It has not been said Hello to.
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self {
            stream,
            buffers: buffers.clone(),
        })
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let buffers = &mut self.buffers.borrow_mut();
        let mut read = 0;
        self.stream.poll_read(context, buffers, |plain| {
            buf[read..read + plain.len()].copy_from_slice(plain);
            read += plain.len();
        })
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let buffers = &mut self.buffers.borrow_mut();
        self.stream
            .poll_write(context, buffers, std::iter::once(bytes))
    }
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
            Self::Tls(stream) => return stream.poll_read(context, buf.initialize_unfilled()),
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
            Self::Tls(stream) => stream.poll_write(context, bytes),
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
            Self::Tls(stream) => stream.stream.poll_flush(context),
        }
    }
}
