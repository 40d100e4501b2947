//! The codec: frames off a buffer and onto it, bodies, events.

#![allow(missing_docs)] // criterion's macros

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use rialto_benches::{message_event, publish, publishes};
use rialto_protocol::frame::{self, FrameKind};
use rialto_protocol::ids::{ConversationId, Handle, RequestId};
use rialto_protocol::limits::FRAME_BYTES_MAX_DEFAULT;
use rialto_protocol::plain::PlainPublish;
use rialto_protocol::{body, event, v1};

/// Frames of one read, events of one delivery.
const BATCH: u64 = 64;

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Elements(BATCH));
    let room = ConversationId::v7(1, [1; 10]);
    let requests: Vec<_> = (0..BATCH).map(|number| publish(room, number)).collect();
    let bodies: Vec<_> = requests
        .iter()
        .map(|request| Bytes::from(request.encode_to_vec()))
        .collect();
    let wire = publishes((0..BATCH).map(|number| (room, number)));

    group.bench_function("split 64 publishes", |bencher| {
        bencher.iter_batched(
            || BytesMut::from(&wire[..]),
            |mut buf| {
                let mut count = 0;
                while let Ok(Some(frame)) = frame::split(&mut buf, FRAME_BYTES_MAX_DEFAULT) {
                    count += black_box(frame).body.len();
                }
                count
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("encode 64 publishes", |bencher| {
        let mut buf = BytesMut::with_capacity(wire.len());
        bencher.iter(|| {
            buf.clear();
            for request in &requests {
                frame::encode_into(&mut buf, FrameKind::Publish, RequestId(1), request);
            }
            black_box(buf.len())
        });
    });
    group.bench_function("decode 64 publish bodies", |bencher| {
        bencher.iter(|| {
            for body in &bodies {
                black_box(body::decode::<v1::Publish>(body).is_ok());
            }
        });
    });
    group.bench_function("read 64 publish bodies in place", |bencher| {
        bencher.iter(|| {
            for body in &bodies {
                black_box(PlainPublish::read(body).is_some());
            }
        });
    });
    group.finish();
}

fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Elements(BATCH));
    let written: Vec<_> = (1..=BATCH).map(message_event).collect();
    let encoded: Vec<Bytes> = written
        .iter()
        .map(|(head, content)| {
            let mut buf = BytesMut::new();
            event::encode_into(&mut buf, head, content);
            buf.freeze()
        })
        .collect();

    group.bench_function("encode 64", |bencher| {
        let mut buf = BytesMut::with_capacity(1 << 16);
        bencher.iter(|| {
            buf.clear();
            for (head, content) in &written {
                event::encode_into(&mut buf, head, content);
            }
            black_box(buf.len())
        });
    });
    group.bench_function("peek 64", |bencher| {
        bencher.iter(|| {
            encoded
                .iter()
                .filter(|event| black_box(event::peek(event)).is_ok())
                .count()
        });
    });
    group.bench_function("assemble a delivery of 64", |bencher| {
        bencher.iter(|| black_box(frame::deliver(Handle(7), encoded.iter())));
    });
    let delivery = frame::deliver(Handle(7), encoded.iter());
    let delivery = delivery.slice(frame::HEADER_BYTES..);
    group.bench_function("decode a delivery of 64", |bencher| {
        bencher.iter(|| black_box(body::decode::<v1::Deliver>(&delivery).is_ok()));
    });
    group.finish();
}

criterion_group!(benches, frames, events);
criterion_main!(benches);
