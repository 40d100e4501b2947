//! Connections as the session sees them: two byte streams, and on QUIC frames from beside them.

pub(crate) mod quic;
mod tcp;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use rialto_protocol::frame::Frame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::endpoint::{Endpoint, Transport};
use crate::error::TransportError;
use crate::wire::{FrameReader, FrameWriter};

/// Reading half of any transport.
pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// Writing half of any transport.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection. Dropping it closes it.
pub(crate) struct Connected {
    pub(crate) reader: FrameReader<Reader>,
    pub(crate) writer: FrameWriter<Writer>,
    pub(crate) side: Side,
}

/// What arrives beside the main stream: catch-up streams and datagrams of QUIC.
pub(crate) struct Side {
    frames: Option<mpsc::Receiver<Vec<Frame>>>,
    task: Option<AbortHandle>,
}

impl Side {
    /// Of transports that have none.
    const NONE: Self = Self {
        frames: None,
        task: None,
    };

    /// Whether there is one: the connection may carry events on several streams.
    pub(crate) const fn exists(&self) -> bool {
        self.frames.is_some()
    }

    /// The next frames; pending where there are none. Cancel safe.
    pub(crate) async fn next(&mut self) -> Vec<Frame> {
        if let Some(frames) = &mut self.frames
            && let Some(next) = frames.recv().await
        {
            return next;
        }
        // The connection is gone, which the main stream tells.
        std::future::pending().await
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Connected {
    fn new(reader: Reader, writer: Writer, side: Side) -> Self {
        Self {
            reader: FrameReader::new(reader),
            writer: FrameWriter::new(writer),
            side,
        }
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// What is needed to connect, made once for a client.
#[derive(Clone)]
pub(crate) struct Connector {
    /// None without roots; the endpoints that need TLS then fail.
    pub(crate) tls: Option<tls::TlsSetup>,
    pub(crate) quic_socket: Option<quic::QuicSocket>,
    /// Silence after which QUIC shows that the path works.
    pub(crate) quic_keep_alive: Duration,
}

impl Connector {
    /// Connects to an endpoint, trying each of its addresses.
    pub(crate) async fn connect(&self, endpoint: &Endpoint) -> Result<Connected, TransportError> {
        let mut last = TransportError::NoAddress;
        for address in tokio::net::lookup_host((endpoint.host(), endpoint.port())).await? {
            match self.connect_to(endpoint, address).await {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(
        &self,
        endpoint: &Endpoint,
        address: SocketAddr,
    ) -> Result<Connected, TransportError> {
        if endpoint.transport() == Transport::Tcp {
            return tcp::connect(address).await;
        }
        let tls = self.tls.as_ref().ok_or(TransportError::NoRoots)?;
        if tls.loopback_only && !is_loopback(address) {
            return Err(TransportError::InsecureBeyondLoopback);
        }
        match endpoint.transport() {
            Transport::Quic => quic::connect(self, tls, endpoint.host(), address).await,
            _ => tls::connect(tls, endpoint.host(), address).await,
        }
    }
}
