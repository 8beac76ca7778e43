//! From what a client asks to what a shard is asked: `QueryParams -> MetricQuery -> ShardQuery`.
//!
//! `plan` (time ranges, steps and time zones into slices of stored grains) is in [`crate::plan`].

use crate::aggregate::Wants;
use crate::time::Grain;

/// One aggregate of `agg=`.
#[derive(Clone, Debug, PartialEq)]
pub enum Aggregate {
    Count,
    Sum,
    Min,
    Max,
    Avg,
    Last,
    Users,
    Sessions,
    /// `q` in 0..=1, `label` as asked (`p95`, `p99.9`).
    Quantile {
        q: f64,
        label: String,
    },
}

impl Aggregate {
    /// Name of the value in an answer.
    pub fn label(&self) -> &str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::Last => "last",
            Self::Users => "users",
            Self::Sessions => "sessions",
            Self::Quantile { label, .. } => label,
        }
    }

    pub fn wants(aggregates: &[Self]) -> Wants {
        let mut wants = Wants::default();
        for aggregate in aggregates {
            match aggregate {
                Self::Count => {}
                Self::Sum | Self::Min | Self::Max | Self::Avg => wants.values = true,
                Self::Last => wants.last = true,
                Self::Users => wants.users = true,
                Self::Sessions => wants.sessions = true,
                Self::Quantile { .. } => wants.quantiles = true,
            }
        }
        wants
    }
}

/// Which keys a query reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricSelector {
    /// `*`: the default metric of every event name.
    All,
    /// The default metric of an event name.
    Event(String),
    /// A defined metric.
    Defined(String),
}

/// A dimension of the selected metric, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DimensionRef {
    /// The event name itself (default metrics only).
    EventName,
    /// Position in the metric key.
    Index(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DimensionFilter {
    pub dimension: DimensionRef,
    pub negated: bool,
    /// `None` is null.
    pub values: Vec<Option<String>>,
}

/// Windows of `grain` with start in `[from_ms, to_ms)` count for step `bucket`.
///
/// Reading a slice at a grain means: stored windows of that grain plus whatever finer windows and open rows of the range have not been folded into them yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    pub from_ms: i64,
    pub to_ms: i64,
    pub grain: Grain,
    pub bucket: u32,
}

/// Disjoint slices in time order; aligned to their grain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPlan {
    pub slices: Vec<Slice>,
    pub buckets: u32,
}

/// What one shard is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardQuery {
    pub tenant: String,
    pub metric: MetricSelector,
    pub group_by: Vec<DimensionRef>,
    pub filters: Vec<DimensionFilter>,
    pub plan: ScanPlan,
    pub wants: Wants,
    /// Cells (group x bucket) at most; more is an error, not a shorter answer.
    pub cells_max: usize,
}
