//! One query from parameters to answer: plan, wait for a place, ask every shard, merge.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_actors::{Patience, ShardAnswer};
use tallymesh_protocol::cardinality::OTHER;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::hash::{DEFAULT_TENANT, ShardId};
use tallymesh_protocol::question::answer::{Answer, PartialAnswer};
use tallymesh_protocol::question::plan::Retention;
use tallymesh_protocol::question::query::{Gathered, Leg, MetricQuery, Partial, PreparedQuery, QueryParams, unknown_metric};
use tallymesh_protocol::question::token::{WriteToken, bad_token, cluster_mark};

use super::cache::Question;
use crate::http::App;

/// Answers above this many cells are merged beside the threads that serve other requests.
const INLINE_CELLS_MAX: usize = 2_000;
/// So many plain counts are merged in the time of a cell.
const COUNTS_PER_CELL: usize = 16;
/// The shards are given the query's time; this much more and the query ends whatever they do.
const OVERTIME: Duration = Duration::from_millis(500);
/// Longest wait for a shard to apply the write of a token, and the pause before it is asked again.
const TOKEN_WAIT_MAX: Duration = Duration::from_secs(2);
const TOKEN_PAUSE: Duration = Duration::from_millis(20);
/// What `Retry-After` says when a write could not be seen.
const TOKEN_RETRY_AFTER_MS: u64 = 1_000;

/// Dropping the future cancels the query: the shards' scans stop too.
///
/// # Errors
/// Everything that `PreparedQuery` refuses; 429 when the node is busy; 504 when the time is over.
pub(in crate::http) async fn run(app: &App, params: &QueryParams) -> Result<(Arc<PreparedQuery>, Answer), Problem> {
    run_at(app, params, app.now_ms()).await
}

/// The same for several queries that must agree on what `now_ms` is.
///
/// # Errors
/// As [`run`].
pub(in crate::http) async fn run_at(app: &App, params: &QueryParams, now_ms: i64) -> Result<(Arc<PreparedQuery>, Answer), Problem> {
    let _own_place = app.clients.admit_query()?;
    let clock = &app.machine.clock;
    let started = clock.monotonic();
    let took = || clock.monotonic().saturating_sub(started);
    let prepared = prepare(app, params, now_ms)?;
    let timeout = timeout_of(app, &prepared);
    let mut answer = if may_be_cached(&prepared) {
        // Others may come to wait for it, with more time than this one has.
        let evaluate = evaluate(app, &prepared, timeout.max(app.config.query.timeout.duration()));
        cached(app, "query", params, &prepared, now_ms, evaluate).await?
    } else {
        evaluate(app, &prepared, timeout).await?
    };
    answer.receipt.took_ms = took().as_millis() as u64;
    app.metrics.queried(clock.monotonic(), took());
    Ok((prepared, answer))
}

/// What is put together from several queries, kept as one: parts of different age do not fit together. `params` say the range and whether it may be kept;
/// `evaluate` must not ask the cache itself.
///
/// # Errors
/// As [`run`].
pub(in crate::http) async fn together(
    app: &App,
    kind: &str,
    params: &QueryParams,
    now_ms: i64,
    evaluate: impl Future<Output = Result<Answer, Problem>>,
) -> Result<Answer, Problem> {
    let started = app.monotonic();
    let prepared = prepare(app, params, now_ms)?;
    if !may_be_cached(&prepared) {
        return evaluate.await;
    }
    // What it is put together from is counted when it is evaluated.
    drop(app.clients.admit_query()?);
    let mut answer = cached(app, kind, params, &prepared, now_ms, evaluate).await?;
    answer.receipt.took_ms = app.monotonic().saturating_sub(started).as_millis() as u64;
    Ok(answer)
}

/// For the node itself, not in the name of a client and not counted as a request.
///
/// # Errors
/// As [`run`].
pub(in crate::http) async fn run_unasked(app: &App, params: &QueryParams, now_ms: i64) -> Result<Answer, Problem> {
    let prepared = prepare(app, params, now_ms)?;
    evaluate(app, &prepared, timeout_of(app, &prepared)).await
}

/// # Errors
/// Everything that is wrong with the query itself, as far as no shard has to be asked for it.
pub(in crate::http) fn prepare(app: &App, params: &QueryParams, now_ms: i64) -> Result<Arc<PreparedQuery>, Problem> {
    let query = MetricQuery::parse(params, now_ms)?;
    if let Some(token) = &query.token {
        check_origin(app, token)?;
    }
    Ok(Arc::new(PreparedQuery::new(query, DEFAULT_TENANT, &app.mesh.definitions(), retention_of(app), now_ms)?))
}

pub(in crate::http) fn retention_of(app: &App) -> Retention {
    let retention = &app.config.retention;
    Retention { minute_ms: retention.minute.as_ms(), hour_ms: retention.hour.as_ms(), day_ms: retention.day.as_ms() }
}

/// Asks the shards and merges what they say, for who has a place to run already.
///
/// # Errors
/// As [`run`].
pub(in crate::http) async fn ask_prepared(app: &App, prepared: &Arc<PreparedQuery>, left: Duration) -> Result<Gathered, Problem> {
    app.metrics.evaluated.add(1);
    ask(app, prepared, &prepared.current, left).await.map(|(gathered, _)| gathered)
}

fn timeout_of(app: &App, prepared: &PreparedQuery) -> Duration {
    prepared.query.timeout_ms.map_or(app.config.query.timeout.duration(), Duration::from_millis)
}

/// Who brings a token wants to see a certain write: only a new answer is sure to have it.
fn may_be_cached(prepared: &PreparedQuery) -> bool {
    prepared.query.may_be_cached && prepared.query.token.is_none()
}

async fn cached(
    app: &App,
    kind: &str,
    params: &QueryParams,
    prepared: &PreparedQuery,
    now_ms: i64,
    evaluate: impl Future<Output = Result<Answer, Problem>>,
) -> Result<Answer, Problem> {
    let question = Question::new(kind, params, prepared, app.config.windows.lateness.as_ms(), now_ms);
    let answer = app.cache.answer(question, |ranges| app.mesh.late_changes(ranges), evaluate);
    tokio::time::timeout(timeout_of(app, prepared) + OVERTIME, answer).await.map_err(|_| late())?
}

fn late() -> Problem {
    Problem::new(ErrorCode::QueryTimeout, "the shards did not answer in time; ask for less, or set `timeout_ms`")
}

async fn evaluate(app: &App, prepared: &Arc<PreparedQuery>, timeout: Duration) -> Result<Answer, Problem> {
    let clock = &app.machine.clock;
    let started = clock.monotonic();
    let _place = app.queries.enter(timeout).await?;
    app.metrics.evaluated.add(1);
    let left = || timeout.saturating_sub(clock.monotonic().saturating_sub(started));
    let (current, fresh) = ask(app, prepared, &prepared.current, left()).await?;
    let (earlier, fresh) = match &prepared.earlier {
        None => (None, fresh),
        Some(leg) => {
            let (earlier, fresh_then) = ask(app, prepared, leg, left()).await?;
            (Some(earlier), fresh.max(fresh_then))
        }
    };
    let took = clock.monotonic().saturating_sub(started);
    prepared.answer(current, earlier, fresh.as_millis() as u64, took.as_millis() as u64)
}

async fn ask(app: &App, prepared: &Arc<PreparedQuery>, leg: &Leg, left: Duration) -> Result<(Gathered, Duration), Problem> {
    if left.is_zero() {
        return Err(late());
    }
    let asked = u32::from(app.mesh.shards());
    let clock = &app.machine.clock;
    let began = clock.monotonic();
    let patience = left.min(TOKEN_WAIT_MAX);
    let gathered = loop {
        let waited = clock.monotonic().saturating_sub(began);
        let left = left.saturating_sub(waited);
        let gathered =
            tokio::time::timeout(left + OVERTIME, app.mesh.query(leg.shard_query.clone(), left, patience_of(prepared.query.partial)))
                .await
                .map_err(|_| late())?;
        let Some(unseen) = prepared.query.token.as_ref().and_then(|token| Unseen::of(token, &gathered.answers, prepared.query.partial))
        else {
            break gathered;
        };
        let waited = clock.monotonic().saturating_sub(began);
        if !unseen.may_come || waited + TOKEN_PAUSE >= patience {
            return Err(unseen.problem());
        }
        tokio::time::sleep(TOKEN_PAUSE).await;
    };
    let cells_of = |answer: &PartialAnswer| answer.cells.len() + answer.counts.counts.len() / COUNTS_PER_CELL;
    let cells: usize = gathered.answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).map(cells_of).sum();
    let merged = if cells <= INLINE_CELLS_MAX {
        prepared.gather(asked, gathered.answers)
    } else {
        let prepared = prepared.clone();
        tokio::task::spawn_blocking(move || prepared.gather(asked, gathered.answers))
            .await
            .map_err(|e| Problem::new(ErrorCode::Internal, format!("merging stopped: {e}")))?
    };
    match merged {
        Ok(merged) => Ok((merged, gathered.freshness)),
        Err(problem) if problem.code == ErrorCode::UnknownMetric => {
            let events = app.mesh.event_names().await;
            let definitions = app.mesh.definitions();
            let defined = definitions.iter().map(|d| d.definition.name.as_str());
            let names_beyond = events.iter().any(|name| name == OTHER);
            Err(unknown_metric(&prepared.query.metric, events.iter().map(String::as_str).chain(defined), names_beyond))
        }
        Err(problem) => Err(problem),
    }
}

fn patience_of(partial: Partial) -> Patience {
    match partial {
        Partial::Fail => Patience::All,
        Partial::Allow => Patience::Partial,
    }
}

/// Whether the token was given here, in a cluster of this shape.
fn check_origin(app: &App, token: &WriteToken) -> Result<(), Problem> {
    if token.cluster != cluster_mark(app.mesh.cluster_id()) {
        return Err(bad_token("the token was given by another cluster: its write is not here"));
    }
    match token.positions().iter().find(|(shard, _)| shard.0 >= app.mesh.shards()) {
        Some((shard, _)) => Err(bad_token(format!("the token names shard {shard}, and there are {} shards", app.mesh.shards()))),
        None => Ok(()),
    }
}

/// A shard whose answer does not hold the write of a token.
struct Unseen {
    shard: ShardId,
    index: u64,
    /// What it has applied; `None` when it did not answer.
    applied: Option<u64>,
    may_come: bool,
}

impl Unseen {
    fn of(token: &WriteToken, answers: &[(ShardId, ShardAnswer)], partial: Partial) -> Option<Self> {
        token.positions().iter().find_map(|&(shard, index)| {
            match answers.iter().find(|(answered, _)| *answered == shard).map(|(_, answer)| answer) {
                Some(Ok(answer)) if answer.applied_index >= index => None,
                Some(Ok(answer)) => Some(Self { shard, index, applied: Some(answer.applied_index), may_come: true }),
                // Without leave to be partial, the shard's own problem is what the client gets.
                Some(Err(_)) | None if partial == Partial::Fail => None,
                Some(Err(_)) | None => Some(Self { shard, index, applied: None, may_come: false }),
            }
        })
    }

    fn problem(&self) -> Problem {
        let Self { shard, index, applied, .. } = self;
        let why = match applied {
            Some(applied) => format!("shard {shard} has applied its log up to {applied}, and the token's write is at {index}"),
            None => format!("shard {shard}, which has the token's write, did not answer"),
        };
        Problem::new(ErrorCode::WriteNotVisible, why).field("token").retry_after_ms(TOKEN_RETRY_AFTER_MS)
    }
}
