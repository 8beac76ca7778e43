//! `POST /v1/cluster/drain`, `/move` and `/rebalance`: each with a dry run, each answered with the steps that follow. What follows by itself is seen in
//! `GET /v1/cluster`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tallymesh_actors::fleet::placement::plan::Step;
use tallymesh_actors::fleet::{Fleet, MoveRefused};
use tallymesh_protocol::error::{ErrorCode, Problem};
use utoipa::ToSchema;

use crate::http::openapi::ChangeProblems;
use crate::http::{App, AppState, HttpProblem, json_body};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Name or id of a node.
    node: String,
    /// Take part again instead.
    #[serde(default)]
    undo: bool,
    /// Only show what would be moved.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    shard: u16,
    /// Name or id of the node that is to lead the shard. It gets a replica, in place of the leader's, if it has none.
    node: String,
    /// Only show what would be moved.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RebalanceRequest {
    /// Only show what would be moved. The fleet balances itself, so there is nothing else to ask for.
    #[serde(default = "yes")]
    dry_run: bool,
}

fn yes() -> bool {
    true
}

#[derive(Serialize, ToSchema)]
pub struct Moves {
    dry_run: bool,
    /// One after the other, by themselves.
    steps: Vec<MoveStep>,
}

#[derive(Serialize, ToSchema)]
struct MoveStep {
    shard: u16,
    /// Nodes; the first leads.
    from: Vec<String>,
    to: Vec<String>,
    reason: &'static str,
}

fn fleet_of(app: &App) -> Result<&Fleet, Problem> {
    app.mesh.fleet().ok_or_else(|| Problem::new(ErrorCode::BadRequest, "this is a single node: there is nowhere to move a shard to"))
}

fn refused(MoveRefused(why): MoveRefused) -> Problem {
    Problem::new(ErrorCode::BadParameter, why)
}

fn moves(fleet: &Fleet, dry_run: bool, steps: &[Step]) -> Json<Moves> {
    let names = |members: &[u64]| members.iter().map(|member| fleet.name_of(*member)).collect();
    let step = |step: &Step| MoveStep { shard: step.shard, from: names(&step.from), to: names(&step.to), reason: step.reason.as_str() };
    Json(Moves { dry_run, steps: steps.iter().map(step).collect() })
}

/// Empty a node
///
/// Its shards are led elsewhere at once, and their replicas move where there are nodes to take them. No write fails for it.
#[utoipa::path(post, path = "/v1/cluster/drain", operation_id = "drain_node", tag = "operations", request_body = DrainRequest,
    responses((status = 200, description = "What follows.", body = Moves), ChangeProblems))]
pub async fn drain(State(app): State<AppState>, body: Body) -> Result<Json<Moves>, HttpProblem> {
    let request: DrainRequest = json_body(body).await?;
    let fleet = fleet_of(&app)?;
    let member = fleet.member_named(&request.node).map_err(refused)?;
    if !request.dry_run {
        fleet.set_draining(member, !request.undo).await.map_err(refused)?;
    }
    let steps = if request.undo { fleet.plan() } else { fleet.plan_drain(member) };
    Ok(moves(fleet, request.dry_run, &steps))
}

/// Have a shard led by a node
#[utoipa::path(post, path = "/v1/cluster/move", operation_id = "move_shard", tag = "operations", request_body = MoveRequest,
    responses((status = 200, description = "What follows.", body = Moves), ChangeProblems))]
pub async fn move_shard(State(app): State<AppState>, body: Body) -> Result<Json<Moves>, HttpProblem> {
    let request: MoveRequest = json_body(body).await?;
    let fleet = fleet_of(&app)?;
    let member = fleet.member_named(&request.node).map_err(refused)?;
    let step = if request.dry_run { fleet.plan_move(request.shard, member) } else { fleet.move_shard(request.shard, member).await };
    let step = step.map_err(refused)?;
    let steps = if step.from == step.to { Vec::new() } else { vec![step] };
    Ok(moves(fleet, request.dry_run, &steps))
}

/// What would bring the fleet into balance
///
/// A fleet balances itself, one shard at a time; this shows what is still to come.
#[utoipa::path(post, path = "/v1/cluster/rebalance", operation_id = "rebalance", tag = "operations", request_body = RebalanceRequest,
    responses((status = 200, description = "What follows.", body = Moves), ChangeProblems))]
pub async fn rebalance(State(app): State<AppState>, body: Body) -> Result<Json<Moves>, HttpProblem> {
    let request: RebalanceRequest = json_body(body).await?;
    let fleet = fleet_of(&app)?;
    Ok(moves(fleet, request.dry_run, &fleet.plan()))
}
