//! `GET /v1/cluster`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tallymesh_actors::ShardStatus;
use tallymesh_actors::fleet::meta::MemberState;
use tallymesh_actors::fleet::{self, ClusterView};
use tallymesh_protocol::time::rfc3339;
use utoipa::ToSchema;

use crate::http::openapi::PageProblems;
use crate::http::{App, AppState};

#[derive(Serialize, ToSchema)]
pub struct Cluster {
    name: String,
    /// Differs from that of every other cluster.
    id: String,
    /// Copies of every shard.
    replication: u8,
    /// The node that decides where shards are; null while there is none, and on a single node.
    #[schema(required)]
    metadata_leader: Option<String>,
    nodes: Vec<ClusterNode>,
    shards: Vec<ClusterShard>,
}

#[derive(Serialize, ToSchema)]
struct ClusterNode {
    name: String,
    id: String,
    /// Where it serves HTTP, as it says itself; null if it was never seen.
    #[schema(required)]
    http: Option<String>,
    /// Where other nodes reach it; empty on a single node.
    peer: String,
    #[schema(required)]
    version: Option<String>,
    /// This is the node that answers.
    me: bool,
    /// This node reaches it.
    alive: bool,
    /// How long that has been so, in milliseconds, as far as this node has seen.
    #[schema(required)]
    since_ms: Option<u64>,
    /// It can take writes.
    ready: bool,
    /// It gives its shards away, or shuts down.
    draining: bool,
    /// Its disk is nearly full; only told of the node that answers.
    read_only: bool,
    /// Replicas placed on it.
    replicas: usize,
    /// Shards that it leads.
    leads: usize,
    /// Settings that its configuration has otherwise than the cluster agreed on, which counts; null while it does not say.
    #[schema(required)]
    deviates: Option<Vec<String>>,
}

#[derive(Serialize, ToSchema)]
struct ClusterShard {
    shard: u16,
    /// Name of the node that leads it; null while there is none.
    #[schema(required)]
    leader: Option<String>,
    replicas: Vec<ClusterReplica>,
    /// Where it is to be; the first is to lead.
    placed: Vec<String>,
    /// Nodes that a replica is on its way to.
    coming: Vec<Coming>,
    /// Nodes that give their replica up.
    going: Vec<String>,
    term: u64,
    /// Last entry of the leader's log.
    last_log: u64,
    commit: u64,
    applied: u64,
    /// Entries that the replica which is furthest behind lacks.
    lag: u64,
    /// Last entry that a snapshot of the leader covers.
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
    /// When another node last took it over, lost or given; null if the node that answers has seen none since it started.
    #[schema(required)]
    last_failover: Option<ClusterFailover>,
}

#[derive(Serialize, ToSchema)]
struct ClusterFailover {
    #[schema(format = DateTime)]
    at: String,
    from: String,
    to: String,
    /// For how long no leader was known in between, in milliseconds.
    gap_ms: u64,
}

#[derive(Serialize, ToSchema)]
struct Coming {
    node: String,
    /// Of the snapshot that is on its way; only told by the node that it comes to.
    #[schema(required)]
    done_bytes: Option<u64>,
    #[schema(required)]
    total_bytes: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Role {
    Leader,
    Follower,
    /// It has no vote yet.
    Learner,
}

#[derive(Serialize, ToSchema)]
struct ClusterReplica {
    node: String,
    role: Role,
    /// Null while the node does not answer.
    #[schema(required)]
    applied: Option<u64>,
    #[schema(required)]
    lag: Option<u64>,
    /// Of the state at `applied`: replicas that have applied as much have the same.
    #[schema(required)]
    checksum: Option<String>,
    #[schema(required)]
    stopped: Option<String>,
}

/// Nodes and shards
#[utoipa::path(get, path = "/v1/cluster", tag = "operations", responses((status = 200, description = "As this node sees it.", body = Cluster), PageProblems))]
pub async fn get_cluster(State(app): State<AppState>) -> Json<Cluster> {
    Json(match app.mesh.fleet() {
        Some(fleet) => of_fleet(&app, fleet.cluster_view(&app.mesh).await),
        None => alone(&app),
    })
}

fn this_is_ready(app: &App) -> bool {
    app.mesh.is_ready() && !app.life.is_draining()
}

/// What is said of a shard by the replica that leads it, or is furthest.
fn figures(shard: u16, leader: Option<String>, s: &ShardStatus) -> ClusterShard {
    ClusterShard {
        shard,
        leader,
        replicas: Vec::new(),
        placed: Vec::new(),
        coming: Vec::new(),
        going: Vec::new(),
        term: s.term,
        last_log: s.last_log_index,
        commit: s.committed_index,
        applied: s.applied_index,
        lag: s.committed_index.saturating_sub(s.applied_index),
        snapshot: s.snapshot_index,
        last_snapshot: s.last_snapshot_ms.map(rfc3339),
        stopped: s.stopped.clone(),
        events: s.events,
        watermark: (s.watermark_ms > i64::MIN && s.events > 0).then(|| rfc3339(s.watermark_ms)),
        last_failover: None,
    }
}

fn alone(app: &App) -> Cluster {
    let name = &app.config.node.name;
    let shards: Vec<ClusterShard> = app.mesh.status().iter().map(|status| of_alone(name, status)).collect();
    let node = ClusterNode {
        name: name.clone(),
        id: app.mesh.cluster_id().to_owned(),
        http: Some(app.config.http.addr.clone()),
        peer: String::new(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        me: true,
        alive: true,
        since_ms: None,
        ready: this_is_ready(app),
        draining: app.life.is_draining(),
        read_only: app.space.is_read_only(),
        replicas: shards.len(),
        leads: shards.iter().filter(|shard| shard.leader.is_some()).count(),
        deviates: Some(Vec::new()),
    };
    Cluster {
        name: app.config.cluster.name.clone(),
        id: app.mesh.cluster_id().to_owned(),
        replication: 1,
        metadata_leader: None,
        nodes: vec![node],
        shards,
    }
}

fn of_alone(name: &str, status: &ShardStatus) -> ClusterShard {
    let leader = status.leader.filter(|_| status.stopped.is_none()).map(|_| name.to_owned());
    let replica = ClusterReplica {
        node: name.to_owned(),
        role: if leader.is_some() { Role::Leader } else { Role::Follower },
        applied: Some(status.applied_index),
        lag: Some(0),
        checksum: None,
        stopped: status.stopped.clone(),
    };
    ClusterShard { replicas: vec![replica], placed: vec![name.to_owned()], ..figures(status.shard, leader, status) }
}

fn of_fleet(app: &App, view: ClusterView) -> Cluster {
    let names: BTreeMap<u64, String> = view.nodes.iter().map(|node| (node.member, node.name.clone())).collect();
    let name = |member: &u64| names.get(member).cloned().unwrap_or_else(|| format!("{member:016x}"));
    let node = |node: &fleet::ClusterNode| ClusterNode {
        name: node.name.clone(),
        id: node.id.clone(),
        http: node.http.clone(),
        peer: node.peer.clone(),
        version: node.version.clone(),
        me: node.is_me,
        alive: node.alive,
        since_ms: node.since.map(|since| since.as_millis() as u64),
        ready: if node.is_me { this_is_ready(app) } else { node.alive },
        draining: node.state == MemberState::Draining || (node.is_me && app.life.is_draining()),
        read_only: node.is_me && app.space.is_read_only(),
        replicas: node.replicas,
        leads: node.leads,
        deviates: node.deviates.clone(),
    };
    Cluster {
        name: app.config.cluster.name.clone(),
        id: view.cluster_id.clone(),
        replication: view.replication,
        metadata_leader: view.metadata_leader.as_ref().map(name),
        nodes: view.nodes.iter().map(node).collect(),
        shards: view.shards.iter().map(|shard| of_shard(shard, &name)).collect(),
    }
}

fn of_shard(shard: &fleet::ClusterShard, name: &dyn Fn(&u64) -> String) -> ClusterShard {
    let statuses = || shard.replicas.iter().filter_map(|replica| Some((replica.member, replica.status.as_ref()?)));
    let leads = |member: &u64| Some(*member) == shard.leader;
    let first = statuses().find(|(member, _)| leads(member)).or_else(|| statuses().max_by_key(|(_, status)| status.applied_index));
    let first = first.map(|(_, status)| status.clone()).unwrap_or_default();
    let end = first.last_log_index;
    let replica = |replica: &fleet::ClusterReplica| ClusterReplica {
        node: name(&replica.member),
        role: match (leads(&replica.member), replica.votes) {
            (true, _) => Role::Leader,
            (false, true) => Role::Follower,
            (false, false) => Role::Learner,
        },
        applied: replica.status.as_ref().map(|status| status.applied_index),
        lag: replica.status.as_ref().map(|status| end.saturating_sub(status.applied_index)),
        checksum: replica.checksum.map(|checksum| format!("{checksum:016x}")),
        stopped: replica.status.as_ref().and_then(|status| status.stopped.clone()),
    };
    let coming = |(member, arriving): &(u64, Option<fleet::Arriving>)| Coming {
        node: name(member),
        done_bytes: arriving.map(|arriving| arriving.done_bytes),
        total_bytes: arriving.map(|arriving| arriving.total_bytes),
    };
    ClusterShard {
        replicas: shard.replicas.iter().map(replica).collect(),
        placed: shard.placed.iter().map(name).collect(),
        coming: shard.coming.iter().map(coming).collect(),
        going: shard.going.iter().map(name).collect(),
        lag: statuses().map(|(_, status)| end.saturating_sub(status.applied_index)).max().unwrap_or(0),
        last_failover: shard.last_failover.map(|failover| ClusterFailover {
            at: rfc3339(failover.at_ms),
            from: name(&failover.from),
            to: name(&failover.to),
            gap_ms: failover.gap_ms,
        }),
        ..figures(shard.shard, shard.leader.as_ref().map(name), &first)
    }
}
