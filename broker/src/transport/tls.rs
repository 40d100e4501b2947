//! TLS over TCP: accepting and shaking hands. The records are in [`records`].

mod records;

use std::{future::poll_fn, rc::Rc, sync::Arc};

use rialto_core::io::Transport;
use rustls::ServerConfig;
use tokio::net::TcpListener;

use self::records::{Encrypted, Scratch};
use super::{certificates::ALPN, connection::Connection, pace::Pace, tcp};
use crate::{
    admission::{Permit, Stranger},
    shard::{
        engine::Engine,
        figures::{Carrier, Stage},
    },
};

/// A fatal alert, "internal error" (RFC 8446, sections 5.1 and 6): a client fails at once, with a reason that is not its own.
const REFUSED: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// Accepts and serves connections for as long as it is polled.
pub(crate) async fn serve(engine: Rc<Engine>, listener: TcpListener, config: Arc<ServerConfig>) {
    let scratch = Scratch::shared();
    let mut pace = Pace::default();
    loop {
        let (stream, admitted) = tcp::accept(&engine, &listener, &mut pace, |stream| {
            // More than that could be said after a handshake only.
            let _ = stream.try_write(&REFUSED);
        })
        .await;
        match Encrypted::new(stream, &config, &scratch) {
            Ok(wire) => {
                tokio::task::spawn_local(shake_hands(Rc::clone(&engine), wire, admitted));
            }
            Err(error) => {
                tracing::error!(%error, "no TLS session can be made");
                engine.shed(Stage::Handshake, "tls");
            }
        }
    }
}

async fn shake_hands(engine: Rc<Engine>, mut wire: Encrypted, admitted: (Permit, Stranger)) {
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
    let registration = engine.open(Carrier::Tls, admitted, Transport::default(), None);
    // In the place of this future, whose handshake is over, and not inside of it.
    tokio::task::spawn_local(Connection::new(registration, wire));
}
