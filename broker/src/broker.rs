//! A running broker: how it starts, gives its clients away, and stops.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, mpsc},
    time::Duration,
};

use rialto_core::topology::{ShardId, Topology};
use rialto_storage::{Store, journal::JournalError};
use tokio::time::Instant;

use crate::{
    Authenticator, BrokerConfig, IdentityError, StopReason,
    admission::Admission,
    clock::Clock,
    fate::{Fate, StopError},
    listen,
    ops::{self, Phase, Shared},
    shard::{self, Control, Listeners, Seed, ShardError, engine::Node, mailbox::Mailbox},
    transport::{certificates::Certificates, quic},
};

/// How often a draining or stopping broker looks whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a shard's thread may take to end once its connections are closed.
const FAREWELL: Duration = Duration::from_secs(3);

/// Where a broker listens; the ports are the real ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Plain TCP.
    pub tcp: Option<SocketAddr>,
    /// TCP with TLS.
    pub tls: Option<SocketAddr>,
    /// QUIC.
    pub quic: Option<SocketAddr>,
    /// The operations port.
    pub ops: Option<SocketAddr>,
}

/// Why a broker did not start. What had been started by then ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot work; everything that is wrong, one a line.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    /// An address cannot be listened on.
    #[error("cannot listen on {what} {address}: {cause}")]
    Listen {
        /// Which listener.
        what: &'static str,
        /// Its address.
        address: SocketAddr,
        /// What the operating system said.
        cause: io::Error,
    },
    /// Certificate and key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A shard could not start.
    #[error("a shard could not start: {0}")]
    Shard(String),
    /// The journal could not be taken over.
    #[error("the journal could not be taken over: {0}")]
    Claim(JournalError),
}

fn thread(cause: &io::Error) -> StartError {
    StartError::Shard(cause.to_string())
}

/// What clients cannot know, so that they cannot craft keys that collide.
fn random_seed() -> u64 {
    getrandom::u64().expect("the operating system has randomness")
}

/// A running broker. Dropped, it ends in its own time; [`Broker::stop`] waits for it.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    shards: Vec<shard::Handle>,
    ops: Option<ops::Handle>,
}

/// A broker without its store: what can be known without has been seen to be well, and the operations port says that the
/// broker starts. Dropped, it frees the port.
#[derive(Debug)]
pub struct Preparation {
    config: BrokerConfig,
    certificates: Option<Arc<Certificates>>,
    ops: ops::Handle,
    ops_address: Option<SocketAddr>,
}

impl Preparation {
    /// Where the operations port listens; the port is the real one.
    #[must_use]
    pub fn ops(&self) -> Option<SocketAddr> {
        self.ops_address
    }

    /// Starts shards and listeners, and returns once clients are served. Blocks until the journal's lanes are taken over.
    ///
    /// # Errors
    /// [`StartError`] says what to change.
    pub fn start(
        self,
        store: Arc<dyn Store>,
        authenticator: Arc<dyn Authenticator>,
    ) -> Result<Broker, StartError> {
        let Preparation {
            config,
            certificates,
            ops,
            ops_address,
        } = self;
        let mut sockets = Sockets::bind(&config, ops_address)?;
        let topology = Topology {
            shards: config.shards,
            lanes: store.lanes(),
        };
        let node = Node {
            clock: Clock::start(),
            store,
            authenticator,
            admission: Admission::new(
                config.connections_max,
                config.connections_per_address_max,
                config.connections_per_user_max,
            ),
            mailboxes: Mailbox::all(config.shards, config.forward_bytes_max),
            fate: Fate::new(),
            config: Arc::new(config),
        };
        let listeners = sockets.share_out(&node.config, certificates.as_ref())?;
        let shared = Arc::new(Shared::new(
            node.clone(),
            topology,
            sockets.addresses,
            certificates,
        ));
        ops.tell(Arc::clone(&shared));
        // From here on an early return drops what was started, which ends it.
        let mut broker = Broker {
            shared,
            shards: Vec::new(),
            ops: Some(ops),
        };
        broker.start_shards(&node, topology, listeners)?;
        broker.shared.set_phase(Phase::Serving);
        Ok(broker)
    }
}

impl Broker {
    /// What comes before the store is opened, which may take long: reads certificate and key, sees that every address can be
    /// listened on, and has the operations port say that the broker starts.
    ///
    /// # Errors
    /// [`StartError`] says what to change.
    pub fn prepare(config: BrokerConfig) -> Result<Preparation, StartError> {
        let preparation = Self::begin(config)?;
        let Preparation { config, .. } = &preparation;
        bind("tcp", config.tcp, listen::probe_tcp)?;
        bind("tls", config.tls, listen::probe_tcp)?;
        bind("quic", config.quic, listen::probe_udp)?;
        Ok(preparation)
    }

    /// Both at once, for a store that is open.
    ///
    /// # Errors
    /// [`StartError`] says what to change.
    pub fn start(
        config: BrokerConfig,
        store: Arc<dyn Store>,
        authenticator: Arc<dyn Authenticator>,
    ) -> Result<Self, StartError> {
        Self::begin(config)?.start(store, authenticator)
    }

    fn begin(mut config: BrokerConfig) -> Result<Preparation, StartError> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(StartError::Config(problems));
        }
        if config.core.hash_seed == 0 {
            config.core.hash_seed = random_seed();
        }
        config.core.shard_bytes_max = config.shard_bytes_max();
        let certificates = config
            .tls_identity
            .clone()
            .map(Certificates::load)
            .transpose()?;
        let (mut listeners, ops_address) =
            bind("ops", config.ops, |address| listen::tcp(address, 1))?;
        let ops = ops::start(listeners.pop()).map_err(|cause| thread(&cause))?;
        Ok(Preparation {
            config,
            certificates,
            ops,
            ops_address,
        })
    }

    fn start_shards(
        &mut self,
        node: &Node,
        topology: Topology,
        listeners: Vec<Listeners>,
    ) -> Result<(), StartError> {
        let processors = if node.config.pin {
            core_affinity::get_core_ids().unwrap_or_default()
        } else {
            Vec::new()
        };
        let (ready, answers) = mpsc::channel();
        for (number, listeners) in (0..topology.shards).zip(listeners) {
            let core = processors
                .get(usize::from(number) % processors.len().max(1))
                .copied();
            let seed = Seed {
                id: ShardId(number),
                topology,
                node: node.clone(),
                listeners,
                core,
            };
            let handle = shard::start(seed, ready.clone()).map_err(|cause| thread(&cause))?;
            self.shards.push(handle);
        }
        drop(ready);
        for _ in 0..topology.shards {
            match answers.recv() {
                Ok(Ok(())) => {}
                Ok(Err(ShardError::Claim(error))) => return Err(StartError::Claim(error)),
                Ok(Err(error)) => return Err(StartError::Shard(error.to_string())),
                Err(_) => return Err(StartError::Shard("its thread ended".to_owned())),
            }
        }
        self.shared.set_controls(
            self.shards
                .iter()
                .map(|shard| shard.control().clone())
                .collect(),
        );
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.shared.addresses()
    }

    /// Reads certificate and key again. Open connections keep what they have; when the new ones cannot be used, so does
    /// everybody. Files that change are noticed without this within seconds.
    ///
    /// # Errors
    /// [`IdentityError`]: the ones before stay.
    pub fn reload_certificates(&self) -> Result<(), IdentityError> {
        self.shared
            .certificates()
            .map_or(Ok(()), |certificates| certificates.reload())
    }

    /// Ends the sessions with tokens of keys that the authenticator does not trust any more, a thousand a second of each shard; to
    /// be called when a key was withdrawn.
    pub fn end_untrusted(&self) {
        self.order(|| Control::EndUntrusted);
    }

    /// Takes no connections any more and tells clients to go, each at a random moment of `window`. Returns how many are
    /// left, at the end of the window at the latest.
    pub async fn drain(&self, window: Duration) -> usize {
        self.shared.set_phase(Phase::Draining);
        let window_ms = u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
        self.order(|| Control::Drain { window_ms });
        let end = Instant::now() + window;
        while self.shared.open_connections() > 0 && Instant::now() < end {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.shared.open_connections()
    }

    /// Stops: reads nothing any more, answers what was accepted, writes what is queued, closes, and has the views catch up.
    /// Clients that were not drained before are told to come back at once.
    ///
    /// # Errors
    /// See [`StopError`].
    pub async fn stop(mut self) -> Result<(), StopError> {
        if self.shared.phase() != Phase::Draining {
            self.shared.set_phase(Phase::Draining);
            self.order(|| Control::Drain { window_ms: 0 });
        }
        self.order(|| Control::StopReading);
        let end = Instant::now()
            + Duration::from_millis(self.shared.node().config.stop_timeout_ms.into());
        // What one shard has sent may wake another: twice idle in a row is idle.
        let mut idle_rounds = 0;
        while idle_rounds < 2 && Instant::now() < end && self.shared.node().fate.reason().is_none()
        {
            let figures = self.shared.figures().await;
            let idle = figures.complete && figures.shards.iter().all(|shard| shard.idle);
            idle_rounds = if idle { idle_rounds + 1 } else { 0 };
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.order(|| Control::End);
        let end = Instant::now()
            + Duration::from_millis(self.shared.node().config.close_timeout_ms.into())
            + FAREWELL;
        for shard in &mut self.shards {
            if let Some(ended) = shard.take_ended() {
                // A shard that hangs in its last work is left to the end of the process.
                let _ = tokio::time::timeout_at(end, ended).await;
            }
        }
        if let Some(ops) = self.ops.take() {
            ops.stop().await;
        }
        match self.shared.node().fate.reason() {
            // A poisoned journal has nothing to settle; recovery does it.
            Some(reason) => Err(reason.into()),
            None => Ok(self.shared.node().store.settle().await?),
        }
    }

    /// Resolves when the broker cannot go on: the process has to end with an error, and be started again.
    pub async fn stopped(&self) -> StopReason {
        self.shared.node().fate.reported().await
    }

    fn order(&self, order: impl Fn() -> Control) {
        for shard in &self.shards {
            // A shard that has ended needs no orders.
            let _ = shard.control().send(order());
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.order(|| Control::End);
    }
}

/// Everything that was bound, before shards share it.
struct Sockets {
    addresses: Addresses,
    tcp: Vec<TcpListener>,
    tls: Vec<TcpListener>,
    quic: Vec<UdpSocket>,
}

impl Sockets {
    fn bind(config: &BrokerConfig, ops: Option<SocketAddr>) -> Result<Self, StartError> {
        let shards = config.shards;
        let (tcp, tcp_address) = bind("tcp", config.tcp, |address| listen::tcp(address, shards))?;
        let (tls, tls_address) = bind("tls", config.tls, |address| listen::tcp(address, shards))?;
        let (quic, quic_address) =
            bind("quic", config.quic, |address| listen::udp(address, shards))?;
        let addresses = Addresses {
            tcp: tcp_address,
            tls: tls_address,
            quic: quic_address,
            ops,
        };
        Ok(Self {
            addresses,
            tcp,
            tls,
            quic,
        })
    }

    /// One set for each shard, in their order.
    fn share_out(
        &mut self,
        config: &BrokerConfig,
        certificates: Option<&Arc<Certificates>>,
    ) -> Result<Vec<Listeners>, StartError> {
        let mut acceptor = None;
        let mut endpoints = None;
        if let Some(certificates) = certificates {
            acceptor = Some(Arc::new(certificates.server_config()?));
            endpoints = Some(quic::Shared::new(certificates, config)?);
        }
        let mut tcp = self.tcp.drain(..);
        let mut tls = self.tls.drain(..);
        let mut quic = self.quic.drain(..);
        let shares = (0..config.shards).map(|_| Listeners {
            tcp: tcp.next(),
            tls: tls.next().zip(acceptor.clone()),
            quic: quic.next().zip(endpoints.clone()),
        });
        Ok(shares.collect())
    }
}

fn bind<S>(
    what: &'static str,
    address: Option<SocketAddr>,
    bind: impl FnOnce(SocketAddr) -> io::Result<(Vec<S>, SocketAddr)>,
) -> Result<(Vec<S>, Option<SocketAddr>), StartError> {
    let Some(address) = address else {
        return Ok((Vec::new(), None));
    };
    let (sockets, actual) = bind(address).map_err(|cause| StartError::Listen {
        what,
        address,
        cause,
    })?;
    Ok((sockets, Some(actual)))
}
