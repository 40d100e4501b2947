//! Each end against rustls as tokio-rustls drives it, over real sockets.

#![allow(clippy::unwrap_used)] // in helpers as in every test

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rialto_tls::{Buffers, End, TlsStream};
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls::crypto::tls13::OkmBlock;
use rustls::server::UnbufferedServerConnection;
use rustls::{
    ClientConfig, ContentType, KeyLog, ProtocolVersion, RootCertStore, ServerConfig,
    Tls13CipherSuite,
};
use rustls_pki_types::{PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Long enough for anything here on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lengths around those of records and buffers.
const LENGTHS: [usize; 12] = [
    1, 15, 16_384, 3, 16_383, 16_385, 40_000, 2, 65_536, 200_000, 1_000, 16_384,
];

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(crypto.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    (Arc::new(client), Arc::new(server))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

fn client(socket: TcpStream, config: &Arc<ClientConfig>) -> TlsStream<UnbufferedClientConnection> {
    let session = UnbufferedClientConnection::new(config.clone(), name()).unwrap();
    TlsStream::new(socket, session)
}

fn server(socket: TcpStream, config: &Arc<ServerConfig>) -> TlsStream<UnbufferedServerConnection> {
    let session = UnbufferedServerConnection::new(config.clone()).unwrap();
    TlsStream::new(socket, session)
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

async fn shake_hands<E: End>(
    stream: &mut TlsStream<E>,
    buffers: &mut Buffers,
) -> io::Result<Vec<u8>> {
    let mut early = Vec::new();
    poll_fn(|context| {
        stream.poll_handshake(context, buffers, |plain| early.extend_from_slice(plain))
    })
    .await?;
    Ok(early)
}

/// Reads until the peer has ended.
async fn read_to_end<E: End>(stream: &mut TlsStream<E>, buffers: &mut Buffers) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        let before = read.len();
        let count = poll_fn(|context| {
            stream.poll_read(context, buffers, |plain| read.extend_from_slice(plain))
        });
        let count = count.await.unwrap();
        assert_eq!(count, read.len() - before);
        if count == 0 {
            return read;
        }
    }
}

/// Writes all pieces, and has the socket take everything.
async fn write_all<E: End>(stream: &mut TlsStream<E>, buffers: &mut Buffers, pieces: &[Vec<u8>]) {
    let (mut first, mut within) = (0, 0);
    while first < pieces.len() {
        let mut taken = poll_fn(|context| {
            let rest = pieces[first + 1..].iter().map(Vec::as_slice);
            let all = std::iter::once(&pieces[first][within..]).chain(rest);
            stream.poll_write(context, buffers, all)
        })
        .await
        .unwrap();
        assert!(taken > 0);
        while taken > 0 {
            let step = taken.min(pieces[first].len() - within);
            taken -= step;
            within += step;
            if within == pieces[first].len() {
                (first, within) = (first + 1, 0);
            }
        }
    }
    poll_fn(|context| stream.poll_flush(context)).await.unwrap();
}

fn pieces() -> Vec<Vec<u8>> {
    (1..)
        .zip(LENGTHS)
        .map(|(seed, length)| (seed..=u8::MAX).cycle().take(length).collect())
        .collect()
}

#[tokio::test]
async fn a_client_says_and_hears_everything() {
    let (client_config, server_config) = configs();
    let (near, far) = sockets().await;
    let peer = async {
        let mut peer = TlsAcceptor::from(server_config).accept(far).await.unwrap();
        let mut heard = vec![0; pieces().concat().len()];
        peer.read_exact(&mut heard).await.unwrap();
        peer.write_all(&heard).await.unwrap();
        peer.shutdown().await.unwrap();
        heard
    };
    let ours = async {
        let mut buffers = Buffers::default();
        let mut client = client(near, &client_config);
        assert!(
            shake_hands(&mut client, &mut buffers)
                .await
                .unwrap()
                .is_empty()
        );
        write_all(&mut client, &mut buffers, &pieces()).await;
        read_to_end(&mut client, &mut buffers).await
    };
    let (heard, echoed) = within(async { tokio::join!(peer, ours) }).await;
    assert!(heard == pieces().concat());
    assert!(echoed == heard);
}

#[tokio::test]
async fn a_server_says_and_hears_everything_through_new_keys() {
    let (client_config, server_config) = configs();
    let (near, far) = sockets().await;
    let peer = async {
        let mut peer = TlsConnector::from(client_config)
            .connect(name(), far)
            .await
            .unwrap();
        for piece in pieces() {
            peer.write_all(&piece).await.unwrap();
            // The server has to write with new keys of its own from then on.
            peer.get_mut().1.refresh_traffic_keys().unwrap();
        }
        peer.shutdown().await.unwrap();
        let mut echoed = Vec::new();
        peer.read_to_end(&mut echoed).await.unwrap();
        echoed
    };
    let ours = async {
        let mut buffers = Buffers::default();
        let mut server = server(near, &server_config);
        let mut heard = shake_hands(&mut server, &mut buffers).await.unwrap();
        heard.extend(read_to_end(&mut server, &mut buffers).await);
        write_all(&mut server, &mut buffers, std::slice::from_ref(&heard)).await;
        server.end().unwrap();
        poll_fn(|context| server.poll_flush(context)).await.unwrap();
        heard
    };
    let (echoed, heard) = within(async { tokio::join!(peer, ours) }).await;
    assert!(heard == pieces().concat());
    assert!(echoed == heard);
}

#[tokio::test]
async fn what_a_socket_does_not_take_is_kept_and_goes_first() {
    let (client_config, server_config) = configs();
    let (near, far) = sockets().await;
    let mut of_client = Buffers::default();
    let mut of_server = Buffers::default();
    let mut client = client(near, &client_config);
    let mut server = server(far, &server_config);
    let (heard, said) = within(async {
        let (one, other) = tokio::join!(
            shake_hands(&mut client, &mut of_client),
            shake_hands(&mut server, &mut of_server)
        );
        assert!(one.unwrap().is_empty() && other.unwrap().is_empty());
        // Nobody reads yet: it is written until something has to be kept.
        let (mut said, mut full) = (Vec::new(), false);
        while !full {
            let piece = vec![u8::try_from(said.len() % 251).unwrap(); 50_000];
            full = poll_fn(|context| {
                let pieces = std::iter::once(&piece[..]);
                let written = server.poll_write(context, &mut of_server, pieces);
                if let std::task::Poll::Ready(taken) = &written {
                    said.extend_from_slice(&piece[..*taken.as_ref().unwrap()]);
                }
                std::task::Poll::Ready(written.is_pending())
            })
            .await;
        }
        server.end().unwrap();
        let (_, heard) = tokio::join!(
            poll_fn(|context| server.poll_flush(context)),
            read_to_end(&mut client, &mut of_client)
        );
        (heard, said)
    })
    .await;
    assert!(said.len() > 100_000);
    assert!(heard == said);
}

#[tokio::test]
async fn what_is_no_handshake_is_an_error_at_either_end() {
    let (client_config, server_config) = configs();
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0x16, 3, 3, 0xff, 0xff, 1],
        vec![0; 300_000],
        Vec::new(),
    ] {
        let (near, mut far) = sockets().await;
        far.write_all(&garbage).await.unwrap();
        far.shutdown().await.unwrap();
        let mut client = client(near, &client_config);
        within(shake_hands(&mut client, &mut Buffers::default()))
            .await
            .unwrap_err();
        let (near, mut far) = sockets().await;
        far.write_all(&garbage).await.unwrap();
        far.shutdown().await.unwrap();
        let mut server = server(near, &server_config);
        within(shake_hands(&mut server, &mut Buffers::default()))
            .await
            .unwrap_err();
    }
}

/// Passes bytes on both ways until both sides have ended; `each` sees those that go forth, and says how many do: fewer are the last.
async fn relay(near: TcpStream, far: TcpStream, mut each: impl FnMut(&mut [u8]) -> usize) {
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let forth = async move {
        let mut passed = vec![0; 64 << 10];
        loop {
            let count = from_near.read(&mut passed).await.unwrap_or(0);
            let goes_on = each(&mut passed[..count]);
            let written = to_far.write_all(&passed[..goes_on]).await;
            if count == 0 || goes_on < count || written.is_err() {
                break;
            }
        }
    };
    let back = async move {
        let _ = tokio::io::copy(&mut from_far, &mut to_near).await;
        drop(to_near);
    };
    tokio::join!(forth, back);
}

#[tokio::test]
async fn small_pieces_share_records_and_one_write() {
    const BYTES: usize = 256 * 195;
    const RECORDS: usize = 4;
    const OVERHEAD: usize = 5 + 1 + 16;
    let (client_config, server_config) = configs();
    let ((near, middle), (far_of_middle, far)) = (sockets().await, sockets().await);
    let passed = Cell::new(0);
    let (shaken, is_shaken) = oneshot::channel();
    let ours = async {
        let mut buffers = Buffers::default();
        let mut client = client(near, &client_config);
        shake_hands(&mut client, &mut buffers).await.unwrap();
        is_shaken.await.unwrap();
        passed.set(0);
        let piece = [7; 195];
        let taken = poll_fn(|context| {
            let pieces = std::iter::repeat_n(&piece[..], 256);
            client.poll_write(context, &mut buffers, pieces)
        });
        assert_eq!(taken.await.unwrap(), BYTES);
        poll_fn(|context| client.poll_flush(context)).await.unwrap();
        let answer = read_to_end(&mut client, &mut buffers).await;
        assert_eq!(answer, b"all of it");
        assert_eq!(passed.get(), BYTES + RECORDS * OVERHEAD);
    };
    let peer = async {
        let mut peer = TlsAcceptor::from(server_config).accept(far).await.unwrap();
        shaken.send(()).unwrap();
        peer.read_exact(&mut vec![0; BYTES]).await.unwrap();
        peer.write_all(b"all of it").await.unwrap();
        peer.shutdown().await.unwrap();
    };
    let between = relay(middle, far_of_middle, |bytes| {
        passed.set(passed.get() + bytes.len());
        bytes.len()
    });
    within(async { tokio::join!(ours, peer, between) }).await;
}

/// What a server makes of 10,000 bytes that do not arrive as they were sent once the handshake is over, and what the client hears.
async fn meddled(meddle: impl Fn(&mut [u8]) -> usize) -> (io::Error, io::Error) {
    let (client_config, server_config) = configs();
    let ((near, middle), (far_of_middle, far)) = (sockets().await, sockets().await);
    let meddles = Cell::new(false);
    let (shaken, is_shaken) = oneshot::channel();
    let ours = async {
        let mut buffers = Buffers::default();
        let mut server = server(far, &server_config);
        shake_hands(&mut server, &mut buffers).await.unwrap();
        meddles.set(true);
        shaken.send(()).unwrap();
        let mut read = 0;
        let reading =
            poll_fn(|context| server.poll_read(context, &mut buffers, |plain| read += plain.len()));
        let error = reading.await.unwrap_err();
        assert_eq!(read, 0);
        error
    };
    let peer = async {
        let mut peer = TlsConnector::from(client_config)
            .connect(name(), near)
            .await
            .unwrap();
        is_shaken.await.unwrap();
        peer.write_all(&[7; 10_000]).await.unwrap();
        peer.flush().await.unwrap();
        peer.read_to_end(&mut Vec::new()).await.unwrap_err()
    };
    let between = relay(middle, far_of_middle, |bytes| {
        if meddles.get() {
            meddle(bytes)
        } else {
            bytes.len()
        }
    });
    let (ours, peer, ()) = within(async { tokio::join!(ours, peer, between) }).await;
    (ours, peer)
}

#[tokio::test]
async fn a_record_that_was_touched_ends_the_session() {
    let touch = |bytes: &mut [u8]| {
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        bytes.len()
    };
    let (_, heard) = meddled(touch).await;
    assert!(heard.to_string().contains("BadRecordMac"), "{heard}");
}

#[tokio::test]
async fn an_end_within_a_record_is_an_error() {
    let (error, _) = meddled(|bytes| bytes.len() / 2).await;
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_read_tells_what_came_however_little_it_says() {
    const RECORDS: usize = 1_000;
    const BYTES_MAX: usize = 4 << 10;
    let (client_config, server_config) = configs();
    let (near, far) = sockets().await;
    let peer = async {
        let connector = TlsConnector::from(client_config);
        let mut peer = connector.connect(name(), near).await.unwrap();
        for _ in 0..RECORDS {
            peer.write_all(&[7]).await.unwrap();
        }
        peer.flush().await.unwrap();
        peer
    };
    let ours = async {
        let mut buffers = Buffers::default();
        let mut server = server(far, &server_config);
        let early = shake_hands(&mut server, &mut buffers).await.unwrap();
        let (mut came, mut read) = (0, early.len());
        while read < RECORDS {
            let count = poll_fn(|context| {
                server.poll_receive(context, &mut buffers, BYTES_MAX, |plain| {
                    read += plain.len();
                })
            });
            let count = count.await.unwrap();
            assert!((1..=BYTES_MAX).contains(&count));
            came += count;
        }
        assert_eq!(read, RECORDS);
        assert!(came >= (RECORDS - early.len()) * 22, "{came} bytes");
    };
    within(async { tokio::join!(peer, ours) }).await;
}

#[tokio::test]
async fn a_read_of_little_brings_one_record_at_most() {
    let (client_config, server_config) = configs();
    let (near, far) = sockets().await;
    let said = pieces().concat();
    let peer = async {
        let connector = TlsConnector::from(client_config);
        let mut peer = connector.connect(name(), near).await.unwrap();
        peer.write_all(&said).await.unwrap();
        peer.shutdown().await.unwrap();
        peer
    };
    let ours = async {
        let mut buffers = Buffers::default();
        let mut server = server(far, &server_config);
        let mut heard = shake_hands(&mut server, &mut buffers).await.unwrap();
        loop {
            let before = heard.len();
            let count = poll_fn(|context| {
                server.poll_receive(context, &mut buffers, 1, |plain| {
                    heard.extend_from_slice(plain);
                })
            });
            let count = count.await.unwrap();
            assert!(heard.len() - before <= 16_384);
            if count == 0 {
                return heard;
            }
        }
    };
    let (_, heard) = within(async { tokio::join!(peer, ours) }).await;
    assert!(heard == said);
}

/// Learns the first secret that a client encrypts with.
#[derive(Debug, Default)]
struct ClientSecret(Mutex<Vec<u8>>);

impl KeyLog for ClientSecret {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "CLIENT_TRAFFIC_SECRET_0" {
            *self.0.lock().unwrap() = secret.to_vec();
        }
    }
}

/// Makes records that no library makes (RFC 8446, sections 5.2 and 7.2).
struct Forger {
    suite: &'static Tls13CipherSuite,
    secret: Vec<u8>,
    /// Since the last change of keys.
    records: u64,
}

impl Forger {
    /// After a handshake that is as it should be.
    async fn connect(near: TcpStream, config: &Arc<ClientConfig>) -> (TcpStream, Self) {
        let key_log = Arc::new(ClientSecret::default());
        let mut config = (**config).clone();
        config.key_log = key_log.clone();
        let connector = TlsConnector::from(Arc::new(config));
        let (socket, session) = connector.connect(name(), near).await.unwrap().into_inner();
        let suite = session.negotiated_cipher_suite().and_then(|s| s.tls13());
        let secret = key_log.0.lock().unwrap().clone();
        let forger = Self {
            suite: suite.unwrap(),
            secret,
            records: 0,
        };
        (socket, forger)
    }

    fn expand(&self, label: &str, out: &mut [u8]) {
        let length = u16::try_from(out.len()).unwrap().to_be_bytes();
        let label = format!("tls13 {label}");
        let label_length = [u8::try_from(label.len()).unwrap()];
        let info: [&[u8]; 4] = [&length, &label_length, label.as_bytes(), &[0]];
        let secret = OkmBlock::new(&self.secret);
        let expander = self.suite.hkdf_provider.expander_for_okm(&secret);
        expander.expand_slice(&info, out).unwrap();
    }

    fn record(&mut self, kind: ContentType, plain: &[u8]) -> Vec<u8> {
        let (mut key, mut iv) = ([0; 32], [0; 12]);
        self.expand("key", &mut key);
        self.expand("iv", &mut iv);
        let mut encrypter = self.suite.aead_alg.encrypter(key.into(), iv.into());
        let message = OutboundPlainMessage {
            typ: kind,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(plain),
        };
        let sealed = encrypter.encrypt(message, self.records).unwrap();
        self.records += 1;
        sealed.encode()
    }

    /// Nothing, made as long as a record can be: what follows the kind within it is zero.
    fn nothing(&mut self) -> Vec<u8> {
        let mut padded = vec![0; 16_384];
        padded[0] = 23;
        self.record(ContentType::Unknown(0), &padded)
    }

    fn new_keys(&mut self) -> Vec<u8> {
        let told = self.record(ContentType::Handshake, &[24, 0, 0, 1, 0]);
        let mut secret = vec![0; self.secret.len()];
        self.expand("traffic upd", &mut secret);
        (self.secret, self.records) = (secret, 0);
        told
    }
}

#[tokio::test]
async fn a_peer_may_hide_how_much_it_says_but_not_say_nothing_for_ever() {
    let (client_config, server_config) = configs();
    let (near, far) = sockets().await;
    let peer = async {
        let (mut socket, mut forger) = Forger::connect(near, &client_config).await;
        let mut sent = Vec::new();
        for _ in 0..30 {
            sent.extend(forger.nothing());
        }
        sent.extend(forger.record(ContentType::ApplicationData, b"here"));
        for record in 0..1_000 {
            sent.extend(forger.nothing());
            if record % 30 == 29 {
                sent.extend(forger.new_keys());
            }
            if socket.write_all(&sent).await.is_err() {
                return;
            }
            sent.clear();
        }
        panic!("the server goes on");
    };
    let ours = async {
        let mut buffers = Buffers::default();
        let mut server = server(far, &server_config);
        let mut heard = shake_hands(&mut server, &mut buffers).await.unwrap();
        let error = loop {
            let read = poll_fn(|context| {
                server.poll_read(context, &mut buffers, |plain| {
                    heard.extend_from_slice(plain);
                })
            });
            match read.await {
                Ok(count) => assert!(count > 0),
                Err(error) => break error,
            }
        };
        assert_eq!(
            (error.kind(), &heard[..]),
            (io::ErrorKind::InvalidData, &b"here"[..])
        );
    };
    within(async { tokio::join!(peer, ours) }).await;
}

#[tokio::test]
async fn a_server_keeps_little_of_a_handshake_message_that_never_ends() {
    let (client_config, server_config) = configs();
    let (near, far) = sockets().await;
    let peer = async {
        let (mut socket, mut forger) = Forger::connect(near, &client_config).await;
        let mut sent = forger.record(ContentType::Handshake, &[24, 0, 0xff, 0xff]);
        while socket.write_all(&sent).await.is_ok() {
            sent = forger.record(ContentType::Handshake, &[0]);
        }
    };
    let ours = async {
        let mut buffers = Buffers::default();
        let mut server = server(far, &server_config);
        shake_hands(&mut server, &mut buffers).await.unwrap();
        loop {
            let read =
                poll_fn(|context| server.poll_receive(context, &mut buffers, 4 << 10, |_| ()));
            match read.await {
                Ok(count) => assert!(count > 0),
                Err(error) => break assert_eq!(error.kind(), io::ErrorKind::InvalidData),
            }
            assert!(server.received_bytes() <= 33 << 10);
        }
    };
    within(async { tokio::join!(peer, ours) }).await;
}
