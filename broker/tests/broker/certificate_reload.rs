//! A new certificate is shown to new connections; open ones go on.

use std::fs;

use rialto_broker::TlsIdentity;

use crate::support::{Client, Node, Target, identity, text_of};

#[tokio::test]
async fn a_new_certificate_leaves_open_connections_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (certificates, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let (old, old_key) = identity();
    fs::write(&certificates, &old).unwrap();
    fs::write(&key, &old_key).unwrap();
    let mut node = Node::start_with(|config| {
        config.tls_identity = Some(TlsIdentity::Files {
            certificates: certificates.clone(),
            key: key.clone(),
        });
    });
    node.certificate = old.into_bytes();
    let mut over_tls = node.join_over(&node.tls(), "ann").await;
    let mut over_quic = node.join_over(&node.quic(), "bob").await;
    let conversation = over_tls.create_group(1, &["bob"]).await;
    over_quic.follow_all(conversation).await;

    let (new, new_key) = identity();
    fs::write(&certificates, &new).unwrap();
    // A certificate without its key is not taken.
    assert!(node.broker.reload_certificates().is_err());
    assert!(Client::try_connect(&node.tls()).await.is_ok());
    fs::write(&key, &new_key).unwrap();
    node.broker.reload_certificates().unwrap();

    let (old_tls, old_quic): (Target, Target) = (node.tls(), node.quic());
    node.certificate = new.into_bytes();
    node.join_over(&node.tls(), "cid").await;
    node.join_over(&node.quic(), "cid").await;
    assert!(Client::try_connect(&old_tls).await.is_err());
    assert!(Client::try_connect(&old_quic).await.is_err());
    over_tls.publish(conversation, "as before").await;
    assert_eq!(text_of(&over_quic.messages(1).await[0]), "as before");
    node.stop().await;
}
