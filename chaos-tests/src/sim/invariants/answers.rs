//! Answers are true: counts, sums, least and greatest of every step are those of plain lists at the log index that the answer names, and a write is told
//! what it did.

use std::collections::BTreeMap;

use tallymesh_actors::raft::CommandOutcome;
use tallymesh_actors::raft::runtime::StateChange;
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::question::answer::PartialAnswer;
use tallymesh_protocol::question::query::{MetricSelector, ShardQuery};

use super::super::events::NAMES;
use super::history::History;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    count: u64,
    values: u64,
    sum: f64,
    min: f64,
    max: f64,
}

pub fn check(node: u64, shard: ShardId, query: &ShardQuery, answer: &PartialAnswer, history: &History) -> Result<(), String> {
    let MetricSelector::Event(wanted) = &query.metric else { return Ok(()) };
    let mut expected: BTreeMap<u32, Figures> = BTreeMap::new();
    for row in history.rows_until(answer.applied_index).filter(|row| NAMES[row.event.name] == wanted) {
        let time_ms = row.event.time_ms;
        let Some(slice) = query.plan.slices.iter().find(|s| (s.from_ms..s.to_ms).contains(&time_ms)) else { continue };
        let none = Figures { count: 0, values: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };
        let figures = expected.entry(slice.bucket).or_insert(none);
        figures.count += 1;
        if let Some(value) = row.event.value {
            figures.values += 1;
            figures.sum += value;
            figures.min = figures.min.min(value);
            figures.max = figures.max.max(value);
        }
    }
    let of_cell = |cell: &tallymesh_protocol::question::answer::Cell| {
        let v = &cell.values;
        (cell.bucket, Figures { count: v.count, values: v.value_count, sum: v.sum, min: v.min, max: v.max })
    };
    let found: BTreeMap<u32, Figures> = answer.cells.iter().map(of_cell).collect();
    if found == expected {
        return Ok(());
    }
    Err(format!("n{node} s{shard}: {wanted} at entry {} is {found:?}, should be {expected:?}", answer.applied_index))
}

/// What a replica says that an entry did.
pub fn check_outcome(node: u64, change: &StateChange<'_>, outcome: &CommandOutcome, history: &History) -> Result<(), String> {
    let Some(known) = history.entry(change.log_id.index) else { return Ok(()) };
    let told: Vec<(u32, u32)> = outcome.parts.iter().map(|part| (part.counted, part.duplicates)).collect();
    let true_ones: Vec<(u32, u32)> = known.parts.iter().map(|part| (part.counted, part.duplicates)).collect();
    if told == true_ones && outcome.parts.iter().all(|part| part.refused.is_none()) {
        return Ok(());
    }
    Err(format!("n{node} s{}: entry {} did {outcome:?} (counted, duplicates), should be {true_ones:?}", change.shard, change.log_id))
}
