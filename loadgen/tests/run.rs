//! Made load against the real broker: what is reported is what happened.

#![allow(clippy::unwrap_used)] // in helpers as in every test

#[path = "support/broker.rs"]
mod broker;

use std::time::Duration;

use broker::Broker;
use rialto_loadgen::broker_process::BrokerProcess;
use rialto_loadgen::run::{
    Check, Interrupts, Options, Pace, Part, Phase, PhaseKind, Report, RunError, Shape, Spec, run,
};
use rialto_loadgen::tokens::Tokens;
use rialto_loadgen::watch::Watch;
use rialto_sdk::Roots;

fn phase(pace: Pace, duration_ms: u64) -> Phase {
    Phase {
        name: "load".into(),
        kind: PhaseKind::Steady,
        pace,
        duration: Duration::from_millis(duration_ms),
        measured: true,
    }
}

/// All that is due is published, however late.
fn rate(per_s: f64) -> Pace {
    Pace::Rate {
        from: per_s,
        to: per_s,
    }
}

fn options(target: &str) -> Options {
    Options {
        target: target.parse().unwrap(),
        tokens: Tokens::Development,
        roots: Roots::InsecureLoopbackOnly,
        broker: None,
        spec: Spec {
            connections: 12,
            publishers: 6,
            readers: 3,
            parts: vec![Part::of(Shape::Channels { count: 4 })],
            size: "32..200".parse().unwrap(),
            phases: vec![phase(rate(400.0), 500)],
            settle: Duration::from_secs(30),
            patience: Duration::from_secs(30),
            threads: 2,
            ..Spec::now().unwrap()
        },
        workers: Vec::new(),
        watch: Watch::silent(),
        interrupts: Interrupts::never(),
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
        let mut options = options(&broker.target(transport));
        options.spec.phases = vec![phase(Pace::Max { in_flight: 8 }, 2000)];
        clean(options).await;
    }
}

#[tokio::test]
async fn a_rate_is_kept_and_the_brokers_process_is_watched() {
    let broker = Broker::start();
    let watched = BrokerProcess::of(broker.pid()).unwrap();
    let mut options = options(&broker.target("tcp"));
    options.broker = Some(watched);
    let ramp = Pace::Rate {
        from: 0.0,
        to: 500.0,
    };
    options.spec.phases = vec![phase(ramp, 1200), phase(rate(500.0), 600)];
    options.spec.phases[0].measured = false;
    let report = clean(options).await;
    assert_eq!((report.rate, report.in_flight), (Some(500.0), None));
    // What is due in a phase is published, however late: 300 in each.
    assert!(report.phases[0].published.abs_diff(300) <= 1, "{report:#?}");
    assert_eq!((report.published, report.phases[1].published), (300, 300));
    assert_eq!(report.samples.len(), 3, "{:#?}", report.samples);
    let usage = report.broker.unwrap();
    assert!(
        usage.resident_bytes > 1 << 20 && usage.open_files > 12,
        "{usage:?}"
    );
}

#[tokio::test]
async fn messages_that_come_when_the_last_phase_has_ended_count() {
    let broker = Broker::start();
    let mut options = options(&broker.target("tcp"));
    // A thousand messages, more than most machines take in so short a time.
    options.spec.phases = vec![phase(rate(1_000_000.0), 1)];
    let report = clean(options).await;
    assert_eq!((report.published, report.delivered), (1000, 3000));
}

#[tokio::test]
async fn the_check_can_be_sampled_or_left_out() {
    let broker = Broker::start();
    for check in [Check::Sampled(2), Check::Off] {
        let mut options = options(&broker.target("tcp"));
        options.spec.check = check;
        let report = clean(options).await;
        assert_eq!(report.check, check.to_string());
    }
}

#[tokio::test]
async fn groups_channels_and_threads_share_the_messages() {
    let broker = Broker::start();
    let mut options = options(&broker.target("tcp"));
    options.spec.parts = ["channels:2", "groups:20:3", "threads:40:1:5"]
        .map(|shape| Part::of(shape.parse().unwrap()))
        .into();
    let report = clean(options).await;
    assert_eq!(report.conversations, 62);
    // Each reader gets a part of what is published, and not all of it.
    assert!(report.delivered < 3 * report.published, "{report:#?}");
}

#[tokio::test]
async fn a_broker_that_is_killed_is_waited_for() {
    let mut broker = Broker::start();
    let mut options = options(&broker.target("tcp"));
    options.spec.phases = vec![phase(Pace::Max { in_flight: 8 }, 3000)];
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
    let refused = |change: fn(&mut Spec)| {
        let mut options = options("tcp://127.0.0.1:1");
        change(&mut options.spec);
        options
    };
    let few = refused(|spec| spec.connections = 5);
    let nobody = refused(|spec| spec.publishers = 0);
    let still = refused(|spec| {
        spec.phases[0].pace = Pace::Rate { from: 0.0, to: 0.0 };
    });
    let unmeasured = refused(|spec| spec.phases[0].measured = false);
    for options in [few, nobody, still, unmeasured] {
        let refused = run(options).await;
        assert!(matches!(refused, Err(RunError::Options(_))), "{refused:?}");
    }
}
