//! The server that is told what to do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prost::Message;
use rialto_sdk::protocol::error::ErrorCode;
use rialto_sdk::protocol::frame::{self, Frame, FrameKind};
use rialto_sdk::protocol::ids::RequestId;
use rialto_sdk::protocol::{body, limits};
use rialto_sdk::{
    Client, ClientBuilder, ConnectionState, ConversationId, DeviceId, Events, ReconnectPolicy,
    UserId, v1,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

pub(crate) const ROOM: ConversationId = ConversationId::from_bytes([0x11; 16]);
pub(crate) const OTHER_ROOM: ConversationId = ConversationId::from_bytes([0x22; 16]);
pub(crate) const DEVICE: DeviceId = DeviceId::from_bytes([0x33; 16]);

/// How long the server waits for a client: a test that waits for what never comes fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A listener on loopback.
pub(crate) struct Server {
    listener: TcpListener,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("tcp://{}", self.address())
    }

    /// The next connection, before Hello.
    pub(crate) async fn accept(&self) -> Peer {
        let accepted = timeout(PATIENCE, self.listener.accept()).await;
        let (stream, _) = accepted.expect("a client that connects").unwrap();
        stream.set_nodelay(true).unwrap();
        let (reader, writer) = stream.into_split();
        Peer::new(reader, writer)
    }

    /// The next connection, welcomed.
    pub(crate) async fn welcome(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.hello(welcome()).await;
        peer
    }

    /// A client of this server, and its first connection.
    pub(crate) async fn client(&self) -> (Client, Events, Peer) {
        self.client_with(|builder| builder).await
    }

    /// The same, with options of its own.
    pub(crate) async fn client_with(
        &self,
        options: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> (Client, Events, Peer) {
        let builder = options(builder().endpoint(self.endpoint()));
        let (connected, peer) = tokio::join!(builder.connect(), self.welcome());
        let (client, events) = connected.unwrap();
        (client, events, peer)
    }
}

/// A builder whose clients reconnect at once.
pub(crate) fn builder() -> ClientBuilder {
    let policy = ReconnectPolicy {
        base_ms: 0,
        max_ms: 0,
        attempts_max: None,
    };
    Client::builder()
        .token("token")
        .device(DEVICE)
        .reconnect(policy)
}

pub(crate) fn user() -> UserId {
    UserId::from_name("ann")
}

/// A Welcome with long times.
pub(crate) fn welcome() -> v1::Welcome {
    v1::Welcome {
        user: user().to_proto(),
        session: Bytes::from_static(&[0x44; 16]),
        server_time_ms: 1_700_000_000_000,
        keep_alive_ms: 3_600_000,
        token_expires_ms: 1_800_000_000_000,
        capabilities: Vec::new(),
        limits: Some(v1::Limits {
            frame_bytes_max: 256 * 1024,
            body_bytes_max: 64 * 1024,
            in_flight_bytes_max: 1024 * 1024,
            subscriptions_max: 10_000,
            drafts_max: 256,
            publish_per_s: 0,
            publish_burst: 0,
        }),
    }
}

/// The server's side of one connection. Dropping it cuts the connection.
pub(crate) struct Peer {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    buf: BytesMut,
}

impl Peer {
    pub(crate) fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self {
            reader: Box::new(reader),
            writer: Box::new(writer),
            buf: BytesMut::new(),
        }
    }

    /// The client's next frame; none at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) =
                frame::split(&mut self.buf, limits::FRAME_BYTES_MAX_CEILING).unwrap()
            {
                return Some(frame);
            }
            let read = timeout(PATIENCE, self.reader.read_buf(&mut self.buf)).await;
            if read.expect("a client that says something").unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The body of the next frame, which must be of this kind, and its request id.
    pub(crate) async fn expect<T: body::Body>(&mut self, kind: FrameKind) -> (RequestId, T) {
        let frame = self.next().await.expect("a frame");
        assert_eq!(frame.kind, kind);
        assert_ne!(frame.request_id, RequestId::PUSH);
        (frame.request_id, body::decode(&frame.body).unwrap())
    }

    /// Takes Hello and answers it.
    pub(crate) async fn hello(&mut self, welcome: v1::Welcome) -> v1::Hello {
        let (id, hello) = self.expect(FrameKind::Hello).await;
        self.send(FrameKind::Welcome, id, &welcome).await;
        hello
    }

    pub(crate) async fn send(&mut self, kind: FrameKind, id: RequestId, body: &impl Message) {
        self.send_bytes(&frame::encode(kind, id, body)).await;
    }

    pub(crate) async fn push(&mut self, kind: FrameKind, body: &impl Message) {
        self.send(kind, RequestId::PUSH, body).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
        self.writer.flush().await.unwrap();
    }

    pub(crate) async fn refuse(&mut self, id: RequestId, code: ErrorCode) {
        self.send_bytes(&frame::error(id, code, 0)).await;
    }

    /// The next `count` drafts, from as many Publish frames as they come in.
    pub(crate) async fn drafts(&mut self, count: usize) -> Vec<Sent> {
        let mut sent = Vec::new();
        while sent.len() < count {
            let (id, publish) = self.expect::<v1::Publish>(FrameKind::Publish).await;
            let Some(v1::publish::Target::Conversation(conversation)) = publish.target else {
                panic!("no target")
            };
            for (index, draft) in (0..).zip(publish.drafts) {
                let conversation = ConversationId::from_slice(&conversation).unwrap();
                sent.push(Sent {
                    id,
                    index,
                    conversation,
                    draft,
                    on_behalf_of: publish.on_behalf_of.clone(),
                });
            }
        }
        assert_eq!(sent.len(), count);
        sent
    }

    /// Acknowledges a draft as the event `seq` of epoch 1.
    pub(crate) async fn acknowledge(&mut self, sent: &Sent, seq: u64) {
        self.receipts(vec![sent.receipt(seq)]).await;
    }

    pub(crate) async fn receipts(&mut self, receipts: Vec<v1::Receipt>) {
        self.push(FrameKind::Published, &v1::Published { receipts })
            .await;
    }

    /// Takes a Subscribe and answers that all is followed, under handles from `handle` on.
    pub(crate) async fn subscribed(&mut self, handle: u32, head: u64) -> Vec<v1::Subscription> {
        let (id, subscribe) = self.expect::<v1::Subscribe>(FrameKind::Subscribe).await;
        let results = (handle..)
            .zip(&subscribe.subscriptions)
            .map(|(handle, one)| following(&one.conversation, handle, head))
            .collect();
        self.send(FrameKind::Subscribed, id, &v1::Subscribed { results })
            .await;
        subscribe.subscriptions
    }
}

pub(crate) fn following(conversation: &Bytes, handle: u32, head: u64) -> v1::SubscriptionResult {
    v1::SubscriptionResult {
        conversation: conversation.clone(),
        status: v1::SubscriptionStatus::Following.into(),
        handle,
        head: Some(v1::Cursor {
            epoch: 1,
            seq: head,
        }),
        oldest_seq: 1,
        role: v1::Role::Member.into(),
        ..v1::SubscriptionResult::default()
    }
}

/// A draft as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) id: RequestId,
    pub(crate) index: u32,
    pub(crate) conversation: ConversationId,
    pub(crate) draft: v1::Draft,
    pub(crate) on_behalf_of: Bytes,
}

impl Sent {
    pub(crate) fn receipt(&self, seq: u64) -> v1::Receipt {
        v1::Receipt {
            request_id: self.id.0,
            draft: self.index,
            epoch: 1,
            seq,
            time_ms: 1_000 + seq,
            ..v1::Receipt::default()
        }
    }

    pub(crate) fn refusal(&self, code: ErrorCode, retry_after_ms: u32) -> v1::Receipt {
        v1::Receipt {
            request_id: self.id.0,
            draft: self.index,
            error: Some(code.to_proto(retry_after_ms)),
            ..v1::Receipt::default()
        }
    }

    pub(crate) fn text(&self) -> String {
        let Some(v1::draft::Content::Message(message)) = &self.draft.content else {
            panic!("no message")
        };
        String::from_utf8(message.body.to_vec()).unwrap()
    }
}

/// The event `seq` of a log that every test shares: a message with its number as text.
pub(crate) fn event(seq: u64) -> v1::Event {
    let body = Bytes::from(seq.to_string());
    v1::Event {
        seq,
        epoch: 1 + seq / 10,
        time_ms: 1_000 + seq,
        ordinal: seq,
        sender: user().to_proto(),
        device: DEVICE.to_proto(),
        client_id: Bytes::copy_from_slice(&u128::from(seq).to_be_bytes()),
        content: Some(v1::event::Content::Message(v1::Message {
            body,
            ..v1::Message::default()
        })),
    }
}

/// A Deliver of these events.
pub(crate) fn deliver(handle: u32, seqs: std::ops::RangeInclusive<u64>) -> Bytes {
    let body = v1::Deliver {
        handle,
        events: seqs.map(event).collect(),
    };
    frame::encode(FrameKind::Deliver, RequestId::PUSH, &body)
}

/// Tokens `token-1`, `token-2`, …, and how many were asked for.
pub(crate) struct Tokens(pub(crate) AtomicU64);

impl rialto_sdk::TokenProvider for Tokens {
    fn token(
        &self,
    ) -> futures_util::future::BoxFuture<'static, Result<String, rialto_sdk::TokenError>> {
        let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move { Ok(format!("token-{number}")) })
    }
}

/// How one user is.
pub(crate) fn presences(user: UserId, state: v1::PresenceState) -> v1::Presences {
    v1::Presences {
        presences: vec![v1::Presence {
            user: user.to_proto(),
            state: state.into(),
            last_seen_ms: 0,
        }],
    }
}

/// The client asks for nothing of its own: what is asked now comes next.
pub(crate) async fn expect_nothing(client: &Client, peer: &mut Peer) {
    let (_, ()) = tokio::join!(client.describe(ROOM), async {
        let (id, _) = peer.expect::<v1::Describe>(FrameKind::Describe).await;
        peer.refuse(id, ErrorCode::NotAMember).await;
    });
}

/// Once the client has noticed that it has no connection.
pub(crate) async fn reconnecting(client: &Client) {
    let mut state = client.state();
    state
        .wait_for(|state| matches!(state, ConnectionState::Reconnecting { .. }))
        .await
        .unwrap();
}
