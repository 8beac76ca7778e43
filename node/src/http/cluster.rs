//! `GET /v1/cluster`: nodes, shards and where they are.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tallymesh_actors::ShardStatus;
use tallymesh_protocol::time::rfc3339;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::openapi::PageProblems;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_cluster))
}

#[derive(Serialize, ToSchema)]
struct Cluster {
    name: String,
    /// Copies of every shard.
    replication: u8,
    nodes: Vec<ClusterNode>,
    shards: Vec<ClusterShard>,
}

#[derive(Serialize, ToSchema)]
struct ClusterNode {
    name: String,
    version: &'static str,
    /// It can take writes.
    ready: bool,
    draining: bool,
    /// Its disk is nearly full.
    read_only: bool,
}

#[derive(Serialize, ToSchema)]
struct ClusterShard {
    shard: u16,
    /// Null while there is none.
    #[schema(required)]
    leader: Option<u64>,
    replicas: Vec<u64>,
    term: u64,
    /// Last entry of the log.
    last_log: u64,
    commit: u64,
    applied: u64,
    /// Entries committed and not applied.
    lag: u64,
    /// Last entry that a snapshot covers.
    snapshot: u64,
    #[schema(required, format = DateTime)]
    last_snapshot: Option<String>,
    /// Why it stopped; null when it works.
    #[schema(required)]
    stopped: Option<String>,
    /// Events counted since the shard was made.
    events: u64,
    /// Event time before which no open window remains; null before the first event.
    #[schema(required, format = DateTime)]
    watermark: Option<String>,
}

impl From<&ShardStatus> for ClusterShard {
    fn from(s: &ShardStatus) -> Self {
        Self {
            shard: s.shard,
            leader: s.leader,
            replicas: s.leader.into_iter().collect(),
            term: s.term,
            last_log: s.last_log_index,
            commit: s.committed_index,
            applied: s.applied_index,
            lag: s.committed_index.saturating_sub(s.applied_index),
            snapshot: s.snapshot_index,
            last_snapshot: s.last_snapshot_ms.map(rfc3339),
            stopped: s.stopped.clone(),
            events: s.events,
            watermark: (s.watermark_ms > i64::MIN).then(|| rfc3339(s.watermark_ms)),
        }
    }
}

/// Nodes and shards
#[utoipa::path(get, path = "/v1/cluster", tag = "operations", responses((status = 200, description = "As this node sees it.", body = Cluster), PageProblems))]
async fn get_cluster(State(app): State<AppState>) -> Json<Cluster> {
    let node = ClusterNode {
        name: app.config.node.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        ready: app.mesh.is_ready() && !app.life.is_draining(),
        draining: app.life.is_draining(),
        read_only: app.space.is_read_only(),
    };
    Json(Cluster {
        name: app.config.cluster.name.clone(),
        replication: app.config.replication(),
        nodes: vec![node],
        shards: app.mesh.status().iter().map(ClusterShard::from).collect(),
    })
}
