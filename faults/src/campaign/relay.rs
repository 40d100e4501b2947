//! QUIC through bad weather: losses up to 30 %, delay and jitter, doubles, other addresses in the middle of a connection, and
//! darkness shorter and longer than the idle timeout.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::sleep;

use super::stage::Stage;
use crate::relay::{Relay, Weather};

/// The broker's shortest; a connection that is silent for three times that is closed.
const KEEP_ALIVE_MS: u64 = 1_000;
/// Darkness that connections survive, and darkness that they do not, milliseconds.
const SHORT_DARK_MS: (u64, u64) = (100, 1_500);
const LONG_DARK_MS: (u64, u64) = (3_500, 5_000);
/// How long other weather lasts, milliseconds.
const LASTS_MS: (u64, u64) = (300, 1_500);

pub(super) async fn run(stage: &mut Stage) -> anyhow::Result<()> {
    let keep_alive = format!("limits.keep_alive_ms={KEEP_ALIVE_MS}");
    stage.launch.settings.push(keep_alive);
    let broker = stage.start().await?;
    let quic = SocketAddr::from((Ipv4Addr::LOCALHOST, stage.launch.ports.quic));
    let relay = Relay::start(quic, stage.dice.of(2)).await?;
    let mut plan = stage.plan();
    plan.endpoints = vec![format!("quic://{}", relay.address())];
    let mut town = stage.town(plan).await?;
    let mut era = town.begin().await?;
    while let Some(round) = stage.next_round() {
        let what = pass(stage, &relay).await;
        relay.weather(Weather::default());
        stage.expect_progress(&era, &format!("after {what}")).await;
        era = stage.end_round(round, &mut town, era).await?;
    }
    let (passed, lost) = relay.counts();
    stage.figures.add("datagrams passed", passed);
    stage.figures.add("datagrams lost", lost);
    stage.close(town, era).await?;
    drop(broker);
    Ok(())
}

/// One kind of weather, for a while.
async fn pass(stage: &mut Stage, relay: &Relay) -> &'static str {
    let calm = Weather::default();
    let (name, weather, (least, most)) = match stage.dice.roll(7) {
        0 => {
            let lost = *stage.dice.pick(&[10, 50, 100, 300]);
            ("losses", Weather { lost, ..calm }, LASTS_MS)
        }
        1 => {
            let delay_ms = stage.dice.between(5, 150);
            let jitter_ms = stage.dice.between(0, 60);
            let late = Weather {
                delay_ms,
                jitter_ms,
                ..calm
            };
            ("delay and jitter", late, LASTS_MS)
        }
        2 => {
            let doubled = stage.dice.between(50, 1_000);
            ("doubles", Weather { doubled, ..calm }, LASTS_MS)
        }
        3 => ("a short darkness", Weather::DARK, SHORT_DARK_MS),
        4 => ("a long darkness", Weather::DARK, LONG_DARK_MS),
        5 => {
            let all = Weather {
                lost: 100,
                doubled: 100,
                delay_ms: 10,
                jitter_ms: 40,
            };
            ("all of it at once", all, LASTS_MS)
        }
        _ => {
            relay.change_addresses();
            ("other addresses", calm, LASTS_MS)
        }
    };
    stage.figures.add(name, 1);
    relay.weather(weather);
    let lasts: Duration = stage.dice.millis(least, most);
    sleep(lasts).await;
    name
}
