//! A broker with a store in memory, tokens that anybody can make, and a client that speaks frames.

mod client;
mod http;
mod unhurried;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rialto_broker::{Authenticator, Broker, BrokerConfig, TlsIdentity, ops::Status};
use rialto_core::io::Identity;
use rialto_protocol::{error::ErrorCode, ids::UserId};
use rialto_storage::{Store, memory::MemoryStore};

pub(crate) use client::{Client, Target, text_of};
pub(crate) use http::get;
pub(crate) use unhurried::Unhurried;

/// Any free port of loopback.
pub(crate) const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// After this long something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} takes for ever"))
}

/// Takes `user:NAME` for a token of the user with that name, and panics at `panic`.
#[derive(Debug)]
pub(crate) struct NamedUsers;

impl Authenticator for NamedUsers {
    fn verify(&self, token: &str, unix_ms: u64) -> Result<Identity, ErrorCode> {
        assert_ne!(token, "panic", "a token that the verifier cannot stand");
        let name = token
            .strip_prefix("user:")
            .ok_or(ErrorCode::TokenMalformed)?;
        Ok(Identity {
            user: UserId::from_name(name),
            expires_ms: unix_ms + 3_600_000,
            service: false,
            key: None,
        })
    }
}

/// A running broker, and what clients need to reach it.
pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) store: MemoryStore,
    pub(crate) certificate: Vec<u8>,
}

/// A certificate for `localhost` and its key, both PEM.
pub(crate) fn identity() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// All transports on free ports, two shards, no rate limit.
pub(crate) fn config(certificate: &str, key: &str) -> BrokerConfig {
    let mut config = BrokerConfig {
        shards: 2,
        pin: false,
        tcp: Some(FREE),
        tls: Some(FREE),
        quic: Some(FREE),
        ops: Some(FREE),
        tls_identity: Some(TlsIdentity::Pem {
            certificates: certificate.into(),
            key: key.into(),
        }),
        ..BrokerConfig::default()
    };
    // Clients of these tests do not hang up when they are told to go.
    config.close_timeout_ms = 200;
    config.core.handshake_timeout_ms = 30_000;
    config.core.publish_per_s = 0;
    config.core.requests_per_s = 0;
    config
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| ())
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        Self::start_on(MemoryStore::new(16), change)
    }

    pub(crate) fn start_on(store: MemoryStore, change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let over = Arc::new(store.clone());
        Self::start_over(store, over, change)
    }

    /// The broker sees `over` of the store.
    pub(crate) fn start_over(
        store: MemoryStore,
        over: Arc<dyn Store>,
        change: impl FnOnce(&mut BrokerConfig),
    ) -> Self {
        let (certificate, key) = identity();
        let mut config = config(&certificate, &key);
        change(&mut config);
        let broker = Broker::start(config, over, Arc::new(NamedUsers)).unwrap();
        Self {
            broker,
            store,
            certificate: certificate.into(),
        }
    }

    pub(crate) fn tcp(&self) -> Target {
        Target::Tcp(self.broker.addresses().tcp.unwrap())
    }

    pub(crate) fn tls(&self) -> Target {
        Target::Tls(
            self.broker.addresses().tls.unwrap(),
            self.certificate.clone(),
        )
    }

    pub(crate) fn quic(&self) -> Target {
        Target::Quic(
            self.broker.addresses().quic.unwrap(),
            self.certificate.clone(),
        )
    }

    /// A connection over TCP that has said Hello.
    pub(crate) async fn join(&self, user: &str) -> Client {
        self.join_over(&self.tcp(), user).await
    }

    pub(crate) async fn join_over(&self, target: &Target, user: &str) -> Client {
        let mut client = Client::connect(target).await;
        client.hello(user).await;
        client
    }

    pub(crate) fn ops(&self) -> SocketAddr {
        self.broker.addresses().ops.unwrap()
    }

    /// How the broker does, as every shard tells it.
    pub(crate) async fn status(&self) -> Status {
        within("an answer of every shard", async {
            loop {
                let answer = get(self.ops(), "/status").await;
                let status: Status = serde_json::from_str(&answer.body).unwrap();
                if status.complete {
                    return status;
                }
            }
        })
        .await
    }

    /// As every shard tells it now or later.
    pub(crate) async fn metric(&self, line: &str) -> u64 {
        // A shard that does not answer in time is counted as it was when it last did.
        self.status().await;
        http::metric(self.ops(), line).await
    }

    /// Waits until the metric fits.
    pub(crate) async fn metric_until(&self, line: &str, fits: impl Fn(u64) -> bool) {
        within(line, async {
            while !fits(self.metric(line).await) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) async fn stop(self) {
        within("stopping", self.broker.stop()).await.unwrap();
    }
}
