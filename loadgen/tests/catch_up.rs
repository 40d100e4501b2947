//! A reader who was away gets everything, from the real broker, over every transport.

#![allow(clippy::unwrap_used)] // in helpers as in every test

#[path = "support/broker.rs"]
mod broker;

use broker::Broker;
use rialto_loadgen::catch_up::{CatchUpError, Options, catch_up};
use rialto_loadgen::tokens::Tokens;
use rialto_sdk::Roots;

fn options(target: &str, messages: u64) -> Options {
    Options {
        target: target.parse().unwrap(),
        tokens: Tokens::Development,
        roots: Roots::InsecureLoopbackOnly,
        messages,
        body_bytes: 40,
    }
}

#[tokio::test]
async fn a_finished_log_is_read_from_its_beginning_over_every_transport() {
    let broker = Broker::start();
    for transport in ["tcp", "tls", "quic"] {
        let report = catch_up(options(&broker.target(transport), 3000))
            .await
            .unwrap();
        assert_eq!(report.messages, 3000);
        assert!(report.read_per_s > 0.0 && report.fill_s > 0.0, "{report:?}");
    }
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_an_error() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let error = catch_up(options(&target, 1)).await.unwrap_err();
    assert!(matches!(error, CatchUpError::Lost(_)), "{error}");
}
