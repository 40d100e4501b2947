//! TLS and QUIC, with certificates made for the test.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use rialto_sdk::protocol::frame::{self, FrameKind};
use rialto_sdk::protocol::ids::RequestId;
use rialto_sdk::{
    Client, ClientBuilder, ConnectError, Event, Events, QuicSocket, Retry, Roots, Start, v1,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::{Peer, ROOM, builder, deliver, user, welcome};

/// A certificate for `localhost`, and a server's configuration with it.
fn certificate(alpn: &[u8]) -> (String, Arc<rustls::ServerConfig>) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
        certified.signing_key.serialize_der(),
    ));
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    (certified.cert.pem(), Arc::new(config))
}

async fn tls_server() -> (String, TcpListener, TlsAcceptor) {
    let (pem, config) = certificate(b"rialto/1");
    (
        pem,
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TlsAcceptor::from(config),
    )
}

async fn accept_tls(listener: &TcpListener, acceptor: &TlsAcceptor) -> std::io::Result<Peer> {
    let (stream, _) = listener.accept().await?;
    let (reader, writer) = tokio::io::split(acceptor.accept(stream).await?);
    Ok(Peer::new(reader, writer))
}

#[tokio::test]
async fn over_tls_the_certificate_is_checked_against_the_given_roots() {
    let (pem, listener, acceptor) = tls_server().await;
    let endpoint = format!("tls://localhost:{}", listener.local_addr().unwrap().port());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, &pem).unwrap();
    for roots in [
        Roots::Pem(pem.into_bytes()),
        Roots::File(file),
        Roots::InsecureLoopbackOnly,
    ] {
        let (connected, peer) = tokio::join!(
            builder().endpoint(&endpoint).roots(roots).connect(),
            async {
                let mut peer = accept_tls(&listener, &acceptor).await.unwrap();
                peer.hello(welcome()).await;
                peer
            }
        );
        let (client, _events) = connected.unwrap();
        let mut peer = peer;
        let open = client.publish(ROOM, "x".repeat(200_000)).await.unwrap();
        let sent = peer.drafts(1).await;
        peer.acknowledge(&sent[0], 1).await;
        open.await.unwrap();
    }
    let (other, _) = certificate(b"rialto/1");
    let wrong = builder()
        .endpoint(&endpoint)
        .roots(Roots::Pem(other.into_bytes()));
    let (connected, accepted) = tokio::join!(wrong.connect(), accept_tls(&listener, &acceptor));
    assert!(matches!(connected, Err(ConnectError::Unreachable(_))) && accepted.is_err());
    let unreadable = builder()
        .endpoint(&endpoint)
        .roots(Roots::File(dir.path().join("none.pem")))
        .connect()
        .await;
    assert_eq!(unreadable.unwrap_err().retry(), Retry::Never);
}

#[tokio::test]
async fn without_checking_certificates_other_machines_are_out_of_bounds() {
    // 192.0.2.0/24 is for documentation (RFC 5737): were it tried, it would not answer.
    for endpoint in ["tls://192.0.2.1:1", "quic://192.0.2.1:1"] {
        let error = builder()
            .endpoint(endpoint)
            .roots(Roots::InsecureLoopbackOnly)
            .connect()
            .await
            .unwrap_err();
        assert!(error.to_string().contains("loopback only"), "{error}");
        assert_eq!(error.retry(), Retry::Never);
    }
}

/// A QUIC server that has accepted one connection.
struct QuicPeer {
    connection: quinn::Connection,
    main: Peer,
    hello: v1::Hello,
}

async fn accept_quic(endpoint: &quinn::Endpoint) -> QuicPeer {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let (writer, reader) = connection.accept_bi().await.unwrap();
    let mut main = Peer::new(reader, writer);
    let capabilities = vec![
        v1::Capability::CatchUpStreams.into(),
        v1::Capability::SignalDatagrams.into(),
    ];
    let hello = main
        .hello(v1::Welcome {
            capabilities,
            keep_alive_ms: 0,
            ..welcome()
        })
        .await;
    QuicPeer {
        connection,
        main,
        hello,
    }
}

fn quic_server() -> (String, quinn::Endpoint) {
    let (pem, config) = certificate(b"rialto/1");
    let config =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()));
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    (pem, quinn::Endpoint::server(config, address).unwrap())
}

async fn connect_quic(
    builder: ClientBuilder,
    pem: String,
    endpoint: &quinn::Endpoint,
) -> (Client, Events, QuicPeer) {
    // By address, since the name may stand for an IPv6 address first.
    let url = format!("quic://localhost:{}", endpoint.local_addr().unwrap().port());
    let socket = QuicSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let builder = builder
        .endpoint(url)
        .roots(Roots::Pem(pem.into_bytes()))
        .quic_socket(socket);
    let (connected, peer) = tokio::join!(builder.connect(), accept_quic(endpoint));
    let (client, events) = connected.unwrap();
    (client, events, peer)
}

#[tokio::test]
async fn over_quic_catch_up_streams_and_the_main_stream_become_one_log() {
    let (pem, endpoint) = quic_server();
    let (client, mut events, mut peer) = connect_quic(builder(), pem, &endpoint).await;
    assert!(
        peer.hello
            .capabilities()
            .any(|one| one == v1::Capability::CatchUpStreams)
    );
    assert!(
        peer.hello
            .capabilities()
            .any(|one| one == v1::Capability::SignalDatagrams)
    );
    let subscribing = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe(vec![(ROOM, Start::Beginning)]).await }
    });
    let (id, subscribe) = peer
        .main
        .expect::<v1::Subscribe>(FrameKind::Subscribe)
        .await;

    // A catch-up stream that overtakes the answer, live events that overtake a catch-up stream.
    let mut early = peer.connection.open_uni().await.unwrap();
    early.write_all(&deliver(7, 1..=3)).await.unwrap();
    early.finish().unwrap();
    early.stopped().await.unwrap();
    peer.main.send_bytes(&deliver(7, 7..=9)).await;
    let results = vec![crate::server::following(
        &subscribe.subscriptions[0].conversation,
        7,
        9,
    )];
    peer.main
        .send(FrameKind::Subscribed, id, &v1::Subscribed { results })
        .await;
    assert!(subscribing.await.unwrap().unwrap()[0].is_following());
    let mut late = peer.connection.open_uni().await.unwrap();
    let bytes = [deliver(7, 4..=4), deliver(7, 5..=6)].concat();
    for byte in bytes {
        late.write_all(&[byte]).await.unwrap();
    }
    late.finish().unwrap();

    let mut seqs = Vec::new();
    while seqs.len() < 9 {
        if let Some(Event::Delivered { events, .. }) = events.next().await {
            seqs.extend(events.iter().map(|event| event.seq));
        }
    }
    assert_eq!(seqs, (1..=9).collect::<Vec<_>>());

    let signal = v1::signalled::Signal::Typing(v1::Typing { off: false });
    let push = v1::Signalled {
        handle: 7,
        user: user().to_proto(),
        signal: Some(signal),
    };
    let datagram = frame::encode(FrameKind::Signalled, RequestId::PUSH, &push);
    peer.connection.send_datagram(datagram).unwrap();
    assert!(matches!(
        events.next().await,
        Some(Event::Signalled {
            conversation: ROOM,
            ..
        })
    ));

    let open = client.publish(ROOM, "over QUIC").await.unwrap();
    let sent = peer.main.drafts(1).await;
    peer.main.acknowledge(&sent[0], 10).await;
    open.await.unwrap();
    client.close().await;
    assert!(peer.main.next().await.is_none());
    peer.connection.closed().await;
}

#[tokio::test]
async fn over_quic_what_is_not_read_is_bounded_over_all_streams() {
    const STREAMS: u32 = 64;
    const STREAM_BYTES: usize = 512 * 1024;
    let (pem, endpoint) = quic_server();
    // What is told first, that there is a connection, is all that there is room for: nothing is read.
    let small = builder().event_buffer(1);
    let (_client, mut events, peer) = connect_quic(small, pem, &endpoint).await;
    let mut writing = tokio::task::JoinSet::new();
    for handle in 0..STREAMS {
        let frame = deliver(handle, 1..=100);
        let mut stream = peer.connection.open_uni().await.unwrap();
        writing.spawn(async move {
            for _ in 0..STREAM_BYTES / frame.len() {
                stream.write_all(&frame).await.unwrap();
            }
            stream
        });
    }
    // Time for a client that takes it all in to do so.
    for _ in 0..200_000 {
        tokio::task::yield_now().await;
    }
    let mut written = 0;
    while writing.try_join_next().is_some() {
        written += 1;
    }
    assert!(written < STREAMS, "all of it");
    assert!(matches!(events.next().await, Some(Event::Connection(_))));
    while writing.join_next().await.is_some() {}
}

#[tokio::test]
async fn quic_is_kept_alive_as_often_as_asked_and_by_no_ping_of_the_protocol() {
    const KEEP_ALIVES: u64 = 3;
    let (pem, endpoint) = quic_server();
    let often = builder().quic_keep_alive_ms(1);
    let (client, _events, mut peer) = connect_quic(often, pem, &endpoint).await;
    while peer.connection.stats().frame_rx.ping < KEEP_ALIVES {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let open = client.publish(ROOM, "the first frame").await.unwrap();
    let sent = peer.main.drafts(1).await;
    peer.main.acknowledge(&sent[0], 1).await;
    open.await.unwrap();
}

#[tokio::test]
async fn over_quic_a_cut_is_survived() {
    let (pem, endpoint) = quic_server();
    let (client, mut events, mut peer) = connect_quic(builder(), pem, &endpoint).await;
    let _ = tokio::join!(
        client.subscribe(vec![(ROOM, Start::Beginning)]),
        peer.main.subscribed(7, 2)
    );
    peer.main.send_bytes(&deliver(7, 1..=2)).await;
    loop {
        if let Some(Event::Delivered { events, .. }) = events.next().await {
            assert_eq!(events.len(), 2);
            break;
        }
    }
    peer.connection.close(0_u32.into(), b"");
    let mut peer = accept_quic(&endpoint).await;
    assert_eq!(
        peer.main.subscribed(7, 2).await[0].cursor,
        Some(v1::Cursor { epoch: 1, seq: 2 })
    );
    drop(client);
}

#[tokio::test]
async fn a_server_of_another_protocol_is_not_talked_to() {
    let (pem, config) = certificate(b"h3");
    let config =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()));
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("quic://127.0.0.1:{}", endpoint.local_addr().unwrap().port());
    let roots = Roots::InsecureLoopbackOnly;
    drop(pem);
    let (connected, accepted) =
        tokio::join!(builder().endpoint(url).roots(roots).connect(), async {
            endpoint.accept().await.unwrap().await
        });
    assert!(matches!(connected, Err(ConnectError::Unreachable(_))) && accepted.is_err());
}
