//! A broker that can be stopped and started again on its data and its ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rialto_broker::{Addresses, Authenticator, Broker, BrokerConfig, TlsIdentity};
use rialto_core::io::Identity;
use rialto_sdk::{
    Client, ClientBuilder, ConversationId, Create, DeviceId, ErrorCode, Event, Events,
    ReconnectPolicy, Roots, UserId, v1,
};
use rialto_storage::embedded::{EmbeddedOptions, EmbeddedStore};
use tempfile::TempDir;

const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Takes `NAME` for a token of the user with that name.
#[derive(Debug)]
struct NamedUsers;

impl Authenticator for NamedUsers {
    fn verify(&self, token: &str, unix_ms: u64) -> Result<Identity, ErrorCode> {
        Ok(Identity {
            user: UserId::from_name(token),
            expires_ms: unix_ms + 3_600_000,
            service: false,
            key: None,
        })
    }
}

pub(crate) struct Node {
    dir: TempDir,
    certificate: String,
    key: String,
    addresses: Addresses,
    broker: Option<Broker>,
}

impl Node {
    pub(crate) fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut node = Self {
            dir: tempfile::tempdir().unwrap(),
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            addresses: Addresses {
                tcp: Some(FREE),
                tls: Some(FREE),
                quic: Some(FREE),
                ops: None,
            },
            broker: None,
        };
        node.start_again();
        node
    }

    /// Starts on the data and the ports of before.
    pub(crate) fn start_again(&mut self) {
        let mut config = BrokerConfig {
            shards: 2,
            pin: false,
            tcp: self.addresses.tcp,
            tls: self.addresses.tls,
            quic: self.addresses.quic,
            ops: None,
            tls_identity: Some(TlsIdentity::Pem {
                certificates: self.certificate.clone().into(),
                key: self.key.clone().into(),
            }),
            ..BrokerConfig::default()
        };
        config.core.publish_per_s = 0;
        config.core.requests_per_s = 0;
        let store = EmbeddedStore::open(self.dir.path(), EmbeddedOptions::default()).unwrap();
        let broker = Broker::start(config, Arc::new(store), Arc::new(NamedUsers)).unwrap();
        self.addresses = broker.addresses();
        self.broker = Some(broker);
    }

    pub(crate) async fn stop(&mut self) {
        self.broker.take().unwrap().stop().await.unwrap();
    }

    pub(crate) fn tcp(&self) -> String {
        format!("tcp://{}", self.addresses.tcp.unwrap())
    }

    pub(crate) fn tls(&self) -> String {
        format!("tls://localhost:{}", self.addresses.tls.unwrap().port())
    }

    pub(crate) fn quic(&self) -> String {
        format!("quic://localhost:{}", self.addresses.quic.unwrap().port())
    }

    pub(crate) fn builder(&self, user: &str) -> ClientBuilder {
        let policy = ReconnectPolicy {
            base_ms: 5,
            max_ms: 20,
            attempts_max: None,
        };
        Client::builder()
            .token(user)
            .device(DeviceId::v4([7; 16]))
            .roots(Roots::Pem(self.certificate.clone().into_bytes()))
            .reconnect(policy)
    }

    pub(crate) async fn client(&self, user: &str) -> (Client, Events) {
        self.client_over(&self.tcp(), user).await
    }

    pub(crate) async fn client_over(&self, endpoint: &str, user: &str) -> (Client, Events) {
        self.builder(user)
            .endpoint(endpoint)
            .connect()
            .await
            .unwrap()
    }
}

/// A group of the client and others.
pub(crate) async fn group(client: &Client, others: &[&str]) -> ConversationId {
    let others = others.iter().map(|name| UserId::from_name(name));
    let create = others.fold(Create::group("den"), Create::member);
    client.create(create).await.unwrap().conversation
}

/// The next events of a conversation, until `messages` of them are messages: their texts. Checks that no number is left out
/// and none comes twice, `next` being the one that is expected.
pub(crate) async fn texts(
    events: &mut Events,
    room: ConversationId,
    next: &mut u64,
    messages: usize,
) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < messages {
        let Event::Delivered {
            conversation,
            events,
        } = events.next().await.unwrap()
        else {
            continue;
        };
        assert_eq!(conversation, room);
        for event in events {
            assert_eq!(event.seq, *next);
            *next += 1;
            texts.extend(text_of(&event));
        }
    }
    texts
}

pub(crate) fn text_of(event: &v1::Event) -> Option<String> {
    match &event.content {
        Some(v1::event::Content::Message(message)) => {
            Some(String::from_utf8(message.body.to_vec()).unwrap())
        }
        _ => None,
    }
}
