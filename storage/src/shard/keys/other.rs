//! Keys beyond the budget, and what uses it up.

use std::collections::BTreeSet;

use tallymesh_protocol::cardinality::{KeyBudget, OTHER};
use tallymesh_protocol::hash::{identity_hash, key_hash};
use tallymesh_protocol::key::{KeyView, MetricKind, encode_key};

use super::{KeyId, KeyTable, MetricKeys, MetricName};

/// The number that a key is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Its own.
    Own(KeyId),
    /// That of an other key, because the budget is used up.
    Other(KeyId),
}

impl Admitted {
    pub fn id(self) -> KeyId {
        match self {
            Self::Own(id) | Self::Other(id) => id,
        }
    }
}

/// What a tenant has of its budget; other keys are not counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TenantUse {
    pub keys: u64,
    pub event_names: u64,
}

/// The distinct values of one dimension of a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DimensionUse {
    /// Their hashes, so that those of several shards can be joined; null is not among them.
    pub values: BTreeSet<u64>,
    /// Some of the newest.
    pub samples: Vec<String>,
}

/// Samples of a dimension's values.
const SAMPLES_MAX: usize = 5;
/// What is shown of a sample, in bytes.
const SAMPLE_BYTES_MAX: usize = 100;

/// Whether a key stands for those beyond the budget. One without dimensions never does: a metric has one of them.
pub(super) fn is_other(key: KeyView<'_>) -> bool {
    let mut dimensions = key.dimensions().peekable();
    dimensions.peek().is_some() && dimensions.all(|d| d == Some(OTHER))
}

impl KeyTable {
    /// Number of the key: its own if it has one or the budget allows it one, else that of its metric's other key. `None` as for [`Self::intern`].
    #[inline]
    pub fn admit(&mut self, hash: u128, key: &[u8], budget: Option<&KeyBudget>) -> Option<Admitted> {
        match self.find(hash, key) {
            Some(id) => Some(Admitted::Own(id)),
            None => self.admit_new(hash, key, budget),
        }
    }

    #[cold]
    fn admit_new(&mut self, hash: u128, key: &[u8], budget: Option<&KeyBudget>) -> Option<Admitted> {
        let view = KeyView::parse(key)?;
        let Some(metric) = budget.and_then(|budget| self.beyond(view, budget)) else { return self.add(hash, key).map(Admitted::Own) };
        let mut other = Vec::with_capacity(128);
        encode_key(&mut other, view.kind, view.tenant, metric, view.dimensions().map(|_| Some(OTHER)));
        self.intern(key_hash(&other), &other).map(Admitted::Other)
    }

    /// The metric whose other key takes a new key; `None` while the budget allows the key itself.
    fn beyond<'k>(&self, key: KeyView<'k>, budget: &KeyBudget) -> Option<&'k str> {
        if is_other(key) || key.dimensions().next().is_none() {
            return None;
        }
        let used = self.tenants.get(key.tenant).copied().unwrap_or_default();
        let known = self.metric_ids.get(&MetricName(key.kind, key.tenant, key.metric)).map(|&m| &self.metrics[m]);
        let is_new_name = known.is_none() && key.kind == MetricKind::Default && key.metric != OTHER;
        if is_new_name && used.event_names >= budget.event_names {
            return Some(OTHER);
        }
        let keys = known.map_or(0, |m| m.ids.len() as u64);
        let is_full = used.keys >= budget.keys && keys >= budget.reserved;
        (is_full || keys >= budget.of(key.kind, key.metric)).then_some(key.metric)
    }

    /// The metric that has events of names beyond the budget, if there are any.
    pub fn other_names(&self, tenant: &str) -> Option<&MetricKeys> {
        self.metric(MetricKind::Default, tenant, OTHER).filter(|m| !m.others.is_empty())
    }

    /// Whether an event name was known before the first of those beyond the budget came: then none of theirs bears it, for names are kept for ever.
    pub fn knew_before(&self, name: &str, unnamed: &MetricKeys) -> bool {
        // Numbers are given in order of first appearance.
        let first = |m: &MetricKeys| m.ids.first().into_iter().chain(m.others.first()).min().copied();
        let known = self.metric(MetricKind::Default, &unnamed.tenant, name).and_then(first);
        known.zip(unnamed.others.first()).is_some_and(|(known, &beyond)| known < beyond)
    }

    /// The values of each dimension of a metric's keys, in key order.
    pub fn dimension_uses(&self, metric: &MetricKeys) -> Vec<DimensionUse> {
        let mut uses: Vec<DimensionUse> = Vec::new();
        // The newest first: what came last is what went over.
        for &id in metric.ids.iter().rev() {
            for (at, &value) in self.dimensions(id).iter().enumerate() {
                if at == uses.len() {
                    uses.push(DimensionUse::default());
                }
                if let Some(text) = self.value(value) {
                    uses[at].add(text);
                }
            }
        }
        uses
    }

    /// The event names of a tenant, as a dimension.
    pub fn name_use(&self, tenant: &str) -> DimensionUse {
        let mut names = DimensionUse::default();
        let is_name = |m: &&MetricKeys| m.kind == MetricKind::Default && m.tenant == tenant && m.metric != OTHER;
        self.metrics.iter().rev().filter(is_name).for_each(|m| names.add(&m.metric));
        names
    }
}

impl DimensionUse {
    fn add(&mut self, text: &str) {
        if self.values.insert(identity_hash(text.as_bytes())) && self.samples.len() < SAMPLES_MAX {
            self.samples.push(text[..text.floor_char_boundary(SAMPLE_BYTES_MAX)].to_owned());
        }
    }

    /// Takes in the values of the same dimension in another shard.
    pub fn join(&mut self, other: Self) {
        self.values.extend(other.values);
        self.samples.extend(other.samples.into_iter().filter(|s| !self.samples.contains(s)).collect::<Vec<_>>());
        self.samples.truncate(SAMPLES_MAX);
    }
}
