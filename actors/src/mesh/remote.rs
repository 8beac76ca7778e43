//! What is asked of shards on other nodes.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::question::query::ShardQuery;
use tallymesh_protocol::question::wire;
use tokio::time::Instant;

use super::append::SentPart;
use super::{AppendError, Mesh, PartOutcome, ShardAnswer};
use crate::fleet::{Fleet, Route, messages};
use crate::peer::{Lane, PeerError, RefusalCode, RpcKind};

/// How often it is looked at whether a shard is still led where it was asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Ends when none of these shards is led by `member` any more, as far as this node hears: who waits for it waits in vain.
async fn led_elsewhere(fleet: &Fleet, member: u64, shards: &[ShardId]) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let moved = |shard: &ShardId| match fleet.route(*shard) {
            Route::There(other) => other != member,
            Route::Here => true,
            Route::Nowhere => false,
        };
        if shards.iter().all(moved) {
            return;
        }
    }
}

impl Mesh {
    /// Sends parts to the node that leads their shards.
    pub(super) async fn append_there(
        &self,
        fleet: &Fleet,
        member: u64,
        parts: Vec<SentPart>,
        deadline: Instant,
    ) -> Vec<Result<PartOutcome, AppendError>> {
        let shards: Vec<ShardId> = parts.iter().map(|part| part.shard).collect();
        let body = messages::encode_parts(&parts);
        let began = Instant::now();
        let answer = tokio::select! {
            biased;
            answer = fleet.call(member, RpcKind::Ingest, Lane::Normal, body, deadline) => answer.map_err(|e| (failed_part(&e, began), e.to_string())),
            () = led_elsewhere(fleet, member, &shards) => Err((Failed::MayPass, "its shards are led by another node now".to_owned())),
        };
        let read = answer.and_then(|bytes| messages::decode_outcomes(&shards, &bytes).map_err(|e| (Failed::ForGood, e.to_string())));
        match read {
            Ok(outcomes) => {
                for outcome in &outcomes {
                    if let Err(AppendError::NotLeader { shard, .. }) = outcome {
                        fleet.not_there(*shard, member);
                    }
                }
                outcomes
            }
            Err((failed, detail)) => {
                let error = |shard: ShardId| match failed {
                    Failed::MayPass => AppendError::Unreachable { shard, detail: detail.clone() },
                    Failed::Overloaded { limit_bytes } => AppendError::Overloaded { shard, limit_bytes },
                    Failed::Late { waited_ms } => AppendError::Timeout { shard, waited_ms },
                    Failed::ForGood => AppendError::Refused { shard, detail: detail.clone() },
                };
                shards.into_iter().map(|shard| Err(error(shard))).collect()
            }
        }
    }

    /// Asks shards of another node.
    pub(super) async fn query_there(
        &self,
        fleet: &Fleet,
        member: u64,
        shards: &[ShardId],
        query: &Arc<ShardQuery>,
        kind: RpcKind,
        deadline: Instant,
    ) -> Vec<(ShardId, ShardAnswer)> {
        let all = |problem: &Problem| shards.iter().map(|shard| (*shard, Err(problem.clone()))).collect::<Vec<_>>();
        let encoded = match wire::encode_query(query) {
            Ok(encoded) => encoded,
            Err(error) => return all(&Problem::new(ErrorCode::Internal, error.to_string())),
        };
        let body = messages::encode_query(shards, &encoded);
        let answer = fleet.call(member, kind, Lane::Normal, body, deadline);
        let answer = tokio::select! {
            biased;
            answer = answer => answer.map_err(|e| e.to_string()),
            () = led_elsewhere(fleet, member, shards), if kind == RpcKind::Query => Err("its shards are led by another node now".to_owned()),
        };
        let unavailable = |detail: String| all(&Problem::new(ErrorCode::ShardUnavailable, detail));
        match answer.map(|bytes| wire::decode_answers(&bytes)) {
            Err(detail) => unavailable(format!("the node that leads the shard does not answer: {detail}")),
            Ok(Err(error)) => all(&Problem::new(ErrorCode::Internal, format!("an answer of another node does not read: {error}"))),
            Ok(Ok(answers)) => {
                let found = |shard: &ShardId| answers.iter().find(|(answered, _)| answered == shard).map(|(_, answer)| answer.clone());
                let fitting = |answer: ShardAnswer| match answer {
                    Ok(answer) if !answer.fits(query) => {
                        Err(Problem::new(ErrorCode::Internal, "another node answered something else than was asked"))
                    }
                    other => other,
                };
                let none = || Err(Problem::new(ErrorCode::ShardUnavailable, "the node that leads the shard left it out of its answer"));
                shards.iter().map(|shard| (*shard, found(shard).map_or_else(none, fitting))).collect()
            }
        }
    }
}

enum Failed {
    MayPass,
    Overloaded { limit_bytes: usize },
    Late { waited_ms: u64 },
    ForGood,
}

fn failed_part(error: &PeerError, began: Instant) -> Failed {
    match error {
        PeerError::Unreachable(_) | PeerError::Lost(_) => Failed::MayPass,
        PeerError::Overloaded { limit, .. } => Failed::Overloaded { limit_bytes: *limit },
        PeerError::Timeout(_) => Failed::Late { waited_ms: began.elapsed().as_millis() as u64 },
        PeerError::TooLarge { .. } => Failed::ForGood,
        PeerError::Refused { refusal, .. } => match refusal.code {
            RefusalCode::Overloaded | RefusalCode::NotMember | RefusalCode::Unknown => Failed::MayPass,
            RefusalCode::Invalid | RefusalCode::Stopped | RefusalCode::Failed => Failed::ForGood,
        },
    }
}
