//! Brokers that are there and do not do what they are to, and loads that are interrupted: a run ends all the same, and tells it.

#![allow(clippy::unwrap_used)] // in helpers as in every test

#[path = "support/mute.rs"]
mod mute;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rialto_loadgen::broker_process::BrokerProcess;
use rialto_loadgen::run::{
    Interrupts, Options, Pace, Part, Phase, PhaseKind, Report, RunError, Shape, Spec, run,
};
use rialto_loadgen::tokens::Tokens;
use rialto_loadgen::watch::Watch;
use rialto_protocol::error::ErrorCode;
use rialto_protocol::frame;
use rialto_protocol::ids::RequestId;
use rialto_protocol::v1;
use rialto_sdk::Roots;
use tokio::sync::mpsc;

use mute::{Answer, receipt};

/// A bound for what would otherwise hang.
const LONG: Duration = Duration::from_secs(60);

/// 300 messages of one publisher.
fn options(welcome: v1::Welcome, answer: Answer, readers: usize) -> Options {
    let rate = Pace::Rate {
        from: 3000.0,
        to: 3000.0,
    };
    Options {
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
        interrupts: Interrupts::never(),
    }
}

/// What comes of it.
async fn ran(options: Options) -> Report {
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

/// Acknowledges everything, in the order in which it comes.
fn taken(request_id: u32) -> Option<bytes::Bytes> {
    let taken = v1::Receipt {
        epoch: 1,
        seq: u64::from(request_id) + 1,
        ..v1::Receipt::default()
    };
    receipt(request_id, taken)
}

#[tokio::test]
async fn what_is_never_answered_has_failed_and_so_has_what_waits_behind_it() {
    let report = ran(options(narrow(), Arc::new(|_| None), 0)).await;
    assert_eq!(
        (report.published, report.failed, report.clean),
        (0, 300, false)
    );
    let words = &report.problems[0];
    assert!(words.contains("could not be sent"), "{words}");
}

#[tokio::test]
async fn what_is_refused_for_now_without_end_has_failed() {
    let refusal = |request_id| {
        let refused = v1::Receipt {
            error: Some(ErrorCode::Overloaded.to_proto(1)),
            ..v1::Receipt::default()
        };
        receipt(request_id, refused)
    };
    let report = ran(options(narrow(), Arc::new(refusal), 0)).await;
    assert_eq!((report.published, report.failed), (0, 300));
    assert!(report.refused > 0);
}

#[tokio::test]
async fn a_reader_that_hears_nothing_but_answers_to_ping_has_lost_what_is_missing() {
    // Far more often than a reader gives up.
    let welcome = v1::Welcome {
        keep_alive_ms: 5,
        ..v1::Welcome::default()
    };
    let answer = |request_id| match request_id {
        mute::PING => None,
        _ => taken(request_id),
    };
    let report = ran(options(welcome, Arc::new(answer), 1)).await;
    assert_eq!((report.published, report.delivered), (300, 0));
    assert_eq!(report.violations.lost, 300, "{report:#?}");
}

/// A load without an end, which is interrupted so often when it has begun.
fn interrupted(times: usize, answer: fn(u32) -> Option<bytes::Bytes>) -> Options {
    let (interrupt, interrupts) = mpsc::channel(2);
    let answer = move |request_id| {
        if request_id == 50 {
            (0..times).for_each(|_| interrupt.try_send(()).unwrap());
        }
        answer(request_id)
    };
    let mut options = options(v1::Welcome::default(), Arc::new(answer), 0);
    options.spec.phases[0].duration = Duration::from_secs(1_000_000);
    options.spec.settle = Duration::from_secs(1_000_000);
    options.interrupts = Interrupts::from(interrupts);
    options
}

#[tokio::test]
async fn an_interrupted_load_is_told_and_judged() {
    let report = ran(interrupted(1, taken)).await;
    let words = report.ended_early.unwrap();
    assert!(words.contains("interrupted after"), "{words}");
    assert_eq!((report.failed, report.clean), (0, false));
    assert_eq!(report.check, "acknowledgements");
    assert!(report.published >= 50 && report.published_per_s > 0.0);
    assert_eq!(report.phases[0].published, report.published);
}

#[tokio::test]
async fn a_load_that_is_interrupted_twice_waits_for_nothing() {
    let report = ran(interrupted(2, |_| None)).await;
    assert!(report.ended_early.is_some());
    assert_eq!((report.published, report.check.as_str()), (0, "unfinished"));
}

#[tokio::test]
async fn before_the_load_has_begun_there_is_nothing_to_tell() {
    let (interrupt, interrupts) = mpsc::channel(1);
    interrupt.send(()).await.unwrap();
    let mut options = options(v1::Welcome::default(), Arc::new(taken), 0);
    options.interrupts = Interrupts::from(interrupts);
    let ended = run(options).await;
    assert!(matches!(ended, Err(RunError::Interrupted)), "{ended:?}");
}

#[tokio::test]
async fn a_broker_that_goes_for_good_leaves_what_was_measured() {
    let gone = |request_id| {
        if request_id < 100 {
            return taken(request_id);
        }
        Some(frame::error(RequestId::PUSH, ErrorCode::TokenExpired, 0))
    };
    let report = ran(options(v1::Welcome::default(), Arc::new(gone), 0)).await;
    let words = report.ended_early.unwrap();
    assert!(words.contains("201"), "{words}");
    assert_eq!((report.published, report.clean), (99, false));
    assert_eq!(report.check, "unfinished");
}

#[tokio::test]
async fn a_load_that_nobody_would_judge_ends_at_once() {
    let begun = AtomicBool::new(false);
    let alone = move |request_id| {
        if request_id != mute::PING {
            begun.store(true, Ordering::Relaxed);
            return taken(request_id);
        }
        let refusal = || frame::error(RequestId::PUSH, ErrorCode::TokenExpired, 0);
        begun.load(Ordering::Relaxed).then(refusal)
    };
    let welcome = v1::Welcome {
        keep_alive_ms: 5,
        ..v1::Welcome::default()
    };
    let mut options = options(welcome, Arc::new(alone), 1);
    options.spec.phases[0].duration = Duration::from_secs(1_000_000);
    let report = ran(options).await;
    assert!(report.ended_early.is_some(), "{report:#?}");
}

#[tokio::test]
async fn a_process_that_is_watched_may_end() {
    let process = Command::new("sleep").arg("1000").spawn().unwrap();
    let watched = BrokerProcess::of(process.id()).unwrap();
    let process = Mutex::new(process);
    let ending = move |request_id| {
        if request_id == 50 {
            let mut process = process.lock().unwrap();
            process.kill().unwrap();
            process.wait().unwrap();
        }
        taken(request_id)
    };
    let mut options = options(v1::Welcome::default(), Arc::new(ending), 0);
    options.broker = Some(watched);
    let report = ran(options).await;
    assert_eq!((report.published, report.clean), (300, true));
    let words = &report.problems[0];
    assert!(words.contains("watched no longer"), "{words}");
}
