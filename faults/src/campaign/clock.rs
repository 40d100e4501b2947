//! The wall clock steps forward and back under load, by a second up to a day, also to before the last epoch, with restarts in
//! between: nothing of order or durability may rest on it.

use tokio::time::sleep;

use super::stage::Stage;

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
