//! A replay against the real broker: every reader's log is the file, whatever happens meanwhile.

#![allow(clippy::unwrap_used)] // in helpers as in every test

#[path = "support/broker.rs"]
mod broker;
#[path = "support/chat.rs"]
mod chat;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker::Broker;
use rialto_loadgen::corpus::Limit;
use rialto_loadgen::counters::Counters;
use rialto_loadgen::replay::{Options, OtherLog, ReplayError, Report, Sharing, replay};
use rialto_loadgen::tokens::Tokens;
use rialto_sdk::Roots;

const DAYS: usize = 4;
const MESSAGES: usize = 500;

fn options(file: &Path, target: &str, run: &str) -> Options {
    Options {
        file: file.to_owned(),
        limit: Limit::default(),
        target: target.parse().unwrap(),
        tokens: Tokens::Development,
        roots: Roots::InsecureLoopbackOnly,
        sharing: Sharing::None,
        speed: None,
        readers: 1,
        run: run.to_owned(),
        seed: 1,
        at_once: 64,
        window: 16,
        settle: Duration::from_secs(30),
        patience: Duration::from_secs(60),
        counters: Arc::default(),
    }
}

/// The report of a replay in which nothing went wrong.
fn clean(report: &Report, readers: u64) {
    assert!(report.clean, "{report:#?}");
    assert_eq!(report.published + report.resumed, report.messages);
    assert_eq!(
        report.delivered,
        report.messages * readers,
        "every reader got every message"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reader_gets_the_file_over_every_transport() {
    let (folder, broker) = (tempfile::tempdir().unwrap(), Broker::start());
    let file = chat::write(folder.path(), DAYS, MESSAGES);
    for transport in ["tcp", "tls", "quic"] {
        for sharing in [Sharing::None, Sharing::Among(3)] {
            let run = format!("{transport} {sharing:?}");
            let options = Options {
                sharing,
                readers: 2,
                ..options(&file, &broker.target(transport), &run)
            };
            let report = Box::pin(replay(options)).await.unwrap();
            clean(&report, 4);
            assert_eq!(
                (report.messages, report.conversations, report.reconnects),
                ((DAYS * MESSAGES) as u64, DAYS as u64, 0)
            );
            let speakers = if sharing == Sharing::None {
                report.users
            } else {
                3
            };
            assert_eq!(
                report.connections,
                speakers + 2 + 4,
                "two of the keeper, and one a reader"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_three_times_loses_and_repeats_nothing() {
    let (folder, mut broker) = (tempfile::tempdir().unwrap(), Broker::start());
    let file = chat::write(folder.path(), DAYS, 4 * MESSAGES);
    let counters = Arc::new(Counters::default());
    let options = Options {
        counters: counters.clone(),
        ..options(&file, &broker.target("tcp"), "killed")
    };
    let messages = (DAYS * 4 * MESSAGES) as u64;
    let killer = tokio::spawn(async move {
        // Early: most is still to come, however late this task finds the processor.
        for share in 1..=3 {
            while counters.now().published < messages * share / 16 {
                tokio::task::yield_now().await;
            }
            tokio::task::block_in_place(|| broker.kill_and_restart());
        }
        broker
    });
    let report = Box::pin(replay(options)).await.unwrap();
    drop(killer.await.unwrap());
    clean(&report, 3);
    assert!(report.reconnects > 3, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_on_where_an_earlier_one_of_its_run_ended() {
    let (folder, mut broker) = (tempfile::tempdir().unwrap(), Broker::start());
    let file = chat::write(folder.path(), DAYS, MESSAGES);
    let half = Limit {
        messages: Some(DAYS * MESSAGES / 2),
        logs: None,
    };
    let first = Box::pin(replay(Options {
        limit: half,
        ..options(&file, &broker.target("tcp"), "run")
    }))
    .await
    .unwrap();
    clean(&first, 3);
    broker.kill_and_restart();
    let second = Box::pin(replay(options(&file, &broker.target("tls"), "run")))
        .await
        .unwrap();
    clean(&second, 3);
    assert_eq!((first.published, second.resumed), (1000, 1000));

    let other = chat::write(folder.path(), 1, 3);
    let text = Box::pin(replay(options(&other, &broker.target("tcp"), "run"))).await;
    assert!(
        matches!(text, Err(ReplayError::OtherLog(OtherLog { .. }))),
        "{text:?}"
    );
}
