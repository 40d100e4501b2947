//! Connections: how every part of loadgen opens them, and what is counted while they last.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rialto_protocol::ids::UserId;
use rialto_sdk::{
    Client, ConnectError, ConnectionState, Event, Events, QuicSocket, ReconnectPolicy, Retry, Roots,
};

use crate::counters::Counters;
use crate::target::Target;
use crate::tokens::Tokens;

/// Wait between two attempts to open a connection that was refused for now.
const AGAIN: Duration = Duration::from_millis(250);
/// A load test comes back sooner than a crowd of phones would.
const RECONNECT: ReconnectPolicy = ReconnectPolicy {
    base_ms: 50,
    max_ms: 2_000,
    attempts_max: None,
};
/// What the broker's logs call us.
const NAME: &str = concat!("rialto-loadgen/", env!("CARGO_PKG_VERSION"));

/// UDP sockets that QUIC connections share: each costs a file and buffers, and the broker spreads them over its shards by
/// their address.
const SOCKETS_MAX: usize = 64;

/// Opens connections to one target, within one tokio runtime.
#[derive(Debug)]
pub struct Dialer {
    target: Target,
    tokens: Tokens,
    roots: Roots,
    patience: Duration,
    counters: Arc<Counters>,
    sockets: Mutex<Sockets>,
}

#[derive(Debug, Default)]
struct Sockets {
    bound: Vec<QuicSocket>,
    next: usize,
}

impl Dialer {
    /// For this target. While a broker restarts, an attempt is repeated for as long as `patience`.
    #[must_use]
    pub fn new(
        target: Target,
        tokens: Tokens,
        roots: Roots,
        patience: Duration,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            target,
            tokens,
            roots,
            patience,
            counters,
            sockets: Mutex::new(Sockets {
                bound: Vec::new(),
                next: 0,
            }),
        }
    }

    /// Where to.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// The counts that its connections write to.
    #[must_use]
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// A new connection of the user, at the first attempt or not at all.
    ///
    /// # Errors
    /// When the target cannot be reached or refuses.
    pub async fn connect_at_once(&self, user: UserId) -> Result<(Client, Events), ConnectError> {
        let mut builder = Client::builder()
            .endpoint(self.target.to_string())
            .roots(self.roots.clone())
            .token(self.tokens.of(user))
            .sdk_name(NAME)
            .reconnect(RECONNECT);
        if let Some(socket) = self.socket() {
            builder = builder.quic_socket(socket);
        }
        let connected = Box::pin(builder.connect()).await?;
        Counters::add(&self.counters.connections, 1);
        Ok(connected)
    }

    /// The next of the shared sockets; none when the connection is to have its own.
    fn socket(&self) -> Option<QuicSocket> {
        let from = self.target.udp_from()?;
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if sockets.bound.len() < SOCKETS_MAX {
            // When no more sockets can be had, those that are there have to do.
            sockets.bound.extend(QuicSocket::bind(from));
        }
        sockets.next += 1;
        let at = sockets.next % sockets.bound.len().max(1);
        sockets.bound.get(at).cloned()
    }

    /// A new connection of the user; waits for a broker that is away.
    ///
    /// # Errors
    /// When the target refuses for good, or patience has run out.
    pub async fn connect(&self, user: UserId) -> Result<(Client, Events), ConnectError> {
        let start = Instant::now();
        loop {
            match self.connect_at_once(user).await {
                Err(error) if error.retry() != Retry::Never && start.elapsed() < self.patience => {
                    tokio::time::sleep(AGAIN).await;
                }
                done => return done,
            }
        }
    }

    /// A new connection of a user who follows nothing.
    ///
    /// # Errors
    /// As [`Dialer::connect`].
    pub async fn connect_writer(&self, user: UserId) -> Result<Client, ConnectError> {
        let (client, mut events) = self.connect(user).await?;
        let mut line = Line::new(self.counters.clone());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                line.note(&event);
            }
        });
        Ok(client)
    }
}

/// Counts how often a connection was lost and came back.
#[derive(Debug)]
pub struct Line {
    counters: Arc<Counters>,
    away: bool,
}

impl Line {
    /// A connection that is there.
    #[must_use]
    pub const fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            away: false,
        }
    }

    /// Takes note of what an event says about the connection.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Connection(ConnectionState::Reconnecting { .. }) => self.away = true,
            Event::Connection(ConnectionState::Connected { .. })
                if std::mem::take(&mut self.away) =>
            {
                Counters::add(&self.counters.reconnects, 1);
            }
            _ => {}
        }
    }
}

/// One for tests that connect to nobody.
#[cfg(test)]
pub(crate) fn to_nowhere(counters: Arc<Counters>) -> Dialer {
    Dialer::new(
        "tcp://127.0.0.1:1".parse().unwrap(),
        Tokens::Development,
        Roots::InsecureLoopbackOnly,
        Duration::ZERO,
        counters,
    )
}
