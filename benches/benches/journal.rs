//! The embedded journal: entries of several sizes, each waited for until it is durable.

#![allow(missing_docs)] // criterion's macros

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rialto_benches::entry;
use rialto_protocol::ids::{ConversationId, LaneId, Position};
use rialto_storage::embedded::{EmbeddedOptions, EmbeddedStore};
use rialto_storage::journal::Journal;
use rialto_storage::wait;

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal append with sync");
    for messages in [1_u8, 32, 255] {
        group.throughput(Throughput::Elements(u64::from(messages)));
        group.bench_function(BenchmarkId::new("messages", messages), |bencher| {
            let folder = tempfile::tempdir().expect("a folder");
            let store =
                EmbeddedStore::open(folder.path(), EmbeddedOptions::default()).expect("a store");
            let claim = wait(store.claim(vec![LaneId(0)]))
                .expect("the lane")
                .remove(0);
            let rooms: Vec<_> = (0..messages)
                .map(|room| ConversationId::v7(1, [room; 10]))
                .collect();
            let mut next = 1;
            bencher.iter_batched(
                || {
                    let entry = entry(claim.lane, claim.epoch, Position(next), &rooms, next);
                    next += 1;
                    vec![entry]
                },
                |entries| wait(store.append(entries)).expect("durable"),
                BatchSize::SmallInput,
            );
            store.close();
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
