//! The whole broker, real decisions over a journal in memory, in a world that a seed decides: connections break and stall,
//! frames are repeated, the disk takes its time, processes die and are taken over. Every guarantee is checked at every step,
//! and every check is shown to fail when the fault it is for is planted.

mod simulation {
    pub(crate) mod client;
    pub(crate) mod oracle;
    pub(crate) mod plant;
    pub(crate) mod random;
    pub(crate) mod world;
}

use simulation::{plant::Plant, world};

/// Seeds of one run of the suite.
const SEEDS: u64 = 1_000;
/// Steps of chaos in each.
const STEPS: usize = 2_000;

fn seeds() -> u64 {
    std::env::var("RIALTO_SIMULATION_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(SEEDS)
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let traces = |seed| {
        (
            world::run(seed, STEPS, None).trace,
            world::run(seed, STEPS, None).trace,
        )
    };
    for seed in 0..10 {
        let (one, other) = traces(seed);
        assert_eq!(one, other, "seed {seed}");
    }
    assert_ne!(
        world::run(1, STEPS, None).trace,
        world::run(2, STEPS, None).trace
    );
}

#[test]
fn no_guarantee_is_broken_in_any_seed() {
    let (mut appended, mut crashes, mut duplicates, mut fallen_behind) = (0, 0, 0, 0);
    for seed in 0..seeds() {
        let report = world::run(seed, STEPS, None);
        assert!(
            report.violations.is_empty(),
            "seed {seed}: {:#?}",
            report.violations
        );
        appended += report.appended;
        crashes += report.crashes;
        duplicates += report.duplicates;
        fallen_behind += report.fallen_behind;
    }
    println!(
        "{} seeds: {appended} events appended, {crashes} crashes and takeovers, {duplicates} retries recognised, readers \
         {fallen_behind} times behind, no violation",
        seeds()
    );
    assert!(
        appended > seeds() * 20,
        "the worlds are not asleep: {appended} events"
    );
    assert!(crashes > seeds() / 2, "processes die: {crashes}");
    assert!(
        duplicates > seeds(),
        "clients repeat themselves: {duplicates}"
    );
    assert!(
        fallen_behind > seeds() / 2,
        "readers fall behind: {fallen_behind}"
    );
}

#[test]
fn a_planted_fault_against_each_guarantee_is_found() {
    for plant in Plant::ALL {
        let found = (0..300).any(|seed| {
            let report = world::run(seed, STEPS, Some(plant));
            let violations = &report.violations;
            violations.iter().any(|violation| {
                violation.guarantee == plant.breaks() && !violation.what.is_empty()
            })
        });
        assert!(
            found,
            "{plant:?} breaks {} and nobody noticed",
            plant.breaks()
        );
    }
}
