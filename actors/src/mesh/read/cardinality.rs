//! What the metrics use of their cardinality budgets, over all shards.

use std::collections::{BTreeMap, HashSet};

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tallymesh_protocol::cardinality::OTHER;
use tallymesh_protocol::hash::DEFAULT_TENANT;
use tallymesh_protocol::key::MetricKind;
use tallymesh_storage::shard::MetricInfo;
use tallymesh_storage::shard::keys::DimensionUse;

use super::super::Mesh;
use crate::fleet::messages::Ask;
use crate::raft::SharedState;

/// One metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricUse {
    pub kind: MetricKind,
    pub metric: String,
    /// Distinct keys; of [`OTHER`], whose events have names beyond the budget, those that are really called so.
    pub keys: u64,
    /// Rows beyond the budget, since the shards were made.
    pub other_rows: u64,
    /// What uses the budget up; empty while nothing is beyond it.
    pub offenders: Vec<Offender>,
}

/// A dimension with many values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offender {
    /// Position in the metric's key; `None` is the event name itself.
    pub dimension: Option<usize>,
    /// Distinct values among the keys that were kept.
    pub values: u64,
    /// Some of the newest.
    pub samples: Vec<String>,
}

/// A metric while it is put together from the shards.
#[derive(Default)]
struct Gathering {
    keys: u64,
    /// Of a defined metric, whose keys may be in several shards.
    distinct: HashSet<u128>,
    other_rows: u64,
    dimensions: Vec<DimensionUse>,
}

impl Mesh {
    /// Every metric that has keys, by kind and name.
    pub async fn metric_uses(&self) -> Vec<MetricUse> {
        let Some(fleet) = &self.inner.fleet else { return self.metric_uses_here(&self.shards_here()).await };
        let (here, there) = self.by_replica(fleet);
        let asked = there.into_iter().map(|(member, shards)| fleet.ask_for(member, Ask::MetricUses { shards }));
        let (mine, theirs) = tokio::join!(self.metric_uses_here(&here), join_all(asked));
        let theirs = theirs.into_iter().flat_map(|uses: Option<Vec<MetricUse>>| uses.unwrap_or_default());
        together(mine.into_iter().chain(theirs))
    }

    pub(crate) async fn metric_uses_here(&self, shards: &[u16]) -> Vec<MetricUse> {
        let states = self.states(shards);
        self.inner.blocking.run(move || gather(&states)).await.unwrap_or_default()
    }

    /// The metrics that have rows beyond their budget, the most first; rows of all shards, and keys of each that has them. Waits for nothing, as
    /// [`Mesh::status`].
    pub fn metrics_over_budget(&self) -> Vec<MetricInfo> {
        let mut metrics = joined(self.inner.shards.running().iter().flat_map(|s| s.metrics_over_budget()));
        metrics.sort_by_key(|m| std::cmp::Reverse(m.other_rows));
        metrics
    }

    /// All metrics, the one with the most keys first; otherwise as [`Self::metrics_over_budget`].
    pub fn metrics_by_keys(&self) -> Vec<MetricInfo> {
        let mut metrics = joined(self.inner.shards.running().iter().flat_map(|s| s.metrics()));
        metrics.sort_by_key(|m| std::cmp::Reverse(m.keys));
        metrics
    }
}

/// Uses of different shards. The keys of a defined metric that several nodes have are counted for each of them.
fn together(uses: impl Iterator<Item = MetricUse>) -> Vec<MetricUse> {
    let mut metrics: BTreeMap<(MetricKind, String), MetricUse> = BTreeMap::new();
    for of in uses {
        match metrics.get_mut(&(of.kind, of.metric.clone())) {
            Some(metric) => {
                metric.keys += of.keys;
                metric.other_rows += of.other_rows;
                metric.offenders.extend(of.offenders);
            }
            None => drop(metrics.insert((of.kind, of.metric.clone()), of)),
        }
    }
    metrics.into_values().collect()
}

fn joined(shards: impl Iterator<Item = MetricInfo>) -> Vec<MetricInfo> {
    let mut metrics: BTreeMap<(MetricKind, String, String), MetricInfo> = BTreeMap::new();
    for info in shards {
        let name = (info.kind, info.tenant.clone(), info.metric.clone());
        match metrics.get_mut(&name) {
            Some(metric) => {
                metric.keys += info.keys;
                metric.other_rows += info.other_rows;
            }
            None => drop(metrics.insert(name, info)),
        }
    }
    metrics.into_values().collect()
}

fn gather(states: &[SharedState]) -> Vec<MetricUse> {
    let mut metrics: BTreeMap<(MetricKind, String), Gathering> = BTreeMap::new();
    let mut names = DimensionUse::default();
    for shared in states {
        let state = &shared.read().state;
        for info in state.metrics().into_iter().filter(|m| m.tenant == DEFAULT_TENANT) {
            let metric = metrics.entry((info.kind, info.metric.clone())).or_default();
            metric.keys += info.keys;
            metric.other_rows += info.other_rows;
            if info.kind == MetricKind::Defined {
                metric.distinct.extend(state.key_hashes(info.kind, &info.tenant, &info.metric));
            }
            if info.other_rows == 0 {
                continue;
            }
            if info.metric == OTHER {
                names.join(state.name_use(&info.tenant));
            }
            for (at, dimension) in state.dimension_uses(info.kind, &info.tenant, &info.metric).into_iter().enumerate() {
                if at == metric.dimensions.len() {
                    metric.dimensions.push(DimensionUse::default());
                }
                metric.dimensions[at].join(dimension);
            }
        }
    }
    let done = |((kind, name), metric): ((MetricKind, String), Gathering)| MetricUse {
        keys: if kind == MetricKind::Defined { metric.distinct.len() as u64 } else { metric.keys },
        other_rows: metric.other_rows,
        offenders: if name == OTHER && kind == MetricKind::Default { named(&names) } else { offenders(&metric.dimensions) },
        kind,
        metric: name,
    };
    metrics.into_iter().map(done).collect()
}

fn named(names: &DimensionUse) -> Vec<Offender> {
    let offender = Offender { dimension: None, values: names.values.len() as u64, samples: names.samples.clone() };
    if offender.values == 0 { Vec::new() } else { vec![offender] }
}

/// The dimension with the most values, and those that come near it.
fn offenders(dimensions: &[DimensionUse]) -> Vec<Offender> {
    let most = dimensions.iter().map(|d| d.values.len()).max().unwrap_or(0);
    let mut offenders: Vec<Offender> = dimensions
        .iter()
        .enumerate()
        .filter(|(_, d)| d.values.len() > 1 && 2 * d.values.len() >= most)
        .map(|(at, d)| Offender { dimension: Some(at), values: d.values.len() as u64, samples: d.samples.clone() })
        .collect();
    offenders.sort_by_key(|o| std::cmp::Reverse(o.values));
    offenders
}
