//! The keys of a shard, interned to small numbers that never change, and the indexes that queries select them by.

mod chunk;
mod other;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use hashbrown::{Equivalent, HashMap, HashTable};
use tallymesh_protocol::cardinality::OTHER;
use tallymesh_protocol::key::{KeyView, MetricKind};

pub use chunk::{KeyChunkRef, KeysManifest, KeysSave};
use chunk::{decode_chunk, merged_from};
pub use other::{Admitted, DimensionUse};
use other::{TenantUse, is_other};
use text::TextTable;
pub use text::{NULL, ValueId};

use crate::StorageError;
use crate::files::ImmutableFiles;

/// Number of a key within its shard, in order of first appearance.
pub type KeyId = u32;

/// Append-only; equal keys get one number, by hash and then by their bytes.
#[derive(Clone, Debug, Default)]
pub struct KeyTable {
    hashes: Vec<u128>,
    /// Encoded keys, one after the other.
    bytes: Vec<u8>,
    /// End of each key in `bytes`.
    ends: Vec<u64>,
    ids: HashTable<KeyId>,
    /// Texts of dimension values.
    values: TextTable,
    /// Dimension values of all keys, one key after the other.
    dimensions: Vec<ValueId>,
    /// End of each key in `dimensions`.
    dimension_ends: Vec<u64>,
    metrics: Vec<MetricKeys>,
    metric_ids: HashMap<(MetricKind, String, String), usize>,
    tenants: HashMap<String, TenantUse>,
    /// Number of the metric of each key. Shared with queries that run, which is why adding to it copies now and then.
    metric_of: Arc<Vec<u32>>,
    families: HashMap<(MetricKind, String), u32>,
    /// Where the keys are on disk; whatever comes after the last chunk is not saved yet.
    chunks: Vec<KeyChunkRef>,
}

/// The keys of one metric.
#[derive(Clone, Debug)]
pub struct MetricKeys {
    pub kind: MetricKind,
    pub tenant: String,
    pub metric: String,
    /// Index into [`KeyTable::metrics`].
    pub number: u32,
    /// Number of all metrics of this kind and tenant together.
    pub family: u32,
    pub ids: Vec<KeyId>,
    /// Its other keys: one, or several if its number of dimensions ever changed. They are not among `ids`.
    pub others: Vec<KeyId>,
}

/// What a metric is looked up by, without a copy of its names.
#[derive(Hash)]
struct MetricName<'a>(MetricKind, &'a str, &'a str);

impl Equivalent<(MetricKind, String, String)> for MetricName<'_> {
    fn equivalent(&self, key: &(MetricKind, String, String)) -> bool {
        (self.0, self.1, self.2) == (key.0, key.1.as_str(), key.2.as_str())
    }
}

fn table_hash(hash: u128) -> u64 {
    (hash >> 64) as u64 ^ hash as u64
}

impl KeyTable {
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Number of the key, a new one if it was never seen, whatever the budget. `hash` is [`tallymesh_protocol::hash::key_hash`] of `key`; `None` when
    /// `key` is not a key or there are no numbers left.
    pub fn intern(&mut self, hash: u128, key: &[u8]) -> Option<KeyId> {
        match self.find(hash, key) {
            Some(id) => Some(id),
            None => self.add(hash, key),
        }
    }

    /// Number of a key that has one of its own.
    #[inline]
    pub fn find(&self, hash: u128, key: &[u8]) -> Option<KeyId> {
        self.ids.find(table_hash(hash), |&id| self.hashes[id as usize] == hash && self.key_bytes(id) == key).copied()
    }

    fn add(&mut self, hash: u128, key: &[u8]) -> Option<KeyId> {
        let view = KeyView::parse(key)?;
        // The highest number is left out: it stands for "none" in the groups of a scan.
        let id = KeyId::try_from(self.len()).ok().filter(|&id| id < KeyId::MAX)?;
        for value in view.dimensions() {
            let value = value.map_or(NULL, |text| self.values.intern(text));
            self.dimensions.push(value);
        }
        self.dimension_ends.push(self.dimensions.len() as u64);
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len() as u64);
        self.hashes.push(hash);
        let metric = match self.metric_ids.get(&MetricName(view.kind, view.tenant, view.metric)) {
            Some(&metric) => metric,
            None => self.add_metric(view),
        };
        Arc::make_mut(&mut self.metric_of).push(metric as u32);
        if is_other(view) {
            self.metrics[metric].others.push(id);
        } else {
            self.metrics[metric].ids.push(id);
            self.tenants.entry_ref(view.tenant).or_default().keys += 1;
        }
        self.ids.insert_unique(table_hash(hash), id, |&id| table_hash(self.hashes[id as usize]));
        Some(id)
    }

    fn add_metric(&mut self, key: KeyView<'_>) -> usize {
        let (kind, tenant, metric) = (key.kind, key.tenant.to_owned(), key.metric.to_owned());
        if kind == MetricKind::Default && metric != OTHER {
            self.tenants.entry_ref(key.tenant).or_default().event_names += 1;
        }
        self.metric_ids.insert((kind, tenant.clone(), metric.clone()), self.metrics.len());
        let (number, families) = (self.metrics.len(), self.families.len() as u32);
        let family = *self.families.entry((kind, tenant.clone())).or_insert(families);
        self.metrics.push(MetricKeys { kind, tenant, metric, number: number as u32, family, ids: Vec::new(), others: Vec::new() });
        number
    }

    fn key_bytes(&self, id: KeyId) -> &[u8] {
        let end = self.ends[id as usize] as usize;
        let start = if id == 0 { 0 } else { self.ends[id as usize - 1] as usize };
        &self.bytes[start..end]
    }

    /// The key of a number that [`Self::intern`] gave.
    pub fn key(&self, id: KeyId) -> Option<KeyView<'_>> {
        if (id as usize) < self.len() { KeyView::parse(self.key_bytes(id)) } else { None }
    }

    pub fn hash(&self, id: KeyId) -> u128 {
        self.hashes[id as usize]
    }

    /// Dimension values of a key, in key order.
    #[inline]
    pub fn dimensions(&self, id: KeyId) -> &[ValueId] {
        let end = self.dimension_ends[id as usize] as usize;
        let start = if id == 0 { 0 } else { self.dimension_ends[id as usize - 1] as usize };
        &self.dimensions[start..end]
    }

    /// Number of a dimension value, if any key ever had it.
    pub fn value_id(&self, text: Option<&str>) -> Option<ValueId> {
        match text {
            None => Some(NULL),
            Some(text) => self.values.find(text),
        }
    }

    pub fn value(&self, id: ValueId) -> Option<&str> {
        self.values.text(id)
    }

    /// Every metric, in order of first appearance.
    pub fn metrics(&self) -> &[MetricKeys] {
        &self.metrics
    }

    /// Number of the metric of each key.
    pub fn metric_of(&self) -> &Arc<Vec<u32>> {
        &self.metric_of
    }

    pub fn metric(&self, kind: MetricKind, tenant: &str, metric: &str) -> Option<&MetricKeys> {
        self.metric_ids.get(&MetricName(kind, tenant, metric)).map(|&m| &self.metrics[m])
    }

    pub fn memory_bytes(&self) -> usize {
        self.hashes.capacity() * 16
            + self.bytes.capacity()
            + self.ends.capacity() * 8
            + self.ids.capacity() * 5
            + self.values.memory_bytes()
            + self.dimensions.capacity() * 4
            + self.dimension_ends.capacity() * 8
            + self.metric_of.capacity() * 4
            + self.metrics.iter().map(|m| (m.ids.capacity() + m.others.capacity()) * 4).sum::<usize>()
    }

    fn saved(&self) -> KeyId {
        self.chunks.last().map_or(0, |c| c.to)
    }

    /// What a save writes: the keys since the last one, joined with small chunks before them.
    pub fn save_plan(&self) -> KeysSave {
        let (saved, len) = (self.saved() as usize, self.len());
        if saved == len {
            return KeysSave { keep: self.chunks.clone(), chunk: None };
        }
        let keep = merged_from(&self.chunks, len - saved);
        let from = self.chunks[..keep].last().map_or(0, |c| c.to);
        let start = if from == 0 { 0 } else { self.ends[from as usize - 1] };
        let ends = self.ends[from as usize..].iter().map(|e| e - start).collect();
        let chunk =
            chunk::Chunk { from, hashes: self.hashes[from as usize..].to_vec(), ends, bytes: self.bytes[start as usize..].to_vec() };
        KeysSave { keep: self.chunks[..keep].to_vec(), chunk: Some(chunk) }
    }

    /// Takes over a save that is durable.
    pub fn mark_saved(&mut self, saved: &KeysManifest) {
        self.chunks.clone_from(&saved.chunks);
    }

    /// # Errors
    /// The disk's, or damage.
    pub fn load(manifest: &KeysManifest, files: &dyn ImmutableFiles) -> Result<Self, StorageError> {
        let mut table = Self::default();
        for chunk in &manifest.chunks {
            if chunk.from as usize != table.len() || chunk.to <= chunk.from {
                return Err(StorageError::damaged(&chunk.file.name, 0, format!("keys {}..{} after {}", chunk.from, chunk.to, table.len())));
            }
            let bytes = files.read(&chunk.file)?;
            let mut bad = None;
            let hashes = &table.hashes;
            table.ids.reserve((chunk.to - chunk.from) as usize, |&id| table_hash(hashes[id as usize]));
            decode_chunk(chunk, &bytes, |index, hash, key| {
                if bad.is_none() && table.intern(hash, key) != Some(index) {
                    bad = Some(index);
                }
            })?;
            if let Some(index) = bad {
                return Err(StorageError::damaged(&chunk.file.name, 0, format!("key {index} is not a key, or there twice")));
            }
            table.chunks.push(chunk.clone());
        }
        Ok(table)
    }
}
