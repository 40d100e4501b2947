//! A message's way through one shard's core: session, conversation, entry, acknowledgement; the disk takes no time.

#![allow(missing_docs)] // criterion's macros

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rialto_benches::{ShardRig, publishes};
use rialto_protocol::ids::{ConversationId, UserId};

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("conversation append");
    for batch in [1_u64, 16, 64] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::new("frames a read", batch), |bencher| {
            let mut rig = ShardRig::new();
            let conn = rig.connect(UserId::from_name("publisher"));
            let rooms: Vec<_> = (0..16)
                .map(|room| ConversationId::v7(1, [room; 10]))
                .collect();
            rooms.iter().for_each(|room| rig.create(conn, *room));
            let mut number = 0;
            bencher.iter_batched(
                || {
                    let numbers = number..number + batch;
                    number += batch;
                    publishes(numbers.map(|number| (rooms[(number % 16) as usize], number)))
                },
                |frames| rig.frames(conn, &frames),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
