//! From what a shard answers to what a client gets: `PartialAnswer -> Answer` with its [`Receipt`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use crate::aggregate::Accumulator;
use crate::query::ShardQuery;

/// Values of the `group_by` dimensions, in the order asked.
pub type GroupKey = Vec<Option<String>>;

/// One cell of a shard's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Index into [`PartialAnswer::groups`].
    pub group: u32,
    /// Step index of the plan.
    pub bucket: u32,
    pub values: Accumulator,
}

/// What one shard answers; mergeable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartialAnswer {
    pub groups: Vec<GroupKey>,
    pub cells: Vec<Cell>,
    /// Whether the shard has ever seen a key of the metric (with any dimensions, at any time).
    pub metric_known: bool,
    /// Event time before which no open window remains, UTC milliseconds.
    pub watermark_ms: i64,
    /// Log index of the last applied entry.
    pub applied_index: u64,
    /// What the cardinality budget took from this answer.
    pub other: OtherEvents,
}

impl PartialAnswer {
    /// Whether it can be an answer to that query: groups have as many values as it asks for, cells are of its steps. Of this node's own shards that is
    /// sure, of another node's it is not.
    pub fn fits(&self, query: &ShardQuery) -> bool {
        self.groups.iter().all(|group| group.len() == query.group_by.len())
            && self.cells.iter().all(|cell| cell.bucket < query.plan.buckets)
    }
}

/// Events beyond the cardinality budget, as far as a query needs to know of them what was not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherEvents {
    /// Events that the answer counts.
    pub counted: u64,
    /// Events that it does not, though they may belong to it: a filter could not be judged, or the event name was not kept.
    pub unjudged: u64,
    /// Whether the shard has events of names beyond the budget, at any time.
    pub names_beyond: bool,
}

impl OtherEvents {
    /// Adds those of another shard.
    pub fn add(&mut self, other: Self) {
        self.counted += other.counted;
        self.unjudged += other.unjudged;
        self.names_beyond |= other.names_beyond;
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShardsAnswered {
    pub asked: u32,
    pub answered: u32,
}

/// What an answer covers, how fresh it is and how exact (Q3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(description = "What an answer covers, how fresh it is and how exact.")]
pub struct Receipt {
    /// Every asked shard answered with every acked write of the range.
    pub complete: bool,
    /// Start of what was read: `from`, rounded down to the finest kept grain.
    #[schema(format = DateTime)]
    pub from: String,
    /// End of what was read, not part of it.
    #[schema(format = DateTime)]
    pub to: String,
    pub shards: ShardsAnswered,
    /// Event time before which no open window remains; null when nothing was ever written.
    #[schema(required, format = DateTime)]
    pub watermark: Option<String>,
    /// Age of the oldest view that was read, in milliseconds.
    pub freshness_ms: u64,
    /// Relative error by value name; 0 is exact.
    pub error: BTreeMap<String, f64>,
    /// Share of the events that was kept; 1 is all.
    pub sampled: f64,
    /// Share of the events which this answer counts, or may have missed, that lie beyond the cardinality budget (`__other__`): what they had in the
    /// dimensions asked for, or their event name, was not kept. Grouped, they are the group `__other__`; a filter leaves them out, as nobody knows whether they pass (one on
    /// `__other__` itself means them). With c the count answered for a filter, the true one lies in c to c / (1 - share). 0 where the answer needs
    /// nothing that was not kept: totals of a metric whose name was always known are exact, whatever the budget. Of two ranges compared, the larger share.
    pub other_share: f64,
    /// Tiers that were read.
    pub sources: Vec<String>,
    /// The coarsest grain that was read.
    #[schema(value_type = crate::time::Grain)]
    pub grain: String,
    /// Null when it was not answered from the cache.
    #[schema(required)]
    pub cache_age_ms: Option<u64>,
    pub took_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Row {
    /// Start of the step; absent when no `step` was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub time: Option<String>,
    /// Absent when no `group_by` was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub group: Option<BTreeMap<String, Option<String>>>,
    /// By aggregate label; null where there is no value.
    #[serde(serialize_with = "whole_as_integer")]
    pub values: BTreeMap<String, Option<f64>>,
    /// The same step and group of the range it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub compare: Option<Compared>,
}

/// An earlier row beside a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Compared {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub time: Option<String>,
    #[serde(serialize_with = "whole_as_integer")]
    pub values: BTreeMap<String, Option<f64>>,
}

/// Largest magnitude below which every whole `f64` is printed as an integer exactly.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// `1500`, not `1500.0`: counts are integers to every JSON reader.
fn whole_as_integer<S: Serializer>(values: &BTreeMap<String, Option<f64>>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Number {
        Whole(i64),
        Real(Option<f64>),
    }
    serializer.collect_map(values.iter().map(|(label, value)| {
        let number = match *value {
            Some(v) if v.fract() == 0.0 && v.abs() <= WHOLE_MAX => Number::Whole(v as i64),
            other => Number::Real(other),
        };
        (label, number)
    }))
}

/// A field of RFC 4180: quoted only when it must be.
pub fn csv_field(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\r', '\n']) { Cow::Owned(format!("\"{}\"", text.replace('"', "\"\""))) } else { Cow::Borrowed(text) }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    pub data: Vec<Row>,
    /// For the next page; null after the last.
    #[schema(required)]
    pub cursor: Option<String>,
    pub receipt: Receipt,
}
