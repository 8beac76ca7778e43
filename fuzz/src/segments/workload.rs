//! Requests to a log as the input says, and plain maps of what each group must hold after each of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tallymesh_storage::StorageError;
use tallymesh_storage::wal::{Done, LogEntry, Opened, Wal};

use crate::input::Input;

pub(super) const GROUPS: [u16; 4] = [0, 1, 7, 65_534];
const REQUESTS_MAX: usize = 40;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    entries: BTreeMap<u64, (Bytes, Bytes)>,
    purged: Option<(u64, Bytes)>,
    vote: Option<Bytes>,
    meta: Option<Bytes>,
}

impl Model {
    pub fn of(wal: &Wal, group: u16) -> Result<Self, StorageError> {
        let state = wal.state(group)?;
        let entries: BTreeMap<_, _> = wal.read(group, 0..u64::MAX)?.into_iter().map(|e| (e.index, (e.meta, e.body))).collect();
        let model = Self { entries, purged: state.purged, vote: state.vote, meta: state.meta };
        assert_eq!(state.entries, model.range());
        Ok(model)
    }

    fn range(&self) -> Option<(u64, u64)> {
        self.entries.keys().next().copied().zip(self.entries.keys().next_back().copied())
    }

    pub fn next_index(&self) -> Option<u64> {
        let last = self.entries.keys().next_back().copied().or(self.purged.as_ref().map(|(upto, _)| *upto));
        last.map_or(Some(1), |last| last.checked_add(1))
    }
}

/// The states of one group in order, and which of them is acked.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub states: Vec<Model>,
    acked: Arc<AtomicUsize>,
}

impl History {
    fn last(&self) -> &Model {
        &self.states[self.states.len() - 1]
    }

    fn acked(&self) -> usize {
        self.acked.load(Ordering::Relaxed)
    }

    fn push(&mut self, change: impl FnOnce(&mut Model)) {
        let mut next = self.last().clone();
        change(&mut next);
        self.states.push(next);
    }

    fn ack(&self) -> Done {
        let (acked, state) = (self.acked.clone(), self.states.len() - 1);
        Box::new(move |outcome| {
            if outcome.is_ok() {
                assert!(acked.swap(state, Ordering::Relaxed) < state, "told in order");
            }
        })
    }
}

pub(super) struct Workload {
    pub groups: BTreeMap<u16, History>,
    stamp: u64,
}

impl Workload {
    pub fn new() -> Self {
        let history = || History { states: vec![Model::default()], acked: Arc::default() };
        Self { groups: GROUPS.into_iter().map(|group| (group, history())).collect(), stamp: 0 }
    }

    /// Requests until the input says so; some of them may still wait to be written.
    pub fn run(&mut self, opened: &mut Opened, input: &mut Input<'_>) {
        for _ in 0..REQUESTS_MAX {
            if input.is_empty() || !self.request(opened, input.byte(), input) {
                break;
            }
        }
        for (&group, history) in &self.groups {
            assert_eq!(Model::of(&opened.wal, group).ok().as_ref(), Some(history.last()), "what was asked for can be read, written or not");
        }
    }

    /// Requests are in effect at once. Without the entries' bytes, which is what takes long.
    fn check_state(&self, wal: &Wal, group: u16) {
        let (state, model) = (wal.state(group).unwrap_or_else(|e| panic!("{e}")), self.groups[&group].last());
        assert_eq!(state.entries, model.range());
        assert_eq!((&state.purged, &state.vote, &state.meta), (&model.purged, &model.vote, &model.meta));
    }

    fn request(&mut self, opened: &mut Opened, choice: u8, input: &mut Input<'_>) -> bool {
        let group = GROUPS[usize::from(choice & 3)];
        self.stamp += 1;
        let stamp = Bytes::from(format!("{} of {group}", self.stamp));
        let Some(history) = self.groups.get_mut(&group) else { return false };
        let Some(next) = history.last().next_index() else { return true };
        let first = history.last().entries.keys().next().copied();
        let wal = &opened.wal;
        match (choice >> 2 & 15, first) {
            (0..6, _) => {
                let mut batch = Vec::new();
                for index in next..=next + u64::from(choice >> 6) {
                    let length = usize::from(input.byte()) * 3 / 2;
                    // What of it is not given is a pattern, so that bodies are cheap to make and unlike each other.
                    let body: Vec<u8> = (0..length).map(|i| (i as u64 * (self.stamp + index) / 7) as u8).collect();
                    let entry = LogEntry { index, meta: stamp.clone(), body: body.into() };
                    history.push(|model| drop(model.entries.insert(index, (entry.meta.clone(), entry.body.clone()))));
                    batch.push(entry);
                }
                wal.append(group, batch, history.ack());
            }
            (6, Some(first)) => {
                let from = first + u64::from(input.byte()) % (next - first);
                history.push(|model| drop(model.entries.split_off(&from)));
                wal.truncate(group, from, history.ack());
            }
            (7 | 8, Some(first)) => {
                let upto = first + u64::from(input.byte()) % (next - first + 3);
                history.push(|model| {
                    model.entries = model.entries.split_off(&(upto + 1));
                    model.purged = Some((upto, stamp.clone()));
                });
                wal.purge(group, upto, stamp, history.ack());
            }
            (9, _) => {
                history.push(|model| model.vote = Some(stamp.clone()));
                wal.vote(group, stamp, history.ack());
            }
            (10, _) => {
                history.push(|model| model.meta = Some(stamp.clone()));
                wal.meta(group, stamp, history.ack());
            }
            (11, _) => opened.writer.mark(),
            (12, _) => write_all(opened),
            (13 | 14, _) => drop(opened.writer.step()),
            (15, _) => return false,
            _ => {}
        }
        self.check_state(&opened.wal, group);
        true
    }

    /// Every group holds a state it had, no older than what was acked. What came after that state never was.
    pub fn check_and_restart(&mut self, wal: &Wal) {
        for (&group, history) in &mut self.groups {
            let found = Model::of(wal, group).unwrap_or_else(|e| panic!("group {group}: {e}"));
            let acked = history.acked();
            let Some(at) = history.states[acked..].iter().position(|state| *state == found) else {
                panic!("group {group} holds what it never held since it was acked: {found:?}");
            };
            history.states.truncate(acked + at + 1);
            history.acked = Arc::new(AtomicUsize::new(acked + at));
        }
    }
}

pub(super) fn write_all(opened: &mut Opened) {
    while opened.writer.step() > 0 {}
}
