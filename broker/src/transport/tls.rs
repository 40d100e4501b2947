//! TLS over TCP: accepting and shaking hands. The records are in [`records`].

mod records;

use std::{future::poll_fn, rc::Rc, sync::Arc};

use rialto_core::io::Transport;
use rustls::ServerConfig;
use tokio::net::TcpListener;

use self::records::{Encrypted, Scratch};
use super::{certificates::ALPN, connection::Connection, tcp};
use crate::{
    admission::Permit,
    shard::{
        engine::Engine,
        figures::{Carrier, Stage},
    },
};

/// Accepts and serves connections for as long as it is polled.
pub(crate) async fn serve(engine: Rc<Engine>, listener: TcpListener, config: Arc<ServerConfig>) {
    let scratch = Scratch::shared();
    loop {
        // Nothing is said to one that is refused: that would take a handshake.
        let (stream, permit) = tcp::accept(&engine, &listener, |_| {}).await;
        match Encrypted::new(stream, &config, &scratch) {
            Ok(wire) => {
                tokio::task::spawn_local(shake_hands(Rc::clone(&engine), wire, permit));
            }
            Err(error) => {
                tracing::error!(%error, "no TLS session can be made");
                engine.shed(Stage::Handshake, "tls");
            }
        }
    }
}

async fn shake_hands(engine: Rc<Engine>, mut wire: Encrypted, permit: Permit) {
    let handshake = poll_fn(|cx| wire.poll_handshake(cx));
    match tokio::time::timeout(engine.handshake_timeout(), handshake).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(%error, "no TLS handshake");
            return engine.shed(Stage::Handshake, "tls");
        }
        Err(_) => return engine.shed(Stage::Handshake, "timeout"),
    }
    if wire.alpn_protocol() != Some(ALPN) {
        return engine.shed(Stage::Handshake, "alpn");
    }
    let registration = engine.open(Carrier::Tls, permit, Transport::default(), None);
    // In the place of this future, whose handshake is over, and not inside of it.
    tokio::task::spawn_local(Connection::new(registration, wire));
}
