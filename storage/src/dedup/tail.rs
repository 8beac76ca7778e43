//! What has been counted but is in no run on disk yet, in order of arrival.

use std::collections::VecDeque;
use std::sync::Arc;

use super::recent::Entry;

/// Entries of one chunk; a full one is sealed and shared with saves instead of being copied.
pub const CHUNK_ENTRIES: usize = 16_384;

/// Hashes with their arrivals run-length coded: time only goes forward.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    hashes: Vec<u128>,
    /// Second, and the number of entries up to its end.
    seconds: Vec<(u32, u32)>,
}

impl Chunk {
    fn push(&mut self, hash: u128, second: u32) {
        self.hashes.push(hash);
        let end = self.hashes.len() as u32;
        match self.seconds.last_mut() {
            Some(last) if last.0 == second => last.1 = end,
            _ => self.seconds.push((second, end)),
        }
    }

    fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let mut start = 0usize;
        self.seconds.iter().flat_map(move |&(second, end)| {
            let range = start..end as usize;
            start = end as usize;
            self.hashes[range].iter().map(move |&hash| Entry { hash, second })
        })
    }

    fn memory_bytes(&self) -> usize {
        self.hashes.capacity() * 16 + self.seconds.capacity() * 8
    }
}

#[derive(Clone, Debug, Default)]
pub struct Tail {
    sealed: VecDeque<Arc<Chunk>>,
    open: Chunk,
    /// Number of the first entry in `sealed` (or `open`), counted from the start of this process.
    first: u64,
    /// Entries before this number are in runs.
    saved: u64,
}

/// The unsaved entries at one moment.
#[derive(Clone, Debug)]
pub struct TailView {
    chunks: Vec<Arc<Chunk>>,
    skip: usize,
    /// Number of the entry after the last.
    pub through: u64,
}

impl Tail {
    pub fn push(&mut self, hash: u128, second: u32) {
        self.open.push(hash, second);
        if self.open.hashes.len() == CHUNK_ENTRIES {
            // Where one was filled, the next will be: without copying as it grows.
            let next = Chunk { hashes: Vec::with_capacity(CHUNK_ENTRIES), seconds: Vec::new() };
            self.sealed.push_back(Arc::new(std::mem::replace(&mut self.open, next)));
        }
    }

    fn next(&self) -> u64 {
        self.first + (self.sealed.len() * CHUNK_ENTRIES + self.open.hashes.len()) as u64
    }

    pub fn view(&self) -> TailView {
        let mut chunks: Vec<_> = self.sealed.iter().cloned().collect();
        chunks.push(Arc::new(self.open.clone()));
        TailView { chunks, skip: (self.saved - self.first) as usize, through: self.next() }
    }

    /// Entries before number `through` are on disk now.
    pub fn mark_saved(&mut self, through: u64) {
        self.saved = self.saved.max(through.min(self.next()));
        while self.first + CHUNK_ENTRIES as u64 <= self.saved && self.sealed.pop_front().is_some() {
            self.first += CHUNK_ENTRIES as u64;
        }
        if self.sealed.is_empty() && self.saved == self.next() {
            self.first = self.saved;
            self.open = Chunk::default();
        }
    }

    pub fn unsaved(&self) -> u64 {
        self.next() - self.saved
    }

    /// Arrival of the oldest unsaved entry.
    pub fn oldest_second(&self) -> Option<u32> {
        let skip = (self.saved - self.first) as usize;
        let chunk = self.sealed.front().map_or(&self.open, |c| c);
        chunk.seconds.iter().find(|(_, end)| *end as usize > skip).map(|(second, _)| *second)
    }

    pub fn memory_bytes(&self) -> usize {
        self.sealed.iter().map(|c| c.memory_bytes()).sum::<usize>() + self.open.memory_bytes()
    }
}

impl TailView {
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.chunks.iter().flat_map(|c| c.entries()).skip(self.skip)
    }
}
