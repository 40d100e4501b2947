//! What was acknowledged is there after a restart.

use std::sync::Arc;

use rialto_broker::Broker;
use rialto_storage::embedded::{EmbeddedOptions, EmbeddedStore};

use crate::support::{Client, NamedUsers, Target, config, identity, text_of, within};

#[tokio::test]
async fn what_was_acknowledged_is_read_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = identity();
    let start = || {
        let options = EmbeddedOptions {
            segment_bytes: 8 << 20,
            ..EmbeddedOptions::default()
        };
        let store = EmbeddedStore::open(dir.path(), options).unwrap();
        Broker::start(
            config(&certificate, &key),
            Arc::new(store),
            Arc::new(NamedUsers),
        )
        .unwrap()
    };
    let broker = start();
    let mut ann = Client::connect(&Target::Tcp(broker.addresses().tcp.unwrap())).await;
    ann.hello("ann").await;
    let conversation = ann.create_group(1, &[]).await;
    let receipt = ann.publish(conversation, "first").await;
    within("stopping", broker.stop()).await.unwrap();

    let broker = start();
    let mut ann = Client::connect(&Target::Tcp(broker.addresses().tcp.unwrap())).await;
    ann.hello("ann").await;
    let next = ann.publish(conversation, "second").await;
    assert!(
        next.epoch > receipt.epoch && next.seq == receipt.seq + 1,
        "{receipt:?} and then {next:?}"
    );
    ann.follow_all(conversation).await;
    let texts: Vec<_> = ann.messages(2).await.iter().map(text_of).collect();
    assert_eq!(texts, ["first", "second"]);
    within("stopping", broker.stop()).await.unwrap();
}
