//! A broker that cannot work does not start, and says why.

use std::{net::SocketAddr, sync::Arc};

use rialto_broker::{Broker, BrokerConfig, StartError, TlsIdentity};
use rialto_storage::memory::MemoryStore;

use crate::support::{NamedUsers, Node, config, get, identity};

fn start(config: BrokerConfig) -> Result<Broker, StartError> {
    Broker::start(config, Arc::new(MemoryStore::new(4)), Arc::new(NamedUsers))
}

#[test]
fn plain_tcp_is_for_loopback_only() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let refused = start(BrokerConfig {
        tcp: Some(everywhere),
        ..BrokerConfig::default()
    });
    assert!(matches!(refused, Err(StartError::Config(problems)) if problems.len() == 1));
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let node = Node::start();
    let taken = node.broker.addresses();
    let (certificate, key) = identity();
    for (what, change) in [
        (
            "tcp",
            (|config, taken| config.tcp = taken.tcp)
                as fn(&mut BrokerConfig, rialto_broker::Addresses),
        ),
        ("tls", |config, taken| config.tls = taken.tls),
        ("quic", |config, taken| config.quic = taken.quic),
        ("ops", |config, taken| config.ops = taken.ops),
    ] {
        let mut config = config(&certificate, &key);
        change(&mut config, taken);
        let refused = [
            Broker::prepare(config.clone()).map(drop),
            start(config).map(drop),
        ];
        for refused in refused {
            match refused {
                Err(StartError::Listen { what: named, .. }) => assert_eq!(named, what),
                other => panic!("{what}: {other:?}"),
            }
        }
    }
    node.stop().await;
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused() {
    let ((certificate, _), (_, key)) = (identity(), identity());
    let mut config = config(&certificate, &key);
    config.tls_identity = Some(TlsIdentity::Pem {
        certificates: certificate.into(),
        key: key.into(),
    });
    assert!(matches!(start(config), Err(StartError::Identity(_))));
}

#[tokio::test]
async fn while_its_store_is_opened_a_broker_is_alive_and_not_ready_and_listens_to_nobody() {
    let (certificate, key) = identity();
    let config = config(&certificate, &key);
    let preparation = Broker::prepare(config).unwrap();
    let ops = preparation.ops().unwrap();
    for (path, status) in [
        ("/health/live", 200),
        ("/health/ready", 503),
        ("/metrics", 503),
        ("/status", 503),
        ("/elsewhere", 404),
    ] {
        assert_eq!(get(ops, path).await.status, status, "{path}");
    }
    let broker = preparation
        .start(Arc::new(MemoryStore::new(4)), Arc::new(NamedUsers))
        .unwrap();
    assert_eq!(broker.addresses().ops, Some(ops), "the port is kept");
    for path in ["/health/ready", "/metrics", "/status"] {
        assert_eq!(get(ops, path).await.status, 200, "{path}");
    }
    broker.stop().await.unwrap();
}

/// Nobody's connection waits for a broker that may never come.
#[tokio::test]
async fn what_is_tried_before_the_store_is_opened_is_free_again() {
    let (certificate, key) = identity();
    // An address of loopback that no other test listens on or calls from: the port stays free.
    let free = std::net::TcpListener::bind("127.77.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut config = config(&certificate, &key);
    config.tls = Some(address);
    let preparation = Broker::prepare(config).unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
    drop(preparation);
}
