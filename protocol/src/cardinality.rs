//! Cardinality budgets (A7): how many metric keys are kept apart, and what stands for the rest.
//!
//! Beyond its budget a new key of a metric is counted under the metric's **other key**, every dimension of which is [`OTHER`]; an event name beyond
//! the budget of names is counted under the metric [`OTHER`]. Totals stay exact, and keys that are known go on under their own name.
//!
//! A cluster is given a [`CardinalityBudget`]; each shard gets its [`KeyBudget`] of it, through its log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::key::MetricKind;

/// Value of each dimension of an other key, and name of the metric of event names beyond the budget.
pub const OTHER: &str = "__other__";

/// What one tenant may use in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardinalityBudget {
    /// Keys of one metric that `metrics` does not name.
    pub keys_per_metric: u64,
    /// Keys of all metrics.
    pub keys: u64,
    /// Event names that one shard tells apart.
    pub event_names: u64,
    /// Keys by metric, of a defined one and of an event name alike.
    pub metrics: BTreeMap<String, u64>,
}

/// Keys of one metric that one shard keeps apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricBudget {
    /// When it is the default metric of an event name.
    pub event: u64,
    /// When it is a defined metric.
    pub defined: u64,
}

/// What one tenant may use in one shard; the log carries these numbers, so the rule that made them may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyBudget {
    /// Keys of all metrics, other keys not counted.
    pub keys: u64,
    /// Keys that a metric gets even when `keys` are used up, so that one metric cannot starve the others.
    pub reserved: u64,
    pub event_names: u64,
    /// Keys of a metric that `metrics` does not name.
    pub per_metric: MetricBudget,
    pub metrics: BTreeMap<String, MetricBudget>,
}

/// Keys of each metric that a shard keeps however full it is.
const RESERVED_KEYS: u64 = 16;

impl CardinalityBudget {
    /// Keys of a metric over all shards.
    pub fn of(&self, metric: &str) -> u64 {
        self.metrics.get(metric).copied().unwrap_or(self.keys_per_metric)
    }

    /// The part of one of `shards` shards.
    ///
    /// Keys of an event name's metric are the home keys themselves, spread evenly by their hash: a shard gets an even share and four standard
    /// deviations: while the whole is below the budget, a shard overflows with a chance of about 1 in 30 000. Keys of a defined metric lie
    /// where their events' home keys lie, maybe all in one shard, and so do the names: there each shard has the whole budget. What all metrics
    /// together use is bounded by `keys`, shared out in the same way, but at least as large as one metric's budget.
    pub fn part(&self, shards: u16) -> KeyBudget {
        let metric = |keys: u64| MetricBudget { event: even_part(keys, shards), defined: keys };
        let largest = self.metrics.values().copied().max().unwrap_or(0).max(self.keys_per_metric);
        KeyBudget {
            keys: even_part(self.keys, shards).max(largest),
            reserved: RESERVED_KEYS,
            event_names: self.event_names,
            per_metric: metric(self.keys_per_metric),
            metrics: self.metrics.iter().map(|(name, &keys)| (name.clone(), metric(keys))).collect(),
        }
    }
}

impl KeyBudget {
    /// Keys of a metric in this shard.
    pub fn of(&self, kind: MetricKind, metric: &str) -> u64 {
        let budget = self.metrics.get(metric).unwrap_or(&self.per_metric);
        match kind {
            MetricKind::Default => budget.event,
            MetricKind::Defined => budget.defined,
        }
    }
}

/// A shard's share of things that hashes spread: the mean and four standard deviations of a Poisson distribution, never more than all.
fn even_part(all: u64, shards: u16) -> u64 {
    let mean = all.div_ceil(u64::from(shards.max(1)));
    mean.saturating_add(4 * (mean.isqrt() + 1)).min(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{key_hash, shard_of};

    fn budget(keys_per_metric: u64, keys: u64) -> CardinalityBudget {
        CardinalityBudget { keys_per_metric, keys, event_names: 10, metrics: BTreeMap::from([("small".to_owned(), 5)]) }
    }

    #[test]
    fn a_single_shard_has_the_whole_budget() {
        let part = budget(100, 1_000).part(1);
        assert_eq!((part.keys, part.event_names), (1_000, 10));
        assert_eq!(part.of(MetricKind::Default, "any"), 100);
        assert_eq!((part.of(MetricKind::Default, "small"), part.of(MetricKind::Defined, "small")), (5, 5));
    }

    #[test]
    fn shards_share_evenly_with_some_slack_and_a_defined_metric_fits_into_one() {
        let part = budget(100_000, 1_000_000).part(16);
        assert_eq!(part.of(MetricKind::Default, "any"), 6_250 + 4 * 80);
        assert_eq!(part.of(MetricKind::Defined, "any"), 100_000);
        assert_eq!(part.keys, 100_000, "one metric's budget fits in each shard");
        assert_eq!(budget(1_000, 1_000_000).part(16).keys, 62_500 + 4 * 251);
    }

    #[test]
    fn keys_below_the_budget_fit_wherever_their_hashes_put_them() {
        for (keys, shards) in [(8, 4), (100, 16), (1_000, 16), (20_000, 64)] {
            let part = budget(keys, 1_000_000).part(shards).of(MetricKind::Default, "any");
            for seed in 0..20 {
                let mut held = vec![0; usize::from(shards)];
                (0..keys).for_each(|n| held[usize::from(shard_of(key_hash(format!("{seed}/{n}").as_bytes()), shards).0)] += 1);
                assert!(held.iter().all(|&h| h <= part), "{keys} keys over {shards} shards: {held:?}, each at most {part}");
            }
        }
    }
}
