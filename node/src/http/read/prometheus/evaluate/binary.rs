//! Operators between numbers and series. Series are matched one to one.

use std::collections::BTreeMap;

use super::{LabelSet, NAME, Series, Value, written};
use crate::http::read::prometheus::envelope::Failure;
use crate::http::read::prometheus::expression::{Arithmetic, Comparison, Labels, Operator, SetOperation};

impl Arithmetic {
    fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => a / b,
            Self::Mod => a % b,
            Self::Pow => a.powf(b),
            Self::Atan2 => a.atan2(b),
        }
    }
}

impl Comparison {
    fn holds(self, a: f64, b: f64) -> bool {
        match self {
            Self::Equal => a == b,
            Self::NotEqual => a != b,
            Self::Greater => a > b,
            Self::Less => a < b,
            Self::GreaterOrEqual => a >= b,
            Self::LessOrEqual => a <= b,
        }
    }
}

impl Operator {
    /// `kept` is what a filter lets through.
    fn apply(self, a: f64, b: f64, kept: f64) -> Option<f64> {
        match self {
            Self::Arithmetic(arithmetic) => Some(arithmetic.apply(a, b)),
            Self::Comparison(comparison, true) => Some(f64::from(u8::from(comparison.holds(a, b)))),
            Self::Comparison(comparison, false) => comparison.holds(a, b).then_some(kept),
            Self::Set(_) => None,
        }
    }

    /// Whether series stay what they are.
    fn keeps_name(self) -> bool {
        matches!(self, Self::Comparison(_, false) | Self::Set(_))
    }
}

/// # Errors
/// 400 or 422: operands of a kind that the operator does not take, or matching that is not one to one.
pub fn binary(operator: Operator, on: &Labels, left: Value, right: Value) -> Result<Value, Failure> {
    match (operator, left, right) {
        (Operator::Set(set), Value::Vector(left), Value::Vector(right)) => Ok(Value::Vector(set_operation(set, on, left, right))),
        (Operator::Set(_), ..) => Err(Failure::bad_data("and, or and unless are between vectors")),
        (Operator::Comparison(_, false), Value::Scalar(_), Value::Scalar(_)) => {
            Err(Failure::bad_data("comparisons between scalars must use the BOOL modifier"))
        }
        (_, Value::Scalar(left), Value::Scalar(right)) => {
            let value = |(a, b): (f64, f64)| operator.apply(a, b, a).unwrap_or(f64::NAN);
            Ok(Value::Scalar(left.into_iter().zip(right).map(value).collect()))
        }
        (_, Value::Vector(left), Value::Scalar(right)) => {
            Ok(Value::Vector(with_numbers(operator, left, &right, |v, n| operator.apply(v, n, v))))
        }
        (_, Value::Scalar(left), Value::Vector(right)) => {
            Ok(Value::Vector(with_numbers(operator, right, &left, |v, n| operator.apply(n, v, v))))
        }
        (_, Value::Vector(left), Value::Vector(right)) => one_to_one(operator, on, left, right).map(Value::Vector),
    }
}

fn with_numbers(operator: Operator, mut series: Vec<Series>, numbers: &[f64], apply: impl Fn(f64, f64) -> Option<f64>) -> Vec<Series> {
    for one in &mut series {
        if !operator.keeps_name() {
            one.labels.remove(NAME);
        }
        for (value, number) in one.values.iter_mut().zip(numbers) {
            *value = value.and_then(|v| apply(v, *number));
        }
    }
    series
}

fn one_to_one(operator: Operator, on: &Labels, left: Vec<Series>, right: Vec<Series>) -> Result<Vec<Series>, Failure> {
    let (left, mut right) = (by_key(on, left, "left")?, by_key(on, right, "right")?);
    let mut out = Vec::new();
    for (key, left) in left {
        let Some(right) = right.remove(&key) else { continue };
        let apply = |(a, b): (Option<f64>, Option<f64>)| a.zip(b).and_then(|(a, b)| operator.apply(a, b, a));
        let values = left.values.into_iter().zip(right.values).map(apply).collect();
        // Labels that were not matched are those of one side only.
        let name = left.labels.get(NAME).filter(|_| operator.keeps_name() && matches!(on, Labels::AllBut(_))).cloned();
        let mut labels = key;
        labels.extend(name.map(|name| (NAME.to_owned(), name)));
        out.push(Series { labels, values });
    }
    Ok(out)
}

fn by_key(on: &Labels, series: Vec<Series>, side: &str) -> Result<BTreeMap<LabelSet, Series>, Failure> {
    let mut out: BTreeMap<LabelSet, Series> = BTreeMap::new();
    for one in series {
        let key = on.of(&one.labels);
        if let Some(other) = out.get_mut(&key) {
            if other.join(&one) {
                continue;
            }
            return Err(Failure::execution(format!(
                "found duplicate series for the match group {} on the {side} side: {} and {}; many-to-one matching is not supported",
                written(&key),
                written(&other.labels),
                written(&one.labels)
            )));
        }
        out.insert(key, one);
    }
    Ok(out)
}

/// Point by point: a series counts where it has a value.
fn set_operation(operation: SetOperation, on: &Labels, mut left: Vec<Series>, mut right: Vec<Series>) -> Vec<Series> {
    let there = |series: &[Series]| -> BTreeMap<LabelSet, Vec<bool>> {
        let mut out: BTreeMap<LabelSet, Vec<bool>> = BTreeMap::new();
        for one in series {
            let points = out.entry(on.of(&one.labels)).or_insert_with(|| vec![false; one.values.len()]);
            points.iter_mut().zip(&one.values).for_each(|(there, value)| *there |= value.is_some());
        }
        out
    };
    let keep = |series: &mut Vec<Series>, other: &BTreeMap<LabelSet, Vec<bool>>, if_there: bool| {
        for one in series.iter_mut() {
            let points = other.get(&on.of(&one.labels));
            for (at, value) in one.values.iter_mut().enumerate() {
                if points.is_some_and(|points| points[at]) != if_there {
                    *value = None;
                }
            }
        }
        series.retain(|s| s.values.iter().any(Option::is_some));
    };
    match operation {
        SetOperation::And => keep(&mut left, &there(&right), true),
        SetOperation::Unless => keep(&mut left, &there(&right), false),
        SetOperation::Or => {
            keep(&mut right, &there(&left), false);
            for one in right {
                // The same series may come from both sides at different points.
                match left.iter_mut().find(|l| l.labels == one.labels) {
                    Some(same) => same.values.iter_mut().zip(one.values).for_each(|(value, other)| *value = value.or(other)),
                    None => left.push(one),
                }
            }
        }
    }
    left
}
