//! Which keys a query reads, and the group that each of them belongs to. No text is compared for each key: filters and groups work on
//! the numbers of dimension values.

use hashbrown::HashMap;
use tallymesh_protocol::answer::GroupKey;
use tallymesh_protocol::cardinality::OTHER;
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
    /// Other keys that the query is about, each with whether it is selected: their events lack something that the query needs to know of them.
    pub others: Vec<(KeyId, bool)>,
    /// Whether events of names beyond the budget are here.
    pub names_beyond: bool,
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
    let other_names = keys.other_names(&query.tenant);
    let mut selection = Selection { metric_known: !metrics.is_empty(), names_beyond: other_names.is_some(), ..Selection::default() };
    let filters: Vec<ValueFilter> = query.filters.iter().filter_map(|f| value_filter(keys, f)).collect();
    let mut group_ids = HashMap::new();
    let mut group_values = Vec::with_capacity(query.group_by.len());
    for (metric_number, metric) in metrics.into_iter().enumerate() {
        let name_passes = query.filters.iter().all(|f| name_passes(f, &metric.metric));
        let own: &[KeyId] = if name_passes { &metric.ids } else { &[] };
        let verdict = if metric.others.is_empty() { Verdict::Excluded } else { other_verdict(query, metric) };
        if verdict != Verdict::Excluded && needs_more(query, metric) {
            selection.others.extend(metric.others.iter().map(|&id| (id, verdict == Verdict::Selected)));
        }
        let others: &[KeyId] = if verdict == Verdict::Selected { &metric.others } else { &[] };
        let passing = own.iter().filter(|&&id| filters.iter().all(|f| f.passes(keys.dimensions(id))));
        for &id in passing.chain(others) {
            let dimensions = keys.dimensions(id);
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
    if let (MetricSelector::Event(name), Some(unnamed)) = (&query.metric, other_names)
        && name != OTHER
        && !keys.knew_before(name, unnamed)
        && query.filters.iter().all(|f| name_passes(f, name))
    {
        // Whether some of these events bear the name is not known any more.
        selection.others.extend(unnamed.others.iter().map(|&id| (id, false)));
    }
    selection
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Selected,
    Excluded,
    /// The values that a filter asks for were not kept.
    Unknown,
}

/// Whether the events of a metric's other keys pass the filters. A filter that names [`OTHER`] means them as such.
fn other_verdict(query: &ShardQuery, metric: &MetricKeys) -> Verdict {
    let judge = |f: &DimensionFilter| {
        let names_other = f.values.iter().any(|v| v.as_deref() == Some(OTHER));
        match f.dimension {
            DimensionRef::EventName if metric.metric != OTHER && name_passes(f, &metric.metric) => Verdict::Selected,
            DimensionRef::EventName if metric.metric != OTHER => Verdict::Excluded,
            _ if names_other && !f.negated => Verdict::Selected,
            _ if names_other => Verdict::Excluded,
            _ => Verdict::Unknown,
        }
    };
    let verdicts = query.filters.iter().map(judge);
    verdicts.fold(Verdict::Selected, |all, one| match (all, one) {
        (Verdict::Excluded, _) | (_, Verdict::Excluded) => Verdict::Excluded,
        (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
        _ => Verdict::Selected,
    })
}

/// Whether the query asks for something that an other key of this metric does not tell.
fn needs_more(query: &ShardQuery, metric: &MetricKeys) -> bool {
    let is_lost = |d: &DimensionRef| *d != DimensionRef::EventName || metric.metric == OTHER;
    query.group_by.iter().chain(query.filters.iter().map(|f| &f.dimension)).any(is_lost)
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
