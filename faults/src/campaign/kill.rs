//! kill -9 at random points under load, and now and then again while it recovers.

use tokio::time::sleep;

use super::stage::Stage;
use crate::broker::Broker;

/// Longest time between a start and its kill, milliseconds.
const LIFE_MS_MAX: u64 = 400;
/// Of 1,000 restarts, how many are killed before they serve, and after how long at most.
const KILLED_EARLY: u64 = 150;
const EARLY_MS_MAX: u64 = 60;

pub(super) async fn run(stage: &mut Stage) -> anyhow::Result<()> {
    let mut broker = stage.start().await?;
    let mut town = stage.town(stage.plan()).await?;
    let mut era = town.begin().await?;
    while let Some(round) = stage.next_round() {
        let life = stage.dice.millis(10, LIFE_MS_MAX);
        sleep(life).await;
        broker.kill();
        stage.figures.add("kills", 1);
        while stage.dice.chance(KILLED_EARLY) {
            let early = stage.dice.millis(0, EARLY_MS_MAX);
            Broker::start_and_kill(&stage.launch, early).await?;
            stage.figures.add("kills while it recovered", 1);
        }
        broker = stage.start().await?;
        stage
            .expect_progress(&era, &format!("after kill {}", round + 1))
            .await;
        era = stage.end_round(round, &mut town, era).await?;
    }
    stage.close(town, era).await
}
