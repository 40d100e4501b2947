//! Makes a large data set, and measures what it costs to keep, to start from, to read and to write on.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use rialto_benches::{
    dataset::{Dataset, Shape, conversation},
    process,
};
use rialto_protocol::ids::{LaneId, Seq};
use rialto_storage::{
    embedded::{EmbeddedOptions, EmbeddedStore, StepHook},
    journal::Journal,
    views::{Order, Range, Views},
    wait,
};

/// Events of a call.
const BATCH: u64 = 2048;
/// Calls that are not durable yet.
const IN_FLIGHT: usize = 4;

/// Large data sets: made, and measured.
#[derive(Parser)]
#[command(name = "rialto-dataset", version)]
struct Cli {
    #[command(subcommand)]
    command: Do,
}

#[derive(Subcommand)]
enum Do {
    /// Make a data set, say what the views cost, and leave the end of it in the journal alone.
    Make(Make),
    /// Start from it as after a kill, say how long that took and how much memory it needs; changes nothing.
    Start(Place),
    /// Read pages of history from views that are on disk alone.
    Pages(Pages),
    /// Read one long conversation from its first event to its last.
    CatchUp(Place),
    /// Publish on it and on an empty store, by turns, and compare.
    Publish(Publish),
}

#[derive(Args)]
struct Place {
    /// Folder of the data set.
    dir: PathBuf,
}

#[derive(Args)]
struct Make {
    #[command(flatten)]
    place: Place,
    /// Events that the views hold.
    #[arg(long, default_value_t = 5_000_000)]
    events: u64,
    /// MiB of journal behind them that the views do not hold.
    #[arg(long, default_value_t = 1024)]
    unviewed_mib: u64,
    /// Conversations.
    #[arg(long, default_value_t = 1_000_000)]
    conversations: u32,
    /// Users, each with one device.
    #[arg(long, default_value_t = 200_000)]
    users: u32,
    /// Users that write to each conversation.
    #[arg(long, default_value_t = 5)]
    writers: u32,
    /// Bytes of a message's text.
    #[arg(long, default_value_t = 100)]
    body_bytes: usize,
    /// Days of journal time.
    #[arg(long, default_value_t = 20)]
    days: u64,
    /// Every conversation gets as many events as any other.
    #[arg(long)]
    even: bool,
    /// Events a second at most; 0: as many as it takes.
    #[arg(long, default_value_t = 0)]
    rate: u64,
}

#[derive(Args)]
struct Pages {
    #[command(flatten)]
    place: Place,
    /// How many pages.
    #[arg(long, default_value_t = 2_000)]
    pages: u32,
    /// Events of a page.
    #[arg(long, default_value_t = 50)]
    events: u64,
    /// Leave files in the operating system's cache.
    #[arg(long)]
    warm: bool,
}

#[derive(Args)]
struct Publish {
    #[command(flatten)]
    place: Place,
    /// Seconds of each turn.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Turns of each.
    #[arg(long, default_value_t = 3)]
    turns: u32,
    /// Events of a call.
    #[arg(long, default_value_t = 256)]
    batch: u64,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Do::Make(make) => make_set(&make),
        Do::Start(place) => start(&place.dir),
        Do::Pages(pages) => read_pages(&pages),
        Do::CatchUp(place) => catch_up(&place.dir),
        Do::Publish(publish) => compare_publishing(&publish),
    }
}

impl Place {
    fn store(&self) -> PathBuf {
        store_of(&self.dir)
    }
}

fn store_of(dir: &Path) -> PathBuf {
    dir.join("store")
}

/// Nothing gets into the views, however much waits for it.
fn journal_alone() -> EmbeddedOptions {
    EmbeddedOptions {
        lag_segments_soft: 1 << 20,
        lag_segments_hard: 1 << 20,
        on_step: Some(StepHook(Arc::new(|_| false))),
        ..EmbeddedOptions::default()
    }
}

fn open(dir: &Path, options: EmbeddedOptions) -> Result<EmbeddedStore> {
    Ok(EmbeddedStore::open(dir, options)?)
}

fn claim(store: &EmbeddedStore, set: &mut Dataset) -> Result<()> {
    let lanes = (0..store.lanes()).map(LaneId).collect();
    set.own(&wait(store.claim(lanes))?);
    Ok(())
}

/// Writes until `done` says so, given how many events and bytes there are.
fn write(
    store: &EmbeddedStore,
    set: &mut Dataset,
    batch: u64,
    rate: u64,
    mut done: impl FnMut(u64, u64) -> bool,
) -> Result<u64> {
    let (mut events, mut bytes) = (0, 0);
    let begun = Instant::now();
    let mut waiting = VecDeque::new();
    while !done(events, bytes) {
        let entries = set.batch(batch);
        events += batch;
        bytes += entries
            .iter()
            .map(|entry| entry.records.len() as u64)
            .sum::<u64>();
        waiting.push_back(store.append(entries));
        if waiting.len() >= IN_FLIGHT
            && let Some(oldest) = waiting.pop_front()
        {
            wait(oldest)?;
        }
        if rate > 0 {
            let due = Duration::from_secs_f64(events as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    for last in waiting {
        wait(last)?;
    }
    Ok(events)
}

fn make_set(make: &Make) -> Result<()> {
    let dir = &make.place.dir;
    if make.place.store().exists() {
        bail!(
            "{} holds a data set already: name another folder",
            dir.display()
        );
    }
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut set = Dataset::new(Shape {
        conversations: make.conversations,
        users: make.users,
        writers: make.writers,
        body_bytes: make.body_bytes,
        events: make.events,
        days: make.days,
        even: make.even,
    });
    let shape = set.shape().clone();
    let store = open(&make.place.store(), EmbeddedOptions::default())?;
    claim(&store, &mut set)?;
    let bar = ProgressBar::new(make.events);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {human_pos} of {human_len} events, {eta} left",
    )?);
    let (before, begun) = (process::cpu_seconds(), Instant::now());
    let mut most_mib = 0;
    let events = write(&store, &mut set, BATCH, make.rate, |events, _| {
        bar.set_position(events);
        if events % (BATCH * 64) == 0 {
            most_mib = most_mib.max(process::memory_mib("VmRSS"));
        }
        events >= make.events
    })?;
    let wrote = begun.elapsed();
    wait(store.settle())?;
    bar.finish_and_clear();
    let settled = begun.elapsed();
    let after = settled_cpu();
    println!(
        "{events} events in {:.1} s, in the views after {:.1} s; resident memory {} MiB, at most {} MiB while writing; {} MiB written to disk",
        wrote.as_secs_f64(),
        settled.as_secs_f64(),
        process::memory_mib("VmRSS"),
        most_mib.max(process::memory_mib("VmRSS")),
        process::written_bytes() >> 20,
    );
    for (thread, seconds) in after {
        let seconds = seconds - before.get(&thread).unwrap_or(&0.0);
        println!(
            "{thread:>16}: {:.3} µs an event",
            seconds * 1e6 / events as f64
        );
    }
    let status = store.status();
    println!("slowed {} times; {:?}", status.slowed, status);
    store.close();
    if make.unviewed_mib > 0 {
        let store = open(&make.place.store(), journal_alone())?;
        claim(&store, &mut set)?;
        write(&store, &mut set, BATCH, 0, |_, bytes| {
            bytes >= make.unviewed_mib << 20
        })?;
        store.abandon();
    }
    let state = serde_json::to_vec_pretty(&(shape, set.written()))?;
    std::fs::write(dir.join("dataset.json"), state)?;
    Ok(())
}

/// Processor time once the database has nothing to merge any more.
fn settled_cpu() -> std::collections::BTreeMap<String, f64> {
    let mut last = process::cpu_seconds();
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = process::cpu_seconds();
        let worked: f64 = now
            .iter()
            .map(|(thread, seconds)| seconds - last.get(thread).unwrap_or(&0.0))
            .sum();
        if worked < 0.01 {
            return now;
        }
        last = now;
    }
}

/// The data set in a folder, behind what was written.
fn load(dir: &Path) -> Result<Dataset> {
    let path = dir.join("dataset.json");
    let text = std::fs::read(&path)
        .with_context(|| format!("{} is missing: make the data set first", path.display()))?;
    let (shape, written): (Shape, u64) = serde_json::from_slice(&text)?;
    let mut set = Dataset::new(shape);
    set.skip(written);
    Ok(set)
}

fn start(dir: &Path) -> Result<()> {
    let before_mib = process::memory_mib("VmRSS");
    let begun = Instant::now();
    let store = open(&store_of(dir), journal_alone())?;
    let opened = begun.elapsed();
    wait(store.claim((0..store.lanes()).map(LaneId).collect()))?;
    let claimed = begun.elapsed();
    let cpu: f64 = process::cpu_seconds().values().sum();
    println!(
        "opened in {:.3} s, lanes claimed after {:.3} s; {cpu:.2} s of processor time; {} MiB of journal not in the views; resident memory {} MiB (before {before_mib}), at most {} MiB",
        opened.as_secs_f64(),
        claimed.as_secs_f64(),
        store.status().views_lag_bytes >> 20,
        process::memory_mib("VmRSS"),
        process::memory_mib("VmHWM"),
    );
    store.abandon();
    Ok(())
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn read_pages(pages: &Pages) -> Result<()> {
    let set = load(&pages.place.dir)?;
    let conversations = set.shape().conversations;
    if !pages.warm {
        process::forget_files(&pages.place.store())?;
    }
    let store = open(&pages.place.store(), journal_alone())?;
    if !pages.warm {
        process::forget_files(&pages.place.store().join("views"))?;
    }
    let mut times = Vec::new();
    let mut read = 0;
    for page in 0..pages.pages {
        // A stride that is prime visits them in no order; every second page is of a busy one.
        let spread = if page % 2 == 0 {
            conversations
        } else {
            conversations.div_ceil(1000)
        };
        let number = page.wrapping_mul(7_368_787) % spread.max(1);
        let last = set.last(number);
        // Somewhere in the conversation's past.
        let to = Seq(1 + u64::from(page).wrapping_mul(2_654_435_761) % last.0.max(1));
        let range = Range {
            conversation: conversation(number),
            from: Seq(1 + to.0.saturating_sub(pages.events)),
            to,
            bytes_max: 256 << 10,
            order: Order::Backward,
        };
        let begun = Instant::now();
        read += wait(store.events(range))?.len();
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!(
        "{} pages, {read} events: p50 {:.3} ms, p90 {:.3} ms, p99 {:.3} ms, longest {:.3} ms; resident memory {} MiB",
        pages.pages,
        percentile(&times, 50),
        percentile(&times, 90),
        percentile(&times, 99),
        percentile(&times, 100),
        process::memory_mib("VmRSS"),
    );
    store.abandon();
    Ok(())
}

fn catch_up(dir: &Path) -> Result<()> {
    let set = load(dir)?;
    let longest = (0..set.shape().conversations).max_by_key(|number| set.last(*number));
    let number = longest.unwrap_or(0);
    let store = open(&store_of(dir), journal_alone())?;
    for round in ["first", "again"] {
        let (before, begun) = (process::cpu_seconds(), Instant::now());
        let (mut next, mut bytes) = (Seq(1), 0);
        while next <= set.last(number) {
            let range = Range {
                conversation: conversation(number),
                from: next,
                to: set.last(number),
                bytes_max: 256 << 10,
                order: Order::Forward,
            };
            let events = wait(store.events(range))?;
            if events.is_empty() {
                bail!("conversation {number} ends at {next}");
            }
            bytes += events.iter().map(bytes::Bytes::len).sum::<usize>();
            next = Seq(next.0 + events.len() as u64);
        }
        let took = begun.elapsed().as_secs_f64();
        let cpu: f64 = process::cpu_seconds()
            .iter()
            .filter(|(thread, _)| thread.starts_with("rialto-read"))
            .map(|(thread, seconds)| seconds - before.get(thread).unwrap_or(&0.0))
            .sum();
        let events = (next.0 - 1) as f64;
        println!(
            "{round}: {events} events, {} MiB in {took:.3} s: {:.0} events/s, {:.3} µs an event of the readers' processor time",
            bytes >> 20,
            events / took,
            cpu * 1e6 / events,
        );
    }
    store.abandon();
    Ok(())
}

fn compare_publishing(publish: &Publish) -> Result<()> {
    let folder = tempfile::tempdir_in(&publish.place.dir)?;
    let mut large = load(&publish.place.dir)?;
    let mut fresh = Dataset::new(Shape {
        conversations: 1000,
        ..large.shape().clone()
    });
    let mut stores = [
        (
            open(&folder.path().join("store"), EmbeddedOptions::default())?,
            &mut fresh,
        ),
        (
            open(&publish.place.store(), EmbeddedOptions::default())?,
            &mut large,
        ),
    ];
    for (store, set) in &mut stores {
        claim(store, set)?;
    }
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..publish.turns {
        for (which, (store, set)) in stores.iter_mut().enumerate() {
            wait(store.settle())?;
            let until = Instant::now() + Duration::from_secs(publish.seconds);
            let begun = Instant::now();
            let events = write(store, set, publish.batch, 0, |_, _| Instant::now() >= until)?;
            rates[which].push(events as f64 / begun.elapsed().as_secs_f64());
        }
    }
    for rates in &mut rates {
        rates.sort_unstable_by(f64::total_cmp);
    }
    let median = rates.each_ref().map(|rates| rates[rates.len() / 2]);
    println!(
        "events/s on an empty store {:.0}, on this one {:.0}: {:.2} times; resident memory {} MiB",
        median[0],
        median[1],
        median[1] / median[0],
        process::memory_mib("VmRSS"),
    );
    for (store, _) in stores {
        store.close();
    }
    let state = serde_json::to_vec_pretty(&(large.shape().clone(), large.written()))?;
    std::fs::write(publish.place.dir.join("dataset.json"), state)?;
    Ok(())
}
