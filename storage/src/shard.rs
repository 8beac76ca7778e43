//! The replicated state of one shard: keys, deduplication, windows, counters. A pure engine: it changes only by log entries, in order,
//! so replicas that applied the same log are equal; no clock, no I/O but in saving and opening.
//!
//! Life of an entry: [`ShardState::apply`]. Of a query: [`ShardState::prepare`] under a read lock, [`PreparedQuery::run`] outside it. Of a snapshot:
//! [`ShardState::save_plan`] under a read lock, [`ShardSave::write`] outside it, [`ShardState::mark_saved`] under a write lock.

pub mod answers;
mod apply;
pub mod keys;
mod late;
mod manifest;
mod query;
mod select;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tallymesh_protocol::event::command::ShardSettings;
use tallymesh_protocol::key::MetricKind;

pub use apply::{Applied, ApplyError, PartApplied, PartError};
pub use late::LateChanges;
pub use query::{PreparedQuery, QueryFailed};
pub use snapshot::{SavedShard, ShardSave};

use crate::dedup::{Dedup, DedupStats};
use crate::windows::{WindowSettings, WindowStats, WindowStore};
use answers::Answers;
use keys::{DimensionUse, KeyId, KeyTable, MetricKeys};

/// What a replica may choose for itself: none of it shows in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardOptions {
    /// Deduplication entries kept in memory, in bytes.
    pub dedup_memory_bytes_max: usize,
}

pub struct ShardState {
    settings: ShardSettings,
    /// Log index of the last applied entry; 0 before the first.
    applied_index: u64,
    /// Newest stamp, UTC milliseconds; never goes back.
    stamp_ms: i64,
    counters: Counters,
    keys: KeyTable,
    /// Rows that the budget put under an other key, by that key.
    other_rows: BTreeMap<KeyId, u64>,
    dedup: Dedup,
    answers: Answers,
    windows: WindowStore,
    /// Log index of the last snapshot that was marked.
    saved_index: Option<u64>,
    late: Arc<LateChanges>,
}

/// Totals since the shard was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Counted events.
    pub events: u64,
    pub duplicates: u64,
    /// Rows of defined metrics.
    pub derived_rows: u64,
    /// Parts of entries that were refused whole.
    pub refused_parts: u64,
    /// Counted events whose own time is older than the dedup horizon: a resend of such an event may have counted before.
    pub older_than_horizon: u64,
    /// Wrapping sum of the low halves of the hashes of all counted events.
    pub id_sum: u64,
}

/// One metric of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricInfo {
    pub kind: MetricKind,
    pub tenant: String,
    pub metric: String,
    /// Keys (combinations of dimension values) in this shard.
    pub keys: u64,
    /// Rows that the budget put under the metric's other key.
    pub other_rows: u64,
}

/// Gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShardStats {
    pub applied_index: u64,
    pub stamp_ms: i64,
    pub watermark_ms: i64,
    pub counters: Counters,
    pub keys: u64,
    pub keys_memory_bytes: u64,
    /// Rows that the budget put under other keys.
    pub other_rows: u64,
    pub dedup: DedupStats,
    pub windows: WindowStats,
}

/// What holds until the log configures the shard.
pub fn initial_settings() -> ShardSettings {
    ShardSettings {
        lateness_ms: 120_000,
        dedup_horizon_ms: 86_400_000,
        retention_minute_ms: None,
        retention_hour_ms: None,
        retention_day_ms: None,
        definitions_version: 0,
        definitions: Vec::new(),
        cardinality: None,
    }
}

fn window_settings(settings: &ShardSettings) -> WindowSettings {
    let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    WindowSettings {
        lateness_ms: ms(settings.lateness_ms),
        retention_minute_ms: settings.retention_minute_ms.map(ms),
        retention_hour_ms: settings.retention_hour_ms.map(ms),
        retention_day_ms: settings.retention_day_ms.map(ms),
    }
}

impl ShardState {
    /// An empty shard, as every replica begins.
    pub fn new(options: ShardOptions) -> Self {
        let settings = initial_settings();
        Self {
            windows: WindowStore::new(window_settings(&settings)),
            settings,
            applied_index: 0,
            stamp_ms: i64::MIN,
            counters: Counters::default(),
            keys: KeyTable::default(),
            other_rows: BTreeMap::new(),
            dedup: Dedup::new(options.dedup_memory_bytes_max),
            answers: Answers::default(),
            saved_index: None,
            late: Arc::default(),
        }
    }

    pub fn settings(&self) -> &ShardSettings {
        &self.settings
    }

    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Newest stamp applied, UTC milliseconds; `i64::MIN` before the first.
    pub fn stamp_ms(&self) -> i64 {
        self.stamp_ms
    }

    /// Log index of the newest snapshot that this state knows to be durable.
    pub fn saved_index(&self) -> Option<u64> {
        self.saved_index
    }

    /// Changes of windows that were closed already, since the process began.
    pub fn late_changes(&self) -> Arc<LateChanges> {
        self.late.clone()
    }

    /// Takes the place of `before`, whose late changes somebody may hold.
    pub fn replace(&mut self, before: &Self) {
        self.late = before.late_changes();
        self.late.replaced();
    }

    /// Event time before which no open window remains, UTC milliseconds.
    pub fn watermark_ms(&self) -> i64 {
        self.windows.watermark_ms(self.stamp_ms)
    }

    /// Stamp from which a tick would change how windows are stored; `None` when only new events or retention could.
    pub fn due_ms(&self) -> Option<i64> {
        self.windows.due_ms()
    }

    /// Every metric that has a key here, in order of first appearance.
    pub fn metrics(&self) -> Vec<MetricInfo> {
        self.keys.metrics().iter().map(|m| self.info(m)).collect()
    }

    /// The metrics of which rows lie under an other key.
    pub fn metrics_over_budget(&self) -> Vec<MetricInfo> {
        if self.other_rows.is_empty() {
            return Vec::new();
        }
        self.keys.metrics().iter().filter(|m| !m.others.is_empty()).map(|m| self.info(m)).filter(|m| m.other_rows > 0).collect()
    }

    fn info(&self, m: &MetricKeys) -> MetricInfo {
        MetricInfo {
            kind: m.kind,
            tenant: m.tenant.clone(),
            metric: m.metric.clone(),
            keys: m.ids.len() as u64,
            other_rows: m.others.iter().filter_map(|id| self.other_rows.get(id)).sum(),
        }
    }

    /// Hashes of a metric's keys: one key may be in several shards when the metric is a defined one.
    pub fn key_hashes(&self, kind: MetricKind, tenant: &str, metric: &str) -> Vec<u128> {
        self.keys.metric(kind, tenant, metric).map(|m| m.ids.iter().map(|&id| self.keys.hash(id)).collect()).unwrap_or_default()
    }

    /// What uses a metric's budget up: the values of each of its dimensions, in key order.
    pub fn dimension_uses(&self, kind: MetricKind, tenant: &str, metric: &str) -> Vec<DimensionUse> {
        self.keys.metric(kind, tenant, metric).map(|m| self.keys.dimension_uses(m)).unwrap_or_default()
    }

    /// What uses the budget of event names up.
    pub fn name_use(&self, tenant: &str) -> DimensionUse {
        self.keys.name_use(tenant)
    }

    pub fn stats(&self) -> ShardStats {
        ShardStats {
            applied_index: self.applied_index,
            stamp_ms: self.stamp_ms,
            watermark_ms: self.watermark_ms(),
            counters: self.counters,
            keys: self.keys.len() as u64,
            keys_memory_bytes: self.keys.memory_bytes() as u64,
            other_rows: self.other_rows.values().sum(),
            dedup: self.dedup.stats(),
            windows: self.windows.stats(),
        }
    }

    /// Checksum of what the state means, equal on replicas that applied the same entries, however each of them stores it.
    pub fn checksum(&self) -> u64 {
        let (now, floor) = self.dedup.clock();
        let c = self.counters;
        [
            self.applied_index,
            self.stamp_ms as u64,
            c.events,
            c.duplicates,
            c.derived_rows,
            c.refused_parts,
            c.older_than_horizon,
            c.id_sum,
            self.keys.len() as u64,
            self.other_rows.values().sum(),
            u64::from(now),
            u64::from(floor),
            self.settings.definitions_version,
            self.windows.digest(),
        ]
        .into_iter()
        // Nothing for none, as before there were any.
        .chain(Some(self.answers.digest()).filter(|&digest| digest != 0))
        .fold(0, |sum: u64, n| (sum.rotate_left(5) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}
