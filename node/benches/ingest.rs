//! The stages of an event on its way in, one after the other on one thread, over the streams of `tallymesh bench`. Figures are per event.
//!
//! `parse` splits and parses bodies; `encode` does that and makes batches by shard; `check` is what each replica does to a batch before it reads it; `apply`
//! has a whole shard's worth of state: check, dedup, keys, rows; `settle` is apply and then all sealing and folding; `log` writes and syncs one request's
//! batches to a real file.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rkyv::util::AlignedVec;
use tallymesh_node::traffic::bench::stream::{Shape, Stream};
use tallymesh_protocol::definition::DefinitionSet;
use tallymesh_protocol::event::body::{BodyFormat, BodyLimits, BodyParser, EventSink};
use tallymesh_protocol::event::command::{encode_batches, encode_tick};
use tallymesh_protocol::event::encode::{BatchEncoder, Door, GeneratedIds};
use tallymesh_protocol::event::{Event, Rejection, batch};
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::limits::JSON_DEPTH_MAX;
use tallymesh_protocol::time::{DAY_MS, HOUR_MS};
use tallymesh_storage::clock::SystemClock;
use tallymesh_storage::disk::RealDisk;
use tallymesh_storage::shard::{ShardOptions, ShardState};
use tallymesh_storage::wal::{LogEntry, Wal, WalOptions};

const SHARDS: u16 = 16;
const EVENTS: u64 = 200_000;
/// 2026-03-11T00:00:00Z: the end of every stream.
const END_MS: i64 = 1_773_187_200_000;
const LIMITS: BodyLimits = BodyLimits { events_max: 100_000, event_bytes_max: 1 << 20, decoded_bytes_max: 1 << 30, depth: JSON_DEPTH_MAX };

struct Count(u64);

impl EventSink for Count {
    fn event(&mut self, _: u32, event: &Event<'_>) {
        self.0 += black_box(event).event_id.is_some() as u64;
    }

    fn reject(&mut self, index: u32, rejection: Rejection, _: &[u8]) {
        unreachable!("event {index}: {rejection:?}");
    }
}

struct Encode(BatchEncoder);

impl EventSink for Encode {
    fn event(&mut self, index: u32, event: &Event<'_>) {
        self.0.push(index, event).expect("events of the stream are in time");
    }

    fn reject(&mut self, index: u32, rejection: Rejection, _: &[u8]) {
        unreachable!("event {index}: {rejection:?}");
    }
}

type Parts = Vec<(ShardId, AlignedVec<16>)>;

fn read(body: &Bytes, sink: &mut impl EventSink) {
    let mut parser = BodyParser::new(BodyFormat::NdJson, LIMITS);
    parser.feed(body, sink).expect("a good body");
    parser.finish(sink).expect("a good body");
}

fn encode(body: &Bytes, definitions: &Arc<DefinitionSet>) -> Parts {
    let door = Door { now_ms: END_MS, future_tolerance_ms: HOUR_MS, retention_day_ms: None };
    let mut sink = Encode(BatchEncoder::new(SHARDS, definitions.clone(), door, GeneratedIds::Random(1)));
    read(body, &mut sink);
    sink.0.finish().parts
}

fn bodies(shape: Shape, batch: u64) -> Vec<Bytes> {
    Stream::new(42, shape, EVENTS, END_MS).bodies(batch).into_iter().map(|body| body.ndjson).collect()
}

fn apply(states: &mut [ShardState], commands: &[(ShardId, Bytes)]) {
    for (index, (shard, command)) in commands.iter().enumerate() {
        states[usize::from(shard.0)].apply(1 + index as u64, command).expect("in order");
    }
}

fn states() -> Vec<ShardState> {
    (0..SHARDS).map(|_| ShardState::new(ShardOptions { dedup_memory_bytes_max: 64 << 20 })).collect()
}

fn stages(c: &mut Criterion) {
    let definitions = Arc::new(DefinitionSet::compile(0, Vec::new()).expect("nothing to refuse"));
    for (shape, name) in [(Shape::Sparse, "sparse"), (Shape::Dense, "dense")] {
        for batch in [10_000, 100, 1] {
            let bodies = bodies(shape, batch);
            let bodies = &bodies[..bodies.len().min(20_000)];
            let events = bodies.len() as u64 * batch;
            let mut group = c.benchmark_group(format!("{name}, batches of {batch}"));
            group.sample_size(10).throughput(Throughput::Elements(events));
            group.bench_function("parse", |b| {
                b.iter(|| {
                    let mut sink = Count(0);
                    bodies.iter().for_each(|body| read(body, &mut sink));
                    assert_eq!(sink.0, events);
                });
            });
            group.bench_function("encode", |b| b.iter(|| bodies.iter().map(|body| encode(body, &definitions).len()).sum::<usize>()));
            let parts: Vec<(ShardId, AlignedVec<16>)> = bodies.iter().flat_map(|body| encode(body, &definitions)).collect();
            group.bench_function("check", |b| {
                b.iter(|| parts.iter().map(|(_, part)| batch::check(part).expect("a good batch").keys.len()).sum::<usize>());
            });
            let commands: Vec<(ShardId, Bytes)> =
                parts.iter().map(|(shard, part)| (*shard, encode_batches(END_MS, &[part.as_slice()]))).collect();
            group.bench_function("apply", |b| b.iter_batched_ref(states, |states| apply(states, &commands), BatchSize::PerIteration));
            group.bench_function("settle", |b| {
                b.iter_batched_ref(
                    states,
                    |states| {
                        apply(states, &commands);
                        let mut index = commands.len() as u64;
                        for tick in 1..=3 {
                            for state in states.iter_mut() {
                                index += 1;
                                state.apply(index, &encode_tick(END_MS + tick * DAY_MS)).expect("in order");
                            }
                        }
                        assert!(states.iter().all(|state| state.stats().windows.open_rows == 0));
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
}

fn log(c: &mut Criterion) {
    let definitions = Arc::new(DefinitionSet::compile(0, Vec::new()).expect("nothing to refuse"));
    for batch in [10_000, 100, 1] {
        let parts = encode(&bodies(Shape::Sparse, batch)[0], &definitions);
        let dir = tempfile::tempdir().expect("a directory");
        let opened = Wal::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), dir.path(), WalOptions::default()).expect("a new log");
        let (wal, mut writer) = (opened.wal, opened.writer);
        let mut group = c.benchmark_group(format!("batches of {batch}"));
        group.sample_size(20).throughput(Throughput::Elements(batch));
        let mut index = 0;
        group.bench_function("log", |b| {
            b.iter(|| {
                index += 1;
                for (shard, part) in &parts {
                    let body = encode_batches(END_MS, &[part.as_slice()]);
                    let entry = LogEntry { index, meta: Bytes::from_static(&[0; 10]), body };
                    wal.append(shard.0, vec![entry], Box::new(|written| written.expect("written")));
                }
                while writer.step() > 0 {}
                // As after a snapshot, so that segments go.
                if index % 64 == 0 {
                    for (shard, _) in &parts {
                        wal.purge(shard.0, index, Bytes::from_static(&[0; 10]), Box::new(|written| written.expect("written")));
                    }
                }
            });
        });
    }
}

criterion_group!(benches, stages, log);
criterion_main!(benches);
