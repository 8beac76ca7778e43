//! Answering one query in two steps: what to read is settled under the shard's lock, reading it needs none.

use tallymesh_protocol::aggregate::Wants;
use tallymesh_protocol::question::answer::{GroupKey, OtherEvents, PartialAnswer};
use tallymesh_protocol::question::query::{ScanPlan, ShardQuery, Slice};

use super::ShardState;
use super::keys::KeyId;
use super::select::select;
use crate::windows::{CellMap, KeyGroups, ScanStopped, WindowView};

/// A query with everything that it reads; the shard may go on meanwhile.
pub struct PreparedQuery {
    view: WindowView,
    /// The other keys in question, selected ones as group 0; `None` when there are none.
    others: Option<WindowView>,
    names_beyond: bool,
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

impl From<ScanStopped> for QueryFailed {
    fn from(stopped: ScanStopped) -> Self {
        match stopped {
            ScanStopped::TooManyCells { cells_max } => Self::TooManyCells { cells_max },
            ScanStopped::Cancelled => Self::Cancelled,
        }
    }
}

/// Groups of other keys: those that the answer counts, and those that it cannot judge.
const SELECTED: u32 = 0;
const UNJUDGED: u32 = 1;

impl ShardState {
    /// Selects the keys and takes hold of the windows that a query reads.
    pub fn prepare(&self, query: &ShardQuery) -> PreparedQuery {
        let selection = select(&self.keys, query);
        PreparedQuery {
            view: self.windows.view(&query.plan, selection.keys),
            others: (!selection.others.is_empty()).then(|| self.view_others(&query.plan, &selection.others)),
            names_beyond: selection.names_beyond,
            groups: selection.groups,
            wants: query.wants,
            buckets: query.plan.buckets,
            cells_max: query.cells_max,
            metric_known: selection.metric_known,
            watermark_ms: self.watermark_ms(),
            applied_index: self.applied_index,
        }
    }

    fn view_others(&self, plan: &ScanPlan, others: &[(KeyId, bool)]) -> WindowView {
        let slices = plan.slices.iter().map(|slice| Slice { bucket: 0, ..*slice }).collect();
        let groups = others.iter().map(|&(id, selected)| (id, if selected { SELECTED } else { UNJUDGED })).collect();
        self.windows.view(&ScanPlan { slices, buckets: 1 }, KeyGroups::pairs(groups))
    }

    /// [`Self::prepare`] and [`PreparedQuery::run`] at once.
    ///
    /// # Errors
    /// More cells than the query allows.
    pub fn query(&self, query: &ShardQuery) -> Result<PartialAnswer, QueryFailed> {
        self.prepare(query).run(&|| false).map(PartialAnswer::with_cells_only)
    }
}

impl PreparedQuery {
    /// Reads. `should_stop` is asked now and then: the deadline, or a client that went away.
    ///
    /// # Errors
    /// See [`QueryFailed`].
    pub fn run(self, should_stop: &dyn Fn() -> bool) -> Result<PartialAnswer, QueryFailed> {
        let mut cells = CellMap::for_query(self.groups.len() as u32, self.buckets, self.cells_max, self.wants);
        self.view.scan(self.wants, &mut cells, should_stop)?;
        let mut other = OtherEvents { names_beyond: self.names_beyond, ..OtherEvents::default() };
        if let Some(others) = &self.others {
            let mut counts = CellMap::new(2, 1, 2);
            others.scan(Wants::default(), &mut counts, should_stop)?;
            for cell in counts.into_cells() {
                let events = if cell.group == SELECTED { &mut other.counted } else { &mut other.unjudged };
                *events += cell.values.count;
            }
        }
        let (cells, counts) = self.view.finish(cells);
        Ok(PartialAnswer {
            groups: self.groups,
            cells,
            counts,
            metric_known: self.metric_known,
            watermark_ms: self.watermark_ms,
            applied_index: self.applied_index,
            other,
        })
    }
}
