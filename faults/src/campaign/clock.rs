//! The wall clock steps forward and back under load, by a second up to a day, also to before the last epoch, with restarts in
//! between: nothing of order or durability may rest on it.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use super::stage::Stage;
use crate::load::Era;

const SECOND_NS: i64 = 1_000_000_000;
/// Steps, seconds; after each of them the clock is that much beside the true time.
const STEPS_S: [i64; 12] = [
    1,
    -1,
    10,
    -10,
    60,
    -60,
    3_600,
    -3_600,
    86_400,
    -86_400,
    7 * 86_400,
    0,
];
/// Longest time between two steps, milliseconds.
const STEP_MS_MAX: u64 = 300;
/// More messages than can be under way: when so many are acknowledged, some of them were sent since.
const SINCE: u64 = 200;
/// By how much less than it stepped a clock may be ahead of ours, milliseconds: acknowledgements are on their way for a while.
const SLACK_MS: u64 = 5_000;

pub(super) async fn run(stage: &mut Stage) -> anyhow::Result<()> {
    let shim = stage.shim()?;
    let mut broker = stage.start().await?;
    let mut town = stage.town(stage.plan()).await?;
    let mut era = town.begin().await?;
    while let Some(round) = stage.next_round() {
        let step_s = *stage.dice.pick(&STEPS_S);
        shim.shift_clock(step_s * SECOND_NS)?;
        stage.figures.add("steps", 1);
        let what = format!("with the clock {step_s} s off");
        stage.expect_progress(&era, &what).await;
        if let Ok(ahead_s) = u64::try_from(step_s) {
            expect_ahead(stage, &era, ahead_s, &what).await;
        }
        let life = stage.dice.millis(20, STEP_MS_MAX);
        sleep(life).await;
        if stage.dice.chance(300) {
            broker.kill();
            stage.figures.add("kills", 1);
            broker = stage.start().await?;
            stage
                .expect_progress(&era, &format!("{what}, after a kill"))
                .await;
        }
        era = stage.end_round(round, &mut town, era).await?;
    }
    stage.close(town, era).await
}

/// What is acknowledged tells a time that is so far ahead, or no clock stepped.
async fn expect_ahead(stage: &mut Stage, era: &Era, ahead_s: u64, what: &str) {
    // That nothing is acknowledged is found elsewhere.
    if !era.acknowledges(SINCE, stage.patience()).await {
        return;
    }
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    let newest_ms = era.newest_ms();
    if newest_ms + SLACK_MS < now_ms + ahead_s * 1_000 {
        let words = format!("{what}: the newest message has {newest_ms} ms, now it is {now_ms} ms");
        stage.findings.add("attack that did not take place", words);
    }
}
