//! A client without any cleverness: it sends frames, and hands out what comes back.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use prost::Message;
use rialto_protocol::{
    error::ErrorCode,
    frame::{self, Frame, FrameKind},
    ids::{ClientId, ConversationId, RequestId, UserId},
    v1,
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::within;

/// Where to connect, and whom to trust there.
#[derive(Clone)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Tls(SocketAddr, Vec<u8>),
    Quic(SocketAddr, Vec<u8>),
}

impl Target {
    /// What a TLS client trusts and speaks.
    pub(crate) fn tls_config(&self) -> rustls::ClientConfig {
        let Self::Tls(_, certificate) = self else {
            panic!("this is not TLS");
        };
        tls(certificate)
    }

    /// The handshake of a QUIC client.
    pub(crate) fn quic_crypto(&self) -> quinn::crypto::rustls::QuicClientConfig {
        self.quic_crypto_of(&[])
    }

    /// The same, of one that speaks other protocols as well.
    pub(crate) fn quic_crypto_of(
        &self,
        others: &[Vec<u8>],
    ) -> quinn::crypto::rustls::QuicClientConfig {
        let Self::Quic(_, certificate) = self else {
            panic!("this is not QUIC");
        };
        let mut config = tls(certificate);
        config.alpn_protocols.extend_from_slice(others);
        config.try_into().unwrap()
    }
}

type Reader = Box<dyn AsyncRead + Unpin + Send>;
type Writer = Box<dyn AsyncWrite + Unpin + Send>;

pub(crate) struct Client {
    reader: Reader,
    writer: Writer,
    buf: BytesMut,
    /// Frames that came while another was waited for.
    stash: VecDeque<Frame>,
    requests: u32,
    /// QUIC only: dropped, it would close the connection.
    pub(crate) quic: Option<(quinn::Endpoint, quinn::Connection)>,
}

/// What a published message said.
pub(crate) fn text_of(event: &v1::Event) -> String {
    match &event.content {
        Some(v1::event::Content::Message(message)) => {
            String::from_utf8(message.body.to_vec()).unwrap()
        }
        other => panic!("no message: {other:?}"),
    }
}

/// Rises with each call, as ids of one device have to.
fn next_client_id() -> Bytes {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    ClientId::v7(
        1_700_000_000_000 + NEXT.fetch_add(1, Ordering::Relaxed),
        [7; 10],
    )
    .to_proto()
}

fn tls(certificate: &[u8]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(certificate).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"rialto/1".to_vec()];
    config
}

impl Client {
    pub(crate) async fn connect(target: &Target) -> Self {
        Self::try_connect(target).await.unwrap()
    }

    pub(crate) async fn try_connect(target: &Target) -> std::io::Result<Self> {
        within("connecting", async {
            match target {
                Target::Tcp(address) => {
                    let (reader, writer) = TcpStream::connect(address).await?.into_split();
                    Ok(Self::new(Box::new(reader), Box::new(writer)))
                }
                Target::Tls(address, certificate) => {
                    let stream = TcpStream::connect(address).await?;
                    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(certificate)));
                    let name = ServerName::try_from("localhost").unwrap();
                    let (reader, writer) = tokio::io::split(connector.connect(name, stream).await?);
                    Ok(Self::new(Box::new(reader), Box::new(writer)))
                }
                Target::Quic(..) => {
                    Self::connect_by(quinn::Endpoint::client(super::FREE)?, target).await
                }
            }
        })
        .await
    }

    /// Over TCP, from that address of loopback.
    pub(crate) async fn connect_from(host: Ipv4Addr, target: &Target) -> Self {
        let Target::Tcp(address) = target else {
            panic!("this is not TCP");
        };
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((host, 0).into()).unwrap();
        let stream = within("connecting", socket.connect(*address))
            .await
            .unwrap();
        let (reader, writer) = stream.into_split();
        Self::new(Box::new(reader), Box::new(writer))
    }

    /// Over QUIC, by that endpoint.
    pub(crate) async fn connect_by(
        endpoint: quinn::Endpoint,
        target: &Target,
    ) -> std::io::Result<Self> {
        Self::connect_as(endpoint, Arc::new(target.quic_crypto()), target).await
    }

    /// Over QUIC, with a handshake of the caller's.
    pub(crate) async fn connect_as(
        endpoint: quinn::Endpoint,
        crypto: Arc<dyn quinn::crypto::ClientConfig>,
        target: &Target,
    ) -> std::io::Result<Self> {
        let Target::Quic(address, _) = target else {
            panic!("this is not QUIC");
        };
        let config = quinn::ClientConfig::new(crypto);
        let connection = endpoint
            .connect_with(config, *address, "localhost")
            .unwrap()
            .await?;
        let (writer, reader) = connection.open_bi().await?;
        let mut client = Self::new(Box::new(reader), Box::new(writer));
        client.quic = Some((endpoint, connection));
        Ok(client)
    }

    fn new(reader: Reader, writer: Writer) -> Self {
        Self {
            reader,
            writer,
            buf: BytesMut::new(),
            stash: VecDeque::new(),
            requests: 0,
            quic: None,
        }
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        within("sending", self.writer.write_all(bytes))
            .await
            .unwrap();
        within("sending", self.writer.flush()).await.unwrap();
    }

    /// Sends as far as the broker reads on.
    pub(crate) async fn push(&mut self, bytes: &[u8]) {
        let _ = within("sending", self.writer.write_all(bytes)).await;
    }

    /// Nothing more will be sent.
    pub(crate) async fn finish(&mut self) {
        within("finishing", self.writer.shutdown()).await.unwrap();
    }

    /// Sends as much as the broker takes at the moment, and tells how much.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> usize {
        let write = self.writer.write(bytes);
        match tokio::time::timeout(std::time::Duration::from_millis(200), write).await {
            Ok(written) => written.unwrap(),
            Err(_) => 0,
        }
    }

    pub(crate) fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// Sends a request and tells its id.
    pub(crate) async fn send(&mut self, kind: FrameKind, body: &impl Message) -> RequestId {
        let request = self.next_request();
        self.send_bytes(&frame::encode(kind, request, body)).await;
        request
    }

    /// The next frame; `None`: the broker has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        match self.stash.pop_front() {
            Some(frame) => Some(frame),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Option<Frame> {
        within("the next frame", async {
            loop {
                if let Some(frame) = frame::split(&mut self.buf, 1 << 20).unwrap() {
                    return Some(frame);
                }
                match self.reader.read_buf(&mut self.buf).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// The next frame that fits; those before it are kept.
    async fn find(&mut self, fits: impl Fn(&Frame) -> bool) -> Frame {
        if let Some(at) = self.stash.iter().position(&fits) {
            return self.stash.remove(at).unwrap();
        }
        loop {
            let frame = self
                .receive()
                .await
                .expect("the broker has closed the connection");
            if fits(&frame) {
                return frame;
            }
            self.stash.push_back(frame);
        }
    }

    /// The next frame of a kind.
    pub(crate) async fn expect<M: Message + Default>(&mut self, kind: FrameKind) -> M {
        let frame = self
            .find(|frame| frame.kind == kind || frame.kind == FrameKind::Error)
            .await;
        assert_eq!(
            frame.kind,
            kind,
            "{:?}",
            v1::Error::decode(frame.body.clone())
        );
        M::decode(frame.body).unwrap()
    }

    /// The answer to a request, which must be of this kind.
    pub(crate) async fn answer<M: Message + Default>(
        &mut self,
        request: RequestId,
        kind: FrameKind,
    ) -> M {
        let frame = self.find(|frame| frame.request_id == request).await;
        assert_eq!(
            frame.kind,
            kind,
            "{:?}",
            v1::Error::decode(frame.body.clone())
        );
        M::decode(frame.body).unwrap()
    }

    /// The next error, and then the end of the connection.
    pub(crate) async fn refused(&mut self) -> ErrorCode {
        let frame = self.find(|frame| frame.kind == FrameKind::Error).await;
        assert!(self.next().await.is_none(), "the connection goes on");
        ErrorCode::from_proto(&v1::Error::decode(frame.body).unwrap()).unwrap()
    }

    pub(crate) fn hello_frame(&mut self, token: &str) -> Bytes {
        self.hello_frame_with(token, &[])
    }

    fn hello_frame_with(&mut self, token: &str, capabilities: &[v1::Capability]) -> Bytes {
        let hello = v1::Hello {
            token: token.to_owned(),
            device: Bytes::from_static(&[5; 16]),
            sdk: "test".to_owned(),
            capabilities: capabilities
                .iter()
                .map(|capability| *capability as i32)
                .collect(),
        };
        frame::encode(FrameKind::Hello, self.next_request(), &hello)
    }

    pub(crate) async fn hello(&mut self, user: &str) -> v1::Welcome {
        self.hello_with(user, &[]).await
    }

    pub(crate) async fn hello_with(
        &mut self,
        user: &str,
        capabilities: &[v1::Capability],
    ) -> v1::Welcome {
        let hello = self.hello_frame_with(&format!("user:{user}"), capabilities);
        self.send_bytes(&hello).await;
        self.expect(FrameKind::Welcome).await
    }

    /// Creates a group with these users beside its creator.
    pub(crate) async fn create_group(&mut self, number: u16, members: &[&str]) -> ConversationId {
        let mut entropy = [0; 10];
        entropy[8..].copy_from_slice(&number.to_be_bytes());
        let conversation = ConversationId::v7(1_700_000_000_000, entropy);
        let create = v1::Create {
            conversation: conversation.to_proto(),
            kind: v1::ConversationKind::Group as i32,
            visibility: v1::Visibility::Private as i32,
            title: format!("group {number}"),
            members: members
                .iter()
                .map(|name| UserId::from_name(name).to_proto())
                .collect(),
            parent: Bytes::new(),
            client_id: next_client_id(),
        };
        let request = self.send(FrameKind::Create, &create).await;
        let _: v1::CreatedConversation = self.answer(request, FrameKind::CreatedConversation).await;
        conversation
    }

    /// Follows a conversation from an event on; the event after it is the first that comes.
    pub(crate) async fn follow(
        &mut self,
        conversation: ConversationId,
        cursor: v1::Cursor,
    ) -> v1::SubscriptionResult {
        let subscription = v1::Subscription {
            conversation: conversation.to_proto(),
            cursor: Some(cursor),
        };
        let subscribe = v1::Subscribe {
            subscriptions: vec![subscription],
        };
        let request = self.send(FrameKind::Subscribe, &subscribe).await;
        let mut subscribed: v1::Subscribed = self.answer(request, FrameKind::Subscribed).await;
        subscribed.results.remove(0)
    }

    /// Follows a conversation from its first event on.
    pub(crate) async fn follow_all(&mut self, conversation: ConversationId) {
        let result = self.follow(conversation, v1::Cursor::default()).await;
        assert_eq!(
            result.status(),
            v1::SubscriptionStatus::Following,
            "{result:?}"
        );
    }

    /// A Publish frame with one message.
    pub(crate) fn message_frame(&mut self, conversation: ConversationId, text: &str) -> Bytes {
        let message = v1::Message {
            body: Bytes::copy_from_slice(text.as_bytes()),
            ..v1::Message::default()
        };
        let draft = v1::Draft {
            client_id: next_client_id(),
            content: Some(v1::draft::Content::Message(message)),
        };
        let publish = v1::Publish {
            target: Some(v1::publish::Target::Conversation(conversation.to_proto())),
            drafts: vec![draft],
            on_behalf_of: Bytes::new(),
        };
        frame::encode(FrameKind::Publish, self.next_request(), &publish)
    }

    /// Publishes a message and waits until it is durable.
    pub(crate) async fn publish(
        &mut self,
        conversation: ConversationId,
        text: &str,
    ) -> v1::Receipt {
        let frame = self.message_frame(conversation, text);
        self.send_bytes(&frame).await;
        let mut published: v1::Published = self.expect(FrameKind::Published).await;
        assert_eq!(published.receipts.len(), 1);
        let receipt = published.receipts.remove(0);
        assert_eq!(receipt.error, None);
        receipt
    }

    /// The next delivered events that are messages, `count` of them; checks that no seq is left out.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<v1::Event> {
        let mut events: Vec<v1::Event> = Vec::new();
        let mut last = None;
        while events.len() < count {
            let deliver: v1::Deliver = self.expect(FrameKind::Deliver).await;
            for event in deliver.events {
                assert!(
                    last.is_none_or(|last| event.seq == last + 1),
                    "seq {} after {last:?}",
                    event.seq
                );
                last = Some(event.seq);
                if matches!(event.content, Some(v1::event::Content::Message(_))) {
                    events.push(event);
                }
            }
        }
        events
    }
}
