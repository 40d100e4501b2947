//! Over TLS what waits for the rest of a record counts like the beginning of a frame.

use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{Node, Target, within};

/// A record of content, of the greatest length (RFC 8446, section 5.1).
const HEADER: [u8; 5] = [23, 3, 3, 0x40, 0];

#[tokio::test]
async fn beginnings_of_records_have_the_budget_of_beginnings_of_frames() {
    const REFUSED: &str = "rialto_shed_total{queue=\"partial_frame\",reason=\"shard_budget\"}";
    let node = Node::start_with(|config| {
        config.shards = 1;
        config.core.handshake_timeout_ms = 60_000;
        // A quarter of it is for beginnings of frames.
        config.core.shard_bytes_max = 4 * (256 << 10);
    });
    let Target::Tls(address, _) = node.tls() else {
        unreachable!()
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(node.tls().tls_config()));
    let mut held = Vec::new();
    for _ in 0..20 {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let (mut socket, _) = stream.into_inner();
        let mut record = HEADER.to_vec();
        record.resize(16_000, 0);
        socket.write_all(&record).await.unwrap();
        held.push(socket);
    }
    let refused = async {
        while node.metric(REFUSED).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    within("a refusal", refused).await;
    node.stop().await;
}
