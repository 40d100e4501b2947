//! QUIC: one endpoint a shard. The first stream that a client opens carries frames; stored events for a subscription that is
//! behind travel on streams of their own, and signals as datagrams, when the client can take them.

mod catch_up;
mod datagrams;
mod frames;
mod handshake;
mod parting;
mod runtime;
mod settings;
mod udp;

use std::{
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use quinn::{
    Connecting, ConnectionError, Endpoint, Incoming, RecvStream, Runtime, SendStream, ServerConfig,
    VarInt,
};
use rialto_core::{io::Transport, topology::ShardId};
use tokio::io::AsyncReadExt;

use super::{Wire, connection::Connection, pace::Pace, steering::ShardIds};
use crate::{
    admission::{Permit, Stranger, find_place},
    shard::{
        engine::Engine,
        figures::{Carrier, Stage},
        link::Outbox,
    },
};

use datagrams::OneByOne;
use handshake::UnderWay;
use parting::{Addresses, Parting, Served};
use runtime::OfEndpoint;

pub(crate) use catch_up::CatchUps;
pub(crate) use settings::{RECEIVE_WINDOW, Shared};

/// Application error code (RFC 9000, section 20.2) of a connection that ends in order; the reason went before, as a frame.
pub(crate) const CLOSED: VarInt = VarInt::from_u32(0);
/// Live events stand before stored ones.
const MAIN_PRIORITY: i32 = 1;
/// What quinn says of a first packet that cannot be decrypted, and of nothing else.
const NOT_AUTHENTIC: &str = "authentication failed";

/// The shard's endpoint on its socket of the group.
pub(crate) struct Listener {
    endpoint: Endpoint,
    runtime: Arc<OfEndpoint>,
    shared: Shared,
}

impl Listener {
    pub(crate) fn new(
        socket: std::net::UdpSocket,
        shared: Shared,
        shard: ShardId,
        shards: u16,
    ) -> io::Result<Self> {
        let mut endpoint = shared.endpoint();
        endpoint.cid_generator(move || Box::new(ShardIds::new(shard, shards)));
        let runtime = Arc::new(OfEndpoint::default());
        let socket = runtime.wrap_udp_socket(socket)?;
        let socket = OneByOne::new(socket, Arc::clone(runtime.intake()));
        let server = Some(shared.server.clone());
        Ok(Self {
            endpoint: Endpoint::new_with_abstract_socket(
                endpoint,
                server,
                socket,
                Arc::clone(&runtime) as Arc<dyn Runtime>,
            )?,
            runtime,
            shared,
        })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Accepts and serves connections until the endpoint is closed.
    pub(crate) async fn serve(self, engine: Rc<Engine>) {
        let mut pace = Pace::default();
        let Shared {
            server, loopback, ..
        } = &self.shared;
        let mut addresses = Addresses::new(Arc::new(server.clone()), Arc::clone(loopback));
        while let Some(incoming) = self.endpoint.accept().await {
            if self.begin(&engine, incoming, &mut addresses) {
                pace.keep_handshake().await;
            } else {
                pace.keep().await;
            }
        }
    }

    /// Has a handshake begin, if it may; whether that may have taken a key exchange. Anybody can make what looks like a client's first
    /// packet until it is accepted, in far less time than it has to wait for that.
    fn begin(&self, engine: &Rc<Engine>, incoming: Incoming, addresses: &mut Addresses) -> bool {
        let open = self.endpoint.open_connections();
        let address = incoming.remote_address().ip();
        let parting = addresses.parting(open, address);
        let Some((incoming, admitted)) = admit(engine, incoming, parting) else {
            return false;
        };
        let (settings, served) = addresses.serve(open, address);
        match self.accept(engine, incoming, settings) {
            Ok(accepted) => {
                let handshake = shake_hands(Rc::clone(engine), accepted, admitted, served);
                tokio::task::spawn_local(handshake);
                true
            }
            Err(error) => {
                let was_read = was_read(&error);
                shed(engine, &NoHandshake::Failed(error));
                was_read
            }
        }
    }

    fn accept(
        &self,
        engine: &Rc<Engine>,
        incoming: Incoming,
        settings: Arc<ServerConfig>,
    ) -> Result<Accepted, ConnectionError> {
        let connecting = incoming.accept_with(settings)?;
        let driver = self.runtime.take_driver();
        Ok(Accepted {
            connecting,
            under_way: driver.map(|driver| handshake::drive(engine, driver)),
        })
    }
}

/// A connection whose handshake has begun.
struct Accepted {
    connecting: Connecting,
    under_way: Option<UnderWay>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum NoHandshake {
    #[error(transparent)]
    Failed(#[from] ConnectionError),
    #[error("too many others are in the middle of theirs")]
    GivenUp,
}

impl Accepted {
    async fn connection(mut self) -> Result<quinn::Connection, NoHandshake> {
        let Some(under_way) = &self.under_way else {
            return Ok(self.connecting.await?);
        };
        tokio::select! {
            biased;
            connection = &mut self.connecting => Ok(connection?),
            () = under_way.given_up() => Err(NoHandshake::GivenUp),
        }
    }
}

/// Before any cryptography: is there room, and is the address that of the sender?
fn admit(
    engine: &Rc<Engine>,
    incoming: Incoming,
    parting: Parting,
) -> Option<(Incoming, (Permit, Stranger))> {
    if engine.refuses_connections() {
        engine.shed(Stage::Accept, "stopping");
        incoming.refuse();
        return None;
    }
    // How long they are kept, their clients say: minutes if they like, and less than a second if they mean it well.
    let places = engine.node().config.handshakes_max;
    if find_place(parting.all, parting.of_address, places).is_err() {
        engine.shed(Stage::Handshake, "parting");
        incoming.refuse();
        return None;
    }
    if engine.wants_proof() && !incoming.remote_address_validated() {
        engine.count_retry();
        // Fails only for a client that has answered one already, which has proved its address.
        if let Err(error) = incoming.retry() {
            error.into_incoming().refuse();
        }
        return None;
    }
    let Some(stranger) = engine.admit_stranger(incoming.remote_address().ip()) else {
        incoming.refuse();
        return None;
    };
    match engine.admission().admit(incoming.remote_address().ip()) {
        Ok(permit) => Some((incoming, (permit, stranger))),
        Err(refusal) => {
            engine.shed(Stage::Accept, refusal.reason());
            incoming.refuse();
            None
        }
    }
}

/// Whether a first packet was read that was accepted in vain.
fn was_read(error: &ConnectionError) -> bool {
    !matches!(error, ConnectionError::TransportError(error) if error.reason == NOT_AUTHENTIC)
}

/// There is no connection.
fn shed(engine: &Engine, error: &NoHandshake) {
    tracing::debug!(%error, "no QUIC handshake");
    let reason = match error {
        NoHandshake::Failed(_) => "quic",
        NoHandshake::GivenUp => "waiting",
    };
    engine.shed(Stage::Handshake, reason);
}

async fn shake_hands(
    engine: Rc<Engine>,
    accepted: Accepted,
    admitted: (Permit, Stranger),
    served: Served,
) {
    let handshake = async {
        let connection = accepted.connection().await?;
        let (send, recv) = connection.accept_bi().await?;
        Ok::<_, NoHandshake>((connection, send, recv))
    };
    let (connection, send, recv) =
        match tokio::time::timeout(engine.handshake_timeout(), Box::pin(handshake)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return shed(&engine, &error),
            Err(_) => return engine.shed(Stage::Handshake, "timeout"),
        };
    let _ = send.set_priority(MAIN_PRIORITY);
    let can = Transport {
        catch_up_streams: true,
        datagrams: connection.max_datagram_size().is_some(),
        keeps_alive: settings::keeps_alive(&engine.node().config),
    };
    let streams = CatchUps::new(connection.clone());
    let registration = engine.open(Carrier::Quic, admitted, can, Some(streams));
    tokio::task::spawn_local(Connection::new(
        registration,
        Quic {
            connection,
            send,
            recv,
            stopped: None,
            _served: served,
        },
    ));
}

/// Sends a frame as a datagram, or tells why it was dropped.
pub(crate) fn send_datagram(
    connection: &quinn::Connection,
    frame: Bytes,
) -> Result<(), &'static str> {
    if connection
        .max_datagram_size()
        .is_none_or(|bytes_max| frame.len() > bytes_max)
    {
        return Err("too_large");
    }
    // quinn would make room by dropping older ones in silence.
    if connection.datagram_send_buffer_space() < frame.len() {
        return Err("full");
    }
    connection
        .send_datagram(frame)
        .map_err(|_| "connection_lost")
}

/// The main stream.
struct Quic {
    connection: quinn::Connection,
    send: SendStream,
    recv: RecvStream,
    /// Resolves once the client has acknowledged everything; set when nothing follows.
    stopped: Option<Pin<Box<dyn Future<Output = ()>>>>,
    _served: Served,
}

impl Wire for Quic {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        bytes_max: usize,
    ) -> Poll<io::Result<usize>> {
        // The future keeps nothing between polls.
        pin!(self.recv.read_buf(&mut buf.limit(bytes_max))).poll(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<usize>> {
        poll_write_chunks(&mut self.send, cx, outbox)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stopped.is_none() {
            let _ = self.recv.stop(CLOSED);
            if self.send.finish().is_err() {
                return Poll::Ready(());
            }
        }
        let send = &self.send;
        let stopped = self.stopped.get_or_insert_with(|| {
            let stopped = send.stopped();
            Box::pin(async move { drop(stopped.await) })
        });
        stopped.as_mut().poll(cx)
    }
}

impl Quic {
    /// Has quinn forget what lies in the stream: it would keep it for as long as the closed connection.
    fn let_go(&mut self) {
        let _ = self.recv.stop(CLOSED);
        let _ = self.send.reset(CLOSED);
    }
}

impl Drop for Quic {
    fn drop(&mut self) {
        self.let_go();
        // Nothing else of the connection is of use without its main stream.
        self.connection.close(CLOSED, b"");
    }
}

/// Hands frames to the stream without copying them.
fn poll_write_chunks(
    send: &mut SendStream,
    cx: &mut Context<'_>,
    outbox: &mut Outbox,
) -> Poll<io::Result<usize>> {
    // The future keeps nothing between polls.
    let written = ready!(pin!(send.write_chunks(outbox.front_chunks())).poll(cx))?;
    outbox.remove_written(written.bytes);
    Poll::Ready(Ok(written.bytes))
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        net::{Ipv4Addr, SocketAddr},
    };

    use rustls_pki_types::PrivateKeyDer;
    use tokio::task::LocalSet;

    use super::*;
    use crate::{
        config::TlsIdentity, shard::engine::tests::engine, transport::certificates::Certificates,
    };

    /// A frame that tells whether it is still held.
    struct Frame(Arc<[u8; 1_000]>);

    impl AsRef<[u8]> for Frame {
        fn as_ref(&self) -> &[u8] {
            &self.0[..]
        }
    }

    /// The two ends of a connection, the client's first.
    pub(super) async fn paired(
        server: ServerConfig,
        client: quinn::ClientConfig,
    ) -> (quinn::Connection, quinn::Connection) {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Endpoint::server(server, free).unwrap();
        let address = server.local_addr().unwrap();
        let endpoint = Endpoint::client(free).unwrap();
        let connecting = endpoint.connect_with(client, address, "localhost").unwrap();
        let accepting = async { server.accept().await.unwrap().await.unwrap() };
        let (connected, connection) = tokio::join!(connecting, accepting);
        (connected.unwrap(), connection)
    }

    /// A client, and the broker's end of its main stream.
    pub(super) async fn connected() -> ((quinn::Connection, SendStream, RecvStream), Quic) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::with_single_cert(vec![certificate.clone()], key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = quinn::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
        let (connected, connection) = paired(server, client).await;
        let (mut sending, receiving) = connected.open_bi().await.unwrap();
        sending.write_all(&[0; 1_000]).await.unwrap();
        let (send, recv) = connection.accept_bi().await.unwrap();
        let wire = Quic {
            connection,
            send,
            recv,
            stopped: None,
            _served: Served::default(),
        };
        ((connected, sending, receiving), wire)
    }

    /// A client's first packet.
    async fn first_packet() -> Vec<u8> {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let nobody = tokio::net::UdpSocket::bind(free).await.unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = quinn::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
        let endpoint = Endpoint::client(free).unwrap();
        let address = nobody.local_addr().unwrap();
        let _connecting = endpoint.connect_with(client, address, "localhost").unwrap();
        let mut packet = vec![0; 2_000];
        let bytes = nobody.recv(&mut packet).await.unwrap();
        packet.truncate(bytes);
        packet
    }

    /// Whether that first packet takes the turn of a handshake.
    async fn takes_turn(engine: &Rc<Engine>, listener: &Listener, packet: &[u8]) -> bool {
        let client = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let address = listener.endpoint().local_addr().unwrap();
        client.unwrap().send_to(packet, address).await.unwrap();
        let incoming = listener.endpoint().accept().await.unwrap();
        let settings = Arc::clone(&listener.shared.loopback);
        let mut addresses = Addresses::new(Arc::clone(&settings), settings);
        listener.begin(engine, incoming, &mut addresses)
    }

    #[tokio::test]
    async fn what_only_looks_like_a_first_packet_does_not_take_the_turn_of_a_handshake() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let identity = TlsIdentity::Pem {
            certificates: made.cert.pem().into(),
            key: made.signing_key.serialize_pem().into(),
        };
        let certificates = Certificates::load(identity).unwrap();
        let tasks = LocalSet::new();
        let begin = async {
            let engine = engine();
            let shared = Shared::new(&certificates, &engine.node().config).unwrap();
            let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let listener = Listener::new(socket, shared, ShardId(0), 1).unwrap();
            let mut spoilt = first_packet().await;
            if let Some(last) = spoilt.last_mut() {
                *last ^= 1;
            }
            assert!(!takes_turn(&engine, &listener, &spoilt).await);
            assert!(takes_turn(&engine, &listener, &first_packet().await).await);
        };
        tasks.run_until(begin).await;
    }

    #[tokio::test]
    async fn what_a_connection_has_sent_is_not_kept_once_it_is_closed() {
        let (_client, mut wire) = connected().await;
        let held = Arc::new([0; 1_000]);
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_owner(Frame(Arc::clone(&held))));
        poll_fn(|cx| wire.poll_write(cx, &mut outbox))
            .await
            .unwrap();
        assert_eq!(Arc::strong_count(&held), 2);
        // Nobody else has had a turn since: the client has not acknowledged anything.
        drop(wire);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn what_a_connection_has_not_read_is_not_kept_once_it_is_closed() {
        let (_client, mut wire) = connected().await;
        wire.let_go();
        assert!(wire.recv.stop(CLOSED).is_err(), "it was not stopped");
    }
}
