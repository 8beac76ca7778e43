//! What clients send: events with known ids and content, as the parts that a node sends to a shard.

use bytes::Bytes;
use tallymesh_protocol::aggregate::Wants;
use tallymesh_protocol::cardinality::{KeyBudget, MetricBudget};
use tallymesh_protocol::event::batch::{NO_IDENTITY, NO_VALUE, ShardBatch};
use tallymesh_protocol::event::command::ShardSettings;
use tallymesh_protocol::hash::{DEFAULT_TENANT, ShardId, event_hash, identity_hash, key_hash, shard_of};
use tallymesh_protocol::key::{MetricKind, encode_key};
use tallymesh_protocol::question::query::{MetricSelector, ScanPlan, ShardQuery, Slice};
use tallymesh_protocol::time::{DAY_MS, Grain};

use super::clock::BEGAN_MS;
use super::plan::Plan;
use super::random::Random;

pub const NAMES: [&str; 3] = ["page_view", "signup", "purchase"];
const SOURCES: [&str; 3] = ["web", "ios", "android"];
const COUNTRIES: [Option<&str>; 3] = [Some("de"), Some("np"), None];
/// Days of event time before the beginning of the simulation.
const DAYS_BEFORE: i64 = 3;

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: usize,
    pub hash: u128,
    pub time_ms: i64,
    /// Whole numbers: their sums do not depend on the order.
    pub value: Option<f64>,
    home: usize,
    user: u64,
}

struct Home {
    name: usize,
    key: Vec<u8>,
    hash: u128,
}

/// Makes events and batches of them.
pub struct Catalogue {
    homes: Vec<Vec<Home>>,
    next_id: u64,
    /// Events that were sent before, by shard: some are sent again in other company.
    sent: Vec<Vec<Event>>,
}

impl Catalogue {
    pub fn new(shards: u16) -> Self {
        let mut homes: Vec<Vec<Home>> = (0..shards).map(|_| Vec::new()).collect();
        for (name, text) in NAMES.iter().enumerate() {
            for (source, country) in SOURCES.iter().flat_map(|s| COUNTRIES.iter().map(move |c| (s, c))) {
                let mut key = Vec::new();
                encode_key(&mut key, MetricKind::Default, DEFAULT_TENANT, text, [Some(*source), None, *country]);
                let hash = key_hash(&key);
                homes[usize::from(shard_of(hash, shards).0)].push(Home { name, key, hash });
            }
        }
        Self { sent: homes.iter().map(|_| Vec::new()).collect(), homes, next_id: 0 }
    }

    /// Events for one shard; mostly new ones, of which some are late by minutes or days.
    pub fn draw(&mut self, shard: ShardId, now_ms: i64, random: &mut Random) -> Vec<Event> {
        let at = usize::from(shard.0);
        let count = random.range(1, 6);
        let mut events = Vec::new();
        for _ in 0..count {
            if random.per_mille(150)
                && let Some(again) = random.pick(&self.sent[at])
            {
                events.push(again.clone());
                continue;
            }
            let home = random.range(0, self.homes[at].len() as u64) as usize;
            self.next_id += 1;
            let time_ms = match random.range(0, 10) {
                0..6 => now_ms - random.range(0, 2_000) as i64,
                6..8 => now_ms - random.range(0, 3_600_000) as i64,
                _ => now_ms - random.range(0, (DAYS_BEFORE * DAY_MS) as u64 - 3_600_000) as i64,
            };
            let value = random.per_mille(700).then(|| random.range(0, 1_000) as f64 - 300.0);
            let Home { name, hash, .. } = &self.homes[at][home];
            let user = if random.per_mille(200) { NO_IDENTITY } else { identity_hash(&random.range(0, 40).to_le_bytes()) };
            events.push(Event { name: *name, hash: event_hash(*hash, &self.next_id.to_le_bytes()), time_ms, value, home, user });
        }
        self.sent[at].extend(events.iter().cloned());
        events
    }

    pub fn encode(&self, shard: ShardId, events: &[Event]) -> Bytes {
        let homes = &self.homes[usize::from(shard.0)];
        let mut batch = ShardBatch { definitions_version: 1, ..ShardBatch::default() };
        let mut dictionary: Vec<usize> = Vec::new();
        for event in events {
            let key = dictionary.iter().position(|home| *home == event.home).unwrap_or_else(|| {
                dictionary.push(event.home);
                batch.key_hashes.push(homes[event.home].hash);
                batch.key_bytes.extend_from_slice(&homes[event.home].key);
                batch.key_ends.push(batch.key_bytes.len() as u32);
                dictionary.len() - 1
            });
            batch.keys.push(key as u32);
            batch.times.push(event.time_ms);
            batch.ids.push(event.hash);
            batch.users.push(event.user);
            batch.sessions.push(event.user);
            batch.values.push(event.value.unwrap_or(NO_VALUE));
        }
        Bytes::from_owner(batch.encode())
    }
}

pub fn settings(plan: &Plan) -> ShardSettings {
    let budget = |keys: u64| KeyBudget {
        keys: 1_000,
        reserved: 1,
        event_names: 100,
        per_metric: MetricBudget { event: keys, defined: keys },
        metrics: Default::default(),
    };
    ShardSettings {
        lateness_ms: plan.lateness_ms,
        dedup_horizon_ms: DAY_MS as u64,
        retention_minute_ms: None,
        retention_hour_ms: None,
        retention_day_ms: None,
        definitions_version: 1,
        definitions: Vec::new(),
        cardinality: plan.keys_max.map(budget),
    }
}

/// All events of a name, by steps of a random length.
pub fn query(name: usize, random: &mut Random) -> ShardQuery {
    let from = Grain::Day.floor(BEGAN_MS) - DAYS_BEFORE * DAY_MS;
    let days = DAYS_BEFORE + 2;
    let (grain, step_ms) = match random.range(0, 3) {
        0 => (Grain::Day, DAY_MS),
        1 => (Grain::Hour, DAY_MS / 4),
        _ => (Grain::Minute, days * DAY_MS),
    };
    let steps = days * DAY_MS / step_ms;
    let slice = |step: i64| Slice { from_ms: from + step * step_ms, to_ms: from + (step + 1) * step_ms, grain, bucket: step as u32 };
    ShardQuery {
        tenant: DEFAULT_TENANT.to_owned(),
        metric: MetricSelector::Event(NAMES[name].to_owned()),
        group_by: Vec::new(),
        filters: Vec::new(),
        plan: ScanPlan { slices: (0..steps).map(slice).collect(), buckets: steps as u32 },
        wants: Wants { values: true, ..Wants::default() },
        cells_max: 1_000,
    }
}
