//! From what a client asks to what a shard is asked: `QueryParams -> MetricQuery -> ShardQuery`.
//!
//! `plan` (time ranges, steps and time zones into slices of stored grains) is in [`super::plan`].

mod csv;
mod cursor;
mod metric_query;
mod moment;
mod params;
mod prepared;
mod resolve;
mod split;

pub use metric_query::{Compare, Fill, MetricQuery, Order, Partial, ResponseFormat};
pub use moment::{TimeRange, Zone};
pub use params::{PARAMETERS, QueryParams};
pub use prepared::{Gathered, Leg, PreparedQuery, unknown_metric};
pub use resolve::Resolved;

use crate::aggregate::Wants;
use crate::time::{DAY_MS, Grain, HOUR_MS, MINUTE_MS};

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

/// Width of one step of an answer; a day is a day of the query's time zone, 23 to 25 hours long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepWidth {
    Minute,
    FiveMinutes,
    QuarterHour,
    Hour,
    Day,
}

impl StepWidth {
    pub const ALL: [Self; 5] = [Self::Minute, Self::FiveMinutes, Self::QuarterHour, Self::Hour, Self::Day];

    /// Usual length in milliseconds.
    pub const fn ms(self) -> i64 {
        match self {
            Self::Minute => MINUTE_MS,
            Self::FiveMinutes => 5 * MINUTE_MS,
            Self::QuarterHour => 15 * MINUTE_MS,
            Self::Hour => HOUR_MS,
            Self::Day => DAY_MS,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::FiveMinutes => "5m",
            Self::QuarterHour => "15m",
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }
}

/// `step=`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// One value for the whole range.
    #[default]
    None,
    /// The finest that stays within [`crate::limits::AUTO_POINTS_MAX`] and that kept grains can give.
    Auto,
    Every(StepWidth),
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
