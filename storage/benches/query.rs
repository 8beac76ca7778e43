//! Stages of a query over the sparse day (3 million events, 1.8 million one-minute keys) in 16 shards: the scans of all shards, one after the
//! other on one thread, and the merge of what they answer.
//!
//! `settled` is the day once every window is folded; `fresh` is right after the last event, when a part of the rows is still open.

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tallymesh_protocol::aggregate::Wants;
use tallymesh_protocol::event::batch::ShardBatch;
use tallymesh_protocol::event::command::{encode_batches, encode_configure, encode_tick};
use tallymesh_protocol::hash::{event_hash, identity_hash, key_hash, shard_of};
use tallymesh_protocol::key::{MetricKind, encode_key};
use tallymesh_protocol::question::answer::PartialAnswer;
use tallymesh_protocol::question::merge::Merger;
use tallymesh_protocol::question::plan::{Retention, plan};
use tallymesh_protocol::question::query::{DimensionFilter, DimensionRef, MetricSelector, ShardQuery, Step, StepWidth, TimeRange, Zone};
use tallymesh_protocol::time::DAY_MS;
use tallymesh_storage::shard::{ShardOptions, ShardState, initial_settings};

const SHARDS: u16 = 16;
const EVENTS: u64 = 3_000_000;
const BATCH: u64 = 10_000;
/// 2026-01-01T00:00:00Z.
const T0: i64 = 1_767_225_600_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn pick(&mut self, cumulative: &[f64]) -> usize {
        let at = self.unit() * cumulative.last().copied().unwrap_or(0.0);
        cumulative.partition_point(|&c| c <= at).min(cumulative.len() - 1)
    }
}

fn cumulative(weights: impl IntoIterator<Item = f64>) -> Vec<f64> {
    weights
        .into_iter()
        .scan(0.0, |sum, w| {
            *sum += w;
            Some(*sum)
        })
        .collect()
}

fn zipf(n: usize, exponent: f64) -> Vec<f64> {
    cumulative((1..=n).map(|i| (i as f64).powf(-exponent)))
}

#[derive(Clone, Copy)]
struct Session {
    id: u64,
    user: u64,
    device: usize,
    country: usize,
    source: usize,
}

/// The stream of `tallymesh bench --stream sparse`, without its texts.
struct Stream {
    random: Random,
    names: Vec<f64>,
    countries: Vec<f64>,
    devices: Vec<f64>,
    sources: Vec<f64>,
    sessions: Vec<Session>,
}

impl Stream {
    fn new() -> Self {
        let mut stream = Self {
            random: Random(42),
            names: zipf(30, 1.1),
            countries: zipf(60, 1.0),
            devices: cumulative([48.0, 40.0, 9.0, 3.0]),
            sources: cumulative([58.0, 34.0, 8.0]),
            sessions: Vec::new(),
        };
        stream.sessions = (0..20_000).map(|_| stream.session()).collect();
        stream
    }

    fn session(&mut self) -> Session {
        let r = &mut self.random;
        let user = (r.unit().powi(2) * 200_000.0) as u64;
        Session {
            id: r.bits(),
            user: if r.unit() < 0.7 { identity_hash(format!("u_{user:06}").as_bytes()) } else { 0 },
            device: r.pick(&self.devices),
            country: r.pick(&self.countries),
            source: r.pick(&self.sources),
        }
    }

    /// Appends event `index` to the batch of its shard.
    fn push(&mut self, index: u64, parts: &mut [Part]) {
        let at = self.random.bits() as usize % self.sessions.len();
        if self.random.unit() < 0.08 {
            self.sessions[at] = self.session();
        }
        let s = self.sessions[at];
        let name = self.random.pick(&self.names);
        let late_ms = if self.random.unit() < 0.02 { (self.random.unit() * 1_800_000.0) as i64 } else { 0 };
        let time_ms = (T0 + (index as i64 * DAY_MS / EVENTS as i64) - late_ms).max(T0);
        let value = (-40.0 * (1.0 - self.random.unit()).ln() * 100.0).round() / 100.0;
        let mut key = Vec::with_capacity(64);
        let dimensions = [format!("source{}", s.source), format!("device{}", s.device), format!("c{}", s.country)];
        encode_key(&mut key, MetricKind::Default, "default", &format!("event{name}"), dimensions.iter().map(|d| Some(d.as_str())));
        let home = key_hash(&key);
        let Part { batch, dictionary } = &mut parts[usize::from(shard_of(home, SHARDS).0)];
        let number = *dictionary.entry(home).or_insert_with(|| {
            batch.key_hashes.push(home);
            batch.key_bytes.extend_from_slice(&key);
            batch.key_ends.push(batch.key_bytes.len() as u32);
            batch.key_ends.len() as u32 - 1
        });
        batch.keys.push(number);
        batch.times.push(time_ms);
        batch.ids.push(event_hash(home, &index.to_le_bytes()));
        batch.users.push(s.user);
        batch.sessions.push(s.id | 1);
        batch.values.push(value);
    }
}

#[derive(Default)]
struct Part {
    batch: ShardBatch,
    dictionary: HashMap<u128, u32>,
}

/// All shards right after the last event, and once everything is folded.
fn day() -> Vec<ShardState> {
    let mut shards: Vec<ShardState> = (0..SHARDS).map(|_| ShardState::new(ShardOptions { dedup_memory_bytes_max: 64 << 20 })).collect();
    let now = T0 + 2 * DAY_MS;
    for shard in &mut shards {
        shard.apply(1, &encode_configure(now, &initial_settings())).expect("configures");
    }
    let mut stream = Stream::new();
    for batch in 0..EVENTS / BATCH {
        let mut parts: Vec<Part> = (0..SHARDS).map(|_| Part::default()).collect();
        (0..BATCH).for_each(|i| stream.push(batch * BATCH + i, &mut parts));
        for (shard, part) in shards.iter_mut().zip(&parts) {
            shard.apply(batch + 2, &encode_batches(now, &[part.batch.encode()])).expect("applies");
        }
    }
    shards
}

fn settle(shards: &mut [ShardState]) {
    for shard in shards {
        for minutes in [3, 6, 9, 12] {
            let index = shard.applied_index() + 1;
            shard.apply(index, &encode_tick(T0 + 2 * DAY_MS + minutes * 60_000)).expect("ticks");
        }
    }
}

fn query(group_by: Vec<DimensionRef>, filters: Vec<DimensionFilter>, step: Step, wants: Wants) -> ShardQuery {
    let range = TimeRange { from_ms: T0, to_ms: T0 + DAY_MS };
    let plan = plan(range, step, &Zone::utc(), Retention::default(), T0 + 2 * DAY_MS).expect("plans").scan;
    ShardQuery { tenant: "default".into(), metric: MetricSelector::All, group_by, filters, plan, wants, cells_max: 2_000_000 }
}

fn queries() -> Vec<(&'static str, ShardQuery)> {
    let none = Wants::default();
    let mobile = DimensionFilter { dimension: DimensionRef::Index(1), negated: false, values: vec![Some("device0".into())] };
    vec![
        ("events per minute", query(vec![], vec![], Step::Every(StepWidth::Minute), none)),
        ("users by event", query(vec![DimensionRef::EventName], vec![], Step::None, Wants { users: true, ..none })),
        ("mobile by country", query(vec![DimensionRef::Index(2)], vec![mobile.clone()], Step::None, none)),
        ("p95 by hour", query(vec![], vec![], Step::Every(StepWidth::Hour), Wants { quantiles: true, ..none })),
        ("mobile by country and hour", query(vec![DimensionRef::Index(2)], vec![mobile.clone()], Step::Every(StepWidth::Hour), none)),
        ("mobile users by hour", query(vec![], vec![mobile], Step::Every(StepWidth::Hour), Wants { users: true, ..none })),
    ]
}

fn ask(shards: &[ShardState], query: &ShardQuery) -> Vec<PartialAnswer> {
    shards.iter().map(|s| s.query(query).expect("answers")).collect()
}

fn merge(answers: Vec<PartialAnswer>) -> usize {
    let mut merger = Merger::new(2_000_000);
    answers.into_iter().for_each(|a| merger.push(a).expect("few cells"));
    merger.finish(None).expect("few cells").cells.len()
}

fn stages(c: &mut Criterion) {
    let mut shards = day();
    for state in ["fresh", "settled"] {
        if state == "settled" {
            settle(&mut shards);
        }
        eprintln!("{state}: {:?}", shards[0].stats().windows);
        for (name, query) in queries() {
            let mut group = c.benchmark_group(state);
            group.sample_size(10);
            group.bench_function(format!("{name}: scan"), |b| b.iter(|| black_box(ask(&shards, &query))));
            let answers = ask(&shards, &query);
            group.bench_function(format!("{name}: merge"), |b| b.iter_batched(|| answers.clone(), merge, BatchSize::LargeInput));
        }
    }
}

criterion_group!(benches, stages);
criterion_main!(benches);
