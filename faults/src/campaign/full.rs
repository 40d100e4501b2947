//! The disk fills up under load and is freed again: publishers are refused for now, readers go on, and afterwards it goes on by
//! itself, or has ended with a clear error and goes on after a restart. In half of the rounds it is killed and started while
//! the disk is full.

use std::time::Duration;

use tokio::time::sleep;

use super::stage::Stage;
use crate::broker::{Broker, Started};
use crate::lives::OwnEnd;
use crate::load::{Era, Pace, Plan, Town, Turns};
use crate::mount::Disk;
use crate::patience::Patience;

/// Small, so that it is soon full, with room for what each round says.
const DISK_BYTES: u64 = 48 << 20;
const ROUND_BYTES: u64 = 6 << 20;
/// How long publishers may take until one of them is refused: what is prepared already has to be used up, and the SDK asks again for
/// 16 s before it says so.
const REFUSED_MAX: Duration = Duration::from_secs(60);
/// How long the disk stays full after that, milliseconds.
const FULL_MS_MAX: u64 = 1_500;
/// How often somebody looks whether the broker has ended.
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn run(stage: &mut Stage) -> anyhow::Result<()> {
    let rounds = u64::from(stage.options.rounds);
    let disk = Disk::make(&stage.path(""), DISK_BYTES + rounds * ROUND_BYTES)?;
    stage.launch.data = disk.path().join("data");
    let keep = "storage.journal_keep_bytes=8388608".to_owned();
    stage.launch.settings.push(keep);
    let mut broker = stage.start().await?;
    let mut town = stage.town(busy(stage.plan())).await?;
    let mut met = false;
    while let Some(round) = stage.next_round() {
        let era;
        (broker, era) = serving(stage, broker, town.begin()).await?;
        let era = era?;
        // What ended before the disk was full for the first time is judged as such.
        broker.ended();
        stage.judge_own_ends(OwnEnd::HasToSayWhy);
        stage.at(&format!("round {}, while the disk is full", round + 1));
        disk.fill()?;
        stage.figures.add("times full", 1);
        let (running, kept) = (
            fill_up(stage, &town, &era, broker).await?,
            stage.dice.chance(500),
        );
        met |= running.is_none() || era.refused() > 0;
        let full = stage.dice.millis(0, FULL_MS_MAX);
        sleep(full).await;
        let running = match running {
            Some(broker) if kept => Some(broker),
            Some(broker) => {
                broker.kill();
                start_full(stage).await?
            }
            None => start_full(stage).await?,
        };
        stage.at(&format!("round {}, after the disk was freed", round + 1));
        disk.free()?;
        broker = go_on(stage, &era, running).await?;
        let ended;
        (broker, ended) = serving(stage, broker, town.end(era)).await?;
        ended?;
        stage.note(&mut town);
        stage.progress.step(round + 1);
    }
    if !met && stage.figures.of("times full") > 0 {
        let words = "nobody was refused, and the broker went on";
        stage.findings.add("attack that did not take place", words);
    }
    (broker, ()) = serving(stage, broker, town.read_all_again()).await?;
    stage.note(&mut town);
    drop(broker);
    Ok(())
}

fn busy(mut plan: Plan) -> Plan {
    plan.pace = Pace {
        window: 8,
        pause_ms_max: 1,
        large_per_mille: 200,
    };
    plan.conversations = 3;
    plan.turns = Turns::DoNotCount;
    plan
}

/// Waits until somebody is refused, and sees that readers are served all the same; none: the broker ended.
async fn fill_up(
    stage: &mut Stage,
    town: &Town,
    era: &Era,
    mut broker: Broker,
) -> anyhow::Result<Option<Broker>> {
    let mut patience = Patience::of(REFUSED_MAX);
    while era.refused() == 0 && patience.wait().await {
        if broker.ended().is_some() {
            return Ok(None);
        }
    }
    if era.refused() == 0 {
        stage.figures.add("times full without a refusal", 1);
    } else {
        stage.figures.add("times refused for now", 1);
    }
    let read = tokio::select! {
        biased;
        read = town.can_read(era) => read,
        // Nobody answers any more.
        _ = broker.wait(Duration::MAX) => return Ok(None),
    };
    if broker.ended().is_some() {
        return Ok(None);
    }
    if let Err(error) = read {
        stage
            .findings
            .add("no reading while full", format!("{error:#}"));
    }
    Ok(Some(broker))
}

/// Starts it on a full disk: it serves, or says clearly that it cannot.
async fn start_full(stage: &mut Stage) -> anyhow::Result<Option<Broker>> {
    match stage.try_start().await? {
        Started::Serving(broker, _) => {
            stage.figures.add("starts on a full disk", 1);
            Ok(Some(broker))
        }
        Started::Ended(_) => {
            stage.figures.add("starts refused on a full disk", 1);
            Ok(None)
        }
        Started::Hung => {
            let words = "started on a full disk, it neither served nor ended";
            stage.findings.add("hung", words);
            Ok(None)
        }
    }
}

/// Does what takes a broker that serves. One that the full disk has ended late, for it noticed only now, makes room for another.
async fn serving<T>(
    stage: &mut Stage,
    mut broker: Broker,
    work: impl Future<Output = T>,
) -> anyhow::Result<(Broker, T)> {
    let mut work = Box::pin(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Ok((broker, done)),
            () = sleep(LOOK) => if broker.ended().is_some() {
                drop(broker);
                broker = stage.start().await?;
            }
        }
    }
}

/// There is room again: it has to go on, by itself if it runs.
async fn go_on(stage: &mut Stage, era: &Era, running: Option<Broker>) -> anyhow::Result<Broker> {
    if let Some(mut broker) = running {
        let from = era.acknowledged();
        let mut patience = Patience::of(stage.patience());
        while era.acknowledged() < from + 20 {
            if broker.ended().is_some() {
                break;
            }
            if !patience.wait().await {
                let words = "with room on the disk again, nothing was acknowledged any more";
                stage.findings.add("stuck", words);
                break;
            }
        }
        if broker.ended().is_none() && era.acknowledged() >= from + 20 {
            stage.figures.add("times it went on by itself", 1);
            return Ok(broker);
        }
    }
    let broker = stage.start().await?;
    stage
        .expect_progress(era, "after a restart with room on the disk again")
        .await;
    Ok(broker)
}
