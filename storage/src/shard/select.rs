//! Which keys a query reads, and the group that each of them belongs to. No text is compared for each key: filters and groups work on
//! the numbers of dimension values.

use hashbrown::HashMap;
use tallymesh_protocol::answer::GroupKey;
use tallymesh_protocol::key::MetricKind;
use tallymesh_protocol::query::{DimensionFilter, DimensionRef, MetricSelector, ShardQuery};

use super::keys::{KeyId, KeyTable, MetricKeys, NULL, ValueId};

#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub groups: Vec<GroupKey>,
    /// Each selected key with its index into `groups`.
    pub pairs: Vec<(KeyId, u32)>,
    /// Whether a key of the metric was ever seen.
    pub metric_known: bool,
}

/// A filter with its values as numbers; a value that no key has is left out.
struct ValueFilter {
    index: usize,
    negated: bool,
    values: Vec<ValueId>,
}

impl ValueFilter {
    fn passes(&self, dimensions: &[ValueId]) -> bool {
        let value = dimensions.get(self.index).copied().unwrap_or(NULL);
        self.values.contains(&value) != self.negated
    }
}

pub fn select(keys: &KeyTable, query: &ShardQuery) -> Selection {
    let metrics: Vec<&MetricKeys> = match &query.metric {
        MetricSelector::All => keys.metrics().iter().filter(|m| m.kind == MetricKind::Default && m.tenant == query.tenant).collect(),
        MetricSelector::Event(name) => keys.metric(MetricKind::Default, &query.tenant, name).into_iter().collect(),
        MetricSelector::Defined(name) => keys.metric(MetricKind::Defined, &query.tenant, name).into_iter().collect(),
    };
    let mut selection = Selection { metric_known: !metrics.is_empty(), ..Selection::default() };
    let filters: Vec<ValueFilter> = query.filters.iter().filter_map(|f| value_filter(keys, f)).collect();
    let mut group_ids = HashMap::new();
    let mut group_values = Vec::with_capacity(query.group_by.len());
    for (metric_number, metric) in metrics.into_iter().enumerate() {
        if !query.filters.iter().all(|f| name_passes(f, &metric.metric)) {
            continue;
        }
        for &id in &metric.ids {
            let dimensions = keys.dimensions(id);
            if !filters.iter().all(|f| f.passes(dimensions)) {
                continue;
            }
            group_values.clear();
            group_values.extend(query.group_by.iter().map(|d| match d {
                DimensionRef::EventName => metric_number as u32,
                DimensionRef::Index(i) => dimensions.get(*i).copied().unwrap_or(NULL),
            }));
            let group = match group_ids.get(group_values.as_slice()) {
                Some(&group) => group,
                None => {
                    let group = selection.groups.len() as u32;
                    selection.groups.push(group_key(keys, query, metric, &group_values));
                    group_ids.insert(group_values.clone(), group);
                    group
                }
            };
            selection.pairs.push((id, group));
        }
    }
    selection
}

fn group_key(keys: &KeyTable, query: &ShardQuery, metric: &MetricKeys, values: &[ValueId]) -> GroupKey {
    let text = |(d, &value): (&DimensionRef, &ValueId)| match d {
        DimensionRef::EventName => Some(metric.metric.clone()),
        DimensionRef::Index(_) => keys.value(value).map(str::to_owned),
    };
    query.group_by.iter().zip(values).map(text).collect()
}

fn value_filter(keys: &KeyTable, filter: &DimensionFilter) -> Option<ValueFilter> {
    let DimensionRef::Index(index) = filter.dimension else { return None };
    let values = filter.values.iter().filter_map(|v| keys.value_id(v.as_deref())).collect();
    Some(ValueFilter { index, negated: filter.negated, values })
}

/// Whether an event name passes a filter on it; other filters say nothing about it.
fn name_passes(filter: &DimensionFilter, name: &str) -> bool {
    filter.dimension != DimensionRef::EventName || filter.values.iter().any(|v| v.as_deref() == Some(name)) != filter.negated
}
