//! An expression from text to result: plan, ask the shards for every leaf, evaluate.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::hash::DEFAULT_TENANT;
use tallymesh_protocol::limits::QUERY_TIMEOUT_MS_MAX;
use tallymesh_protocol::question::plan::plan_windows;
use tallymesh_protocol::question::query::{Aggregate, Gathered, MetricQuery, PreparedQuery, QueryParams, TimeRange};
use tallymesh_protocol::time::{DAY_MS, Grain, MINUTE_MS};

use super::envelope::{Failure, Notes};
use super::evaluate::{Series, Value, checked, evaluate, ordered};
use super::expression::{self, Leaf, Plan, Root};
use super::request::Grid;
use super::series::{Asked, Fetch, dimensions, resolve, series, windows};
use crate::http::App;
use crate::http::read::query::{ask_prepared, retention_of};
use crate::limits::PROMQL_SAMPLES_MAX;

pub enum Outcome {
    Text(String),
    Value(Value),
}

/// What is known of a leaf once the shards have answered.
struct Read {
    leaf: Leaf,
    fetch: Fetch,
    windows: Vec<Option<TimeRange>>,
    prepared: Arc<PreparedQuery>,
    gathered: Gathered,
}

/// # Errors
/// What is wrong with the expression, with what it asks for, or with the shards.
pub async fn answer(app: &App, text: &str, grid: Grid, timeout_ms: Option<u64>) -> Result<(Outcome, Notes), Failure> {
    let _own_place = app.clients.admit_query()?;
    let started = app.monotonic();
    let timeout = app.config.query.timeout.duration();
    let timeout = timeout_ms.map_or(timeout, |ms| Duration::from_millis(ms.min(QUERY_TIMEOUT_MS_MAX)));
    let _place = app.queries.enter(timeout).await?;
    let text = text.to_owned();
    // Compiling a regular expression may take its time.
    let Plan { root, leaves, mut notes } = beside(move || expression::plan(&text)).await??;
    let node = match root {
        Root::Text(text) => return Ok((Outcome::Text(text), notes)),
        Root::Node(node) => node,
    };
    let now_ms = app.now_ms();
    let mut read: Vec<Option<Read>> = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        let left = timeout.saturating_sub(app.monotonic().saturating_sub(started));
        let windows = windows(&leaf, &grid, now_ms);
        read.push(fetch(app, leaf, windows, now_ms, left, &mut notes).await?);
    }
    let value = beside(move || {
        let mut samples_left = PROMQL_SAMPLES_MAX;
        let one = |read: &Option<Read>| match read {
            None => Ok(Vec::new()),
            Some(read) => series_of(read, &mut samples_left),
        };
        let mut leaves: Vec<Vec<Series>> = read.iter().map(one).collect::<Result<_, _>>()?;
        let value = checked(evaluate(&node, &grid, &mut leaves)?)?;
        Ok::<_, Failure>(if grid.step_ms.is_none() { ordered(&node, value) } else { value })
    })
    .await??;
    app.metrics.queried(app.monotonic(), app.monotonic().saturating_sub(started));
    Ok((Outcome::Value(value), notes))
}

fn series_of(read: &Read, samples_left: &mut usize) -> Result<Vec<Series>, Failure> {
    let starts = &read.prepared.current.plan.starts;
    series(&read.leaf, &read.fetch, read.gathered.merged(), starts, &read.windows, samples_left)
}

/// Beside the threads that serve other requests.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Problem::new(ErrorCode::Internal, format!("the evaluation stopped: {e}")).into())
}

/// `None` when nothing can match, which the notes then tell.
async fn fetch(
    app: &App,
    leaf: Leaf,
    windows: Vec<Option<TimeRange>>,
    now_ms: i64,
    left: Duration,
    notes: &mut Notes,
) -> Result<Option<Read>, Failure> {
    let definitions = app.mesh.definitions();
    let metric = leaf.metric.clone().unwrap_or_default();
    let fetch = match resolve(&leaf, &metric, &dimensions(&metric, &definitions))? {
        Asked::Fetch(fetch) => fetch,
        Asked::Nothing(why) => {
            notes.warnings.push(why);
            return Ok(None);
        }
    };
    let mut distinct: Vec<TimeRange> = windows.iter().flatten().copied().collect();
    distinct.dedup();
    if distinct.is_empty() {
        return Ok(None);
    }
    match ask(app, &leaf, &fetch, &distinct, now_ms, left).await {
        Ok((prepared, gathered)) => {
            if prepared.current.plan.reaches_expired {
                notes.warnings.push(format!("`{}` begins before what is kept", leaf.text));
            }
            let other = gathered.merged().other_share();
            if other > 0.0 {
                let percent = other * 100.0;
                notes
                    .warnings
                    .push(format!("`{}`: {percent:.2} % of the events are beyond the cardinality budget (`__other__`)", leaf.text));
            }
            Ok(Some(Read { leaf, fetch, windows, prepared, gathered }))
        }
        Err(problem) if problem.code == ErrorCode::UnknownMetric => {
            let guess = problem.did_you_mean.map(|guess| format!("; did you mean `{guess}`?")).unwrap_or_default();
            notes.warnings.push(format!("{}{guess}", problem.detail));
            Ok(None)
        }
        Err(problem) => Err(at_leaf(problem, &leaf)),
    }
}

fn at_leaf(problem: Problem, leaf: &Leaf) -> Failure {
    let mut failure = Failure::from(problem);
    failure.detail = format!("{}, in `{}`", failure.detail, leaf.text);
    failure
}

/// One question to every shard.
async fn ask(
    app: &App,
    leaf: &Leaf,
    fetch: &Fetch,
    windows: &[TimeRange],
    now_ms: i64,
    left: Duration,
) -> Result<(Arc<PreparedQuery>, Gathered), Problem> {
    let retention = retention_of(app);
    let plan = plan_windows(windows, retention, now_ms)?;
    // The rest is as in a query that says nothing of it.
    let params = QueryParams::from_pairs([("metric", fetch.metric.as_str()), ("range", "1m")])?;
    let query = MetricQuery {
        aggregates: vec![leaf.aggregate.clone()],
        group_by: fetch.group_by.iter().map(|d| d.name.clone()).collect(),
        filters: fetch.filters.clone(),
        ..MetricQuery::parse(&params, now_ms)?
    };
    let prepared = Arc::new(PreparedQuery::of_windows(query, DEFAULT_TENANT, &app.mesh.definitions(), plan, now_ms)?);
    let gathered = ask_prepared(app, &prepared, left).await?;
    Ok((prepared, gathered))
}

/// The series of a selector that have events in a span of time, up to and with the running minute. `until` is by the monotonic clock.
///
/// # Errors
/// As [`answer`].
pub async fn found(app: &App, leaf: Leaf, span_ms: (i64, i64), until: Duration) -> Result<(Vec<Series>, Notes), Failure> {
    let mut notes = Notes::default();
    let left = until.saturating_sub(app.monotonic());
    let _place = app.queries.enter(left).await?;
    let window = lookup_window(span_ms);
    let leaf = Leaf { aggregate: Aggregate::Count, ..leaf };
    let read = fetch(app, leaf, vec![Some(window)], app.now_ms(), left, &mut notes).await?;
    let Some(read) = read else { return Ok((Vec::new(), notes)) };
    let mut found = beside(move || series_of(&read, &mut PROMQL_SAMPLES_MAX.clone())).await??;
    found.retain(|s| s.values.iter().flatten().any(|count| *count > 0.0));
    Ok((found, notes))
}

/// Whole minutes; whole days where more than a few are looked at, which are kept for longer.
fn lookup_window((start_ms, end_ms): (i64, i64)) -> TimeRange {
    let grain = if end_ms - start_ms > 2 * DAY_MS { Grain::Day } else { Grain::Minute };
    TimeRange { from_ms: grain.floor(start_ms), to_ms: grain.floor(end_ms) + if grain == Grain::Day { DAY_MS } else { MINUTE_MS } }
}
