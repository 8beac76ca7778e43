//! What a shard should answer, by the plainest means: a list of all counted events.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tallymesh_protocol::hash::{event_hash, identity_hash};
use tallymesh_protocol::question::answer::GroupKey;

use super::*;

pub const BASE_MS: i64 = 1_700_006_400_000;
pub const HORIZON_MS: u64 = 3_600_000;

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: u64,
    pub name: u8,
    /// 0 is null for the third one, else a text.
    pub dimensions: [u8; 3],
    pub time_ms: i64,
    /// 0 is none.
    pub user: u8,
    pub value: Option<f64>,
    /// Dimension and value of a row of the defined metric `amounts`.
    pub derived: Option<(u8, Option<f64>)>,
}

impl Event {
    fn home(&self) -> Vec<u8> {
        let mut key = Vec::new();
        let texts = self.texts();
        encode_key(&mut key, MetricKind::Default, "default", &format!("event{}", self.name), texts.iter().map(|t| t.as_deref()));
        key
    }

    pub fn texts(&self) -> [Option<String>; 3] {
        let [a, b, c] = self.dimensions;
        [Some(format!("v{a}")), Some(format!("v{b}")), (c > 0).then(|| format!("v{c}"))]
    }

    pub fn hash(&self) -> u128 {
        event_hash(key_hash(&self.home()), &self.id.to_le_bytes())
    }

    pub fn user_hash(&self) -> u64 {
        if self.user == 0 { 0 } else { identity_hash(&[self.user]) }
    }
}

fn amounts_key(dimension: u8) -> Vec<u8> {
    let mut key = Vec::new();
    encode_key(&mut key, MetricKind::Defined, "default", "amounts", [Some(format!("v{dimension}").as_str())]);
    key
}

/// An encoded batch.
pub fn encode(events: &[Event], definitions_version: u64) -> rkyv::util::AlignedVec<16> {
    let mut batch = ShardBatch { definitions_version, ..ShardBatch::default() };
    let mut dictionary: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut index = |batch: &mut ShardBatch, key: Vec<u8>| {
        let next = dictionary.len() as u32;
        *dictionary.entry(key).or_insert_with_key(|key| {
            batch.key_hashes.push(key_hash(key));
            batch.key_bytes.extend_from_slice(key);
            batch.key_ends.push(batch.key_bytes.len() as u32);
            next
        })
    };
    for (i, event) in events.iter().enumerate() {
        let key = index(&mut batch, event.home());
        batch.keys.push(key);
        batch.times.push(event.time_ms);
        batch.ids.push(event.hash());
        batch.users.push(event.user_hash());
        batch.sessions.push(event.user_hash() >> 1);
        batch.values.push(event.value.unwrap_or(f64::NAN));
        if let Some((dimension, value)) = event.derived {
            let key = index(&mut batch, amounts_key(dimension));
            batch.derived_events.push(i as u32);
            batch.derived_keys.push(key);
            batch.derived_values.push(value.unwrap_or(f64::NAN));
        }
    }
    batch.encode()
}

#[derive(Clone, Debug)]
pub enum Step {
    /// Parts of one entry.
    Batches(Vec<Vec<Event>>),
    Advance(i64),
    Tick,
    Save,
    SaveUnmarked,
    Reopen,
    Configure(u64),
}

fn an_event() -> impl Strategy<Value = Event> {
    let value = prop::option::of(prop_oneof![Just(0.0), -50.0..50.0f64, Just(1e9)]);
    let time = prop_oneof![8 => 0..4_000_000i64, 1 => 0..3 * DAY_MS];
    (0..400u64, 0..3u8, [0..2u8, 0..2u8, 0..3u8], time, 0..30u8, value.clone(), prop::option::of((0..3u8, value))).prop_map(
        |(id, name, dimensions, offset, user, value, derived)| Event {
            id,
            name,
            dimensions,
            time_ms: BASE_MS + offset,
            user,
            value,
            derived,
        },
    )
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let parts = prop::collection::vec(prop::collection::vec(an_event(), 0..60), 1..4);
    let step = prop_oneof![
        8 => parts.prop_map(Step::Batches),
        4 => prop_oneof![0..10_000i64, 0..2_000_000i64].prop_map(Step::Advance),
        2 => Just(Step::Tick),
        2 => Just(Step::Save),
        1 => Just(Step::SaveUnmarked),
        1 => Just(Step::Reopen),
        1 => (0..300_000u64).prop_map(Step::Configure),
    ];
    prop::collection::vec(step, 1..30).prop_map(|steps| [vec![Step::Configure(60_000)], steps].concat())
}

/// Random question over three days, each read at another grain.
pub fn query() -> impl Strategy<Value = ShardQuery> {
    let metric = prop_oneof![
        Just(MetricSelector::All),
        (0..4u8).prop_map(|n| MetricSelector::Event(format!("event{n}"))),
        Just(MetricSelector::Defined("amounts".into())),
    ];
    let dimension = prop_oneof![Just(DimensionRef::EventName), (0..4usize).prop_map(DimensionRef::Index)];
    let value = prop_oneof![Just(None), (0..3u8).prop_map(|n| Some(format!("v{n}"))), (0..3u8).prop_map(|n| Some(format!("event{n}"))),];
    let filter = (dimension.clone(), any::<bool>(), prop::collection::vec(value, 1..3))
        .prop_map(|(dimension, negated, values)| DimensionFilter { dimension, negated, values });
    let grains = prop::collection::vec(prop_oneof![Just(Grain::Minute), Just(Grain::Hour), Just(Grain::Day)], 3);
    (metric, prop::collection::vec(dimension, 0..3), prop::collection::vec(filter, 0..3), grains, 0..2u32).prop_map(
        |(metric, group_by, filters, grains, one_bucket)| {
            let start = Grain::Day.floor(BASE_MS);
            let slice = |(i, &grain): (usize, &Grain)| {
                let from_ms = start + i as i64 * DAY_MS;
                // Finer grains may begin inside the day.
                let inset = if grain == Grain::Day { 0 } else { 2 * grain.ms() };
                Slice { from_ms: from_ms + inset, to_ms: from_ms + DAY_MS, grain, bucket: i as u32 * one_bucket }
            };
            let plan = ScanPlan { slices: grains.iter().enumerate().map(slice).collect(), buckets: 3 };
            let wants = Wants { values: true, last: true, users: true, sessions: true, quantiles: true };
            ShardQuery { tenant: "default".into(), metric, group_by, filters, plan, wants, cells_max: 100_000 }
        },
    )
}

#[derive(Default)]
pub struct Model {
    now_ms: i64,
    index: u64,
    arrived: HashMap<u128, i64>,
    counted: Vec<Event>,
    duplicates: u64,
}

#[derive(Debug, Default, PartialEq)]
struct Expected {
    count: u64,
    values: Vec<f64>,
    last: Option<(i64, u64, f64)>,
    users: BTreeSet<u64>,
    sessions: BTreeSet<u64>,
}

impl Model {
    fn stamp_ms(&self) -> i64 {
        BASE_MS + self.now_ms
    }

    /// The log entry of a step, if it makes one.
    pub fn command(&mut self, step: &Step) -> Option<(u64, bytes::Bytes)> {
        let command = match step {
            Step::Batches(parts) => encode_batches(self.stamp_ms(), &parts.iter().map(|p| encode(p, 0)).collect::<Vec<_>>()),
            Step::Advance(ms) => {
                self.now_ms += ms;
                return None;
            }
            Step::Tick => encode_tick(self.stamp_ms()),
            Step::Configure(lateness_ms) => {
                let settings = ShardSettings { lateness_ms: *lateness_ms, dedup_horizon_ms: HORIZON_MS, ..initial_settings() };
                encode_configure(self.stamp_ms(), &settings)
            }
            Step::Save | Step::SaveUnmarked | Step::Reopen => return None,
        };
        self.index += 1;
        Some((self.index, command))
    }

    /// Takes a step with the shard and checks what it says.
    pub fn step(&mut self, state: &mut ShardState, files: &ShardFiles, step: &Step) {
        if let Some((index, command)) = self.command(step) {
            let applied = state.apply(index, &command).expect("applies");
            if let Step::Batches(parts) = step {
                let expected: Vec<PartApplied> = parts.iter().map(|part| self.count(part)).collect();
                assert_eq!(applied.parts, expected);
            }
        }
        store(state, files, step);
        let counters = state.stats().counters;
        assert_eq!((counters.events, counters.duplicates), (self.counted.len() as u64, self.duplicates));
    }

    fn count(&mut self, part: &[Event]) -> PartApplied {
        let mut outcome = PartApplied::default();
        let now = self.stamp_ms();
        for event in part {
            let arrived = self.arrived.get(&event.hash());
            if arrived.is_some_and(|arrived| now / 1_000 - arrived / 1_000 <= HORIZON_MS as i64 / 1_000) {
                outcome.duplicates += 1;
            } else {
                self.arrived.insert(event.hash(), now);
                self.counted.push(event.clone());
                outcome.counted += 1;
            }
        }
        self.duplicates += u64::from(outcome.duplicates);
        outcome
    }

    fn expected(&self, query: &ShardQuery) -> BTreeMap<(GroupKey, u32), Expected> {
        let mut cells: BTreeMap<(GroupKey, u32), Expected> = BTreeMap::new();
        for event in &self.counted {
            let name = format!("event{}", event.name);
            let (texts, metric, value) = match (&query.metric, event.derived) {
                (MetricSelector::All, _) => (event.texts().to_vec(), name, event.value),
                (MetricSelector::Event(wanted), _) if *wanted == name => (event.texts().to_vec(), name, event.value),
                (MetricSelector::Defined(_), Some((d, value))) => (vec![Some(format!("v{d}"))], "amounts".to_owned(), value),
                _ => continue,
            };
            let read = |d: &DimensionRef| match d {
                DimensionRef::EventName => Some(metric.clone()),
                DimensionRef::Index(i) => texts.get(*i).cloned().flatten(),
            };
            if !query.filters.iter().all(|f| f.values.contains(&read(&f.dimension)) != f.negated) {
                continue;
            }
            let Some(slice) = query.plan.slices.iter().find(|s| (s.from_ms..s.to_ms).contains(&event.time_ms)) else { continue };
            let cell = cells.entry((query.group_by.iter().map(read).collect(), slice.bucket)).or_default();
            cell.count += 1;
            if let Some(value) = value {
                cell.values.push(value);
                let last = (event.time_ms, event.hash() as u64, value);
                if cell.last.is_none_or(|l| (last.0, last.1) > (l.0, l.1)) {
                    cell.last = Some(last);
                }
            }
            cell.users.extend((event.user > 0).then(|| event.user_hash()));
            cell.sessions.extend((event.user > 0).then(|| event.user_hash() >> 1));
        }
        cells
    }

    pub fn check_query(&self, state: &ShardState, query: &ShardQuery) {
        let answer = state.query(query).expect("answers");
        let mut expected = self.expected(query);
        for cell in &answer.cells {
            let group = answer.groups[cell.group as usize].clone();
            let wanted = expected.remove(&(group, cell.bucket)).unwrap_or_default();
            let got = &cell.values;
            assert_eq!((got.count, got.value_count), (wanted.count, wanted.values.len() as u64), "{cell:?}");
            let sum: f64 = wanted.values.iter().sum();
            let scale: f64 = wanted.values.iter().map(|v| v.abs()).sum::<f64>().max(1.0);
            assert!((got.sum - sum).abs() <= 1e-9 * scale, "{} is not {sum}", got.sum);
            assert_eq!(got.min, wanted.values.iter().copied().fold(f64::INFINITY, f64::min));
            assert_eq!(got.max, wanted.values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            assert_eq!(got.last.map(|l| (l.time_ms, l.id, l.value)), wanted.last);
            assert_eq!(got.users.estimate(), wanted.users.len() as f64);
            assert_eq!(got.sessions.estimate(), wanted.sessions.len() as f64);
            assert_eq!(got.quantiles.count(), got.value_count);
        }
        assert!(expected.is_empty(), "missing: {expected:?}");
    }
}

/// Does to a replica's own storage what a step says; the log is not concerned.
pub fn store(state: &mut ShardState, files: &ShardFiles, step: &Step) {
    match step {
        Step::Save => {
            let saved = state.save_plan().write(files, b"saved").expect("saves");
            state.mark_saved(&saved);
        }
        Step::SaveUnmarked => {
            // A replica that dies between the two opens what was written.
            let before = state.checksum();
            state.save_plan().write(files, b"unmarked").expect("saves");
            *state = ShardState::open(files, OPTIONS).expect("opens").expect("was saved").0;
            assert_eq!(state.checksum(), before);
        }
        Step::Reopen => {
            let before = state.checksum();
            let saved = state.save_plan().write(files, b"reopened").expect("saves");
            state.mark_saved(&saved);
            *state = ShardState::open(files, OPTIONS).expect("opens").expect("was saved").0;
            assert_eq!(state.checksum(), before);
        }
        _ => {}
    }
}
