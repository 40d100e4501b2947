//! From one publisher to many readers of the same shard: what the core does until frames lie ready for the sockets.

#![allow(missing_docs)] // criterion's macros

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rialto_benches::{ShardRig, publishes};
use rialto_protocol::ids::{ConversationId, UserId};

/// Messages that are durable together.
const BATCH: u64 = 16;

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan-out");
    for readers in [1_u64, 100, 10_000] {
        group.throughput(Throughput::Elements(BATCH * readers));
        group.bench_function(BenchmarkId::new("readers", readers), |bencher| {
            let mut rig = ShardRig::new();
            let publisher = rig.connect(UserId::from_name("publisher"));
            let room = ConversationId::v7(1, [1; 10]);
            rig.create(publisher, room);
            for reader in 0..readers {
                let conn = rig.connect(UserId::from_name(&format!("reader {reader}")));
                rig.subscribe(conn, &[room]);
            }
            let before = rig.sent_frames;
            let mut number = 0;
            bencher.iter_batched(
                || {
                    let numbers = number..number + BATCH;
                    number += BATCH;
                    publishes(numbers.map(|number| (room, number)))
                },
                |frames| rig.frames(publisher, &frames),
                BatchSize::SmallInput,
            );
            assert!(
                rig.sent_frames - before >= readers,
                "every reader gets frames"
            );
        });
    }
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
