//! A planned expression over the series of its leaves, all points at once. Pure.

mod aggregate;
mod binary;

use std::collections::BTreeMap;

use super::envelope::Failure;
use super::expression::{Aggregation, Function, Labels, Node};
use super::request::Grid;

pub type LabelSet = BTreeMap<String, String>;

const NAME: &str = "__name__";

/// One value for each point; `None` where the series has none.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub labels: LabelSet,
    pub values: Vec<Option<f64>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar(Vec<f64>),
    Vector(Vec<Series>),
}

impl Labels {
    /// What of a series' labels puts it together with others.
    fn of(&self, labels: &LabelSet) -> LabelSet {
        let is_wanted = |name: &String| match self {
            Self::Only(names) => names.contains(name),
            Self::AllBut(names) => name != NAME && !names.contains(name),
        };
        labels.iter().filter(|(name, _)| is_wanted(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// `leaves` are taken out as they are met: each stands in the tree once.
///
/// # Errors
/// 422: matching that is not one to one, or series that cannot be told apart.
pub fn evaluate(node: &Node, grid: &Grid, leaves: &mut [Vec<Series>]) -> Result<Value, Failure> {
    let points = grid.times_ms.len();
    Ok(match node {
        Node::Number(number) => Value::Scalar(vec![*number; points]),
        Node::Leaf(at) => Value::Vector(leaves.get_mut(*at).map(std::mem::take).unwrap_or_default()),
        Node::Negate(of) => map(evaluate(of, grid, leaves)?, |v| -v),
        Node::Aggregate { operation, k, by, of } => {
            let k = k.as_ref().map(|k| scalar(evaluate(k, grid, leaves)?)).transpose()?;
            let of = vector(evaluate(of, grid, leaves)?)?;
            Value::Vector(match (operation, k) {
                (Aggregation::TopK, Some(k)) => aggregate::extremes(of, by, &k, true),
                (Aggregation::BottomK, Some(k)) => aggregate::extremes(of, by, &k, false),
                (operation, _) => aggregate::aggregate(*operation, of, by, points),
            })
        }
        Node::Binary { operator, on, left, right } => {
            let (left, right) = (evaluate(left, grid, leaves)?, evaluate(right, grid, leaves)?);
            binary::binary(*operator, on, left, right)?
        }
        Node::Call { function, arguments } => {
            let mut values = Vec::with_capacity(arguments.len());
            for argument in arguments {
                values.push(evaluate(argument, grid, leaves)?);
            }
            call(*function, values, grid)?
        }
    })
}

/// What a whole expression gives. Series that lost the name which told them apart are one, if they are not there at the same time.
///
/// # Errors
/// 422 when they are.
pub fn checked(value: Value) -> Result<Value, Failure> {
    let Value::Vector(series) = value else { return Ok(value) };
    let mut places: BTreeMap<LabelSet, usize> = BTreeMap::new();
    let mut out: Vec<Series> = Vec::with_capacity(series.len());
    for one in series {
        match places.get(&one.labels) {
            Some(at) if out[*at].join(&one) => {}
            Some(_) => return Err(Failure::execution(format!("the result has two series with the labels {}", written(&one.labels)))),
            None => {
                places.insert(one.labels.clone(), out.len());
                out.push(one);
            }
        }
    }
    Ok(Value::Vector(out))
}

/// The largest or smallest first, where the expression as a whole says so: at one moment, series are read in their order.
pub fn ordered(node: &Node, value: Value) -> Value {
    let largest_first = match node {
        Node::Aggregate { operation: Aggregation::TopK, .. } | Node::Call { function: Function::SortDescending, .. } => true,
        Node::Aggregate { operation: Aggregation::BottomK, .. } | Node::Call { function: Function::Sort, .. } => false,
        _ => return value,
    };
    let Value::Vector(mut series) = value else { return value };
    let rank = |s: &Series| s.values.first().copied().flatten().filter(|v| !v.is_nan()).map(|v| if largest_first { -v } else { v });
    series.sort_by(|a, b| match (rank(a), rank(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    });
    Value::Vector(series)
}

impl Series {
    /// Takes over the values of another, unless both have one somewhere.
    fn join(&mut self, other: &Self) -> bool {
        let apart = self.values.iter().zip(&other.values).all(|(a, b)| a.is_none() || b.is_none());
        if apart {
            self.values.iter_mut().zip(&other.values).for_each(|(value, other)| *value = value.or(*other));
        }
        apart
    }
}

/// `{a="b"}`, for messages.
fn written(labels: &LabelSet) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(","))
}

/// Every value by a function; series lose the name of what they were.
fn map(value: Value, f: impl Fn(f64) -> f64) -> Value {
    match value {
        Value::Scalar(values) => Value::Scalar(values.into_iter().map(f).collect()),
        Value::Vector(mut series) => {
            for one in &mut series {
                one.labels.remove(NAME);
                one.values.iter_mut().flatten().for_each(|v| *v = f(*v));
            }
            Value::Vector(series)
        }
    }
}

fn vector(value: Value) -> Result<Vec<Series>, Failure> {
    match value {
        Value::Vector(series) => Ok(series),
        Value::Scalar(_) => Err(Failure::bad_data("a vector is needed where a scalar stands")),
    }
}

fn scalar(value: Value) -> Result<Vec<f64>, Failure> {
    match value {
        Value::Scalar(values) => Ok(values),
        Value::Vector(_) => Err(Failure::bad_data("a scalar is needed where a vector stands")),
    }
}

fn call(function: Function, mut arguments: Vec<Value>, grid: &Grid) -> Result<Value, Failure> {
    let second = if arguments.len() > 1 { arguments.pop() } else { None };
    let first = arguments.pop();
    let of_vector = |f: fn(f64) -> f64| Ok(map(Value::Vector(vector(first.clone().unwrap_or(Value::Vector(Vec::new())))?), f));
    match function {
        Function::Sort | Function::SortDescending => Ok(Value::Vector(vector(first.unwrap_or(Value::Vector(Vec::new())))?)),
        Function::Abs => of_vector(f64::abs),
        Function::Ceil => of_vector(f64::ceil),
        Function::Floor => of_vector(f64::floor),
        // Halves go up, as in Prometheus.
        Function::Round => of_vector(|v| (v + 0.5).floor()),
        Function::Sqrt => of_vector(f64::sqrt),
        Function::Time => Ok(Value::Scalar(grid.times_ms.iter().map(|t| *t as f64 / 1e3).collect())),
        Function::Vector => {
            let values = scalar(first.unwrap_or(Value::Scalar(Vec::new())))?.into_iter().map(Some).collect();
            Ok(Value::Vector(vec![Series { labels: LabelSet::new(), values }]))
        }
        Function::Scalar => {
            let series = vector(first.unwrap_or(Value::Vector(Vec::new())))?;
            let only = |at: usize| {
                let mut there = series.iter().filter_map(|s| s.values.get(at).copied().flatten());
                there.next().filter(|_| there.next().is_none()).unwrap_or(f64::NAN)
            };
            Ok(Value::Scalar((0..grid.times_ms.len()).map(only).collect()))
        }
        Function::ClampMin | Function::ClampMax => {
            let limits = scalar(second.unwrap_or(Value::Scalar(Vec::new())))?;
            let mut series = vector(first.unwrap_or(Value::Vector(Vec::new())))?;
            for one in &mut series {
                one.labels.remove(NAME);
                for (value, limit) in one.values.iter_mut().zip(&limits) {
                    let clamp = |v: f64| if function == Function::ClampMin { v.max(*limit) } else { v.min(*limit) };
                    *value = value.map(clamp);
                }
            }
            Ok(Value::Vector(series))
        }
    }
}

#[cfg(test)]
mod tests;
