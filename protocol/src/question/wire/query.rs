//! A query's body: the slices of its plan as columns, the rest as it is.

use rkyv::{Archive, Serialize};

use super::{WireError, at_most};
use crate::aggregate::Wants;
use crate::limits::{ANSWER_CELLS_MAX, DIMENSIONS_MAX, FILTER_VALUES_MAX, FILTERS_MAX, GROUP_BY_MAX, POINTS_PER_GROUP_MAX};
use crate::question::query::{DimensionFilter, DimensionRef, MetricSelector, ScanPlan, ShardQuery, Slice};
use crate::time::{ArchivedGrain, Grain};

#[derive(Archive, Serialize)]
enum WireSelector {
    All,
    Event(String),
    Defined(String),
}

#[derive(Archive, Serialize)]
struct WireFilter {
    dimension: u8,
    negated: bool,
    values: Vec<Option<String>>,
}

#[derive(Archive, Serialize)]
pub(super) struct WireQuery {
    tenant: String,
    metric: WireSelector,
    /// 0 is the event name, else the position in the key + 1.
    group_by: Vec<u8>,
    filters: Vec<WireFilter>,
    slice_from: Vec<i64>,
    slice_to: Vec<i64>,
    slice_buckets: Vec<u32>,
    slice_grains: Vec<Grain>,
    buckets: u32,
    /// A bit for each, in the order of [`Wants`].
    wants: u8,
    cells_max: u32,
}

const BYTES_PER_SLICE: usize = 21;
/// Around a text.
const BYTES_PER_VALUE: usize = 12;

fn dimension_number(dimension: DimensionRef) -> Result<u8, WireError> {
    match dimension {
        DimensionRef::EventName => Ok(0),
        DimensionRef::Index(at) => {
            at_most("dimensions", at.saturating_add(1), DIMENSIONS_MAX)?;
            Ok(at as u8 + 1)
        }
    }
}

fn dimension_of(number: u8) -> Result<DimensionRef, WireError> {
    match usize::from(number).checked_sub(1) {
        None => Ok(DimensionRef::EventName),
        Some(at) if at < DIMENSIONS_MAX => Ok(DimensionRef::Index(at)),
        Some(_) => Err(WireError::Damaged("no such dimension")),
    }
}

fn wants_bits(wants: Wants) -> u8 {
    let Wants { values, last, users, sessions, quantiles } = wants;
    [values, last, users, sessions, quantiles].iter().enumerate().fold(0, |bits, (at, wanted)| bits | u8::from(*wanted) << at)
}

fn wants_of(bits: u8) -> Result<Wants, WireError> {
    let wanted = |at: u8| bits >> at & 1 == 1;
    let wants = Wants { values: wanted(0), last: wanted(1), users: wanted(2), sessions: wanted(3), quantiles: wanted(4) };
    if wants_bits(wants) == bits { Ok(wants) } else { Err(WireError::Damaged("unknown wants")) }
}

impl WireQuery {
    pub(super) fn of(query: &ShardQuery) -> Result<Self, WireError> {
        at_most("dimensions to group by", query.group_by.len(), GROUP_BY_MAX)?;
        at_most("filters", query.filters.len(), FILTERS_MAX)?;
        at_most("steps", query.plan.buckets as usize, POINTS_PER_GROUP_MAX)?;
        at_most("cells", query.cells_max, ANSWER_CELLS_MAX)?;
        let filter = |filter: &DimensionFilter| {
            at_most("values of a filter", filter.values.len(), FILTER_VALUES_MAX)?;
            Ok(WireFilter { dimension: dimension_number(filter.dimension)?, negated: filter.negated, values: filter.values.clone() })
        };
        let slices = &query.plan.slices;
        Ok(Self {
            tenant: query.tenant.clone(),
            metric: match &query.metric {
                MetricSelector::All => WireSelector::All,
                MetricSelector::Event(name) => WireSelector::Event(name.clone()),
                MetricSelector::Defined(name) => WireSelector::Defined(name.clone()),
            },
            group_by: query.group_by.iter().map(|d| dimension_number(*d)).collect::<Result<_, _>>()?,
            filters: query.filters.iter().map(filter).collect::<Result<_, _>>()?,
            slice_from: slices.iter().map(|s| s.from_ms).collect(),
            slice_to: slices.iter().map(|s| s.to_ms).collect(),
            slice_buckets: slices.iter().map(|s| s.bucket).collect(),
            slice_grains: slices.iter().map(|s| s.grain).collect(),
            buckets: query.plan.buckets,
            wants: wants_bits(query.wants),
            cells_max: query.cells_max as u32,
        })
    }

    pub(super) fn bytes_estimate(&self) -> usize {
        let texts = self.filters.iter().flat_map(|f| &f.values).map(|v| BYTES_PER_VALUE + v.as_ref().map_or(0, String::len));
        let name = match &self.metric {
            WireSelector::All => 0,
            WireSelector::Event(name) | WireSelector::Defined(name) => name.len(),
        };
        self.tenant.len() + name + texts.sum::<usize>() + BYTES_PER_SLICE * self.slice_from.len()
    }
}

impl ArchivedWireQuery {
    pub(super) fn read(&self) -> Result<ShardQuery, WireError> {
        if self.group_by.len() > GROUP_BY_MAX || self.filters.len() > FILTERS_MAX {
            return Err(WireError::Damaged("too many dimensions or filters"));
        }
        let cells_max = self.cells_max.to_native() as usize;
        if cells_max > ANSWER_CELLS_MAX {
            return Err(WireError::Damaged("more cells than an answer may have"));
        }
        let filter = |filter: &ArchivedWireFilter| {
            if filter.values.len() > FILTER_VALUES_MAX {
                return Err(WireError::Damaged("too many values of a filter"));
            }
            let values = filter.values.iter().map(|v| v.as_ref().map(|text| text.as_str().to_owned())).collect();
            Ok(DimensionFilter { dimension: dimension_of(filter.dimension)?, negated: filter.negated, values })
        };
        Ok(ShardQuery {
            tenant: self.tenant.as_str().to_owned(),
            metric: match &self.metric {
                ArchivedWireSelector::All => MetricSelector::All,
                ArchivedWireSelector::Event(name) => MetricSelector::Event(name.as_str().to_owned()),
                ArchivedWireSelector::Defined(name) => MetricSelector::Defined(name.as_str().to_owned()),
            },
            group_by: self.group_by.iter().map(|d| dimension_of(*d)).collect::<Result<_, _>>()?,
            filters: self.filters.iter().map(filter).collect::<Result<_, _>>()?,
            plan: self.plan()?,
            wants: wants_of(self.wants)?,
            cells_max,
        })
    }

    fn plan(&self) -> Result<ScanPlan, WireError> {
        let (n, buckets) = (self.slice_from.len(), self.buckets.to_native());
        if [self.slice_to.len(), self.slice_buckets.len(), self.slice_grains.len()] != [n; 3] {
            return Err(WireError::Damaged("columns of slices differ in length"));
        }
        if buckets as usize > POINTS_PER_GROUP_MAX {
            return Err(WireError::Damaged("too many steps"));
        }
        let mut slices = Vec::with_capacity(n);
        let mut last_ms = i64::MIN;
        for i in 0..n {
            let grain = match self.slice_grains[i] {
                ArchivedGrain::Minute => Grain::Minute,
                ArchivedGrain::Hour => Grain::Hour,
                ArchivedGrain::Day => Grain::Day,
            };
            let (from_ms, to_ms) = (self.slice_from[i].to_native(), self.slice_to[i].to_native());
            let bucket = self.slice_buckets[i].to_native();
            // Within the calendar: whoever reads them adds grains to them.
            let is_time = |ms| jiff::Timestamp::from_millisecond(ms).is_ok();
            if from_ms < last_ms || from_ms >= to_ms || !is_time(from_ms) || !is_time(to_ms) {
                return Err(WireError::Damaged("slices are not disjoint and in the order of time"));
            }
            if bucket >= buckets {
                return Err(WireError::Damaged("a slice names no step"));
            }
            last_ms = to_ms;
            slices.push(Slice { from_ms, to_ms, grain, bucket });
        }
        Ok(ScanPlan { slices, buckets })
    }
}
