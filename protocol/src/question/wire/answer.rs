//! The body of answers: for each shard its groups and cells as columns, or a problem as the JSON that clients see.

use std::borrow::Cow;

use rkyv::{Archive, Serialize};

use super::cells::WireCells;
use super::groups::WireGroups;
use super::{ShardResult, WireError};
use crate::hash::ShardId;
use crate::limits::{ANSWER_EVENTS_MAX, SHARDS_MAX};
use crate::question::answer::{OtherEvents, PartialAnswer, StepCounts};

#[derive(Archive, Serialize)]
pub(super) struct WireAnswers {
    shards: Vec<WireShard>,
}

#[derive(Archive, Serialize)]
struct WireShard {
    shard: u16,
    outcome: WireOutcome,
}

#[derive(Archive, Serialize)]
enum WireOutcome {
    Answer(Box<WireAnswer>),
    Problem(Vec<u8>),
}

#[derive(Archive, Serialize)]
struct WireAnswer {
    groups: WireGroups,
    cells: WireCells,
    metric_known: bool,
    watermark_ms: i64,
    applied_index: u64,
    other_counted: u64,
    other_unjudged: u64,
    names_beyond: bool,
}

/// Of one shard, beside its columns.
const BYTES_PER_SHARD: usize = 320;

impl WireAnswers {
    pub(super) fn of(answers: &[(ShardId, ShardResult)]) -> Result<Self, WireError> {
        let outcome = |result: &ShardResult| match result {
            Ok(answer) => Ok(WireOutcome::Answer(Box::new(WireAnswer::of(answer)?))),
            Err(problem) => Ok(WireOutcome::Problem(serde_json::to_vec(problem).unwrap_or_default())),
        };
        let shard = |(shard, result): &(ShardId, ShardResult)| Ok(WireShard { shard: shard.0, outcome: outcome(result)? });
        Ok(Self { shards: answers.iter().map(shard).collect::<Result<_, _>>()? })
    }

    pub(super) fn bytes_estimate(&self) -> usize {
        let columns = |shard: &WireShard| match &shard.outcome {
            WireOutcome::Answer(answer) => answer.groups.bytes() + answer.cells.bytes(),
            WireOutcome::Problem(json) => json.len(),
        };
        self.shards.iter().map(|shard| BYTES_PER_SHARD + columns(shard)).sum()
    }
}

impl WireAnswer {
    fn of(answer: &PartialAnswer) -> Result<Self, WireError> {
        let cells = match answer.counts.counts.as_slice() {
            [] => Cow::Borrowed(&answer.cells),
            _ => Cow::Owned(answer.cells.iter().cloned().chain(answer.counts.cells()).collect()),
        };
        let OtherEvents { counted, unjudged, names_beyond } = answer.other;
        Ok(Self {
            groups: WireGroups::of(&answer.groups)?,
            cells: WireCells::of(&cells)?,
            metric_known: answer.metric_known,
            watermark_ms: answer.watermark_ms,
            applied_index: answer.applied_index,
            other_counted: counted,
            other_unjudged: unjudged,
            names_beyond,
        })
    }
}

impl ArchivedWireAnswers {
    pub(super) fn read(&self) -> Result<Vec<(ShardId, ShardResult)>, WireError> {
        let mut is_there = [false; SHARDS_MAX];
        let mut answers = Vec::with_capacity(self.shards.len());
        for ArchivedWireShard { shard, outcome } in self.shards.iter() {
            let shard = shard.to_native();
            match is_there.get_mut(usize::from(shard)) {
                Some(there) if !*there => *there = true,
                _ => return Err(WireError::Damaged("a shard is there twice or cannot be")),
            }
            let result = match outcome {
                ArchivedWireOutcome::Answer(answer) => Ok(answer.read()?),
                ArchivedWireOutcome::Problem(json) => {
                    Err(serde_json::from_slice(json).map_err(|_| WireError::Damaged("a problem does not read"))?)
                }
            };
            answers.push((ShardId(shard), result));
        }
        Ok(answers)
    }
}

impl ArchivedWireAnswer {
    fn read(&self) -> Result<PartialAnswer, WireError> {
        let (counted, unjudged) = (self.other_counted.to_native(), self.other_unjudged.to_native());
        if counted.max(unjudged) > ANSWER_EVENTS_MAX {
            return Err(WireError::Damaged("more events than there can be"));
        }
        Ok(PartialAnswer {
            cells: self.cells.read(self.groups.len())?,
            counts: StepCounts::default(),
            groups: self.groups.read()?,
            metric_known: self.metric_known,
            watermark_ms: self.watermark_ms.to_native(),
            applied_index: self.applied_index.to_native(),
            other: OtherEvents { counted, unjudged, names_beyond: self.names_beyond },
        })
    }
}
