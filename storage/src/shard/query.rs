//! Answering one query in two steps: what to read is settled under the shard's lock, reading it needs none.

use tallymesh_protocol::aggregate::Wants;
use tallymesh_protocol::answer::{GroupKey, PartialAnswer};
use tallymesh_protocol::query::ShardQuery;

use super::ShardState;
use super::select::select;
use crate::windows::{CellMap, KeyGroups, ScanStopped, WindowView};

/// A query with everything that it reads; the shard may go on meanwhile.
pub struct PreparedQuery {
    view: WindowView,
    groups: Vec<GroupKey>,
    wants: Wants,
    buckets: u32,
    cells_max: usize,
    metric_known: bool,
    watermark_ms: i64,
    applied_index: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryFailed {
    #[error("the answer has more than {cells_max} cells (groups x steps)")]
    TooManyCells { cells_max: usize },
    #[error("the query was cancelled")]
    Cancelled,
}

impl ShardState {
    /// Selects the keys and takes hold of the windows that a query reads.
    pub fn prepare(&self, query: &ShardQuery) -> PreparedQuery {
        let selection = select(&self.keys, query);
        PreparedQuery {
            view: self.windows.view(&query.plan, KeyGroups::pairs(selection.pairs)),
            groups: selection.groups,
            wants: query.wants,
            buckets: query.plan.buckets,
            cells_max: query.cells_max,
            metric_known: selection.metric_known,
            watermark_ms: self.watermark_ms(),
            applied_index: self.applied_index,
        }
    }

    /// [`Self::prepare`] and [`PreparedQuery::run`] at once.
    ///
    /// # Errors
    /// More cells than the query allows.
    pub fn query(&self, query: &ShardQuery) -> Result<PartialAnswer, QueryFailed> {
        self.prepare(query).run(&|| false)
    }
}

impl PreparedQuery {
    /// Reads. `should_stop` is asked now and then: the deadline, or a client that went away.
    ///
    /// # Errors
    /// See [`QueryFailed`].
    pub fn run(self, should_stop: &dyn Fn() -> bool) -> Result<PartialAnswer, QueryFailed> {
        let mut cells = CellMap::new(self.groups.len() as u32, self.buckets, self.cells_max);
        self.view.scan(self.wants, &mut cells, should_stop).map_err(|stopped| match stopped {
            ScanStopped::TooManyCells { cells_max } => QueryFailed::TooManyCells { cells_max },
            ScanStopped::Cancelled => QueryFailed::Cancelled,
        })?;
        Ok(PartialAnswer {
            groups: self.groups,
            cells: cells.into_cells(),
            metric_known: self.metric_known,
            watermark_ms: self.watermark_ms,
            applied_index: self.applied_index,
        })
    }
}
