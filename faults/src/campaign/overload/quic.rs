//! Attacks over QUIC: handshakes that never end, sessions that never begin, frames that never end, the second halves of handshakes
//! all at once, and datagrams of nonsense.

mod exotic;
mod held;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, Runtime as _,
    SendStream, TokioRuntime, TransportConfig,
};
use rialto_protocol::limits::QUIC_LOOPBACK_PAYLOAD_BYTES;
use rialto_sdk::Roots;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::holding::begun_frame;
use held::{Hears, Held, Sends};

use super::line::{self, Caller, Line};
use super::site::{Site, Tally};
use crate::random::Dice;

/// Sockets that connections share: each costs a file.
const SOCKETS: usize = 32;
/// After that the broker has given up a handshake, by its settings.
const GIVEN_UP: Duration = Duration::from_millis(1_500);
/// Before it has, clients have come with the first halves of their handshakes.
const HELD_BACK: Duration = Duration::from_millis(800);
/// The shortest datagram that a client may begin with (RFC 9000, section 14.1).
const INITIAL_BYTES: usize = 1_200;
/// Protocols that a client names so that its first message does not fit into one of them, each of so many bytes.
const PROTOCOLS: u8 = 6;
const PROTOCOL_BYTES: usize = 200;

/// A third is deaf once it has proved its address, a third shakes hands and says nothing, a third says half a Hello on all streams
/// that it may open.
pub(super) async fn quic_handshakes(site: &Rc<Site>) {
    let (Some(deaf), Some(usual)) = (
        Clients::bind(site, Manner::Deaf),
        Clients::bind(site, Manner::Usual),
    ) else {
        return;
    };
    site.each(|site, number| {
        let (deaf, usual) = (deaf.clone(), usual.clone());
        async move {
            let hello = line::hello(Line::user(number), Caller::User);
            let begun = &hello[..hello.len() / 2];
            loop {
                if number.is_multiple_of(3) {
                    let _ = timeout(GIVEN_UP, deaf.connect(&site, number)).await;
                } else {
                    let connection =
                        line::until_in(&site, async || usual.connect(&site, number).await).await;
                    let _streams = match number % 3 {
                        1 => Vec::new(),
                        _ => begin_streams(&connection, begun).await,
                    };
                    connection.closed().await;
                }
                line::turned_away(&site).await;
            }
        }
    })
    .await;
}

/// Most of a frame of 256 KiB, on the stream of a session and on all others that it may open, and nothing more.
pub(super) async fn quic_frames(site: &Rc<Site>) {
    let Some(clients) = Clients::bind(site, Manner::Usual) else {
        return;
    };
    let begun = begun_frame();
    site.each(|site, number| {
        let (clients, begun) = (clients.clone(), begun.clone());
        async move {
            loop {
                let (connection, mut streams) =
                    line::until_in(&site, async || clients.enter(&site, number).await).await;
                if streams.0.write_all(&begun).await.is_ok() {
                    let _others = begin_streams(&connection, &begun).await;
                    connection.closed().await;
                }
                line::turned_away(&site).await;
            }
        }
    })
    .await;
}

/// Clients that hold the second half of their handshakes back until all of them are there, and let it go at once. For a third it is
/// the end of a first message that takes two datagrams, for a third the first message said again with a key that the broker can
/// use: both have it make a key exchange and a signature. For a third it is what they answer to that.
pub(super) async fn quic_halves(site: &Rc<Site>) {
    let holding = [
        Manner::HoldsHello,
        Manner::HoldsSecondHello,
        Manner::HoldsAnswer,
    ];
    let Some(clients) = holding
        .map(|manner| Clients::bind(site, manner))
        .into_iter()
        .collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let coming = site.each(|site, number| {
        let theirs = clients[number % clients.len()].clone();
        let number = number / clients.len();
        async move {
            loop {
                // Until the broker has given it up; a session never begins.
                let _connection = timeout(GIVEN_UP, async {
                    let connection = theirs.connect(&site, number).await?;
                    connection.closed().await;
                    io::Result::Ok(connection)
                })
                .await;
                line::turned_away(&site).await;
            }
        }
    });
    let letting_go = async {
        loop {
            sleep(HELD_BACK).await;
            for socket in clients.iter().flat_map(|clients| &clients.holding) {
                socket.let_go(&site.tally);
            }
        }
    };
    tokio::join!(coming, letting_go);
}

/// As many streams as the broker lets a client open, with these bytes on each.
async fn begin_streams(connection: &Connection, bytes: &[u8]) -> Vec<(SendStream, RecvStream)> {
    let mut streams = Vec::new();
    while let Some(Ok((mut send, receive))) = connection.open_bi().now_or_never() {
        // What has no room there need not have come whole.
        let _ = timeout(GIVEN_UP, send.write_all(bytes)).await;
        streams.push((send, receive));
    }
    streams
}

/// Datagrams that may be the first of a client, of another version, or of a connection that is not there, as fast as the system
/// takes them; a socket in the place of a connection.
pub(super) async fn quic_junk(site: &Rc<Site>) {
    site.each(|site, number| async move {
        let Ok(socket) = UdpSocket::bind(line::source(number)).await else {
            return site.tally.fail("no socket".to_owned());
        };
        if socket
            .connect(line::loopback(site.ports.quic))
            .await
            .is_ok()
        {
            Tally::add(&site.tally.opened);
        }
        let mut dice = Dice::new(number as u64);
        let mut datagram = [0; INITIAL_BYTES];
        dice.fill(&mut datagram);
        loop {
            let bytes = junk(&mut dice, &mut datagram);
            // A broker that is gone is noticed by others.
            let _ = socket.send(&datagram[..bytes]).await;
        }
    })
    .await;
}

/// Makes the next datagram out of the last one; gives how many bytes it has (RFC 9000, section 17).
fn junk(dice: &mut Dice, datagram: &mut [u8; INITIAL_BYTES]) -> usize {
    const VERSION: [u8; 4] = [0, 0, 0, 1];
    const OTHER_VERSION: [u8; 4] = [0, 0, 0, 9];
    const ID_BYTES: u8 = 8;
    let (of, mut ids) = (dice.roll(8), [0; 2 * ID_BYTES as usize]);
    dice.fill(&mut ids);
    let (to, from) = ids.split_at(ID_BYTES.into());
    let (first, version, bytes) = match of {
        0 => (0x40, None, 64),
        1 => (0xc0, Some(OTHER_VERSION), INITIAL_BYTES),
        _ => (0xc0, Some(VERSION), INITIAL_BYTES),
    };
    let mut header = vec![first];
    if let Some(version) = version {
        header.extend(version);
        header.push(ID_BYTES);
        header.extend(to);
        header.push(ID_BYTES);
        header.extend(from);
        // No token; the length of what follows, in two bytes (section 16).
        header.push(0);
        let rest = u16::try_from(INITIAL_BYTES - header.len() - 2).unwrap_or(0);
        header.extend((0x4000 | rest).to_be_bytes());
    } else {
        header.extend(to);
    }
    datagram[..header.len()].copy_from_slice(&header);
    bytes
}

/// How clients shake hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Usual,
    /// They hear nothing, see [`Hears::Retries`].
    Deaf,
    /// Nor do these, which hold back all but the first datagram of their long first message, see [`Sends::First`].
    HoldsHello,
    /// These have a short one with a key that the broker cannot use, and hold back what they say when they are told so.
    HoldsSecondHello,
    /// These hold back what follows their first message.
    HoldsAnswer,
}

/// Clients that share sockets.
struct Clients {
    config: ClientConfig,
    sockets: Vec<Endpoint>,
    /// Of those that keep something to themselves.
    holding: Vec<Arc<Held>>,
}

impl Clients {
    /// None: the attack cannot take place.
    fn bind(site: &Site, manner: Manner) -> Option<Rc<Self>> {
        match Self::try_bind(site, manner) {
            Ok(clients) => Some(Rc::new(clients)),
            Err(error) => {
                site.tally.fail(format!("no QUIC: {error:#}"));
                None
            }
        }
    }

    fn try_bind(site: &Site, manner: Manner) -> anyhow::Result<Self> {
        let mut tls = Arc::unwrap_or_clone(Roots::InsecureLoopbackOnly.client_config()?);
        let mut payload_bytes = QUIC_LOOPBACK_PAYLOAD_BYTES;
        if manner == Manner::HoldsHello {
            let others = (0..PROTOCOLS).map(|number| vec![number; PROTOCOL_BYTES]);
            tls.alpn_protocols.extend(others);
            payload_bytes = INITIAL_BYTES.try_into()?;
        } else if manner == Manner::HoldsSecondHello {
            tls = exotic::client_config(&tls)?;
        }
        let mut transport = TransportConfig::default();
        transport
            .initial_mtu(payload_bytes)
            .mtu_discovery_config(None);
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(Arc::new(transport));
        let mut clients = Self {
            config,
            sockets: Vec::new(),
            holding: Vec::new(),
        };
        for place in 0..site.connections.min(SOCKETS) {
            // Each has an address of its own.
            let number = place * line::PER_SOURCE;
            let socket = std::net::UdpSocket::bind(line::source(number))?;
            clients.add(TokioRuntime.wrap_udp_socket(socket)?, manner)?;
        }
        Ok(clients)
    }

    fn add(&mut self, socket: Arc<dyn AsyncUdpSocket>, manner: Manner) -> anyhow::Result<()> {
        let socket: Arc<dyn AsyncUdpSocket> = match manner {
            Manner::Usual => socket,
            Manner::Deaf => self.hold(socket, Hears::Retries, Sends::All),
            Manner::HoldsHello => self.hold(socket, Hears::Retries, Sends::First),
            Manner::HoldsSecondHello | Manner::HoldsAnswer => {
                self.hold(socket, Hears::All, Sends::First)
            }
        };
        let mut config = EndpointConfig::default();
        config.max_udp_payload_size(QUIC_LOOPBACK_PAYLOAD_BYTES)?;
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(config, None, socket, runtime)?;
        self.sockets.push(endpoint);
        Ok(())
    }

    fn hold(&mut self, socket: Arc<dyn AsyncUdpSocket>, hears: Hears, sends: Sends) -> Arc<Held> {
        let held = Arc::new(Held::new(socket, hears, sends));
        self.holding.push(Arc::clone(&held));
        held
    }

    /// The connection with this number.
    async fn connect(&self, site: &Site, number: usize) -> io::Result<Connection> {
        let socket = &self.sockets[number % self.sockets.len()];
        let address = line::loopback(site.ports.quic);
        let connecting = socket
            .connect_with(self.config.clone(), address, "localhost")
            .map_err(io::Error::other)?;
        Tally::add(&site.tally.opened);
        Ok(connecting.await?)
    }

    /// A session of the user with this number, and its stream.
    async fn enter(
        &self,
        site: &Site,
        number: usize,
    ) -> io::Result<(Connection, (SendStream, RecvStream))> {
        let connection = self.connect(site, number).await?;
        let (mut send, mut receive) = connection.open_bi().await?;
        let mut stream = tokio::io::join(&mut receive, &mut send);
        line::greet(&mut stream, Line::user(number), Caller::User).await?;
        Ok((connection, (send, receive)))
    }
}
