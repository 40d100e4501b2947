//! Power cuts under load: what was not synced is gone, and what was acknowledged has to be there.
//!
//! What goes past the page cache is in the image at once. That is a disk without a cache of its own, or one that saves it; in
//! half of the lives the disk has one that it loses.

use tokio::time::sleep;

use super::stage::Stage;
use crate::broker::Broker;
use crate::lives::OwnEnd;
use crate::mount::Disk;
use crate::shim::Shim;

/// Room for a campaign's journal and views.
const DISK_BYTES: u64 = 768 << 20;
/// Longest time between a start and the cut, milliseconds.
const LIFE_MS_MAX: u64 = 400;
/// Longest time that the broker lives on without power, milliseconds: it must not acknowledge anything then.
const WITHOUT_POWER_MS_MAX: u64 = 40;

pub(super) async fn run(stage: &mut Stage) -> anyhow::Result<()> {
    let folder = stage.path("");
    let disk = Disk::make(&folder, DISK_BYTES)?;
    stage.launch.data = disk.path().join("data");
    // Old segments go soon, so that the image does not fill up.
    stage
        .launch
        .settings
        .push("storage.journal_keep_bytes=8388608".to_owned());
    let shim = stage.shim()?;
    let mut broker = start(stage, &shim).await?;
    let mut town = stage.town(stage.plan()).await?;
    let mut era = town.begin().await?;
    while let Some(round) = stage.next_round() {
        let life = stage.dice.millis(10, LIFE_MS_MAX);
        sleep(life).await;
        // What ended while there was power is judged as such.
        broker.ended();
        stage.judge_own_ends(OwnEnd::HasToSayWhy);
        disk.cut()?;
        let without_power = stage.dice.millis(0, WITHOUT_POWER_MS_MAX);
        sleep(without_power).await;
        broker.kill();
        stage.judge_own_ends(OwnEnd::Wrong);
        stage.figures.add("power cuts", 1);
        disk.power_on()?;
        broker = start(stage, &shim).await?;
        stage
            .expect_progress(&era, &format!("after power cut {}", round + 1))
            .await;
        era = stage.end_round(round, &mut town, era).await?;
    }
    stage.close(town, era).await?;
    drop(broker);
    Ok(())
}

/// Starts it on a disk that has a cache, or has none.
async fn start(stage: &mut Stage, shim: &Shim) -> anyhow::Result<Broker> {
    let cached = stage.dice.chance(500);
    shim.cache_writes(cached)?;
    stage
        .figures
        .add("lives on a disk with a cache", cached.into());
    stage.start().await
}
