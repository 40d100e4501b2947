//! SIGSTOP under load, as when a virtual machine is moved or a debugger is attached: afterwards everybody goes on.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use super::stage::Stage;

/// How long it stands still, in full and in the short form.
const PAUSE: Duration = Duration::from_secs(30);
const PAUSE_SHORT: Duration = Duration::from_secs(3);
/// Longest time before it, milliseconds.
const LIFE_MS_MAX: u64 = 700;
/// After that what was on its way has arrived.
const ARRIVED: Duration = Duration::from_secs(1);

pub(super) async fn run(stage: &mut Stage) -> anyhow::Result<()> {
    let pause = if stage.options.short {
        PAUSE_SHORT
    } else {
        PAUSE
    };
    let broker = stage.start().await?;
    let mut town = stage.town(stage.plan()).await?;
    let mut era = town.begin().await?;
    while let Some(round) = stage.next_round() {
        let life = stage.dice.millis(100, LIFE_MS_MAX);
        sleep(life).await;
        broker.signal(Signal::STOP);
        stage.figures.add("pauses", 1);
        sleep(ARRIVED).await;
        let arrived = era.acknowledged();
        sleep(pause.saturating_sub(ARRIVED)).await;
        if era.acknowledged() > arrived {
            let words = "it acknowledged something while it stood still";
            stage.findings.add("attack that did not take place", words);
        }
        broker.signal(Signal::CONT);
        stage
            .expect_progress(&era, &format!("after a pause of {} s", pause.as_secs()))
            .await;
        era = stage.end_round(round, &mut town, era).await?;
    }
    stage.close(town, era).await
}
