//! What a group must hold, as plain maps, after each of its records; and a seeded workload over several groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::super::*;

pub(super) const GROUPS: u16 = 4;

#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub entries: BTreeMap<u64, (Bytes, Bytes)>,
    pub purged: Option<(u64, Bytes)>,
    pub vote: Option<Bytes>,
    pub meta: Option<Bytes>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lengths: Vec<_> = self.entries.iter().map(|(index, (_, body))| (index, body.len())).collect();
        write!(f, "entries {lengths:?}, purged {:?}, vote {:?}, meta {:?}", self.purged, self.vote, self.meta)
    }
}

impl Model {
    pub fn of(wal: &Wal, group: u16) -> Result<Self, StorageError> {
        let state = wal.state(group)?;
        let entries: BTreeMap<_, _> = wal.read(group, 0..u64::MAX)?.into_iter().map(|e| (e.index, (e.meta, e.body))).collect();
        assert_eq!(state.entries, entries.keys().next().copied().zip(entries.keys().next_back().copied()));
        Ok(Self { entries, purged: state.purged, vote: state.vote, meta: state.meta })
    }

    fn next_index(&self) -> u64 {
        let last = self.entries.keys().next_back().copied().or(self.purged.as_ref().map(|(upto, _)| *upto));
        last.map_or(1, |last| last + 1)
    }
}

/// The states of one group in order, one for each record, and how far they are acked.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub states: Vec<Model>,
    pub acked: Arc<Mutex<usize>>,
}

impl History {
    fn new(state: Model) -> Self {
        Self { states: vec![state], acked: Arc::default() }
    }

    fn last(&self) -> &Model {
        self.states.last().unwrap()
    }

    fn push(&mut self, change: impl FnOnce(&mut Model)) {
        let mut next = self.last().clone();
        change(&mut next);
        self.states.push(next);
    }
}

pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1).wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

pub(super) struct Oracle {
    pub groups: BTreeMap<u16, History>,
    vote: u64,
}

impl Oracle {
    pub fn new() -> Self {
        Self { groups: (0..GROUPS).map(|group| (group, History::new(Model::default()))).collect(), vote: 0 }
    }

    /// Runs `requests` seeded requests with steps between them, until all are told; `false` if the log failed on the way.
    pub fn run(&mut self, opened: &mut Opened, seed: u64, requests: usize) -> bool {
        let mut random = Random::new(seed);
        for _ in 0..requests {
            if opened.wal.stats().poisoned.is_some() {
                return false;
            }
            self.request(&opened.wal, &mut random);
            if random.below(3) == 0 {
                opened.writer.step();
            }
            if random.below(12) == 0 {
                opened.step_all();
                opened.writer.mark();
            }
        }
        opened.step_all();
        opened.wal.stats().poisoned.is_none()
    }

    fn request(&mut self, wal: &Wal, random: &mut Random) {
        let group = random.below(GROUPS.into()) as u16;
        let history = self.groups.get_mut(&group).unwrap();
        let (first, next) = (history.last().entries.keys().next().copied(), history.last().next_index());
        let stamp = |what: &str, n: u64| Bytes::from(format!("{what} {n} of {group}"));
        match (random.below(11), first) {
            (0, Some(first)) => {
                let from = first + random.below(next - first);
                history.push(|model| drop(model.entries.split_off(&from)));
                wal.truncate(group, from, history.ack());
            }
            (1..3, Some(first)) => {
                let upto = first + random.below(next - first + 2);
                let meta = stamp("purged", upto);
                history.push(|model| {
                    model.entries = model.entries.split_off(&(upto + 1));
                    model.purged = Some((upto, meta.clone()));
                });
                wal.purge(group, upto, meta, history.ack());
            }
            // Where there is nothing to forget nothing is written.
            (10, Some(_)) => {
                history.push(|model| {
                    model.entries.clear();
                    model.purged = None;
                });
                wal.forget(group, history.ack());
            }
            (3, _) => {
                self.vote += 1;
                let vote = stamp("vote", self.vote);
                history.push(|model| model.vote = Some(vote.clone()));
                wal.vote(group, vote, history.ack());
            }
            (4, _) => {
                self.vote += 1;
                let meta = stamp("meta", self.vote);
                history.push(|model| model.meta = Some(meta.clone()));
                wal.meta(group, meta, history.ack());
            }
            _ => {
                let mut batch = Vec::new();
                for index in next..=next + random.below(3) {
                    let body: Vec<u8> = (0..random.below(400)).map(|_| random.below(256) as u8).collect();
                    let entry = LogEntry { index, meta: stamp("entry", index), body: Bytes::from(body) };
                    history.push(|model| drop(model.entries.insert(index, (entry.meta.clone(), entry.body.clone()))));
                    batch.push(entry);
                }
                wal.append(group, batch, history.ack());
            }
        }
        assert_eq!(&Model::of(wal, group).unwrap(), history.last(), "in effect at once");
    }

    /// Every group holds a state it had, no older than what was acked. From here on these are the states that must stay.
    pub fn check_and_restart(&mut self, wal: &Wal, context: &str) {
        for (&group, history) in &mut self.groups {
            let found = Model::of(wal, group).unwrap_or_else(|e| panic!("{context}: group {group}: {e}"));
            let acked = *history.acked.lock();
            assert!(
                history.states[acked..].contains(&found),
                "{context}: group {group} holds what it never held since it was acked: {found:?}"
            );
            *history = History::new(found);
        }
    }

    pub fn fork(&self) -> Self {
        let fork = |history: &History| History { states: history.states.clone(), acked: Arc::new(Mutex::new(*history.acked.lock())) };
        Self { groups: self.groups.iter().map(|(group, history)| (*group, fork(history))).collect(), vote: self.vote }
    }
}

impl History {
    /// Notes the newest state as acked once it is.
    fn ack(&self) -> Done {
        let (acked, state) = (self.acked.clone(), self.states.len() - 1);
        Box::new(move |outcome| {
            if outcome.is_ok() {
                let mut acked = acked.lock();
                assert!(*acked < state, "told in order");
                *acked = state;
            }
        })
    }
}
