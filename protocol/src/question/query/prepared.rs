//! A query ready to be sent to the shards, and their answers made into the client's: `MetricQuery -> PreparedQuery -> Answer`.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan};

use super::{Aggregate, Compare, MetricQuery, MetricSelector, Order, Partial, Resolved, ShardQuery, Step, StepWidth, TimeRange, cursor};
use crate::aggregate::{Accumulator, Distinct};
use crate::cardinality::OTHER;
use crate::definition::DefinitionSet;
use crate::error::{ErrorCode, Problem, nearest};
use crate::hash::ShardId;
use crate::limits::ANSWER_CELLS_MAX;
use crate::question::answer::{Answer, PartialAnswer, Receipt, ShardsAnswered};
use crate::question::merge::{Layout, Leading, Merged, Merger, lay_out};
use crate::question::plan::{QueryPlan, Retention, plan};
use crate::time::rfc3339;

/// One range of the query: the one asked for, or the one it is compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Leg {
    pub plan: QueryPlan,
    pub shard_query: Arc<ShardQuery>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PreparedQuery {
    pub query: MetricQuery,
    pub current: Leg,
    pub earlier: Option<Leg>,
    group_names: Vec<String>,
    now_ms: i64,
}

/// The shards' answers for one [`Leg`], merged.
#[derive(Clone, Debug, PartialEq)]
pub struct Gathered {
    merged: Merged,
    shards: ShardsAnswered,
}

impl Leg {
    fn of(plan: QueryPlan, query: &MetricQuery, resolved: &Resolved, tenant: &str) -> Self {
        let shard_query = Arc::new(ShardQuery {
            tenant: tenant.to_owned(),
            metric: resolved.selector.clone(),
            group_by: resolved.group_by.clone(),
            filters: resolved.filters.clone(),
            plan: plan.scan.clone(),
            wants: Aggregate::wants(&query.aggregates),
            cells_max: ANSWER_CELLS_MAX,
        });
        Self { plan, shard_query }
    }
}

impl Gathered {
    /// By group and step of the plan; every shard has answered, unless the query allowed otherwise.
    pub fn merged(&self) -> &Merged {
        &self.merged
    }
}

impl PreparedQuery {
    /// Resolves names and plans the scan.
    ///
    /// # Errors
    /// 422: an unknown dimension, too many points, a step that kept windows cannot give.
    pub fn new(query: MetricQuery, tenant: &str, definitions: &DefinitionSet, retention: Retention, now_ms: i64) -> Result<Self, Problem> {
        let resolved = Resolved::of(&query, definitions)?;
        let leg = |plan: QueryPlan| Leg::of(plan, &query, &resolved, tenant);
        let current = plan(query.range, query.step, &query.zone, retention, now_ms)?;
        let earlier_range = query.compare.map(|compare| earlier_range(&query, compare)).transpose()?;
        let earlier = earlier_range
            .map(|range| plan(range, current.step.map_or(Step::None, Step::Every), &query.zone, retention, now_ms))
            .transpose()?
            .map(leg);
        Ok(Self { current: leg(current), earlier, group_names: resolved.group_names, now_ms, query })
    }

    /// The same for windows that were planned before ([`crate::question::plan::plan_windows`]): `range`, `step` and what is compared play no part. The answer is
    /// in [`Gathered::merged`].
    ///
    /// # Errors
    /// 422: an unknown dimension.
    pub fn of_windows(
        query: MetricQuery,
        tenant: &str,
        definitions: &DefinitionSet,
        plan: QueryPlan,
        now_ms: i64,
    ) -> Result<Self, Problem> {
        let resolved = Resolved::of(&query, definitions)?;
        let current = Leg::of(plan, &query, &resolved, tenant);
        Ok(Self { current, earlier: None, group_names: resolved.group_names, now_ms, query })
    }

    /// Names of the group dimensions, in the order asked.
    pub fn group_names(&self) -> &[String] {
        &self.group_names
    }

    /// Merges one leg's answers. `asked` is the number of shards there are; one that is not among `answers` did not answer.
    ///
    /// # Errors
    /// What is wrong with the query itself; 503 or 504 when shards are missing and the query does not allow that; 404 when no shard knows the metric.
    pub fn gather(&self, asked: u32, answers: Vec<(ShardId, Result<PartialAnswer, Problem>)>) -> Result<Gathered, Problem> {
        let mut merger = Merger::new(ANSWER_CELLS_MAX);
        let mut answered = 0;
        let mut failed: Vec<(ShardId, Problem)> = Vec::new();
        for (shard, answer) in answers {
            match answer {
                Ok(answer) => {
                    merger.push(answer)?;
                    answered += 1;
                }
                Err(problem) if !problem.code.is_retryable() => return Err(problem),
                Err(problem) => failed.push((shard, problem)),
            }
        }
        if answered < asked && (self.query.partial == Partial::Fail || answered == 0) {
            return Err(incomplete(asked, answered, &failed));
        }
        let merged = merger.finish(self.leading())?;
        let named_by_event = matches!(self.current.shard_query.metric, MetricSelector::Event(_));
        if named_by_event && !merged.metric_known && answered == asked {
            return Err(unknown_metric(&self.query.metric, [], merged.other.names_beyond));
        }
        Ok(Gathered { merged, shards: ShardsAnswered { asked, answered } })
    }

    /// What will be read of the cells, where that is known to be few of them.
    fn leading(&self) -> Option<Leading> {
        let query = &self.query;
        let is_first_page = query.order == Order::ValueDescending && query.after.is_none() && self.earlier.is_none();
        let is_set = |aggregate: &&Aggregate| matches!(aggregate, Aggregate::Users | Aggregate::Sessions);
        if !is_first_page || query.aggregates.iter().filter(is_set).count() != 1 {
            return None;
        }
        let sets: fn(&mut Accumulator) -> &mut Distinct = match query.aggregates.first()? {
            Aggregate::Users => |values| &mut values.users,
            Aggregate::Sessions => |values| &mut values.sessions,
            _ => return None,
        };
        Some(Leading { sets, cells: query.limit })
    }

    /// The answer. `freshness_ms` is the age of the oldest view that was read, `took_ms` the time since the request came.
    ///
    /// # Errors
    /// 422 when filled steps make the answer too large.
    pub fn answer(&self, mut current: Gathered, mut earlier: Option<Gathered>, freshness_ms: u64, took_ms: u64) -> Result<Answer, Problem> {
        for merged in [Some(&mut current), earlier.as_mut()].into_iter().flatten().map(|g| &mut g.merged) {
            if self.group_names.is_empty() && merged.groups.is_empty() {
                merged.groups.push(Vec::new());
            }
        }
        let covers = |gathered: &Gathered, leg: &Leg| gathered.shards.answered == gathered.shards.asked && !leg.plan.reaches_expired;
        let complete = covers(&current, &self.current)
            && earlier.as_ref().zip(self.earlier.as_ref()).is_none_or(|(gathered, leg)| covers(gathered, leg));
        let layout = Layout {
            aggregates: &self.query.aggregates,
            group_names: &self.group_names,
            starts: self.current.plan.step.map(|_| self.current.plan.starts.as_slice()),
            step_ms: self.current.plan.step.map_or(0, StepWidth::ms),
            order: self.query.order,
            limit: self.query.limit,
            after: self.query.after.as_ref(),
            fill: self.query.fill,
            complete,
            now_ms: self.now_ms,
            // Without a step there are starts too, but nothing is at them.
            earlier_starts: self.earlier.as_ref().filter(|leg| leg.plan.step.is_some()).map_or(&[], |leg| &leg.plan.starts),
        };
        let page = lay_out(&layout, &current.merged, earlier.as_ref().map(|e| &e.merged))?;
        let range = self.current.plan.range;
        // No key of any metric: nothing was ever written, and there is nothing that could be closed.
        let is_blank = self.current.shard_query.metric == MetricSelector::All && !current.merged.metric_known;
        Ok(Answer {
            data: page.rows.into(),
            cursor: page.next.map(|position| cursor::encode(self.query.fingerprint, self.query.range, &position)),
            receipt: Receipt {
                complete,
                from: rfc3339(range.from_ms),
                to: rfc3339(range.to_ms),
                shards: current.shards,
                watermark: current.merged.watermark_ms.filter(|_| !is_blank).map(rfc3339),
                freshness_ms,
                error: page.error,
                sampled: 1.0,
                other_share: current.merged.other_share().max(earlier.as_ref().map_or(0.0, |e| e.merged.other_share())),
                sources: vec!["hot".to_owned()],
                grain: self.current.plan.grain.as_str().to_owned(),
                cache_age_ms: None,
                took_ms,
            },
        })
    }
}

/// The range that is compared with: as long, or the same by the clock of the zone some days before.
fn earlier_range(query: &MetricQuery, compare: Compare) -> Result<TimeRange, Problem> {
    let range = query.range;
    let days = match compare {
        Compare::Previous => {
            let length = range.length_ms();
            return Ok(TimeRange { from_ms: range.from_ms.saturating_sub(length), to_ms: range.from_ms });
        }
        Compare::Day => 1,
        Compare::Week => 7,
    };
    let earlier = |ms: i64| -> Result<i64, jiff::Error> {
        let moment = Timestamp::from_millisecond(ms)?.to_zoned(query.zone.rules.clone());
        Ok(moment.checked_sub(days.days())?.timestamp().as_millisecond())
    };
    match (earlier(range.from_ms), earlier(range.to_ms)) {
        (Ok(from_ms), Ok(to_ms)) if from_ms < to_ms => Ok(TimeRange { from_ms, to_ms }),
        _ => Err(Problem::new(ErrorCode::BadRange, "there is no such range earlier to compare with").field("compare")),
    }
}

fn incomplete(asked: u32, answered: u32, failed: &[(ShardId, Problem)]) -> Problem {
    let timed_out = failed.iter().any(|(_, p)| p.code == ErrorCode::QueryTimeout);
    let code = if timed_out { ErrorCode::QueryTimeout } else { ErrorCode::ShardUnavailable };
    let why = failed.first().map(|(shard, problem)| format!("; shard {shard}: {}", problem.detail)).unwrap_or_default();
    let advice = if answered == 0 { "" } else { "; `partial=allow` answers from the others" };
    let retry_after_ms = failed.iter().filter_map(|(_, p)| p.retry_after_ms).max().unwrap_or(1_000);
    Problem::new(code, format!("{answered} of {asked} shards answered{why}{advice}")).retry_after_ms(retry_after_ms)
}

/// 404 with the nearest of the names there are.
///
/// `names_beyond`: there are events of names beyond the budget, and this may be one of them.
pub fn unknown_metric<'a>(metric: &str, names: impl IntoIterator<Item = &'a str>, names_beyond: bool) -> Problem {
    let detail = if names_beyond {
        format!(
            "no metric has the name `{metric}`; the budget of event names is used up, so if there are such events, they count in `{OTHER}`"
        )
    } else {
        format!("no event of the name `{metric}` has been seen, and no metric is defined by it")
    };
    Problem::new(ErrorCode::UnknownMetric, detail).field("metric").did_you_mean(nearest(metric, names))
}

#[cfg(test)]
mod tests;
