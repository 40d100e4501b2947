//! What a client is made of.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::ids::DeviceId;
use rialto_protocol::limits;

use crate::client::Client;
use crate::client_id;
use crate::command::Shared;
use crate::endpoint::{Endpoint, EndpointError};
use crate::error::{ConnectError, EndpointFailure, TransportError};
use crate::events::{ConnectionState, EventSender, Events};
use crate::handshake::{self, Identity};
use crate::reconnect::{Reconnect, ReconnectPolicy};
use crate::session::Session;
use crate::token::{TokenProvider, TokenSource};
use crate::transport::Connector;
use crate::transport::quic::QuicSocket;
use crate::transport::tls::TlsSetup;

const EVENT_BUFFER: usize = 16 * 1024;
const IN_FLIGHT_BYTES: usize = 8 << 20;
const CONNECT_TIMEOUT_MS: u64 = 10_000;
const ANSWER_TIMEOUT_MS: u64 = 60_000;
const YEAR_MS: u64 = 366 * 86_400_000;
const QUIC_KEEP_ALIVE_MS_MIN: u64 = 100;

/// What a server's certificate is checked against. Needed for `quic://` and `tls://`.
#[derive(Clone, Debug)]
pub enum Roots {
    /// PEM text with one or more certificates.
    Pem(Vec<u8>),
    /// A file of such text.
    File(PathBuf),
    /// Not at all: for a broker on this machine with a certificate that it made itself. Other machines are refused.
    InsecureLoopbackOnly,
}

impl Roots {
    /// TLS 1.3 with the protocol's ALPN, for a connection that is made without a [`Client`]. With
    /// [`Roots::InsecureLoopbackOnly`] the caller sees to it that the peer is this machine.
    ///
    /// # Errors
    /// When the roots cannot be read.
    pub fn client_config(&self) -> Result<Arc<rustls::ClientConfig>, TransportError> {
        Ok(TlsSetup::new(self)?.config)
    }
}

/// Makes a client; see [`Client::builder`].
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    endpoints: Vec<Result<Endpoint, EndpointError>>,
    tokens: Option<TokenSource>,
    device: Option<DeviceId>,
    roots: Option<Roots>,
    reconnect: ReconnectPolicy,
    sdk_name: String,
    in_flight_bytes: usize,
    event_buffer: usize,
    connect_timeout_ms: u64,
    answer_timeout_ms: u64,
    compression: bool,
    quic_socket: Option<QuicSocket>,
    quic_keep_alive_ms: u64,
}

impl ClientBuilder {
    pub(crate) fn new() -> Self {
        Self {
            endpoints: Vec::new(),
            tokens: None,
            device: None,
            roots: None,
            reconnect: ReconnectPolicy::default(),
            sdk_name: concat!("rialto-sdk-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            in_flight_bytes: IN_FLIGHT_BYTES,
            event_buffer: EVENT_BUFFER,
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            answer_timeout_ms: ANSWER_TIMEOUT_MS,
            compression: false,
            quic_socket: None,
            quic_keep_alive_ms: limits::QUIC_KEEP_ALIVE_MS,
        }
    }

    /// Adds an endpoint: `quic://HOST:PORT`, `tls://HOST:PORT` or `tcp://HOST:PORT`. They are tried in this order, each time a
    /// connection is made; where one refuses a token for good, the others may take it. What is written wrongly is reported by
    /// [`ClientBuilder::connect`].
    pub fn endpoint(mut self, endpoint: impl AsRef<str>) -> Self {
        self.endpoints.push(endpoint.as_ref().parse());
        self
    }

    /// An access token for all time. Once it has expired for all endpoints, the client closes at its next connection.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.tokens = Some(TokenSource::Fixed(token.into()));
        self
    }

    /// Where access tokens come from: asked for each connection, some time before a token expires, and when the server says
    /// that it has. All of them are of one user: with a token of another one the client closes, and what it had to send is
    /// not sent in that user's name.
    pub fn token_provider(mut self, provider: Arc<dyn TokenProvider>) -> Self {
        self.tokens = Some(TokenSource::Provider(provider));
        self
    }

    /// The device, made once and kept. A fresh random one by default: retries of an earlier run then are no retries.
    pub fn device(mut self, device: DeviceId) -> Self {
        self.device = Some(device);
        self
    }

    /// What the server's certificate is checked against.
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// How to connect again.
    pub fn reconnect(mut self, policy: ReconnectPolicy) -> Self {
        self.reconnect = policy;
        self
    }

    /// Name and version of the application, for the server's logs; at most 128 bytes, what is longer is cut.
    pub fn sdk_name(mut self, name: impl Into<String>) -> Self {
        self.sdk_name = name.into();
        let end = self.sdk_name.floor_char_boundary(limits::SDK_BYTES_MAX);
        self.sdk_name.truncate(end);
        self
    }

    /// Most bytes of drafts and requests that wait for an answer, up to 48 MiB; the server's own limit counts too. 8 MiB by
    /// default. Beyond it, publishing waits.
    pub fn in_flight_bytes(mut self, bytes_max: usize) -> Self {
        self.in_flight_bytes = bytes_max;
        self
    }

    /// Most events that wait for the caller (there is a limit of 8 MiB too); 16,384 by default. Beyond it, nothing is read,
    /// unless an answer is waited for: then what comes ahead of it is left out, and got again when half of the buffer is free.
    pub fn event_buffer(mut self, events_max: usize) -> Self {
        self.event_buffer = events_max;
        self
    }

    /// Longest time for one endpoint, from resolving its name to Welcome, and before that for a [`TokenProvider`] to give a
    /// token; 10,000 ms by default, at least 1 ms. QUIC has 3,000 ms at most while there is another endpoint to try.
    pub fn connect_timeout_ms(mut self, timeout_ms: u64) -> Self {
        self.connect_timeout_ms = timeout_ms;
        self
    }

    /// Longest time for the answer to anything that was sent; 60,000 ms by default, at least 1 ms. After that the connection
    /// counts as dead, whatever else comes through it: the client makes another one, and asks again there.
    pub fn answer_timeout_ms(mut self, timeout_ms: u64) -> Self {
        self.answer_timeout_ms = timeout_ms;
        self
    }

    /// Lets the server compress large frames: less traffic for more work. Off by default.
    pub fn compression(mut self) -> Self {
        self.compression = true;
        self
    }

    /// A UDP socket to share with other clients. Each has its own by default.
    pub fn quic_socket(mut self, socket: QuicSocket) -> Self {
        self.quic_socket = Some(socket);
        self
    }

    /// Silence after which QUIC shows that the path works, 100 to 25,000 ms, which is the default too; what is outside counts
    /// as the nearest. A client that only listens learns by it that a broker was killed. Each costs a broker about 30 µs of
    /// processor time, and wakes a phone's radio.
    pub fn quic_keep_alive_ms(mut self, silence_ms: u64) -> Self {
        self.quic_keep_alive_ms =
            silence_ms.clamp(QUIC_KEEP_ALIVE_MS_MIN, limits::QUIC_KEEP_ALIVE_MS);
        self
    }

    /// Connects: each endpoint is tried once. From then on the client reconnects by itself.
    ///
    /// The client's work is done by a task of the current tokio runtime. It ends with [`Client::close`], or when both the
    /// client's handles and [`Events`] are dropped; should the runtime end before, everything fails with
    /// [`crate::CloseReason::Gone`].
    ///
    /// Cancelled, there is no client.
    ///
    /// # Errors
    /// When an option is missing or wrong, no endpoint is reached, or the server refuses.
    pub async fn connect(self) -> Result<(Client, Events), ConnectError> {
        let endpoints = self.endpoints.into_iter().collect::<Result<Vec<_>, _>>()?;
        let Some(first) = endpoints.first() else {
            return Err(ConnectError::NoEndpoint);
        };
        let tokens = self.tokens.ok_or(ConnectError::NoToken)?;
        if self.connect_timeout_ms == 0 || self.answer_timeout_ms == 0 {
            return Err(ConnectError::Invalid("a timeout is at least 1 ms"));
        }
        let device = match self.device {
            Some(device) => device,
            None => DeviceId::v4(client_id::random().map_err(|_| ConnectError::NoEntropy)?),
        };
        let random = client_id::random().map_err(|_| ConnectError::NoEntropy)?;
        let tls = self.roots.as_ref().map(TlsSetup::new).transpose();
        let tls = tls.map_err(|error| {
            ConnectError::Unreachable(vec![EndpointFailure {
                endpoint: first.clone(),
                error,
            }])
        })?;
        let connector = Connector {
            tls,
            quic_socket: self.quic_socket,
            quic_keep_alive: Duration::from_millis(self.quic_keep_alive_ms),
        };
        let identity = Identity {
            device,
            sdk_name: self.sdk_name,
            compression: self.compression,
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
        };
        let welcomed = Box::pin(handshake::connect(
            &connector, &identity, &tokens, &endpoints,
        ))
        .await?;
        let state = ConnectionState::Connected {
            endpoint: welcomed.endpoint.clone(),
            session: welcomed.session,
        };
        let shared = Shared::new(state, welcomed.limits, self.in_flight_bytes, random);
        let shared = Arc::new(shared);
        // Here too, for whoever is quicker than the session's task.
        shared.connected(welcomed.limits, welcomed.welcome.server_time_ms);
        let (sender, events) = EventSender::new(&shared, self.event_buffer);
        let client = Client::new(shared.clone(), welcomed.user, device);
        let reconnect = Reconnect::new(self.reconnect, endpoints);
        // A year is as good as no limit, and keeps sums of times in range.
        let answer_timeout = Duration::from_millis(self.answer_timeout_ms.min(YEAR_MS));
        let session = Session::new(
            shared,
            sender,
            connector,
            identity,
            tokens,
            reconnect,
            answer_timeout,
        );
        tokio::spawn(session.run(welcomed));
        Ok((client, events))
    }
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the token.
        out.debug_struct("ClientBuilder")
            .field("endpoints", &self.endpoints)
            .field("device", &self.device)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}
