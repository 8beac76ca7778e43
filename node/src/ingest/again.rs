//! Metrics that are defined anew while a request is on its way: a shard that has the new definitions refuses what was made by the old ones, whole. Of a small body
//! (see [`BODY_KEPT_BYTES_MAX`](crate::limits::BODY_KEPT_BYTES_MAX)) the batches are made again by the new ones, within the time that the request has. Its events
//! keep their ids, those that were made for them too, and the request its number, so that nothing counts twice whatever got through. Of a larger one the sender is told
//! to send it again, which is as safe.

use std::time::Duration;

use rkyv::util::AlignedVec;
use tallymesh_actors::admission::Room;
use tallymesh_actors::{AppendError, PartOutcome};
use tallymesh_protocol::event::encode::{Door, GeneratedIds};
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::dead_letters::NewLetter;

use super::collect::Kept;
use super::read::{Batch, Reading};
use super::{Ingest, IngestRequest, read_apart};

/// So long a node waits to hear of definitions that a shard has already; it is milliseconds, unless it is cut off from those who agree on them. Then another node
/// does better.
const DEFINITIONS_WAIT_MAX: Duration = Duration::from_secs(1);

/// What a request's batches are made of again.
pub struct Again<'r> {
    pub ingest: &'r Ingest,
    pub request: &'r IngestRequest,
    pub ids: GeneratedIds,
    pub door: Door,
    pub kept: Kept,
    /// What was refused by the definitions before.
    pub letters: &'r [NewLetter],
    pub room: &'r mut Room,
    /// Of the definitions that the batches on their way were made by.
    pub version: u64,
}

impl Again<'_> {
    /// The parts for these shards, by definitions that are newer than before; none where there are none in time, no room, or where an event that may count by now
    /// would be judged otherwise.
    pub async fn parts(&mut self, shards: &[ShardId], left: Duration) -> Option<Vec<(ShardId, AlignedVec<16>)>> {
        let shared = &self.ingest.shared;
        let definitions = shared.mesh.definitions_after(self.version, left.min(DEFINITIONS_WAIT_MAX)).await?;
        self.version = definitions.version();
        // Who watches has seen the events already.
        let reading = Reading { is_watched: false, ..self.ingest.reading(self.request, self.ids.clone(), definitions, self.door) };
        let batch = read_apart(&shared.readers, reading, self.kept.pieces.clone()).await.ok()?;
        if !judged(&batch.letters).eq(judged(self.letters)) {
            return None;
        }
        // Never less than before: the first reading's letters, and what watchers are to see, are held on.
        let bytes = (batch.memory_bytes() + self.kept.bytes).max(self.room.bytes());
        self.room.resize(bytes).await.ok()?;
        shared.metrics.made_again.add(1);
        let Batch { encoded, .. } = batch;
        Some(encoded.parts.into_iter().filter(|(shard, _)| shards.contains(shard)).collect())
    }
}

fn judged(letters: &[NewLetter]) -> impl Iterator<Item = (u32, &tallymesh_protocol::event::Rejection)> {
    letters.iter().map(|letter| (letter.index, &letter.rejection))
}

/// Shards that are to be sent their parts anew, if that settles the request: each has refused all of its parts as stale, and every other part is in. Pure.
pub fn stale_shards(shards: &[ShardId], outcomes: &[Result<PartOutcome, AppendError>]) -> Option<Vec<ShardId>> {
    let is_stale = |outcome: &Result<PartOutcome, AppendError>| matches!(outcome, Err(AppendError::Stale { .. }));
    let of = |wanted: bool| shards.iter().zip(outcomes).filter(move |(_, outcome)| is_stale(outcome) == wanted);
    let mut stale: Vec<ShardId> = of(true).map(|(shard, _)| *shard).collect();
    stale.sort_unstable();
    stale.dedup();
    let settles = of(false).all(|(shard, outcome)| outcome.is_ok() && !stale.contains(shard));
    (settles && !stale.is_empty()).then_some(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_settles_the_request_is_made_again() {
        let ok = || Ok(PartOutcome::default());
        let stale = |shard| Err(AppendError::Stale { shard: ShardId(shard) });
        let lost = |shard| Err(AppendError::NotLeader { shard: ShardId(shard), leader: None });
        for (outcomes, made_again) in [
            (vec![(1, ok()), (2, ok())], None),
            (vec![(1, ok()), (2, stale(2))], Some(vec![2])),
            (vec![(3, stale(3)), (1, stale(1)), (3, stale(3)), (2, ok())], Some(vec![1, 3])),
            (vec![(1, ok()), (2, stale(2)), (1, stale(1))], None),
            (vec![(1, lost(1)), (2, stale(2))], None),
            (vec![(1, lost(1))], None),
        ] {
            let (shards, outcomes): (Vec<ShardId>, Vec<_>) = outcomes.into_iter().map(|(shard, o)| (ShardId(shard), o)).unzip();
            let made_again = made_again.map(|shards| shards.into_iter().map(ShardId).collect::<Vec<_>>());
            assert_eq!(stale_shards(&shards, &outcomes), made_again, "{outcomes:?}");
        }
    }
}
