//! A group as the records written so far leave it: what a checkpoint says, and which segments its live entries are in. The writer's view; requests
//! that still wait are not in it.

use std::collections::VecDeque;

use bytes::Bytes;

#[derive(Clone, Debug, Default)]
pub(in crate::wal) struct GroupOnDisk {
    /// Number of its last record.
    pub sequence: u32,
    pub purged: Option<(u64, Bytes)>,
    pub vote: Option<Bytes>,
    pub meta: Option<Bytes>,
    /// Live entries, each run in one segment, up to the first of the next run or to `last`.
    runs: VecDeque<Run>,
    last: u64,
    /// The group was stopped: this segment and those after it stay for whoever repairs it.
    pub pinned_segment: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    segment: u64,
    first: u64,
}

impl GroupOnDisk {
    pub fn live(&self) -> Option<(u64, u64)> {
        Some((self.runs.front()?.first, self.last))
    }

    pub fn oldest_segment(&self) -> Option<u64> {
        let live = self.runs.front().map(|run| run.segment);
        live.into_iter().chain(self.pinned_segment).min()
    }

    pub fn append(&mut self, index: u64, segment: u64) {
        if self.runs.back().is_none_or(|run| run.segment != segment) {
            self.runs.push_back(Run { segment, first: index });
        }
        self.last = index;
    }

    pub fn truncate(&mut self, from: u64) {
        while self.runs.back().is_some_and(|run| run.first >= from) {
            self.runs.pop_back();
        }
        self.last = self.last.min(from.saturating_sub(1));
    }

    pub fn forget(&mut self) {
        self.runs.clear();
        self.purged = None;
    }

    pub fn purge(&mut self, upto: u64, meta: Bytes) {
        self.purged = Some((upto, meta));
        while !self.runs.is_empty() {
            let end = self.runs.get(1).map_or(self.last, |next| next.first - 1);
            if end > upto {
                break;
            }
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut() {
            run.first = run.first.max(upto + 1);
        }
    }
}
