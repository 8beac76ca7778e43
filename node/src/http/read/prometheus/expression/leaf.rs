//! A selector with what is done to it at once: one question to the shards.

use std::collections::BTreeSet;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{Call, Expr, Offset, VectorSelector};
use tallymesh_protocol::question::query::{Aggregate, MetricQuery, QueryParams};

use super::super::envelope::Failure;
use super::super::request::{shown as shown_duration, whole_minutes};
use super::{Aggregation, Labels, shown, unsupported, without_parens};
use crate::limits::PROMQL_RANGE_MS_MAX;

pub const NAME: &str = "__name__";
/// Which aggregate of the events is meant; their number when it is not there.
const AGGREGATE: &str = "__agg__";
/// Which labels the events are counted by: a comma list, empty for none.
const BY: &str = "__by__";

/// What makes one value of a range.
pub const RANGE_FUNCTIONS: [&str; 9] = [
    "rate",
    "increase",
    "count_over_time",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "last_over_time",
    "quantile_over_time",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafMatcher {
    pub label: String,
    pub matcher: Matcher,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// The metric by its exact name; look-ups may have other conditions on it.
    pub metric: Option<String>,
    pub name_matchers: Vec<Matcher>,
    pub matchers: Vec<LeafMatcher>,
    pub aggregate: Aggregate,
    /// Divided by the seconds of the range.
    pub is_rate: bool,
    /// As asked, in milliseconds; `None` is the step, or what a moment looks back at.
    pub range_ms: Option<i64>,
    /// How much earlier, in milliseconds.
    pub offset_ms: i64,
    /// Labels asked for by `__by__`.
    pub by: Option<BTreeSet<String>>,
    /// The only labels that what stands around it looks at.
    pub needed: Option<BTreeSet<String>>,
    /// Series have the metric's name as a label.
    pub keeps_name: bool,
    pub text: String,
}

impl Leaf {
    /// # Errors
    /// 400 or 422 with the matcher or modifier that cannot be.
    pub fn bare(selector: &VectorSelector) -> Result<Self, Failure> {
        let leaf = Self::of_lookup(selector)?;
        let Some(name) = &leaf.metric else {
            let instead = ": name one metric, such as `page_view` or {__name__=\"*\"} for every event";
            return Err(unsupported("a selector without one exact metric name", selector, instead));
        };
        if name.is_empty() {
            return Err(Failure::bad_data(format!("the metric name is empty, in `{}`", leaf.text)));
        }
        Ok(leaf)
    }

    /// The same, with any condition on the metric's name.
    pub fn of_lookup(selector: &VectorSelector) -> Result<Self, Failure> {
        let text = shown(selector);
        if selector.at.is_some() {
            return Err(unsupported("the `@` modifier", selector, ""));
        }
        if !selector.matchers.or_matchers.is_empty() {
            return Err(unsupported("`or` between matchers", selector, ""));
        }
        let offset_ms = match &selector.offset {
            None => 0,
            Some(Offset::Pos(offset)) => bounded(offset.as_millis(), &text)?,
            Some(Offset::Neg(offset)) => -bounded(offset.as_millis(), &text)?,
        };
        let mut leaf = Self {
            metric: selector.name.clone(),
            name_matchers: Vec::new(),
            matchers: Vec::new(),
            aggregate: Aggregate::Count,
            is_rate: false,
            range_ms: None,
            offset_ms,
            by: None,
            needed: None,
            keeps_name: true,
            text,
        };
        let mut aggregates = 0;
        for matcher in &selector.matchers.matchers {
            let is_exact = matches!(matcher.op, MatchOp::Equal);
            match matcher.name.as_str() {
                NAME if is_exact && leaf.metric.is_none() => leaf.metric = Some(matcher.value.clone()),
                NAME => leaf.name_matchers.push(matcher.clone()),
                AGGREGATE | BY if !is_exact => {
                    return Err(unsupported(&format!("`{}` with anything but `=`", matcher.name), selector, ""));
                }
                AGGREGATE => {
                    leaf.aggregate = aggregate(&matcher.value, &leaf.text)?;
                    aggregates += 1;
                }
                BY => leaf.by = Some(matcher.value.split(',').map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect()),
                label => leaf.matchers.push(LeafMatcher { label: label.to_owned(), matcher: matcher.clone() }),
            }
        }
        if aggregates > 1 {
            return Err(Failure::bad_data(format!("`{AGGREGATE}` is there twice, in `{}`", leaf.text)));
        }
        if leaf.metric.is_some() && !leaf.name_matchers.is_empty() {
            let holds = leaf.name_matchers.iter().all(|m| leaf.metric.as_deref().is_some_and(|name| m.is_match(name)));
            if !holds {
                return Err(unsupported("a second condition on the metric's name that excludes it", selector, ""));
            }
        }
        Ok(leaf)
    }

    /// A function over a range, if it is one.
    ///
    /// # Errors
    /// As [`Self::bare`].
    pub fn of_call(call: &Call) -> Result<Option<Self>, Failure> {
        let name = call.func.name;
        if !RANGE_FUNCTIONS.contains(&name) {
            return Ok(None);
        }
        let of = match call.args.args.last().map(|arg| without_parens(arg)) {
            Some(Expr::MatrixSelector(matrix)) => matrix,
            Some(Expr::Subquery(_)) => return Err(unsupported("a subquery", call, "")),
            _ => return Err(unsupported(&format!("`{name}` of anything but a range"), call, "; write it as `m[5m]`")),
        };
        let mut leaf = Self::bare(&of.vs)?;
        leaf.text = shown(call);
        leaf.keeps_name = false;
        leaf.range_ms = Some(bounded(of.range.as_millis(), &leaf.text)?.max(1));
        let own = match name {
            "rate" | "increase" => None,
            "count_over_time" => Some(Aggregate::Count),
            "sum_over_time" => Some(Aggregate::Sum),
            "avg_over_time" => Some(Aggregate::Avg),
            "min_over_time" => Some(Aggregate::Min),
            "max_over_time" => Some(Aggregate::Max),
            "last_over_time" => Some(Aggregate::Last),
            _ => Some(quantile(call)?),
        };
        if let Some(own) = own {
            if of.vs.matchers.matchers.iter().any(|m| m.name == AGGREGATE) {
                return Err(unsupported(&format!("`{AGGREGATE}` beside `{name}`, which is an aggregate itself,"), call, "; take increase"));
            }
            leaf.aggregate = own;
        }
        leaf.is_rate = name == "rate";
        if leaf.is_rate && !leaf.adds_up() {
            let why = format!("`rate` of {}", leaf.aggregate.label());
            return Err(unsupported(&why, call, ": it is no sum over time; `increase` gives it for the range"));
        }
        Ok(Some(leaf))
    }

    /// Whether it can be added over time and over series.
    fn adds_up(&self) -> bool {
        matches!(self.aggregate, Aggregate::Count | Aggregate::Sum)
    }

    /// Makes use of what the aggregation around it leaves out.
    ///
    /// # Errors
    /// The sum of what does not add up, unless `__by__` says which series are meant.
    pub fn push_down(&mut self, operation: Aggregation, by: &Labels) -> Result<(), String> {
        if operation == Aggregation::Sum && !self.adds_up() && self.by.is_none() {
            let by = match by {
                Labels::Only(labels) => labels.iter().map(String::as_str).collect::<Vec<_>>().join(","),
                Labels::AllBut(_) => "...".to_owned(),
            };
            let label = self.aggregate.label();
            return Err(format!("`{label}` of several series does not add up; instead of sum, ask the selector for it: {{{BY}=\"{by}\"}}"));
        }
        let same = match operation {
            Aggregation::Sum => self.adds_up(),
            // A rate keeps the order.
            Aggregation::Min => self.aggregate == Aggregate::Min,
            Aggregation::Max => self.aggregate == Aggregate::Max,
            _ => false,
        };
        if let (true, Labels::Only(labels), None) = (same, by, &self.by) {
            self.needed = Some(labels.clone());
        }
        Ok(())
    }

    /// What is said where the range is no whole number of minutes.
    pub fn rounding(&self) -> Option<String> {
        let asked = self.range_ms?;
        let read = whole_minutes(asked);
        (read != asked).then(|| {
            format!("the range of {} in `{}` is read as {}: windows are minutes", shown_duration(asked), self.text, shown_duration(read))
        })
    }
}

fn bounded(ms: u128, text: &str) -> Result<i64, Failure> {
    match i64::try_from(ms) {
        Ok(ms) if ms <= PROMQL_RANGE_MS_MAX => Ok(ms),
        _ => Err(Failure::bad_data(format!("a range or offset is over {} days, in `{text}`", PROMQL_RANGE_MS_MAX / 86_400_000))),
    }
}

fn aggregate(name: &str, text: &str) -> Result<Aggregate, Failure> {
    let parsed = QueryParams::from_pairs([("metric", "*"), ("range", "1m"), ("agg", name)]).and_then(|p| MetricQuery::parse(&p, 0));
    match parsed.map(|query| query.aggregates) {
        Ok(aggregates) if !name.is_empty() => match <[Aggregate; 1]>::try_from(aggregates) {
            Ok([one]) => Ok(one),
            Err(_) => Err(Failure::bad_data(format!("`{AGGREGATE}` names several aggregates, in `{text}`"))),
        },
        Ok(_) => Err(Failure::bad_data(format!("`{AGGREGATE}` is empty, in `{text}`"))),
        Err(problem) => Err(Failure::bad_data(format!("{}, in `{text}`", problem.detail))),
    }
}

fn quantile(call: &Call) -> Result<Aggregate, Failure> {
    match call.args.args.first().map(|arg| without_parens(arg)) {
        Some(Expr::NumberLiteral(q)) if (0.0..=1.0).contains(&q.val) => {
            Ok(Aggregate::Quantile { q: q.val, label: format!("quantile {}", q.val) })
        }
        _ => Err(unsupported("a quantile that is no number from 0 to 1", call, "")),
    }
}
