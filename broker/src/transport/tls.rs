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

/// A record that says little takes as long as so many bytes of those that say much.
const RECORD_BYTES: usize = 256;
/// What a record has beside what it says: its header, the type of that, and a tag (RFC 8446, section 5.2).
const RECORD_OVERHEAD: usize = 5 + 1 + 16;
/// A byte of records that say nothing takes as long as so many bytes of those that say much: the 27 of a change of keys are some 4 µs.
const CONTENTLESS_WEIGHT: usize = 64;
/// Bytes that a client has to say for each of those before much is read of it at once, and before that at first.
const OWED_PER_BYTE: u32 = 8;
const OWED_AT_FIRST: u32 = 16 << 10;
/// What is read at once before: changes of keys for 0.6 ms at most.
const OWING_BYTES_MAX: usize = 4 << 10;

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
                pace.keep_handshake().await;
            }
            Err(error) => {
                tracing::error!(%error, "no TLS session can be made");
                engine.shed(Stage::Handshake, "tls");
            }
        }
    }
}

async fn shake_hands(engine: Rc<Engine>, mut wire: Encrypted, admitted: (Permit, Stranger)) {
    let handshake = wire.shake_hands(&engine);
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
    /// Bytes that the client has to say before much is read of it at once.
    owed: u32,
    parting: Parting,
}

impl Encrypted {
    fn new(stream: TlsStream<UnbufferedServerConnection>, buffers: &Rc<RefCell<Buffers>>) -> Self {
        Self {
            stream,
            buffers: Rc::clone(buffers),
            early: BytesMut::new(),
            goodbye: false,
            owed: OWED_AT_FIRST,
            parting: Parting::default(),
        }
    }

    /// Returns once the handshake is done and the client has been sent its end of it. Thousands may begin at the same moment:
    /// nothing is read before there is time for it. What is read takes as much of that as it takes: a hello may come byte by byte.
    async fn shake_hands(&mut self, engine: &Engine) -> io::Result<()> {
        while self.stream.is_handshaking() {
            poll_fn(|cx| self.poll_heard(cx)).await?;
            engine.tls_handshake_turn().await;
            let _working = engine.turns().tls_handshakes().working();
            poll_fn(|cx| self.take_heard(cx)).await?;
        }
        poll_fn(|cx| self.stream.poll_flush(cx)).await
    }

    /// Ready once something has come; what is held back is sent on meanwhile.
    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.stream.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        self.stream.socket().poll_read_ready(cx)
    }

    /// Ready at once: goes on with what has come, be it with a part of it.
    fn take_heard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            stream,
            buffers,
            early,
            ..
        } = self;
        let buffers = &mut buffers.borrow_mut();
        let received = stream.poll_receive(cx, buffers, OWING_BYTES_MAX, |plain| {
            early.extend_from_slice(plain);
        });
        Poll::Ready(match received {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(received) => received.map(drop),
            Poll::Pending => Ok(()),
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
        let bytes_max = if self.owed > 0 {
            bytes_max.min(OWING_BYTES_MAX)
        } else {
            bytes_max
        };
        let buffers = &mut self.buffers.borrow_mut();
        let begun = self.stream.received_bytes();
        let (mut records, mut content) = (0, 0);
        let received = self.stream.poll_receive(cx, buffers, bytes_max, |plain| {
            records += 1;
            content += plain.len();
            buf.extend_from_slice(plain);
        });
        let count = ready!(received)?;
        let ended = (begun + count).saturating_sub(self.stream.received_bytes());
        let contentless = ended.saturating_sub(content + records * RECORD_OVERHEAD);
        self.owed = self
            .owed
            .saturating_add(clamped(contentless).saturating_mul(OWED_PER_BYTE))
            .saturating_sub(clamped(content));
        let work = records * RECORD_BYTES + contentless * CONTENTLESS_WEIGHT;
        Poll::Ready(Ok(count + work))
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

fn clamped(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use rustls::{ClientConfig, RootCertStore};
    use rustls_pki_types::ServerName;
    use tokio::{io::AsyncWriteExt, net::TcpStream};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::{
        config::TlsIdentity, shard::engine::tests::engine, transport::certificates::Certificates,
    };

    /// A client that has not said anything, and the broker's end.
    async fn connected() -> (TlsConnector, TcpStream, Encrypted) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let identity = TlsIdentity::Pem {
            certificates: made.cert.pem().into(),
            key: made.signing_key.serialize_pem().into(),
        };
        let config = Certificates::load(identity)
            .unwrap()
            .server_config()
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let session = UnbufferedServerConnection::new(Arc::new(config)).unwrap();
        let stream = TlsStream::new(far.unwrap().0, session);
        let wire = Encrypted::new(stream, &Rc::default());
        (TlsConnector::from(Arc::new(client)), near.unwrap(), wire)
    }

    /// The same once they have shaken hands.
    async fn shaken(engine: &Engine) -> (tokio_rustls::client::TlsStream<TcpStream>, Encrypted) {
        let (connector, near, mut wire) = connected().await;
        let connecting = connector.connect(name(), near);
        let both = async { tokio::join!(connecting, wire.shake_hands(engine)) };
        let (client, shaken) = in_rounds(engine, both).await;
        shaken.unwrap();
        (client.unwrap(), wire)
    }

    /// Does something while one round follows another.
    async fn in_rounds<T>(engine: &Engine, what: impl Future<Output = T>) -> T {
        let rounds = poll_fn(|cx| {
            engine.turns().call();
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        tokio::select! {
            done = what => done,
            () = rounds => panic!("there is always another round"),
        }
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from("localhost").unwrap()
    }

    #[tokio::test]
    async fn a_handshake_is_not_read_before_the_round_has_time_for_it() {
        let engine = engine();
        engine.turns().tls_handshakes().use_up();
        let (connector, near, mut wire) = connected().await;
        let mut connecting = std::pin::pin!(connector.connect(name(), near));
        for _ in 0..2 {
            let mut hello = [0; 5];
            // What the client has said lies in the socket, and is not answered.
            tokio::select! {
                connected = &mut connecting => panic!("{connected:?}"),
                peeked = wire.stream.socket().peek(&mut hello) => assert_eq!(peeked.unwrap(), 5),
            }
            assert!(wire.shake_hands(&engine).now_or_never().is_none());
        }
        let both = async { tokio::join!(connecting, wire.shake_hands(&engine)) };
        let (connected, shaken) = in_rounds(&engine, both).await;
        assert!(connected.is_ok() && shaken.is_ok());
    }

    #[tokio::test]
    async fn a_read_of_a_handshake_has_as_much_of_a_round_as_it_takes() {
        let engine = engine();
        let (connector, near, mut wire) = connected().await;
        let mut connecting = std::pin::pin!(connector.connect(name(), near));
        let mut hello = [0; 5];
        tokio::select! {
            connected = &mut connecting => panic!("{connected:?}"),
            peeked = wire.stream.socket().peek(&mut hello) => assert_eq!(peeked.unwrap(), 5),
        }
        let quota = engine.turns().tls_handshakes();
        assert!(quota.spent().is_zero());
        assert!(wire.shake_hands(&engine).now_or_never().is_none());
        assert!(!quota.spent().is_zero());
    }

    #[tokio::test]
    async fn records_that_say_little_count_as_more_than_they_say() {
        const RECORDS: usize = 100;
        let engine = engine();
        let (mut client, mut wire) = shaken(&engine).await;
        for _ in 0..RECORDS {
            client.write_all(&[7]).await.unwrap();
        }
        client.flush().await.unwrap();
        let (mut buf, mut counted) = (BytesMut::new(), 0);
        while buf.len() < RECORDS {
            counted += poll_fn(|cx| wire.poll_read(cx, &mut buf, 4 << 10))
                .await
                .unwrap();
        }
        assert!(counted >= RECORDS * RECORD_BYTES, "{counted}");
    }

    #[tokio::test]
    async fn changes_of_keys_count_as_what_they_take_and_have_little_be_read_at_once() {
        // As many as rustls takes before somebody has to say something.
        const CHANGES: usize = 32;
        const CHANGE_BYTES: usize = RECORD_OVERHEAD + 5;
        const SAID: usize = 32 << 10;
        let engine = engine();
        let (mut client, mut wire) = shaken(&engine).await;
        for _ in 0..CHANGES {
            client.get_mut().1.refresh_traffic_keys().unwrap();
        }
        client.write_all(&[7]).await.unwrap();
        client.flush().await.unwrap();
        let (mut buf, mut counted) = (BytesMut::new(), 0);
        while buf.is_empty() {
            counted += poll_fn(|cx| wire.poll_read(cx, &mut buf, 64 << 10))
                .await
                .unwrap();
        }
        let changed = CHANGES * CHANGE_BYTES;
        assert!(counted >= changed * CONTENTLESS_WEIGHT, "{counted}");
        let owed = OWED_AT_FIRST + OWED_PER_BYTE * clamped(changed) - 1;
        assert_eq!(wire.owed, owed);
        client.write_all(&[7; SAID]).await.unwrap();
        client.flush().await.unwrap();
        counted = 0;
        while buf.len() <= SAID {
            let before = buf.len();
            let owes = wire.owed > 0;
            counted += poll_fn(|cx| wire.poll_read(cx, &mut buf, 64 << 10))
                .await
                .unwrap();
            // What is missing of a record that was begun is read as a whole.
            assert!(!owes || buf.len() - before <= 16 << 10);
        }
        assert_eq!(wire.owed, 0);
        assert!(counted < 2 * SAID, "nothing of it is without content");
    }
}
