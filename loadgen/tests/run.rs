//! Made load against the real broker: what is reported is what happened.

#![allow(clippy::unwrap_used)] // in helpers as in every test

#[path = "support/broker.rs"]
mod broker;

use std::time::Duration;

use broker::Broker;
use rialto_loadgen::broker_process::BrokerProcess;
use rialto_loadgen::run::{Options, Report, RunError, run};
use rialto_loadgen::tokens::Tokens;
use rialto_sdk::Roots;

fn options(target: &str) -> Options {
    Options {
        target: target.parse().unwrap(),
        tokens: Tokens::Development,
        roots: Roots::InsecureLoopbackOnly,
        connections: 12,
        publishers: 6,
        readers: 3,
        conversations: 4,
        rate: None,
        in_flight: 8,
        size: "16..200".parse().unwrap(),
        duration: Duration::from_millis(500),
        warm_up: Duration::from_millis(100),
        threads: 2,
        broker: None,
        settle: Duration::from_secs(30),
        patience: Duration::from_secs(30),
    }
}

async fn clean(options: Options) -> Report {
    let report = run(options).await.unwrap();
    assert!(report.clean, "{report:#?}");
    assert!(
        report.published > 0 && report.delivered > 0 && report.ack_ms.p50 > 0.0,
        "{report:#?}"
    );
    assert!(report.ack_ms.p50 <= report.ack_ms.p999 && report.ack_ms.p999 <= report.ack_ms.max);
    report
}

#[tokio::test]
async fn load_runs_over_every_transport_and_readers_miss_nothing() {
    let broker = Broker::start();
    for transport in ["tcp", "tls", "quic"] {
        clean(options(&broker.target(transport))).await;
    }
}

#[tokio::test]
async fn a_rate_is_kept_and_the_brokers_process_is_watched() {
    let broker = Broker::start();
    let watched = BrokerProcess::of(broker.pid()).unwrap();
    let rate = 500.0;
    let options = Options {
        rate: Some(rate),
        broker: Some(watched),
        ..options(&broker.target("tcp"))
    };
    let report = clean(options).await;
    // What is acknowledged in the window was due in it or shortly before; twice the rate would be another rate.
    assert!(
        report.published_per_s < 2.0 * rate && report.in_flight.is_none(),
        "{report:#?}"
    );
    let usage = report.broker.unwrap();
    assert!(usage.resident_bytes > 1 << 20, "{usage:?}");
}

#[tokio::test]
async fn a_broker_that_is_killed_is_waited_for() {
    let mut broker = Broker::start();
    let options = Options {
        duration: Duration::from_secs(3),
        ..options(&broker.target("tcp"))
    };
    let killer = async {
        // In whatever stage the kills meet the load, it has to come through.
        tokio::task::spawn_blocking(move || {
            broker.kill_and_restart();
            broker.kill_and_restart();
            broker
        })
        .await
    };
    let (report, broker) = tokio::join!(run(options), killer);
    drop(broker.unwrap());
    let report = report.unwrap();
    assert!(report.clean, "{report:#?}");
}

#[tokio::test]
async fn numbers_that_do_not_fit_each_other_are_refused() {
    let few = Options {
        connections: 5,
        ..options("tcp://127.0.0.1:1")
    };
    let nobody = Options {
        publishers: 0,
        ..options("tcp://127.0.0.1:1")
    };
    let slow = Options {
        rate: Some(0.0),
        ..options("tcp://127.0.0.1:1")
    };
    for options in [few, nobody, slow] {
        let refused = run(options).await;
        assert!(matches!(refused, Err(RunError::Options(_))), "{refused:?}");
    }
}
