//! Connections as the session sees them: two byte streams, and on QUIC frames from beside them.

pub(crate) mod quic;
mod tcp;
pub(crate) mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rialto_protocol::frame::Frame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::endpoint::{Endpoint, Transport};
use crate::error::TransportError;
use crate::wire::{FrameReader, FrameWriter};

/// How long an address is tried alone before the next one is too: RFC 8305, section 5, the recommended Connection Attempt
/// Delay.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

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

/// Tries addresses in their order, each [`NEXT_ADDRESS`] after the one before or as soon as that failed; the first that
/// succeeds ends the attempts at the others.
async fn first_of<T, F>(
    addresses: impl Iterator<Item = SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, TransportError>
where
    F: Future<Output = Result<T, TransportError>>,
{
    let mut addresses = addresses.peekable();
    let mut attempts = FuturesUnordered::new();
    let mut last = TransportError::NoAddress;
    loop {
        attempts.extend(addresses.next().map(&connect));
        let more = addresses.peek().is_some();
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(error)) => last = error,
                None => return Err(last),
            },
            () = tokio::time::sleep(NEXT_ADDRESS), if more => {}
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
    /// Connects to an endpoint, by whichever of its addresses is there first.
    pub(crate) async fn connect(&self, endpoint: &Endpoint) -> Result<Connected, TransportError> {
        let addresses = tokio::net::lookup_host((endpoint.host(), endpoint.port())).await?;
        first_of(addresses, |address| self.connect_to(endpoint, address)).await
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

#[cfg(test)]
mod tests {
    use std::future::{Ready, pending, ready};

    use futures_util::future::Either;

    use super::*;

    fn addresses(count: u16) -> impl Iterator<Item = SocketAddr> {
        (1..=count).map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn failed(address: SocketAddr) -> Ready<Result<u16, TransportError>> {
        ready(Err(TransportError::Timeout(address.port().into())))
    }

    #[tokio::test]
    async fn an_address_that_swallows_everything_does_not_keep_the_next_from_being_reached() {
        let reached = first_of(addresses(4), |address| match address.port() {
            1 | 2 => Either::Left(pending()),
            3 => Either::Right(failed(address)),
            port => Either::Right(ready(Ok(port))),
        });
        let patience = Duration::from_secs(60);
        let reached = tokio::time::timeout(patience, reached).await;
        assert_eq!(reached.expect("an end").unwrap(), 4);
    }

    #[tokio::test]
    async fn where_no_address_is_reached_the_last_failure_is_told() {
        let error = first_of(addresses(3), failed).await.unwrap_err();
        assert!(matches!(error, TransportError::Timeout(3)), "{error}");
        let error = first_of(addresses(0), failed).await.unwrap_err();
        assert!(matches!(error, TransportError::NoAddress), "{error}");
    }
}
