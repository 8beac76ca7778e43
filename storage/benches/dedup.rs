//! What it costs to remember an event: 16 shards that grow from nothing, as on a node that has just been started, and the same ids sent again.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tallymesh_storage::dedup::{Dedup, INSERT_CHUNK};

const SHARDS: usize = 16;
const ENTRIES: u64 = 3_000_000;
/// Events of one shard in a request of 10 000.
const RUN: u64 = 625;
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// The finaliser of MurmurHash3.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

fn hash(i: u64) -> u128 {
    u128::from(mix(2 * i + 1)) << 64 | u128::from(mix(2 * i + 2))
}

/// Shards take turns, as they do when requests are split.
fn insert(shards: &mut [Dedup]) -> u32 {
    let mut new = 0;
    let mut chunk = [0; INSERT_CHUNK];
    for from in (0..ENTRIES).step_by(RUN as usize) {
        let shard = &mut shards[(from / RUN) as usize % SHARDS];
        for at in (from..(from + RUN).min(ENTRIES)).step_by(INSERT_CHUNK) {
            let n = (INSERT_CHUNK as u64).min(from + RUN - at) as usize;
            chunk[..n].iter_mut().zip(at..).for_each(|(h, i)| *h = hash(i));
            let cold = shard.look_up_cold(chunk[..n].iter().copied()).expect("no run is cold");
            new += shard.insert(black_box(&chunk[..n]), cold.chunk(0)).count_ones();
        }
    }
    new
}

fn empty() -> Vec<Dedup> {
    (0..SHARDS).map(|_| Dedup::new(MEMORY_BYTES_MAX)).collect()
}

fn inserts(c: &mut Criterion) {
    let mut group = c.benchmark_group("dedup");
    group.sample_size(10).throughput(Throughput::Elements(ENTRIES));
    group.bench_function("new ids, growing", |b| b.iter_batched_ref(empty, |shards| insert(shards), BatchSize::PerIteration));
    let mut full = empty();
    insert(&mut full);
    group.bench_function("ids seen before", |b| b.iter(|| insert(&mut full)));
}

criterion_group!(benches, inserts);
criterion_main!(benches);
