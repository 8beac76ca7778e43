//! A shard's log as it was first applied anywhere, and what it means by plain lists. All else is compared with it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use tallymesh_actors::raft::LogId;
use tallymesh_protocol::event::batch;
use tallymesh_protocol::event::command::{CommandBody, CommandView};
use tallymesh_storage::shard::answers::ANSWER_LIFE_MS;

use super::super::events::Event;

/// FNV-1a; any will do.
pub fn hash_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What became of one part of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartCounted {
    pub part: u64,
    pub counted: u32,
    pub duplicates: u32,
}

#[derive(Clone, Debug)]
pub struct Known {
    pub log_id: LogId,
    pub content: u64,
    pub parts: Vec<PartCounted>,
}

/// An event that counts.
#[derive(Clone, Debug)]
pub struct Row {
    pub index: u64,
    pub event: Event,
}

#[derive(Default)]
pub struct History {
    entries: Vec<Known>,
    rows: Vec<Row>,
    seen: HashMap<u128, u64>,
    /// What requests did, by number, and when.
    requests: HashMap<u64, (i64, PartCounted)>,
    newest_stamp_ms: i64,
    /// Checksums of the state by index.
    pub checksums: BTreeMap<u64, u64>,
}

impl History {
    pub fn is_new(&self, index: u64) -> bool {
        index >= self.entries.len() as u64
    }

    pub fn entry(&self, index: u64) -> Option<&Known> {
        self.entries.get(index as usize)
    }

    /// Index of the entry that counted the event.
    pub fn counted_at(&self, hash: u128) -> Option<u64> {
        self.seen.get(&hash).copied()
    }

    pub fn rows_until(&self, index: u64) -> impl Iterator<Item = &Row> {
        self.rows.iter().take_while(move |row| row.index <= index)
    }

    /// The first application of an entry; the hashes that it counts.
    pub fn push(&mut self, log_id: LogId, command: Option<&Bytes>, events: &BTreeMap<u128, Event>) -> Vec<u128> {
        let mut known = Known { log_id, content: command.map_or(0, |bytes| hash_of(bytes)), parts: Vec::new() };
        let mut new = Vec::new();
        let view = command.map(|bytes| CommandView::parse(bytes).expect("a command"));
        self.newest_stamp_ms = view.as_ref().map_or(self.newest_stamp_ms, |view| self.newest_stamp_ms.max(view.stamp_ms));
        if let Some(CommandView { body: CommandBody::Batches(parts), .. }) = view {
            for part in parts {
                let mut outcome = PartCounted { part: hash_of(part.batch), counted: 0, duplicates: 0 };
                // Another attempt of a request is told what the first one did.
                if let Some((at, told)) = self.requests.get(&part.request)
                    && self.newest_stamp_ms - at < ANSWER_LIFE_MS
                {
                    assert_eq!(told.part, outcome.part, "no two requests have one number");
                    known.parts.push(*told);
                    continue;
                }
                let batch = batch::check(part.batch).expect("clients send batches");
                for hash in batch.ids.iter().map(|id| id.to_native()) {
                    if self.seen.contains_key(&hash) {
                        outcome.duplicates += 1;
                        continue;
                    }
                    outcome.counted += 1;
                    self.seen.insert(hash, log_id.index);
                    new.push(hash);
                    let event = events.get(&hash).expect("clients send events that are noted").clone();
                    self.rows.push(Row { index: log_id.index, event });
                }
                self.requests.insert(part.request, (self.newest_stamp_ms, outcome));
                known.parts.push(outcome);
            }
        }
        self.entries.push(known);
        new
    }
}
