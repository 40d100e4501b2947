//! Failing calls. A first run lists every site from which the broker reaches its files; then each of them fails once for each
//! error that it can have, or does half of its work, while the broker starts, serves, recovers or stops.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::stage::Stage;
use crate::broker::{Broker, Ports, Started};
use crate::findings::Figures;
use crate::lives::OwnEnd;
use crate::load::{Era, Pace, Plan, Town, Turns};
use crate::patience::Patience;
use crate::shim::{Shim, Site, Wrong, place};

/// How long it serves, twice in each round.
const LIFE: Duration = Duration::from_millis(350);
/// A broker that was asked to stop has this long, also with a disk that fails.
const STOP_MAX: Duration = Duration::from_secs(30);
/// Which of a site's calls fails: one of the first so many.
const NTH_MAX: u64 = 5;
/// What becomes of the sites, and how many that are not met again say something where no call failed.
const STRUCK: &str = "calls that failed";
const NOT_MET: &str = "sites that were not met again";
const NOT_MET_MIN: u64 = 10;

pub(super) async fn run(stage: &mut Stage) -> anyhow::Result<()> {
    let shim = stage.shim()?;
    let settings = ["broker.drain_ms=0", "storage.journal_keep_bytes=2097152"];
    stage.launch.settings.extend(settings.map(str::to_owned));
    let mut broker = stage.start().await?;
    let mut town = stage.town(busy(stage.plan())).await?;
    let era = town.begin().await?;
    broker = live(stage, &era, broker, "nothing").await?;
    end_era(stage, &mut town, era).await?;
    stage.judge_own_ends(OwnEnd::HasToSayWhy);
    let mut cases = cases(stage, &shim)?.into_iter();
    while let (Some(round), Some((site, wrong))) = (stage.next_round(), cases.next()) {
        let nth = stage.dice.between(1, site.count.clamp(1, NTH_MAX));
        let what = format!(
            "{} at call {nth} of {} {} in {}",
            wrong.name(),
            site.call,
            site.class,
            place(&stage.launch.binary, &site).unwrap_or_else(|| format!("{:016x}", site.hash))
        );
        stage.at(&what);
        let era = town.begin().await?;
        shim.aim(&site, u32::try_from(nth).unwrap_or(1), wrong)?;
        broker = live(stage, &era, broker, &what).await?;
        let mut struck = shim.has_struck()?;
        shim.calm()?;
        end_era(stage, &mut town, era).await?;
        if !struck {
            struck = fresh(stage, &shim, &site, wrong, &what).await?;
        }
        let figure = if struck { STRUCK } else { NOT_MET };
        stage.figures.add(figure, 1);
        stage.progress.step(round + 1);
    }
    town.read_all_again().await;
    stage.note(&mut town);
    if struck_nothing(&stage.figures) {
        let words = "of all the sites that were aimed at none was met again";
        stage.findings.add("attack that did not take place", words);
    }
    drop(broker);
    Ok(())
}

/// Whether no call failed, in more rounds than can be by chance: of the sites a third at most is not met again.
fn struck_nothing(figures: &Figures) -> bool {
    figures.of(STRUCK) == 0 && figures.of(NOT_MET) >= NOT_MET_MIN
}

/// Every way in which every site can go wrong, in an order of the dice, as many as there are rounds.
fn cases(stage: &mut Stage, shim: &Shim) -> anyhow::Result<Vec<(Site, Wrong)>> {
    let sites = shim.sites()?;
    let each = |site: &Site| {
        let site = site.clone();
        site.ways()
            .iter()
            .map(move |wrong| (site.clone(), *wrong))
            .collect::<Vec<_>>()
    };
    let mut cases: Vec<(Site, Wrong)> = sites.iter().flat_map(each).collect();
    stage.figures.add("sites", sites.len() as u64);
    stage
        .figures
        .add("ways in which they can fail", cases.len() as u64);
    stage.dice.shuffle(&mut cases);
    stage.expect(cases.len());
    Ok(cases)
}

/// Much, and large messages among it, so that segments fill.
fn busy(mut plan: Plan) -> Plan {
    plan.pace = Pace {
        window: 16,
        pause_ms_max: 1,
        large_per_mille: 60,
    };
    plan.publishers = 6;
    plan.readers = 2;
    plan.conversations = 3;
    plan.turns = Turns::DoNotCount;
    plan
}

/// A life under load: serving, killed, recovering, serving, stopped in order, started again.
async fn live(stage: &mut Stage, era: &Era, broker: Broker, what: &str) -> anyhow::Result<Broker> {
    if let Some(broker) = serve(stage, era, broker, what).await {
        broker.kill();
    }
    let broker = again(stage, what).await?;
    if let Some(broker) = serve(stage, era, broker, what).await {
        broker.stop(STOP_MAX).await;
    }
    again(stage, what).await
}

async fn end_era(stage: &mut Stage, town: &mut Town, era: Era) -> anyhow::Result<()> {
    town.end(era).await?;
    stage.note(town);
    Ok(())
}

/// Lets it serve for a while; none: it ended by itself, or acknowledged nothing any more.
async fn serve(stage: &mut Stage, era: &Era, mut broker: Broker, what: &str) -> Option<Broker> {
    let until = Instant::now() + LIFE;
    while Instant::now() < until {
        if broker.ended().is_some() {
            return None;
        }
        sleep(Duration::from_millis(10)).await;
    }
    let from = era.acknowledged();
    let mut patience = Patience::of(stage.patience());
    while era.acknowledged() == from {
        if broker.ended().is_some() {
            return None;
        }
        if !patience.wait().await {
            stage.findings.add(
                "stuck",
                format!("{what}: it serves and acknowledges nothing"),
            );
            return None;
        }
    }
    Some(broker)
}

/// Starts it. A start may fail while something goes wrong; the one after that may not.
async fn again(stage: &mut Stage, what: &str) -> anyhow::Result<Broker> {
    match stage.try_start().await? {
        Started::Serving(broker, _) => return Ok(broker),
        Started::Ended(_) => {}
        Started::Hung => stage
            .findings
            .add("hung", format!("{what}: it did not start")),
    }
    stage.start().await
}

/// What is met only where a data directory is made: a first start that goes wrong, and a second one that may not.
async fn fresh(
    stage: &mut Stage,
    shim: &Shim,
    site: &Site,
    wrong: Wrong,
    what: &str,
) -> anyhow::Result<bool> {
    let mut launch = stage.launch.clone();
    launch.data = stage.path("fresh");
    launch.ports = Ports::free(&mut stage.dice);
    launch.environment.extend(shim.environment(&launch.data));
    shim.aim(site, 1, wrong)?;
    match Broker::start(&launch).await? {
        Started::Serving(broker, _) => broker.stop(STOP_MAX).await,
        Started::Ended(_) => {}
        Started::Hung => stage
            .findings
            .add("hung", format!("{what}: it did not start")),
    }
    let struck = shim.has_struck()?;
    shim.calm()?;
    if let Err(error) = Broker::must_start(&launch).await {
        stage
            .findings
            .add("did not start again", format!("{what}: {error:#}"));
    }
    std::fs::remove_dir_all(&launch.data)?;
    Ok(struck)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_in_which_no_call_failed_are_no_campaign() {
        let after = |struck, not_met| {
            let mut figures = Figures::default();
            figures.add(STRUCK, struck);
            figures.add(NOT_MET, not_met);
            struck_nothing(&figures)
        };
        assert!(after(0, NOT_MET_MIN));
        assert!(!after(1, 1_000) && !after(0, 4) && !after(0, 0));
    }
}
