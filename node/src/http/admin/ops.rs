//! `/health`, `/ready`, `/metrics`.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tallymesh_actors::ShardStatus;
use tallymesh_protocol::cardinality::OTHER;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::key::MetricKind;
use tallymesh_protocol::time::rfc3339;
use tallymesh_storage::shard::MetricInfo;
use tallymesh_storage::wal::WalStats;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::openapi::{NumberParameters, NumberRow, PageProblems, QueryProblems, ReadyProblems};
use super::super::read::query::query_pairs;
use super::super::read::seed;
use super::super::{App, AppState, HttpProblem};
use crate::live::LiveHub;
use crate::metrics::{Exposition, Kind, ProcessUse};

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready)).routes(routes!(metrics))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = HealthStatus)]
enum Status {
    Ok,
    /// Something needs a look, but most of it works.
    Degraded,
    /// Nothing can be written.
    Failing,
}

#[derive(Serialize, ToSchema)]
struct Health {
    status: Status,
    /// Why it is not `ok`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    reasons: Vec<String>,
    /// What needs a look, though everything works: metrics over their cardinality budget. Any client can cause it, so it does not change the status.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
    /// Nodes of the fleet that this one does not reach. Shards that are led elsewhere go on without them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    unreached: Vec<String>,
    /// Events whose windows are still open.
    buffered_events: u64,
    /// The last time that a shard wrote a snapshot.
    #[schema(required, format = DateTime)]
    last_flush: Option<String>,
    node: String,
    version: &'static str,
    shards: ShardCounts,
}

#[derive(Serialize, ToSchema)]
struct ShardCounts {
    total: usize,
    leading: usize,
    stopped: usize,
}

/// Health
#[utoipa::path(
    get, path = "/health", operation_id = "get_health", tag = "operations",
    responses((status = 200, description = "`ok`, or `degraded` and why.", body = Health), (status = 503, description = "`failing`.", body = Health), PageProblems),
)]
async fn health(State(app): State<AppState>) -> (StatusCode, Json<Health>) {
    let health = Health::of(&app);
    let code = if health.status == Status::Failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(health))
}

impl Health {
    fn of(app: &App) -> Self {
        let shards = app.mesh.status();
        let stopped: Vec<&ShardStatus> = shards.iter().filter(|s| s.stopped.is_some()).collect();
        let leading = shards.iter().filter(|s| s.leader.is_some() && s.stopped.is_none()).count();
        let mut reasons: Vec<String> =
            stopped.iter().map(|s| format!("shard {} stopped: {}", s.shard, s.stopped.as_deref().unwrap_or_default())).collect();
        if leading + stopped.len() < shards.len() {
            reasons.push(format!("{} shards have no leader", shards.len() - leading - stopped.len()));
        }
        if app.space.is_read_only() {
            reasons.push(format!("the disk is nearly full ({} bytes free): writes are refused", app.space.space().free_bytes));
        }
        if app.life.is_draining() {
            reasons.push("the node is shutting down".to_owned());
        }
        let status = match (reasons.is_empty(), leading) {
            (true, _) => Status::Ok,
            (false, 0) => Status::Failing,
            (false, _) => Status::Degraded,
        };
        Self {
            status,
            reasons,
            warnings: over_budget(app),
            unreached: app.mesh.fleet().map(|fleet| fleet.unreached()).unwrap_or_default(),
            buffered_events: shards.iter().map(|s| s.open_rows).sum(),
            last_flush: shards.iter().filter_map(|s| s.last_snapshot_ms).max().map(rfc3339),
            node: app.config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            shards: ShardCounts { total: shards.len(), leading, stopped: stopped.len() },
        }
    }
}

/// Metrics over budget that `/health` names.
const NAMED_MAX: usize = 10;

fn over_budget(app: &App) -> Vec<String> {
    let metrics = app.mesh.metrics_over_budget();
    let warning = |m: &MetricInfo| {
        let which = if m.metric == OTHER { "event names are".to_owned() } else { format!("keys of metric `{}` are", m.metric) };
        format!("{which} over the cardinality budget: {} rows count as `{OTHER}`; /v1/metrics tells what uses it up", m.other_rows)
    };
    let mut warnings: Vec<String> = metrics.iter().take(NAMED_MAX).map(warning).collect();
    if metrics.len() > NAMED_MAX {
        warnings.push(format!("{} more metrics are over the cardinality budget", metrics.len() - NAMED_MAX));
    }
    warnings
}

/// Readiness
///
/// For load balancers: 200 only when every shard can take writes.
#[utoipa::path(get, path = "/ready", operation_id = "get_ready", tag = "operations", responses((status = 200, description = "Ready.", body = String, content_type = "text/plain"), ReadyProblems))]
async fn ready(State(app): State<AppState>) -> Result<&'static str, HttpProblem> {
    if app.life.is_draining() {
        return Err(Problem::new(ErrorCode::ShuttingDown, "the node finishes what it has and takes no new work").into());
    }
    if !app.mesh.is_ready() {
        return Err(Problem::new(ErrorCode::ShardUnavailable, "not every shard can take writes; /health tells more").into());
    }
    app.space.admit()?;
    Ok("ready\n")
}

/// Numbers of a metric, or the node's own
///
/// With `name` the answer that the first system gave; without it, the node's own figures in the Prometheus exposition format.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_numbers", tag = "first system", params(NumberParameters),
    responses(
        (status = 200, description = "With `name`: one number, or one of each group. Without: the exposition.",
            content((Vec<NumberRow> = "application/json"), (String = "text/plain"))),
        QueryProblems,
    ),
)]
async fn metrics(State(app): State<AppState>, uri: Uri) -> Result<Response, HttpProblem> {
    let pairs = query_pairs(&uri)?;
    if pairs.iter().any(|(name, _)| name == "name") {
        return Ok(seed::numbers(&app, pairs).await?);
    }
    let mut out = Exposition::default();
    app.metrics.expose(app.monotonic(), &mut out);
    expose_node(&app, &mut out);
    expose_clients(&app, &mut out).await;
    expose_live(&app.live, &mut out);
    expose_log(&app.mesh.log_stats(), &mut out);
    expose_shards(&app.mesh.status(), &mut out);
    expose_metrics(&app.mesh.metrics_by_keys(), &mut out);
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out.finish()).into_response())
}

fn expose_node(app: &App, out: &mut Exposition) {
    use Kind::{Counter, Gauge};
    out.family("tallymesh_build_info", Gauge, "The running version.");
    out.sample("tallymesh_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    if let Some(fleet) = app.mesh.fleet() {
        let dropped = fleet.gossip_dropped() as f64;
        out.single("tallymesh_gossip_dropped_total", Counter, "Gossip datagrams that no holder of the cookie has sealed.", dropped);
        let removed = fleet.leftovers_removed();
        for (name, help, value) in [
            ("tallymesh_leftovers_removed_total", "Replicas that were given up and whose leftovers here were removed.", removed.replicas),
            ("tallymesh_leftovers_removed_bytes_total", "Bytes of their files.", removed.bytes),
            ("tallymesh_leftovers_failures_total", "Attempts at that which failed and are made again.", removed.failures),
        ] {
            out.single(name, Counter, help, value as f64);
        }
    }
    let door = app.ingest.admission();
    out.single("tallymesh_admission_held_bytes", Gauge, "Bytes of requests not answered yet.", door.held_bytes as f64);
    out.single("tallymesh_admission_limit_bytes", Gauge, "Most that they may be.", door.limit_bytes as f64);
    out.single("tallymesh_admission_waiting", Gauge, "Requests that wait for room.", door.waiting as f64);
    out.single("tallymesh_admission_waited_total", Counter, "Requests that had to wait for room.", door.waited as f64);
    out.single("tallymesh_admission_refused_total", Counter, "Requests refused for want of room.", door.refused as f64);
    let letters = app.dead_letters.stats();
    out.single("tallymesh_dead_letters", Gauge, "Refused events kept.", letters.count as f64);
    out.single("tallymesh_dead_letter_bytes", Gauge, "Bytes of refused events kept.", letters.bytes as f64);
    out.single("tallymesh_dead_letters_dropped_total", Counter, "Refused events that made room for newer ones.", letters.dropped as f64);
    out.single("tallymesh_dead_letter_failures_total", Counter, "Failed writes of the dead-letter store.", letters.failures as f64);
    let space = app.space.space();
    out.single("tallymesh_disk_free_bytes", Gauge, "Room left on the disk of the data directory.", space.free_bytes as f64);
    out.single("tallymesh_disk_total_bytes", Gauge, "Size of that disk.", space.total_bytes as f64);
    out.single(
        "tallymesh_disk_read_only",
        Gauge,
        "1 while writes are refused because the disk is nearly full.",
        f64::from(u8::from(app.space.is_read_only())),
    );
    out.single(
        "tallymesh_ready",
        Gauge,
        "1 when every shard can take writes.",
        f64::from(u8::from(app.mesh.is_ready() && !app.life.is_draining() && !app.space.is_read_only())),
    );
    let process = ProcessUse::read();
    out.single("process_cpu_seconds_total", Counter, "User and system time.", process.cpu_seconds);
    out.single("process_resident_memory_bytes", Gauge, "Resident memory.", process.resident_bytes as f64);
    out.single("process_open_fds", Gauge, "Open files.", process.open_files as f64);
    out.single("process_threads", Gauge, "Threads.", process.threads as f64);
}

async fn expose_clients(app: &App, out: &mut Exposition) {
    use Kind::{Counter, Gauge};
    let (entries, bytes) = app.cache.size().await;
    let stats = &app.cache.stats;
    out.single("tallymesh_query_cache_entries", Gauge, "Answers kept for queries with cache=on.", entries as f64);
    out.single("tallymesh_query_cache_bytes", Gauge, "Their memory, roughly.", bytes as f64);
    out.single(
        "tallymesh_query_cache_hits_total",
        Counter,
        "Queries answered without an evaluation of their own.",
        stats.hits.get() as f64,
    );
    out.single("tallymesh_query_cache_misses_total", Counter, "Queries with cache=on that were evaluated.", stats.misses.get() as f64);
    out.single(
        "tallymesh_query_cache_invalidated_total",
        Counter,
        "Answers dropped because late data changed what they are about.",
        stats.invalidated.get() as f64,
    );
    out.single("tallymesh_clients", Gauge, "Client addresses that are told apart.", app.clients.tracked() as f64);
    let refused = &app.clients.refused;
    out.family("tallymesh_client_limits_total", Counter, "What was refused by the limits of its client, by kind.");
    for (kind, count) in [("connection", &refused.connections), ("query", &refused.queries), ("ingest", &refused.ingest)] {
        out.sample("tallymesh_client_limits_total", &[("kind", kind)], count.get() as f64);
    }
}

fn expose_live(live: &LiveHub, out: &mut Exposition) {
    use Kind::{Counter, Gauge};
    out.single("tallymesh_live_subscribers", Gauge, "Streams and sockets that watch queries.", live.watchers() as f64);
    out.single("tallymesh_live_queries", Gauge, "Distinct queries that they watch.", live.topics() as f64);
    out.single("tallymesh_live_bytes", Gauge, "Memory of the answers of those.", live.bytes() as f64);
    let figures = &live.figures;
    out.single("tallymesh_live_evaluations_total", Counter, "Evaluations of watched queries.", figures.evaluations.get() as f64);
    out.single("tallymesh_live_snapshots_total", Counter, "Whole answers sent.", figures.snapshots.get() as f64);
    out.single("tallymesh_live_deltas_total", Counter, "Changes sent.", figures.deltas.get() as f64);
    out.single(
        "tallymesh_live_conflated_total",
        Counter,
        "Those that stood for several, for slow clients.",
        figures.conflated.get() as f64,
    );
}

fn expose_log(log: &WalStats, out: &mut Exposition) {
    use Kind::{Counter, Gauge};
    out.single("tallymesh_log_disk_bytes", Gauge, "Disk of the write-ahead log.", log.disk_bytes as f64);
    out.single(
        "tallymesh_log_held_bytes",
        Gauge,
        "Log that goes when every shard has written a snapshot; what stopped shards keep is left out.",
        log.held_bytes as f64,
    );
    out.single("tallymesh_log_segments", Gauge, "Files of the write-ahead log.", log.segments as f64);
    out.single("tallymesh_log_queued_bytes", Gauge, "Waiting to be written or being written.", log.queued_bytes as f64);
    out.single("tallymesh_log_cached_bytes", Gauge, "Recent entries in memory.", log.cached_bytes as f64);
    out.single("tallymesh_log_written_bytes_total", Counter, "Bytes written.", log.written_bytes as f64);
    out.single("tallymesh_log_batches_total", Counter, "Batches written, one sync each.", log.batches as f64);
    out.single("tallymesh_log_requests_total", Counter, "Requests in those batches.", log.requests as f64);
    out.single("tallymesh_log_syncs_total", Counter, "Syncs.", log.syncs as f64);
    out.single("tallymesh_log_sync_seconds_total", Counter, "Time in syncs.", log.sync_time.as_secs_f64());
    out.single("tallymesh_log_slowest_sync_seconds", Gauge, "The slowest sync so far.", log.slowest_sync.as_secs_f64());
    out.single("tallymesh_log_up", Gauge, "1 while the log takes writes.", f64::from(u8::from(log.poisoned.is_none())));
}

const SHARD_UP: &str = "tallymesh_shard_up";

type ShardGauge = (&'static str, Kind, &'static str, fn(&ShardStatus) -> f64);

const SHARD_GAUGES: [ShardGauge; 21] = [
    ("tallymesh_shard_events_total", Kind::Counter, "Events counted since the shard was made.", |s| s.events as f64),
    ("tallymesh_shard_duplicates_total", Kind::Counter, "Events that had been counted before.", |s| s.duplicates as f64),
    ("tallymesh_shard_older_than_horizon_total", Kind::Counter, "First arrivals older than the dedup horizon.", |s| {
        s.older_than_horizon as f64
    }),
    (SHARD_UP, Kind::Gauge, "1 while the shard works.", |s| f64::from(u8::from(s.stopped.is_none()))),
    ("tallymesh_shard_queued_bytes", Kind::Gauge, "Batches waiting for the log.", |s| s.queued_bytes as f64),
    ("tallymesh_shard_log_index", Kind::Gauge, "Last entry of the log.", |s| s.last_log_index as f64),
    ("tallymesh_shard_committed_index", Kind::Gauge, "Last committed entry.", |s| s.committed_index as f64),
    ("tallymesh_shard_applied_index", Kind::Gauge, "Last applied entry.", |s| s.applied_index as f64),
    ("tallymesh_shard_snapshot_index", Kind::Gauge, "Last entry that a snapshot covers.", |s| s.snapshot_index as f64),
    ("tallymesh_shard_open_rows", Kind::Gauge, "Events whose windows are open.", |s| s.open_rows as f64),
    ("tallymesh_shard_blocks", Kind::Gauge, "Sealed blocks of windows.", |s| s.blocks as f64),
    ("tallymesh_shard_windows", Kind::Gauge, "Windows in sealed blocks.", |s| s.windows as f64),
    ("tallymesh_shard_window_bytes", Kind::Gauge, "Bytes of windows, open and sealed.", |s| s.window_bytes as f64),
    ("tallymesh_shard_totals_bytes", Kind::Gauge, "Memory of totals kept beside them for queries.", |s| s.totals_bytes as f64),
    ("tallymesh_shard_keys", Kind::Gauge, "Metric keys.", |s| s.keys as f64),
    ("tallymesh_shard_keys_memory_bytes", Kind::Gauge, "Memory of those.", |s| s.keys_memory_bytes as f64),
    ("tallymesh_shard_other_rows_total", Kind::Counter, "Rows beyond a cardinality budget.", |s| s.other_rows as f64),
    ("tallymesh_shard_dedup_entries", Kind::Gauge, "Event ids remembered.", |s| s.dedup_entries as f64),
    ("tallymesh_shard_dedup_memory_bytes", Kind::Gauge, "Memory of those.", |s| s.dedup_memory_bytes as f64),
    ("tallymesh_shard_dedup_disk_bytes", Kind::Gauge, "Disk of those.", |s| s.dedup_disk_bytes as f64),
    ("tallymesh_shard_snapshot_bytes", Kind::Gauge, "Disk of the last snapshot.", |s| s.snapshot_bytes as f64),
];

/// Metrics that have series of their own: the ones with the most keys, so that the number of series stays bounded.
const METRIC_SERIES_MAX: usize = 50;

type MetricSeries = (&'static str, Kind, &'static str, fn(&MetricInfo) -> f64);

const METRIC_SERIES: [MetricSeries; 2] = [
    ("tallymesh_metric_keys", Kind::Gauge, "Keys of the largest metrics; one that is in several shards counts in each.", |m| m.keys as f64),
    ("tallymesh_metric_other_rows_total", Kind::Counter, "Rows of those metrics beyond the cardinality budget.", |m| m.other_rows as f64),
];

/// `metrics` has the largest first.
fn expose_metrics(metrics: &[MetricInfo], out: &mut Exposition) {
    // What has names beyond the budget has few keys of its own, and matters.
    let (unnamed, named): (Vec<_>, Vec<_>) = metrics.iter().partition(|m| m.metric == OTHER);
    for (name, kind, help, value) in METRIC_SERIES {
        out.family(name, kind, help);
        for metric in unnamed.iter().chain(&named).take(METRIC_SERIES_MAX) {
            let kind = match metric.kind {
                MetricKind::Default => "event",
                MetricKind::Defined => "defined",
            };
            out.sample(name, &[("metric", &metric.metric), ("kind", kind), ("tenant", &metric.tenant)], value(metric));
        }
    }
}

/// A shard that has no replica here has no figures here: its series are at the nodes that have one. Of one that stopped it is known that it did.
fn expose_shards(shards: &[ShardStatus], out: &mut Exposition) {
    for (name, kind, help, value) in SHARD_GAUGES {
        out.family(name, kind, help);
        let is_known = |s: &&ShardStatus| s.is_open || (s.stopped.is_some() && name == SHARD_UP);
        for shard in shards.iter().filter(is_known) {
            out.sample(name, &[("shard", &shard.shard.to_string())], value(shard));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_without_a_replica_here_have_no_figures() {
        let shard = |shard| ShardStatus { shard, ..ShardStatus::default() };
        let shards = [
            ShardStatus { is_open: true, events: 7, ..shard(0) },
            // At another node.
            ShardStatus { leader: Some(2), ..shard(1) },
            ShardStatus { stopped: Some("damaged".to_owned()), ..shard(2) },
        ];
        let mut out = Exposition::default();
        expose_shards(&shards, &mut out);
        let text = out.finish();
        let of = |shard: &str| text.lines().filter(|line| line.contains(&format!("shard=\"{shard}\""))).collect::<Vec<_>>();
        assert_eq!(of("0").len(), SHARD_GAUGES.len());
        assert!(of("0").contains(&"tallymesh_shard_events_total{shard=\"0\"} 7"));
        assert_eq!(of("1"), Vec::<&str>::new(), "unknown, not zero");
        assert_eq!(of("2"), ["tallymesh_shard_up{shard=\"2\"} 0"]);
    }
}
