//! `GET /v1/cluster`: nodes, shards and where they are.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tallymesh_protocol::time::rfc3339;

use super::AppState;

pub fn router() -> Router<AppState> {
    Router::new().route("/v1/cluster", get(cluster))
}

async fn cluster(State(app): State<AppState>) -> Json<Value> {
    let shards: Vec<Value> = app
        .mesh
        .status()
        .iter()
        .map(|s| {
            json!({
                "shard": s.shard,
                "leader": s.leader,
                "replicas": s.leader.iter().collect::<Vec<_>>(),
                "term": s.term,
                "last_log": s.last_log_index,
                "commit": s.committed_index,
                "applied": s.applied_index,
                "lag": s.committed_index.saturating_sub(s.applied_index),
                "snapshot": s.snapshot_index,
                "last_snapshot": s.last_snapshot_ms.map(rfc3339),
                "stopped": s.stopped,
                "events": s.events,
                "watermark": (s.watermark_ms > i64::MIN).then(|| rfc3339(s.watermark_ms)),
            })
        })
        .collect();
    Json(json!({
        "name": app.config.cluster.name,
        "replication": app.config.replication(),
        "nodes": [{
            "name": app.config.node.name,
            "version": env!("CARGO_PKG_VERSION"),
            "ready": app.mesh.is_ready() && !app.life.is_draining(),
            "draining": app.life.is_draining(),
            "read_only": app.space.is_read_only(),
        }],
        "shards": shards,
    }))
}
