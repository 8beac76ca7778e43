//! The columns of one shard while a request is encoded.

use std::cell::RefCell;

use hashbrown::HashTable;
use rkyv::util::AlignedVec;

use crate::event::batch::ShardBatch;

/// Bytes of a row of an event, of a derived row and of a dictionary entry beside its key, as they are encoded.
const EVENT_BYTES: usize = 4 + 8 + 16 + 8 + 8 + 8;
const DERIVED_BYTES: usize = 4 + 4 + 8;
const ENTRY_BYTES: usize = 16 + 4;

/// Rows that there is room for at first: a request of some hundred events brings each shard about so many.
const ROWS_FIRST: usize = 16;
/// Bytes of a usual key.
const KEY_BYTES_FIRST: usize = 48;

pub(super) struct ShardColumns {
    batch: ShardBatch,
    /// Index in the dictionary by key hash; 128 bits of XXH3 stand for the key, as they do in the shard.
    dictionary: HashTable<u32>,
}

/// Empty ones, boxed as they are taken and given back.
type Spare = Box<ShardColumns>;

thread_local! {
    /// Columns that were encoded, empty: one request after the other needs as many, and as large ones.
    static SPARE: RefCell<Vec<Spare>> = const { RefCell::new(Vec::new()) };
}

/// Spare columns of a thread.
const SPARE_MAX: usize = 32;
/// Columns that grew over this are not kept, in bytes.
const SPARE_BYTES_MAX: usize = 128 << 10;

impl Default for ShardColumns {
    fn default() -> Self {
        let batch = ShardBatch {
            key_hashes: Vec::with_capacity(ROWS_FIRST),
            key_ends: Vec::with_capacity(ROWS_FIRST),
            key_bytes: Vec::with_capacity(ROWS_FIRST * KEY_BYTES_FIRST),
            keys: Vec::with_capacity(ROWS_FIRST),
            times: Vec::with_capacity(ROWS_FIRST),
            ids: Vec::with_capacity(ROWS_FIRST),
            users: Vec::with_capacity(ROWS_FIRST),
            sessions: Vec::with_capacity(ROWS_FIRST),
            values: Vec::with_capacity(ROWS_FIRST),
            ..ShardBatch::default()
        };
        Self { batch, dictionary: HashTable::with_capacity(ROWS_FIRST) }
    }
}

impl ShardColumns {
    /// Empty ones, used before or new.
    pub fn take() -> Box<Self> {
        SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    fn give_back(mut self: Box<Self>) {
        if self.bytes() > SPARE_BYTES_MAX {
            return;
        }
        let ShardBatch {
            definitions_version: _,
            routing_version: _,
            key_hashes,
            key_ends,
            key_bytes,
            keys,
            times,
            ids,
            users,
            sessions,
            values,
            derived_events,
            derived_keys,
            derived_values,
        } = &mut self.batch;
        key_hashes.clear();
        key_ends.clear();
        key_bytes.clear();
        keys.clear();
        times.clear();
        ids.clear();
        users.clear();
        sessions.clear();
        values.clear();
        derived_events.clear();
        derived_keys.clear();
        derived_values.clear();
        self.dictionary.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(self);
            }
        });
    }

    /// Begins a row; the caller fills the columns behind the key.
    #[inline]
    pub fn event(&mut self, key_hash: u128, key: &[u8]) -> &mut ShardBatch {
        let key = self.key(key_hash, key);
        self.batch.keys.push(key);
        &mut self.batch
    }

    /// Adds a row of a defined metric to the last event.
    pub fn derived(&mut self, key_hash: u128, key: &[u8], value: f64) {
        let key = self.key(key_hash, key);
        self.batch.derived_events.push(self.batch.keys.len() as u32 - 1);
        self.batch.derived_keys.push(key);
        self.batch.derived_values.push(value);
    }

    #[inline]
    fn key(&mut self, key_hash: u128, key: &[u8]) -> u32 {
        let hashes = &mut self.batch.key_hashes;
        // The hash's low half; its high half chose the shard and is alike in here.
        if let Some(&index) = self.dictionary.find(key_hash as u64, |&i| hashes[i as usize] == key_hash) {
            return index;
        }
        let index = hashes.len() as u32;
        hashes.push(key_hash);
        self.dictionary.insert_unique(key_hash as u64, index, |&i| hashes[i as usize] as u64);
        self.batch.key_bytes.extend_from_slice(key);
        self.batch.key_ends.push(self.batch.key_bytes.len() as u32);
        index
    }

    /// Size of the columns, in bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        let batch = &self.batch;
        EVENT_BYTES * batch.keys.len()
            + DERIVED_BYTES * batch.derived_keys.len()
            + ENTRY_BYTES * batch.key_ends.len()
            + batch.key_bytes.len()
    }

    /// `None` when there is no event.
    pub fn encode(mut self: Box<Self>, definitions_version: u64) -> Option<AlignedVec<16>> {
        if self.batch.is_empty() {
            return None;
        }
        self.batch.definitions_version = definitions_version;
        let encoded = self.batch.encode();
        self.give_back();
        Some(encoded)
    }
}
