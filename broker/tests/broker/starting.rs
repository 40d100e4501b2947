//! A broker that cannot work does not start, and says why.

use std::{net::SocketAddr, sync::Arc};

use rialto_broker::{Broker, BrokerConfig, StartError, TlsIdentity};
use rialto_storage::memory::MemoryStore;

use crate::support::{NamedUsers, Node, config, identity};

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
        match start(config) {
            Err(StartError::Listen { what: named, .. }) => assert_eq!(named, what),
            other => panic!("{what}: {other:?}"),
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
