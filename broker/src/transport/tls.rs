//! TLS over TCP.

use std::{rc::Rc, time::Duration};

use rialto_core::io::Transport;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{certificates::ALPN, connection::Connection, stream::Stream, tcp};
use crate::{
    admission::Permit,
    shard::{
        engine::Engine,
        figures::{Carrier, Stage},
    },
};

/// Accepts and serves connections for as long as it is polled.
pub(crate) async fn serve(engine: Rc<Engine>, listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        // Nothing is said to one that is refused: that would take a handshake.
        let (stream, permit) = tcp::accept(&engine, &listener, |_| {}).await;
        tokio::task::spawn_local(shake_hands(
            Rc::clone(&engine),
            stream,
            permit,
            acceptor.clone(),
        ));
    }
}

async fn shake_hands(engine: Rc<Engine>, stream: TcpStream, permit: Permit, acceptor: TlsAcceptor) {
    let timeout: Duration = engine.handshake_timeout();
    let stream = match tokio::time::timeout(timeout, Box::pin(acceptor.accept(stream))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "no TLS handshake");
            return engine.shed(Stage::Handshake, "tls");
        }
        Err(_) => return engine.shed(Stage::Handshake, "timeout"),
    };
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return engine.shed(Stage::Handshake, "alpn");
    }
    let registration = engine.open(Carrier::Tls, permit, Transport::default(), None);
    // In the place of this future, whose handshake is over, and not inside of it.
    tokio::task::spawn_local(Connection::new(registration, Stream(stream)).run());
}
