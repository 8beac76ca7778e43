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
    /// Null, like the figures below, while the node that answers has heard of no replica.
    #[schema(required)]
    term: Option<u64>,
    /// Last entry of the leader's log.
    #[schema(required)]
    last_log: Option<u64>,
    #[schema(required)]
    commit: Option<u64>,
    #[schema(required)]
    applied: Option<u64>,
    /// Entries that the replica which is furthest behind lacks.
    #[schema(required)]
    lag: Option<u64>,
    /// Last entry that a snapshot of the leader covers.
    #[schema(required)]
    snapshot: Option<u64>,
    #[schema(required, format = DateTime)]
    last_snapshot: Option<String>,
    /// Why it stopped; null when it works.
    #[schema(required)]
    stopped: Option<String>,
    /// Events counted since the shard was made.
    #[schema(required)]
    events: Option<u64>,
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

/// What is said of a shard by the replica that leads it, or is furthest; nothing is known where there is none.
fn figures(shard: u16, leader: Option<String>, status: Option<&ShardStatus>) -> ClusterShard {
    ClusterShard {
        shard,
        leader,
        replicas: Vec::new(),
        placed: Vec::new(),
        coming: Vec::new(),
        going: Vec::new(),
        term: status.map(|s| s.term),
        last_log: status.map(|s| s.last_log_index),
        commit: status.map(|s| s.committed_index),
        applied: status.map(|s| s.applied_index),
        lag: status.map(|s| s.committed_index.saturating_sub(s.applied_index)),
        snapshot: status.map(|s| s.snapshot_index),
        last_snapshot: status.and_then(|s| s.last_snapshot_ms).map(rfc3339),
        stopped: status.and_then(|s| s.stopped.clone()),
        events: status.map(|s| s.events),
        watermark: status.filter(|s| s.watermark_ms > i64::MIN && s.events > 0).map(|s| rfc3339(s.watermark_ms)),
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
    // One that could not be opened says why, and of nothing how much.
    let open = status.is_open.then_some(status);
    let replica = ClusterReplica {
        node: name.to_owned(),
        role: if leader.is_some() { Role::Leader } else { Role::Follower },
        applied: open.map(|status| status.applied_index),
        lag: open.map(|_| 0),
        checksum: None,
        stopped: status.stopped.clone(),
    };
    let stopped = status.stopped.clone();
    ClusterShard { replicas: vec![replica], placed: vec![name.to_owned()], stopped, ..figures(status.shard, leader, open) }
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
    let first = first.map(|(_, status)| status);
    let behind = |status: &ShardStatus| first.map(|first| first.last_log_index.saturating_sub(status.applied_index));
    let replica = |replica: &fleet::ClusterReplica| ClusterReplica {
        node: name(&replica.member),
        role: match (leads(&replica.member), replica.votes) {
            (true, _) => Role::Leader,
            (false, true) => Role::Follower,
            (false, false) => Role::Learner,
        },
        applied: replica.status.as_ref().map(|status| status.applied_index),
        lag: replica.status.as_ref().and_then(behind),
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
        lag: statuses().filter_map(|(_, status)| behind(status)).max(),
        last_failover: shard.last_failover.map(|failover| ClusterFailover {
            at: rfc3339(failover.at_ms),
            from: name(&failover.from),
            to: name(&failover.to),
            gap_ms: failover.gap_ms,
        }),
        ..figures(shard.shard, shard.leader.as_ref().map(name), first)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A shard's JSON as a node shows it that has these reports of its replicas, each by a member's number.
    fn shown(leader: Option<u64>, replicas: Vec<(u64, Option<ShardStatus>)>) -> Value {
        let replica = |(member, status)| fleet::ClusterReplica { member, votes: true, status, checksum: None };
        let shard = fleet::ClusterShard {
            shard: 3,
            leader,
            placed: vec![1, 2],
            replicas: replicas.into_iter().map(replica).collect(),
            coming: Vec::new(),
            going: Vec::new(),
            last_failover: None,
        };
        serde_json::to_value(of_shard(&shard, &|member: &u64| format!("n{member}"))).expect("JSON")
    }

    const FIGURES: [&str; 7] = ["term", "last_log", "commit", "applied", "lag", "snapshot", "events"];

    #[test]
    fn what_was_not_heard_of_a_shard_is_null_and_not_zero() {
        // Who leads is known sooner than who else is in the group, and by whom does not say how much.
        for shard in [shown(Some(1), Vec::new()), shown(None, vec![(1, None), (2, None)])] {
            for figure in FIGURES.into_iter().chain(["last_snapshot", "watermark", "stopped"]) {
                assert_eq!(shard.get(figure), Some(&Value::Null), "{figure}: {shard}");
            }
        }
        assert_eq!(shown(Some(1), Vec::new())["leader"], "n1");
        let new = shown(None, vec![(1, Some(ShardStatus::default())), (2, None)]);
        for figure in FIGURES {
            assert_eq!(new[figure], 0, "{figure} of a replica that is there and has nothing: {new}");
        }
        assert_eq!(new["replicas"][1]["lag"], Value::Null);
    }

    #[test]
    fn figures_are_those_of_the_leader_else_of_whoever_is_furthest() {
        let status = |applied_index, events| ShardStatus { term: 4, last_log_index: 9, applied_index, events, ..ShardStatus::default() };
        let replicas = || vec![(1, Some(status(7, 70))), (2, Some(status(8, 80)))];
        let (led, lost) = (shown(Some(1), replicas()), shown(None, replicas()));
        assert_eq!((&led["events"], &lost["events"]), (&json!(70), &json!(80)));
        assert_eq!((&led["term"], &led["lag"], &led["replicas"][1]["lag"]), (&json!(4), &json!(2), &json!(1)));
    }

    #[test]
    fn shard_that_could_not_be_opened_says_why_and_no_figures() {
        let status = ShardStatus { shard: 2, stopped: Some("damaged".to_owned()), ..ShardStatus::default() };
        let shard = serde_json::to_value(of_alone("n1", &status)).expect("JSON");
        assert_eq!((&shard["stopped"], &shard["replicas"][0]["stopped"]), (&json!("damaged"), &json!("damaged")));
        for figure in FIGURES {
            assert_eq!(shard[figure], Value::Null, "{figure}: {shard}");
        }
        assert_eq!(shard["replicas"][0]["applied"], Value::Null);
        let running = ShardStatus { is_open: true, events: 5, ..status };
        let shard = serde_json::to_value(of_alone("n1", &running)).expect("JSON");
        assert_eq!((&shard["events"], &shard["stopped"]), (&json!(5), &json!("damaged")), "it stopped while it ran");
    }
}
