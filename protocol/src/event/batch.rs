//! The columnar batch that a shard's log carries: keys once, fixed-width columns, read in place at apply.

use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::key::KeyView;

/// Version of the archived layout of [`ShardBatch`]; it leads every encoded batch.
pub const BATCH_VERSION: u32 = 1;
/// First bytes of an encoded batch, before the version.
pub const BATCH_MAGIC: [u8; 4] = *b"TMSB";
/// Magic, version, zeroes: the archive behind it stays 16-aligned.
const HEADER_BYTES: usize = 16;
/// Alignment that an encoded batch needs in memory, in bytes.
pub const BATCH_ALIGN: usize = 16;

/// "No value" in a value column. Values at the door are finite, so no value looks like it.
pub const NO_VALUE: f64 = f64::NAN;
/// "No user / session" in an identity column.
pub const NO_IDENTITY: u64 = 0;

/// Events of one request for one shard.
///
/// A key is an index into the dictionary (`key_hashes`, `key_ends`, `key_bytes`). The first rows are events, each counted once in its default
/// metric; `derived_*` are the rows of defined metrics, each naming the event it comes from, in event order.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ShardBatch {
    pub definitions_version: u64,
    pub routing_version: u64,
    /// [`crate::hash::key_hash`] of each key.
    pub key_hashes: Vec<u128>,
    /// End of each key in `key_bytes`.
    pub key_ends: Vec<u32>,
    /// [`crate::key::encode_key`], one after the other.
    pub key_bytes: Vec<u8>,
    /// Key of the default metric.
    pub keys: Vec<u32>,
    /// UTC milliseconds.
    pub times: Vec<i64>,
    /// [`crate::hash::event_hash`].
    pub ids: Vec<u128>,
    /// [`crate::hash::identity_hash`] or [`NO_IDENTITY`].
    pub users: Vec<u64>,
    pub sessions: Vec<u64>,
    /// Finite or [`NO_VALUE`].
    pub values: Vec<f64>,
    pub derived_events: Vec<u32>,
    pub derived_keys: Vec<u32>,
    pub derived_values: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("not an event batch")]
    Magic,
    #[error("batch version {0} is not known here (this build reads {BATCH_VERSION})")]
    Version(u32),
    #[error("batch bytes are not aligned to {BATCH_ALIGN}")]
    Alignment,
    #[error("batch bytes are damaged")]
    Layout,
    #[error("batch columns disagree: {0}")]
    Columns(&'static str),
}

impl ShardBatch {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Magic, version and archive, 16-aligned.
    pub fn encode(&self) -> AlignedVec<16> {
        let mut out =
            AlignedVec::<16>::with_capacity(HEADER_BYTES + 512 + self.key_bytes.len() + 24 * self.key_ends.len() + 56 * self.len());
        out.extend_from_slice(&BATCH_MAGIC);
        out.extend_from_slice(&BATCH_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; HEADER_BYTES - 8]);
        match rkyv::api::high::to_bytes_in::<_, rkyv::rancor::Error>(self, out) {
            Ok(bytes) => bytes,
            // Plain columns into memory: nothing in it can fail but allocation, which aborts.
            Err(error) => unreachable!("encoding a batch: {error}"),
        }
    }
}

/// Checks encoded bytes once: layout, equal column lengths, indices in range, keys that parse, values that are finite or absent.
///
/// # Errors
/// See [`BatchError`]; hostile bytes never panic or read out of bounds.
pub fn check(bytes: &[u8]) -> Result<&ArchivedShardBatch, BatchError> {
    let batch = check_but_keys(bytes)?;
    (0..batch.key_ends.len()).try_for_each(|index| batch.check_key(index))?;
    Ok(batch)
}

/// As [`check`], but whether the keys parse is left to [`ArchivedShardBatch::check_key`]: whoever knows a key already need not look again.
///
/// # Errors
/// As [`check`].
pub fn check_but_keys(bytes: &[u8]) -> Result<&ArchivedShardBatch, BatchError> {
    let (header, archive) = bytes.split_at_checked(HEADER_BYTES).ok_or(BatchError::Magic)?;
    if header[..4] != BATCH_MAGIC {
        return Err(BatchError::Magic);
    }
    let version = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if version != BATCH_VERSION {
        return Err(BatchError::Version(version));
    }
    if !(archive.as_ptr() as usize).is_multiple_of(BATCH_ALIGN) {
        return Err(BatchError::Alignment);
    }
    let batch = rkyv::access::<ArchivedShardBatch, rkyv::rancor::Error>(archive).map_err(|_| BatchError::Layout)?;
    batch.check_columns()?;
    Ok(batch)
}

impl ArchivedShardBatch {
    fn check_columns(&self) -> Result<(), BatchError> {
        let n = self.keys.len();
        if [self.times.len(), self.ids.len(), self.users.len(), self.sessions.len(), self.values.len()].iter().any(|&l| l != n) {
            return Err(BatchError::Columns("event columns differ in length"));
        }
        let derived = self.derived_events.len();
        if self.derived_keys.len() != derived || self.derived_values.len() != derived {
            return Err(BatchError::Columns("derived columns differ in length"));
        }
        let dictionary = self.key_ends.len();
        if self.key_hashes.len() != dictionary {
            return Err(BatchError::Columns("dictionary columns differ in length"));
        }
        let in_dictionary = |k: &rkyv::rend::u32_le| (k.to_native() as usize) < dictionary;
        if !self.keys.iter().all(in_dictionary) || !self.derived_keys.iter().all(in_dictionary) {
            return Err(BatchError::Columns("a key index is out of range"));
        }
        if !self.derived_events.iter().all(|e| (e.to_native() as usize) < n) {
            return Err(BatchError::Columns("a derived row names no event"));
        }
        if !self.derived_events.as_slice().is_sorted_by_key(|e| e.to_native()) {
            return Err(BatchError::Columns("derived rows are not in event order"));
        }
        if self.values.iter().chain(self.derived_values.iter()).any(|v| v.to_native().is_infinite()) {
            return Err(BatchError::Columns("a value is infinite"));
        }
        let mut start = 0usize;
        for end in self.key_ends.iter() {
            let end = end.to_native() as usize;
            if end < start || end > self.key_bytes.len() {
                return Err(BatchError::Columns("dictionary ends are not in order"));
            }
            start = end;
        }
        if start != self.key_bytes.len() {
            return Err(BatchError::Columns("bytes after the last key"));
        }
        Ok(())
    }

    /// # Errors
    /// [`BatchError::Columns`] when key `index` does not parse.
    pub fn check_key(&self, index: usize) -> Result<(), BatchError> {
        if KeyView::parse(self.key(index)).is_none() {
            return Err(BatchError::Columns("a key does not parse"));
        }
        Ok(())
    }

    /// Encoded key `index`; in range after [`check_but_keys`].
    pub fn key(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.key_ends[index - 1].to_native() as usize };
        &self.key_bytes[start..self.key_ends[index].to_native() as usize]
    }
}

#[cfg(test)]
mod tests;
