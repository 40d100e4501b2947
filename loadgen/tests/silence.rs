//! Brokers that are there and do not do what they are to: a run ends all the same, and tells it.

#![allow(clippy::unwrap_used)] // in helpers as in every test

#[path = "support/mute.rs"]
mod mute;

use std::time::Duration;

use rialto_loadgen::run::{Options, Pace, Part, Phase, PhaseKind, Report, Shape, Spec, run};
use rialto_loadgen::tokens::Tokens;
use rialto_loadgen::watch::Watch;
use rialto_protocol::error::ErrorCode;
use rialto_protocol::v1;
use rialto_sdk::Roots;

/// A bound for what would otherwise hang.
const LONG: Duration = Duration::from_secs(60);

/// 300 messages of one publisher, and what came of them.
async fn report(welcome: v1::Welcome, answer: mute::Answer, readers: usize) -> Report {
    let rate = Pace::Rate {
        from: 3000.0,
        to: 3000.0,
    };
    let options = Options {
        target: mute::serve(welcome, answer).parse().unwrap(),
        tokens: Tokens::Development,
        roots: Roots::InsecureLoopbackOnly,
        broker: None,
        spec: Spec {
            connections: 1 + readers,
            publishers: 1,
            readers,
            parts: vec![Part::of(Shape::Channels { count: 1 })],
            phases: vec![Phase {
                name: "load".into(),
                kind: PhaseKind::Steady,
                pace: rate,
                duration: Duration::from_millis(100),
                measured: true,
            }],
            settle: Duration::from_millis(400),
            ..Spec::now().unwrap()
        },
        workers: Vec::new(),
        watch: Watch::silent(),
    };
    let report = tokio::time::timeout(LONG, run(options)).await;
    report.expect("a run that ends").unwrap()
}

/// Little may be under way, so most of it is not even sent.
fn narrow() -> v1::Welcome {
    v1::Welcome {
        keep_alive_ms: 50,
        limits: Some(v1::Limits {
            in_flight_bytes_max: 4096,
            ..v1::Limits::default()
        }),
        ..v1::Welcome::default()
    }
}

#[tokio::test]
async fn what_is_never_answered_has_failed_and_so_has_what_waits_behind_it() {
    let report = report(narrow(), |_| None, 0).await;
    assert_eq!((report.published, report.failed, report.clean), (0, 300, false));
    let words = &report.problems[0];
    assert!(words.contains("could not be sent"), "{words}");
}

#[tokio::test]
async fn what_is_refused_for_now_without_end_has_failed() {
    let refusal = |_| {
        Some(v1::Receipt {
            error: Some(ErrorCode::Overloaded.to_proto(1)),
            ..v1::Receipt::default()
        })
    };
    let report = report(narrow(), refusal, 0).await;
    assert_eq!((report.published, report.failed), (0, 300));
    assert!(report.refused > 0);
}

#[tokio::test]
async fn a_reader_that_hears_nothing_but_answers_to_ping_has_lost_what_is_missing() {
    let receipt = |request_id: u32| {
        Some(v1::Receipt {
            epoch: 1,
            seq: u64::from(request_id) + 1,
            ..v1::Receipt::default()
        })
    };
    // Far more often than a reader gives up.
    let welcome = v1::Welcome {
        keep_alive_ms: 5,
        ..v1::Welcome::default()
    };
    let report = report(welcome, receipt, 1).await;
    assert_eq!((report.published, report.delivered), (300, 0));
    assert_eq!(report.violations.lost, 300, "{report:#?}");
}
