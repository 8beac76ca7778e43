//! `sum by (...)` and its like, over series.

use std::collections::BTreeMap;

use super::{LabelSet, Series};
use crate::http::read::prometheus::expression::{Aggregation, Labels};

/// What has been seen of a group at one point.
#[derive(Clone, Copy)]
struct Seen {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Seen {
    const NOTHING: Self = Self { count: 0, sum: 0.0, min: f64::NAN, max: f64::NAN };

    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        // Of a number and none, the number.
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn value(self, operation: Aggregation) -> Option<f64> {
        let value = match operation {
            Aggregation::Sum => self.sum,
            Aggregation::Avg => self.sum / self.count as f64,
            Aggregation::Min => self.min,
            Aggregation::Max => self.max,
            Aggregation::Count => self.count as f64,
            Aggregation::Group | Aggregation::TopK | Aggregation::BottomK => 1.0,
        };
        (self.count > 0).then_some(value)
    }
}

pub fn aggregate(operation: Aggregation, series: Vec<Series>, by: &Labels, points: usize) -> Vec<Series> {
    let mut groups: BTreeMap<LabelSet, Vec<Seen>> = BTreeMap::new();
    for one in series {
        let seen = groups.entry(by.of(&one.labels)).or_insert_with(|| vec![Seen::NOTHING; points]);
        for (seen, value) in seen.iter_mut().zip(one.values) {
            if let Some(value) = value {
                seen.add(value);
            }
        }
    }
    let one = |(labels, seen): (LabelSet, Vec<Seen>)| Series { labels, values: seen.into_iter().map(|s| s.value(operation)).collect() };
    groups.into_iter().map(one).collect()
}

/// The `k` largest or smallest of each group, point by point. NaN is last either way; equal values go by their labels.
pub fn extremes(mut series: Vec<Series>, by: &Labels, k: &[f64], largest: bool) -> Vec<Series> {
    let mut groups: BTreeMap<LabelSet, Vec<usize>> = BTreeMap::new();
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    for (at, one) in series.iter().enumerate() {
        groups.entry(by.of(&one.labels)).or_default().push(at);
    }
    for members in groups.values() {
        for (point, k) in k.iter().enumerate() {
            let mut there: Vec<(usize, f64)> = members.iter().filter_map(|at| Some((*at, series[*at].values[point]?))).collect();
            let order = |v: f64| {
                if v.is_nan() {
                    f64::INFINITY
                } else if largest {
                    -v
                } else {
                    v
                }
            };
            there.sort_by(|a, b| order(a.1).total_cmp(&order(b.1)).then(a.1.is_nan().cmp(&b.1.is_nan())));
            // A `k` below one, or none at all, takes nothing.
            let kept = if *k >= 1.0 { *k as usize } else { 0 };
            for (at, _) in there.iter().skip(kept) {
                series[*at].values[point] = None;
            }
        }
    }
    series.retain(|s| s.values.iter().any(Option::is_some));
    series
}
