//! Which keys a query reads, and the group that each of them belongs to. No text is compared for each key: filters and groups work on
//! the numbers of dimension values.

use hashbrown::HashMap;
use tallymesh_protocol::cardinality::OTHER;
use tallymesh_protocol::key::MetricKind;
use tallymesh_protocol::question::answer::GroupKey;
use tallymesh_protocol::question::query::{DimensionFilter, DimensionRef, MetricSelector, ShardQuery};

use super::keys::{KeyId, KeyTable, MetricKeys, NULL, ValueId};
use crate::windows::{KeyClass, KeyGroups};

#[derive(Clone, Default)]
pub struct Selection {
    pub groups: Vec<GroupKey>,
    /// The selected keys, each with its index into `groups`.
    pub keys: KeyGroups,
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
    let mut parts = Vec::with_capacity(metrics.len());
    for metric in metrics {
        let verdict = if metric.others.is_empty() { Verdict::Excluded } else { other_verdict(query, metric) };
        if verdict != Verdict::Excluded && needs_more(query, metric) {
            selection.others.extend(metric.others.iter().map(|&id| (id, verdict == Verdict::Selected)));
        }
        let own = query.filters.iter().all(|f| name_passes(f, &metric.metric));
        parts.push(Part { metric, own, others: verdict == Verdict::Selected });
    }
    let by_name = |d: &DimensionRef| *d == DimensionRef::EventName;
    let dimensions_matter = !query.group_by.iter().all(by_name) || !query.filters.iter().all(|f| by_name(&f.dimension));
    (selection.groups, selection.keys) = if dimensions_matter || parts.iter().any(Part::is_split) {
        select_keys(keys, query, &parts)
    } else {
        // Nothing but the metric decides: totals of metrics will do.
        select_metrics(keys, query, &parts)
    };
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

/// What is selected of a metric, filters on dimensions aside.
struct Part<'a> {
    metric: &'a MetricKeys,
    own: bool,
    others: bool,
}

impl Part<'_> {
    fn is_split(&self) -> bool {
        self.own != self.others && !self.metric.ids.is_empty() && !self.metric.others.is_empty()
    }

    /// Whether all of its keys are selected, if it is not split.
    fn is_whole(&self) -> bool {
        (self.own && !self.metric.ids.is_empty()) || (self.others && !self.metric.others.is_empty())
    }
}

/// Groups that depend on nothing but the metric.
fn select_metrics(keys: &KeyTable, query: &ShardQuery, parts: &[Part<'_>]) -> (Vec<GroupKey>, KeyGroups) {
    let whole: Vec<&MetricKeys> = parts.iter().filter(|p| p.is_whole()).map(|p| p.metric).collect();
    let Some(first) = whole.first() else { return Default::default() };
    let metric_of = keys.metric_of().clone();
    if !query.group_by.is_empty() {
        let groups: Vec<(u32, u32)> = whole.iter().zip(0..).map(|(metric, group)| (metric.number, group)).collect();
        let names = whole.iter().map(|m| vec![Some(m.metric.clone()); query.group_by.len()]).collect();
        return (names, KeyGroups::classes(KeyClass::Metric, metric_of, Vec::new(), &groups));
    }
    let keys = if query.metric == MetricSelector::All && whole.len() == parts.len() {
        let families = keys.metrics().iter().map(|m| m.family).collect();
        KeyGroups::classes(KeyClass::Family, metric_of, families, &[(first.family, 0)])
    } else {
        let groups: Vec<(u32, u32)> = whole.iter().map(|m| (m.number, 0)).collect();
        KeyGroups::classes(KeyClass::Metric, metric_of, Vec::new(), &groups)
    };
    (vec![Vec::new()], keys)
}

fn select_keys(keys: &KeyTable, query: &ShardQuery, parts: &[Part<'_>]) -> (Vec<GroupKey>, KeyGroups) {
    let filters: Vec<ValueFilter> = query.filters.iter().filter_map(|f| value_filter(keys, f)).collect();
    let mut groups = Vec::new();
    let mut pairs = Vec::new();
    let mut numbers = GroupNumbers::default();
    let mut values: Vec<ValueId> = Vec::with_capacity(query.group_by.len());
    for part in parts {
        let own: &[KeyId] = if part.own { &part.metric.ids } else { &[] };
        let others: &[KeyId] = if part.others { &part.metric.others } else { &[] };
        let passing = own.iter().filter(|&&id| filters.iter().all(|f| f.passes(keys.dimensions(id))));
        for &id in passing.chain(others) {
            let dimensions = keys.dimensions(id);
            values.clear();
            values.extend(query.group_by.iter().map(|d| match d {
                DimensionRef::EventName => part.metric.number,
                DimensionRef::Index(i) => dimensions.get(*i).copied().unwrap_or(NULL),
            }));
            let group = numbers.of(&values);
            if group as usize == groups.len() {
                groups.push(group_key(keys, query, part.metric, &values));
            }
            pairs.push((id, group));
        }
    }
    (groups, KeyGroups::pairs(pairs))
}

/// Numbers groups by their values, in order of first appearance.
#[derive(Default)]
struct GroupNumbers {
    count: u32,
    /// Number + 1 by value, where groups have one: values are numbered densely.
    by_value: Vec<u32>,
    by_values: HashMap<Vec<ValueId>, u32>,
}

impl GroupNumbers {
    fn of(&mut self, values: &[ValueId]) -> u32 {
        let next = self.count;
        let number = match values {
            [] => 0,
            [value] => {
                let at = *value as usize;
                if self.by_value.len() <= at {
                    self.by_value.resize(at + 1, 0);
                }
                if self.by_value[at] == 0 {
                    self.by_value[at] = next + 1;
                }
                self.by_value[at] - 1
            }
            _ => match self.by_values.get(values) {
                Some(&number) => number,
                None => *self.by_values.entry(values.to_vec()).or_insert(next),
            },
        };
        self.count = self.count.max(number + 1);
        number
    }
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
