//! TLS over TCP: accepting, shaking hands, and frames over it.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use rialto_core::io::Transport;
use rialto_tls::{Buffers, TlsStream};
use rustls::{ServerConfig, server::UnbufferedServerConnection};
use tokio::net::TcpListener;

use super::{Wire, certificates::ALPN, connection::Connection, pace::Pace, socket::Parting, tcp};
use crate::{
    admission::{Permit, Stranger},
    shard::{
        engine::Engine,
        figures::{Carrier, Stage},
        link::Outbox,
    },
};

/// A fatal alert, "internal error" (RFC 8446, sections 5.1 and 6): a client fails at once, with a reason that is not its own.
const REFUSED: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// Accepts and serves connections for as long as it is polled.
pub(crate) async fn serve(engine: Rc<Engine>, listener: TcpListener, config: Arc<ServerConfig>) {
    let buffers = Rc::default();
    let mut pace = Pace::default();
    loop {
        let (stream, admitted) = tcp::accept(&engine, &listener, &mut pace, |stream| {
            // More than that could be said after a handshake only.
            let _ = stream.try_write(&REFUSED);
        })
        .await;
        match UnbufferedServerConnection::new(Arc::clone(&config)) {
            Ok(session) => {
                let wire = Encrypted::new(TlsStream::new(stream, session), &buffers);
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
    if wire.stream.alpn_protocol() != Some(ALPN) {
        return engine.shed(Stage::Handshake, "alpn");
    }
    let registration = engine.open(Carrier::Tls, admitted, Transport::default(), None);
    // In the place of this future, whose handshake is over, and not inside of it.
    tokio::task::spawn_local(Connection::new(registration, wire));
}

/// A socket with encryption, and the buffers of the shard.
struct Encrypted {
    stream: TlsStream<UnbufferedServerConnection>,
    buffers: Rc<RefCell<Buffers>>,
    /// Sent with the end of the handshake.
    early: BytesMut,
    /// The client was told that nothing more follows.
    goodbye: bool,
    parting: Parting,
}

impl Encrypted {
    fn new(stream: TlsStream<UnbufferedServerConnection>, buffers: &Rc<RefCell<Buffers>>) -> Self {
        Self {
            stream,
            buffers: Rc::clone(buffers),
            early: BytesMut::new(),
            goodbye: false,
            parting: Parting::default(),
        }
    }

    /// Ready once the handshake is done and the client has been sent its end of it.
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            stream,
            buffers,
            early,
            ..
        } = self;
        stream.poll_handshake(cx, &mut buffers.borrow_mut(), |plain| {
            early.extend_from_slice(plain);
        })
    }
}

impl Wire for Encrypted {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        bytes_max: usize,
    ) -> Poll<io::Result<usize>> {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            buf.extend_from_slice(&early);
            return Poll::Ready(Ok(early.len()));
        }
        let buffers = &mut self.buffers.borrow_mut();
        self.stream
            .poll_receive(cx, buffers, bytes_max, |plain| buf.extend_from_slice(plain))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<usize>> {
        let buffers = &mut self.buffers.borrow_mut();
        let taken = ready!(self.stream.poll_write(cx, buffers, outbox.frames()))?;
        outbox.consume(taken);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    fn kept(&self) -> usize {
        self.stream.received_bytes()
    }

    fn held_back(&self) -> usize {
        self.stream.unsent_bytes()
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A session that has failed has no goodbye to say.
        if !std::mem::replace(&mut self.goodbye, true) && self.stream.end().is_err() {
            return Poll::Ready(());
        }
        if ready!(self.stream.poll_flush(cx)).is_err() {
            return Poll::Ready(());
        }
        self.parting.poll(self.stream.socket(), cx)
    }
}
