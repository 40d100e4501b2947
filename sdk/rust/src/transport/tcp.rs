//! Plain TCP.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::{Connected, Side};
use crate::error::TransportError;

pub(super) async fn connect(address: SocketAddr) -> Result<Connected, TransportError> {
    let (reader, writer) = open(address).await?.into_split();
    Ok(Connected::new(
        Box::new(reader),
        Box::new(writer),
        Side::NONE,
    ))
}

/// A connection that does not hold small writes back: the session batches by itself.
pub(super) async fn open(address: SocketAddr) -> Result<TcpStream, TransportError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
