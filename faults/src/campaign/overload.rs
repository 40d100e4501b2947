//! Overload: each round another attack on a broker with a small budget, while clients that behave go on as before. Judged are
//! the broker's memory, the latencies of those clients, how long newcomers wait until they are let in, that each refusal is
//! counted, that nothing acknowledged is lost, and that the broker is well afterwards.

mod amplifying;
mod attack;
mod crowding;
mod flooding;
mod holding;
mod line;
mod quic;
mod site;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use rialto_loadgen::open_files;
use rialto_loadgen::standstill::{Standstills, StoodStill};
use tokio::time::sleep;

use super::CannotRun;
use super::stage::Stage;
use crate::broker::Broker;
use crate::load::{Came, Measured, Newcomers, Phase, Plan, Steady};
use crate::patience::Patience;
use attack::{ATTACKS, Attack, Shed};
use site::{Assault, Tally};
use watch::{Losses, Sheds};

/// Clients that behave, and how often each says something.
const NEIGHBOURS: usize = 60;
const NEIGHBOURS_SHORT: usize = 12;
const EVERY: Duration = Duration::from_millis(200);
/// What the broker may keep for its connections' queues, requests and frames, by its settings.
const BUDGET_BYTES: u64 = 16 << 20;
const BUDGET_BYTES_SHORT: u64 = 4 << 20;
/// In the short form these stand for settings of an attack: so little that its few attackers are too many.
const SETTINGS_SHORT: [&str; 2] = [
    "broker.handshakes_max=20",
    "broker.connections_per_address_max=40",
];
/// As many as a broker has by itself on this machine: latencies are judged, and those of more shards than there are processors
/// to spare are their own doing. The short form judges none, and has two that talk to each other.
const SHARDS: u16 = 0;
/// Beside it, whatever the attack: what a quiet broker grows by when it has work to do at all (journal buffers, tables of the
/// views, heaps of its threads). With these settings and 150,000 messages a second of 50 publishers who behave that is 88 MiB.
const BASE_BYTES: u64 = 96 << 20;
/// What a connection takes beside the budget: its task, its session, and the 4 KiB that it may hold past the budget.
const CONNECTION_BYTES: u64 = 12 << 10;
/// How many times as long an attack may make an acknowledgement or a delivery take, at the 99th percentile.
const SLOWER_MAX: f64 = 3.0;
/// A quiet 99th percentile below this counts as this, milliseconds: attackers, broker and clients share two processors, and
/// who waits for one waits for a turn of the scheduler.
const QUIET_FLOOR_MS: f64 = 10.0;
/// A round that is too slow is played again if processors of the machine stood still this long in it, milliseconds: half of what
/// makes a 99th percentile of eight seconds.
const STOOD_STILL_MS: f64 = 40.0;
/// How often it is played at most.
const TRIES: u32 = 3;
/// How long a newcomer may wait until he is let in.
const NEWCOMER_MAX: Duration = Duration::from_secs(5);
/// Open files that attackers use at most, of the 20,000 that many machines give a process.
const FILES: u64 = 19_000;
/// Whose dice the attackers' are: in each round the same.
const ATTACKERS: u64 = 3;
/// Steps of patience between two looks at the broker's metrics.
const LOOK_EVERY: u32 = 20;

/// How long the parts of a round last.
struct Times {
    quiet: Duration,
    attacked: Duration,
    after: Duration,
}

const TIMES: Times = Times {
    quiet: Duration::from_secs(4),
    attacked: Duration::from_secs(8),
    after: Duration::from_secs(2),
};
const TIMES_SHORT: Times = Times {
    quiet: Duration::from_millis(100),
    attacked: Duration::from_millis(500),
    after: Duration::from_millis(100),
};

pub(super) async fn run(stage: &mut Stage) -> anyhow::Result<()> {
    let attacks = chosen(stage.options.attack.as_deref())?;
    if !stage.options.short {
        open_files::make_room_for(FILES).map_err(|error| CannotRun(error.to_string()))?;
    }
    while let Some(round) = stage.next_round() {
        let attack = attacks[round as usize % attacks.len()];
        stage.at(attack.name);
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let figures = stage.figures.clone();
            let outcome = Box::pin(play(stage, attack)).await?;
            if !outcome.says_nothing() || tries == 0 {
                for words in outcome.slowed {
                    stage.findings.add("slowed by the attack", words);
                }
                break;
            }
            stage.figures = figures;
            let name = format!("{}: tries in which processors stood still", attack.name);
            stage.figures.add(&name, 1);
        }
        stage.progress.step(round + 1);
    }
    Ok(())
}

/// What latencies came to in a round.
struct Outcome {
    /// Those that are too long, in words.
    slowed: Vec<String>,
    stood_still: StoodStill,
}

impl Outcome {
    /// Whether the machine may be what was slow, and not the broker.
    fn says_nothing(&self) -> bool {
        !self.slowed.is_empty() && self.stood_still.total_ms >= STOOD_STILL_MS
    }
}

/// All of them, or the one that is named.
fn chosen(name: Option<&str>) -> anyhow::Result<Vec<Attack>> {
    let is_chosen = |attack: &Attack| name.is_none_or(|name| name == attack.name);
    let attacks: Vec<Attack> = ATTACKS.into_iter().filter(is_chosen).collect();
    if attacks.is_empty() {
        let names = ATTACKS.map(|attack| attack.name).join(", ");
        bail!("there is no such attack; those that there are: {names}");
    }
    Ok(attacks)
}

/// What a round saw.
struct Seen {
    quiet: u64,
    peak: u64,
    after: u64,
    sheds: Sheds,
    connections: u64,
    /// Processors of the machine, while it was attacked.
    stood_still: StoodStill,
}

async fn play(stage: &mut Stage, attack: Attack) -> anyhow::Result<Outcome> {
    let (clients, times, connections) = if stage.options.short {
        let connections = (attack.connections / 4).clamp(8, 250);
        (NEIGHBOURS_SHORT, TIMES_SHORT, connections)
    } else {
        (NEIGHBOURS, TIMES, attack.connections)
    };
    stage.launch.settings = settings(attack, stage.options.short);
    stage.launch.data = stage.path(&attack.name.replace(' ', "-"));
    if stage.launch.data.exists() {
        // Of the try before.
        std::fs::remove_dir_all(&stage.launch.data)?;
    }
    // What the machine has yet to write from before is not this broker's doing.
    tokio::task::spawn_blocking(rustix::fs::sync).await?;
    let broker = stage.start().await?;
    let plan = Plan {
        readers: 0,
        ..stage.plan()
    };
    let steady = Steady::settle(&plan, clients, EVERY).await?;
    sleep(times.quiet).await;
    let quiet = watch::memory(&broker)?.resident;
    let before = watch::sheds(&broker).await?;
    let lost = watch::losses();

    let standstills = Standstills::begin();
    steady.enter(Phase::Attacked);
    let dice = stage.dice.of(ATTACKERS);
    let assault = Assault::begin(attack, stage.launch.ports, connections, dice)?;
    let newcomers = Newcomers::begin(&plan)?;
    sleep(times.attacked).await;
    let after = expected(stage, &broker, attack, &assault, &before).await?;
    let came = newcomers.end().await?;
    let tally = assault.end().await?;
    note_losses(stage, attack, lost, watch::losses());
    let peak = watch::memory(&broker)?.peak;
    let stood_still = standstills.take();
    drop(standstills);

    steady.enter(Phase::After);
    sleep(times.after).await;
    is_well(stage, &broker, attack, &plan).await;
    let measured = steady.end(&mut stage.findings, &mut stage.figures).await?;
    let seen = Seen {
        quiet,
        peak,
        after: watch::memory(&broker)?.resident,
        sheds: since(&before, after),
        connections: connections as u64,
        stood_still,
    };
    judge(stage, attack, &seen, &tally);
    let outcome = judge_latencies(stage, attack, seen.stood_still, &measured);
    judge_newcomers(stage, attack, came);
    broker.kill();
    Ok(outcome)
}

/// What the machine lost of all that was on its way: that TCP and QUIC sent it again is in the latencies.
fn note_losses(stage: &mut Stage, attack: Attack, before: Losses, after: Losses) {
    for (name, before, after) in [
        ("timeouts of TCP", before.timeouts, after.timeouts),
        (
            "UDP datagrams lost to full buffers",
            before.full,
            after.full,
        ),
        (
            "packets lost to a full backlog",
            before.backlog,
            after.backlog,
        ),
    ] {
        let name = format!("{}: {name}", attack.name);
        stage.figures.add(&name, after.saturating_sub(before));
    }
}

/// The attack goes on until it took place and all is refused that it must lead to, or patience is over; what was counted by then
/// comes back.
async fn expected(
    stage: &Stage,
    broker: &Broker,
    attack: Attack,
    assault: &Assault,
    before: &Sheds,
) -> anyhow::Result<Sheds> {
    let mut patience = Patience::of(stage.patience());
    loop {
        let now = watch::sheds(broker).await?;
        let seen = since(before, now.clone());
        let refused = attack.expected.iter().all(|shed| is_in(&seen, *shed));
        if refused && assault.missing().is_none() {
            return Ok(now);
        }
        for _ in 0..LOOK_EVERY {
            if !patience.wait().await {
                return Ok(now);
            }
        }
    }
}

fn is_in(sheds: &Sheds, (queue, reason): Shed) -> bool {
    sheds.contains_key(&(queue.to_owned(), reason.to_owned()))
}

fn settings(attack: Attack, short: bool) -> Vec<String> {
    let (budget, few, shards): (u64, &[&str], u16) = if short {
        (BUDGET_BYTES_SHORT, &SETTINGS_SHORT, 2)
    } else {
        (BUDGET_BYTES, &[], SHARDS)
    };
    let always = [
        format!("broker.shards={shards}"),
        format!("limits.node_bytes_max={budget}"),
        "storage.cache_bytes=8388608".to_owned(),
        "storage.segment_bytes=16777216".to_owned(),
    ];
    let key = |setting: &str| setting.split('=').next().map(str::to_owned);
    let own = attack.settings.iter().map(|&setting| {
        let fewer = few.iter().find(|&&fewer| key(fewer) == key(setting));
        fewer.map_or(setting, |&fewer| fewer).to_owned()
    });
    always.into_iter().chain(own).collect()
}

fn since(before: &Sheds, after: Sheds) -> Sheds {
    let more = after.into_iter().map(|(shed, count)| {
        let count = count - before.get(&shed).copied().unwrap_or_default();
        (shed, count)
    });
    more.filter(|(_, count)| *count > 0).collect()
}

/// Ready, and at the service of whoever comes.
async fn is_well(stage: &mut Stage, broker: &Broker, attack: Attack, plan: &Plan) {
    if !watch::is_ready(broker).await {
        let words = format!("{}: /health/ready says no", attack.name);
        stage.findings.add("not ready after the attack", words);
    }
    let served = Patience::of(stage.patience())
        .with(Box::pin(stage.town(Plan {
            publishers: 3,
            ..plan.clone()
        })))
        .await;
    let said = match served {
        Some(Ok(town)) => {
            let said = town.say_last_words().await;
            town.leave().await;
            said
        }
        Some(Err(error)) => Err(error),
        None => Err(anyhow::anyhow!("nobody was let in")),
    };
    if let Err(error) = said {
        let words = format!("{}: {error:#}", attack.name);
        stage
            .findings
            .add("new clients are not served after the attack", words);
    }
}

fn judge(stage: &mut Stage, attack: Attack, seen: &Seen, tally: &Tally) {
    judge_memory(stage, attack, seen);
    let mut total = 0;
    for ((queue, reason), count) in &seen.sheds {
        let name = format!("{}: shed {queue}/{reason}", attack.name);
        stage.figures.add(&name, *count);
        total += count;
    }
    stage.figures.add("shed in all", total);
    for (queue, reason) in attack.expected {
        if !is_in(&seen.sheds, (queue, reason)) {
            let words = format!("{}: {queue}/{reason} stayed 0", attack.name);
            stage.findings.add("refusals that nobody counted", words);
        }
    }
    if let Some(why) = attack.missing(tally, seen.connections) {
        let words = format!("{}: {why}", attack.name);
        stage.findings.add("attack that did not take place", words);
    }
    let counts = BTreeMap::from([
        ("connections opened", &tally.opened),
        ("connections turned away", &tally.turned_away),
        (
            "requests refused with advice when to come back",
            &tally.advised,
        ),
        ("deliveries to attackers", &tally.told),
        ("halves of handshakes let go", &tally.let_go),
    ]);
    for (name, count) in counts {
        stage
            .figures
            .add(&format!("{}: {name}", attack.name), Tally::of(count));
    }
}

fn judge_memory(stage: &mut Stage, attack: Attack, seen: &Seen) {
    let allowed = seen.quiet + BASE_BYTES + BUDGET_BYTES + seen.connections * CONNECTION_BYTES;
    let kib = |bytes: u64| bytes >> 10;
    for (name, bytes) in [
        ("KiB resident, quiet", seen.quiet),
        ("KiB resident, peak", seen.peak),
        ("KiB resident, allowed", allowed),
        ("KiB resident, afterwards", seen.after),
    ] {
        let name = format!("{}: {name}", attack.name);
        stage.figures.add(&name, kib(bytes));
    }
    if seen.peak > allowed {
        let words = format!(
            "{}: {} KiB of {}",
            attack.name,
            kib(seen.peak),
            kib(allowed)
        );
        stage.findings.add("more memory than allowed", words);
    }
    // What is free again may stay with the allocator, but not more than the budget and the base.
    if seen.after > seen.quiet + BASE_BYTES + BUDGET_BYTES {
        let words = format!("{}: {} KiB stayed", attack.name, kib(seen.after));
        stage.findings.add("memory that does not fall back", words);
    }
}

fn judge_latencies(
    stage: &mut Stage,
    attack: Attack,
    stood_still: StoodStill,
    measured: &[Measured; 3],
) -> Outcome {
    let name = format!("{}: processors stood still, µs in all", attack.name);
    stage.figures.add(&name, us(stood_still.total_ms));
    let mut slowed = Vec::new();
    let [quiet, attacked, _] = measured;
    let late_ms = attacked.late.percentiles().p99;
    for (when, measured) in [("quiet", quiet), ("attacked", attacked)] {
        let late = us(measured.late.percentiles().p99);
        for (name, value) in [
            ("sent late by the clients themselves, p99 µs", late),
            ("longest without any ack µs", measured.standstill_us),
            ("and when that ended µs", measured.standstill_at_us),
        ] {
            let name = format!("{}: {name}, {when}", attack.name);
            stage.figures.add(&name, value);
        }
    }
    for (what, quiet, attacked) in [
        ("acks", &quiet.acks, &attacked.acks),
        ("deliveries", &quiet.deliveries, &attacked.deliveries),
    ] {
        let (quiet_ms, attacked_ms) = (quiet.percentiles().p99, attacked.percentiles().p99);
        let ratio = attacked_ms / quiet_ms.max(QUIET_FLOOR_MS);
        for (name, value) in [
            ("p99 µs, quiet", us(quiet_ms)),
            ("p99 µs, attacked", us(attacked_ms)),
            ("p99, times quiet, in %", whole(ratio * 100.0)),
        ] {
            let name = format!("{}: {what} {name}", attack.name);
            stage.figures.add(&name, value);
        }
        if ratio > SLOWER_MAX && !stage.options.short {
            let words = format!(
                "{}: p99 of {what} {attacked_ms:.1} ms, quiet {quiet_ms:.1} ms; p99 of the clients' own lateness {late_ms:.1} ms; processors of this machine stood still {stood_still}",
                attack.name
            );
            slowed.push(words);
        }
    }
    Outcome {
        slowed,
        stood_still,
    }
}

fn judge_newcomers(stage: &mut Stage, attack: Attack, came: Vec<Came>) {
    for Came { endpoint, waits } in came {
        let over = endpoint.split(':').next().unwrap_or_default();
        let waits = match waits {
            Ok(waits) => waits.percentiles(),
            Err(error) => {
                let words = format!("{}, over {over}: {error:#}", attack.name);
                stage.findings.add("newcomers that are kept out", words);
                continue;
            }
        };
        for (name, ms) in [
            ("p50", waits.p50),
            ("p99", waits.p99),
            ("longest", waits.max),
        ] {
            let name = format!("{}: newcomers over {over}, {name} µs", attack.name);
            stage.figures.add(&name, us(ms));
        }
        if waits.max > NEWCOMER_MAX.as_secs_f64() * 1_000.0 && !stage.options.short {
            let words = format!("{}, over {over}: {:.0} ms", attack.name, waits.max);
            stage.findings.add("newcomers that are kept waiting", words);
        }
    }
}

/// Microseconds.
fn us(ms: f64) -> u64 {
    whole(ms * 1_000.0)
}

// Figures are not negative, and far below what a u64 holds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(figure: f64) -> u64 {
    figure as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_too_slow_on_a_machine_that_stood_still_says_nothing() {
        let outcome = |slowed: &[&str], total_ms| Outcome {
            slowed: slowed.iter().map(ToString::to_string).collect(),
            stood_still: StoodStill {
                total_ms,
                ..StoodStill::default()
            },
        };
        assert!(outcome(&["flood"], STOOD_STILL_MS).says_nothing());
        assert!(!outcome(&["flood"], STOOD_STILL_MS - 1.0).says_nothing());
        assert!(!outcome(&[], 1_000.0).says_nothing());
    }
}
