//! From what a shard answers to what a client gets: `PartialAnswer -> Answer` with its [`Receipt`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::aggregate::Accumulator;
use crate::question::query::ShardQuery;

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

/// Events by group and step, where nothing else was asked: a number in place of a [`Cell`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepCounts {
    pub buckets: u32,
    /// By `group * buckets + bucket`; 0 where there is no cell.
    pub counts: Vec<u64>,
}

impl StepCounts {
    /// (group, counts by step).
    pub fn by_group(&self) -> impl Iterator<Item = (u32, &[u64])> {
        (0..).zip(self.counts.chunks(self.buckets.max(1) as usize))
    }

    pub fn cells(&self) -> impl Iterator<Item = Cell> {
        let cell = |group, bucket, count| Cell { group, bucket, values: Accumulator { count, ..Accumulator::default() } };
        let of_group = move |(group, counts): (u32, &[u64])| {
            let counted: Vec<Cell> =
                (0..).zip(counts).filter(|(_, count)| **count > 0).map(|(bucket, count)| cell(group, bucket, *count)).collect();
            counted
        };
        self.by_group().flat_map(of_group)
    }
}

/// What one shard answers; mergeable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartialAnswer {
    pub groups: Vec<GroupKey>,
    pub cells: Vec<Cell>,
    /// More cells, of the same groups.
    pub counts: StepCounts,
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
    /// The same with nothing but cells, in order of group and step.
    pub fn with_cells_only(mut self) -> Self {
        let counts = std::mem::take(&mut self.counts);
        self.cells.extend(counts.cells());
        self
    }

    /// Whether it can be an answer to that query: groups have as many values as it asks for, cells are of its steps. Of this node's own shards that is
    /// sure, of another node's it is not.
    pub fn fits(&self, query: &ShardQuery) -> bool {
        self.groups.iter().all(|group| group.len() == query.group_by.len())
            && self.cells.iter().all(|cell| cell.bucket < query.plan.buckets)
            && self.counts.buckets <= query.plan.buckets
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

/// The rows of an answer: cheap to clone, because one answer may be kept and given to many.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    rows: Arc<Vec<Row>>,
    /// As they are written; made once where they are given often.
    json: Option<Arc<RawValue>>,
}

impl Rows {
    /// From here on writing them as JSON is a copy.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_ahead(&mut self) -> serde_json::Result<()> {
        if self.json.is_none() {
            self.json = Some(serde_json::value::to_raw_value(&*self.rows)?.into());
        }
        Ok(())
    }

    /// Bytes that are held for [`Self::write_ahead`].
    pub fn written_bytes(&self) -> usize {
        self.json.as_ref().map_or(0, |json| json.get().len())
    }

    pub fn to_mut(&mut self) -> &mut Vec<Row> {
        self.json = None;
        Arc::make_mut(&mut self.rows)
    }
}

impl std::ops::Deref for Rows {
    type Target = [Row];

    fn deref(&self) -> &[Row] {
        &self.rows
    }
}

impl From<Vec<Row>> for Rows {
    fn from(rows: Vec<Row>) -> Self {
        Self { rows: Arc::new(rows), json: None }
    }
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.json {
            Some(json) => json.serialize(serializer),
            None => self.rows.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
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
    #[schema(value_type = Vec<Row>)]
    pub data: Rows,
    /// For the next page; null after the last.
    #[schema(required)]
    pub cursor: Option<String>,
    pub receipt: Receipt,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_written_ahead_read_the_same_and_are_written_anew_when_they_change() {
        let row = |count| Row { time: None, group: None, values: BTreeMap::from([("count".to_owned(), Some(count))]), compare: None };
        let mut rows = Rows::from(vec![row(1.0), row(2.5)]);
        let plain = serde_json::to_string(&rows).expect("json");
        rows.write_ahead().expect("json");
        assert_eq!((serde_json::to_string(&rows).expect("json"), rows.written_bytes()), (plain.clone(), plain.len()));
        assert_eq!(serde_json::from_str::<Rows>(&plain).expect("own json"), rows);
        let kept = rows.clone();
        rows.to_mut()[0] = row(7.0);
        assert!(serde_json::to_string(&rows).expect("json").contains(r#""count":7}"#));
        assert_eq!(serde_json::to_string(&kept).expect("json"), plain, "whoever has the old ones keeps them");
    }
}
