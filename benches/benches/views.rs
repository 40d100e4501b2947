//! The embedded views: how fast what is durable gets into them, and pages of history out of them.

#![allow(missing_docs)] // criterion's macros

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rialto_benches::entry;
use rialto_protocol::ids::{ConversationId, LaneId, Position, Seq};
use rialto_storage::embedded::{EmbeddedOptions, EmbeddedStore};
use rialto_storage::journal::{Claim, Journal};
use rialto_storage::views::{Order, Range, Views};
use rialto_storage::wait;

/// Conversations, each of which gets one message with every entry.
const ROOMS: u8 = 200;
/// Entries that are brought into the views together.
const ENTRIES: u64 = 250;

struct Filled {
    store: EmbeddedStore,
    claim: Claim,
    rooms: Vec<ConversationId>,
    next: u64,
}

impl Filled {
    fn open(folder: &Path) -> Self {
        // At full speed, so that the work is measured and not its pauses.
        let options = EmbeddedOptions {
            views_duty_percent: 100,
            ..EmbeddedOptions::default()
        };
        let store = EmbeddedStore::open(folder, options).expect("a store");
        let claim = wait(store.claim(vec![LaneId(0)]))
            .expect("the lane")
            .remove(0);
        let rooms = (0..ROOMS)
            .map(|room| ConversationId::v7(1, [room; 10]))
            .collect();
        Self {
            store,
            claim,
            rooms,
            next: 1,
        }
    }

    fn append(&mut self) {
        for _ in 0..ENTRIES {
            let entry = entry(
                self.claim.lane,
                self.claim.epoch,
                Position(self.next),
                &self.rooms,
                self.next,
            );
            wait(self.store.append(vec![entry])).expect("durable");
            self.next += 1;
        }
    }
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("views apply");
    group.sample_size(10);
    group.throughput(Throughput::Elements(ENTRIES * u64::from(ROOMS)));
    group.bench_function("50,000 events of 200 conversations", |bencher| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut filled = Filled::open(folder.path());
        bencher.iter_custom(|times| {
            let mut applying = Duration::ZERO;
            for _ in 0..times {
                filled.append();
                let begun = Instant::now();
                wait(filled.store.settle()).expect("in the views");
                applying += begun.elapsed();
            }
            applying
        });
        filled.store.close();
    });
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("views read");
    let folder = tempfile::tempdir().expect("a folder");
    let mut filled = Filled::open(folder.path());
    for _ in 0..4 {
        filled.append();
    }
    wait(filled.store.settle()).expect("in the views");
    for page in [50_u64, 1_000] {
        group.throughput(Throughput::Elements(page));
        group.bench_function(BenchmarkId::new("events of a page", page), |bencher| {
            let mut turn = 0;
            bencher.iter(|| {
                turn += 1;
                let conversation = filled.rooms[turn % filled.rooms.len()];
                let from = 1 + (turn as u64 * 50) % (4 * ENTRIES - page + 1);
                let range = Range {
                    conversation,
                    from: Seq(from),
                    to: Seq(from + page - 1),
                    bytes_max: usize::MAX,
                    order: Order::Forward,
                };
                let events = wait(filled.store.events(range)).expect("a page");
                assert_eq!(events.len() as u64, page);
            });
        });
    }
    group.finish();
    filled.store.close();
}

criterion_group!(benches, apply, read);
criterion_main!(benches);
