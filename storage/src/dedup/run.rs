//! A sorted run on disk: remembered hashes in order, searched block by block, and the filter that spares most searches.
//!
//! Layout of a `dedup` file, little-endian: magic `TMDR`, version `u32`, entries `u64`, oldest and newest arrival second `u32` each, zeroes to 64
//! bytes; then the hashes (`u128`, ascending, no two equal); then their arrival seconds (`u32`). Of a `filter` file: magic `TMDF`,
//! version `u32`, seed `u64`, segment length, mask and count length `u32` each, length `u32`, then the fingerprints of a binary
//! fuse filter (Graf, Lemire: "Binary Fuse Filters", 2022) over the high halves of the hashes.

use std::sync::Arc;
use std::{fmt, io};

use bytes::Bytes;
use xorf::{BinaryFuse8, Descriptor, Filter};

use super::recent::Entry;
use crate::StorageError;
use crate::disk::ReadAt;
use crate::files::FileRef;

const RUN_MAGIC: [u8; 4] = *b"TMDR";
const FILTER_MAGIC: [u8; 4] = *b"TMDF";
const VERSION: u32 = 1;
const RUN_HEADER_BYTES: usize = 64;
const FILTER_HEADER_BYTES: usize = 32;
/// Hashes that one look-up reads: 4 KiB.
const BLOCK_ENTRIES: usize = 256;

/// A run whose bytes are at hand.
#[derive(Clone, Debug)]
pub struct Run {
    bytes: Bytes,
    entries: usize,
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn header_checked(file: &FileRef, bytes: &[u8], magic: [u8; 4], header_bytes: usize) -> Result<(), StorageError> {
    if bytes.len() < header_bytes || bytes[..4] != magic {
        return Err(StorageError::damaged(&file.name, 0, "not a file of this kind"));
    }
    let version = u32::from_le_bytes(word(bytes, 4));
    if version != VERSION {
        return Err(StorageError::Version { path: (&file.name).into(), found: version, known: VERSION });
    }
    Ok(())
}

/// Bytes of a run file. `entries` are in order, no hash twice.
pub fn encode_run(entries: &[Entry]) -> Vec<u8> {
    let (oldest, newest) = seconds_of(entries);
    let mut out = Vec::with_capacity(RUN_HEADER_BYTES + size_of_val(entries));
    out.extend_from_slice(&RUN_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    out.extend_from_slice(&oldest.to_le_bytes());
    out.extend_from_slice(&newest.to_le_bytes());
    out.resize(RUN_HEADER_BYTES, 0);
    entries.iter().for_each(|e| out.extend_from_slice(&{ e.hash }.to_le_bytes()));
    entries.iter().for_each(|e| out.extend_from_slice(&{ e.second }.to_le_bytes()));
    out
}

/// Oldest and newest arrival.
pub fn seconds_of(entries: &[Entry]) -> (u32, u32) {
    entries.iter().fold((u32::MAX, 0), |(oldest, newest), e| (oldest.min(e.second), newest.max(e.second)))
}

impl Run {
    /// # Errors
    /// Bytes that are not a run of this version.
    pub fn open(file: &FileRef, bytes: Bytes) -> Result<Self, StorageError> {
        header_checked(file, &bytes, RUN_MAGIC, RUN_HEADER_BYTES)?;
        let entries = u64::from_le_bytes(word(&bytes, 8));
        let expected = entries.checked_mul(size_of::<Entry>() as u64).and_then(|b| b.checked_add(RUN_HEADER_BYTES as u64));
        if expected != Some(bytes.len() as u64) {
            return Err(StorageError::damaged(&file.name, 8, format!("{entries} entries do not make {} bytes", bytes.len())));
        }
        let run = Self { entries: entries as usize, bytes };
        if let Some(at) = (1..run.entries).find(|&i| run.hash(i - 1) >= run.hash(i)) {
            return Err(StorageError::damaged(&file.name, (RUN_HEADER_BYTES + at * 16) as u64, "hashes are not in order"));
        }
        Ok(run)
    }

    pub fn len(&self) -> usize {
        self.entries
    }

    #[inline]
    fn hash(&self, index: usize) -> u128 {
        u128::from_le_bytes(word(&self.bytes, RUN_HEADER_BYTES + index * 16))
    }

    fn second(&self, index: usize) -> u32 {
        u32::from_le_bytes(word(&self.bytes, RUN_HEADER_BYTES + self.entries * 16 + index * 4))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry> + '_ {
        (0..self.entries).map(|i| Entry { hash: self.hash(i), second: self.second(i) })
    }
}

/// The half of a hash that filters are made of.
pub fn filter_key(hash: u128) -> u64 {
    (hash >> 64) as u64
}

/// Those of entries in order, each once.
pub fn filter_keys(entries: impl ExactSizeIterator<Item = Entry>) -> Vec<u64> {
    let mut keys = Vec::with_capacity(entries.len());
    keys.extend(entries.map(|e| filter_key(e.hash)));
    keys.dedup();
    keys
}

/// `None` when none can be made; then the run is searched without one.
pub fn build_filter(keys: &[u64]) -> Option<BinaryFuse8> {
    BinaryFuse8::try_from(keys).ok()
}

pub fn encode_filter(filter: &BinaryFuse8) -> Vec<u8> {
    let d = &filter.descriptor;
    let mut out = Vec::with_capacity(FILTER_HEADER_BYTES + filter.fingerprints.len());
    out.extend_from_slice(&FILTER_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&d.seed.to_le_bytes());
    for n in [d.segment_length, d.segment_length_mask, d.segment_count_length, filter.fingerprints.len() as u32] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.extend_from_slice(&filter.fingerprints);
    out
}

/// # Errors
/// Bytes that are not a filter of this version, or one whose probes would leave its fingerprints.
pub fn decode_filter(file: &FileRef, bytes: &[u8]) -> Result<BinaryFuse8, StorageError> {
    header_checked(file, bytes, FILTER_MAGIC, FILTER_HEADER_BYTES)?;
    let [segment_length, segment_length_mask, segment_count_length, length] =
        [16, 20, 24, 28].map(|at| u32::from_le_bytes(word(bytes, at)));
    let fingerprints = &bytes[FILTER_HEADER_BYTES..];
    // A probe lies below the count length, plus at most two segments, each with its low bits turned within one segment.
    let reach = u64::from(segment_count_length) + 2 * u64::from(segment_length);
    let consistent = segment_length.is_power_of_two()
        && segment_length_mask == segment_length - 1
        && segment_count_length >= segment_length
        && segment_count_length.is_multiple_of(segment_length)
        && fingerprints.len() == length as usize
        && reach <= u64::from(length);
    if !consistent {
        return Err(StorageError::damaged(&file.name, 16, "the filter's parts do not fit together"));
    }
    let descriptor = Descriptor { seed: u64::from_le_bytes(word(bytes, 8)), segment_length, segment_length_mask, segment_count_length };
    Ok(BinaryFuse8 { descriptor, fingerprints: fingerprints.into() })
}

/// A run that is no longer in memory: the first hash of every block is, and a look-up reads one block in place.
#[derive(Clone)]
pub struct ColdRun {
    name: String,
    file: Arc<dyn ReadAt>,
    entries: usize,
    firsts: Vec<u128>,
    filter: Option<BinaryFuse8>,
}

impl fmt::Debug for ColdRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ColdRun({}: {} entries)", self.name, self.entries)
    }
}

impl ColdRun {
    /// `run` was read and checked; from now on `file`, the same bytes, is read.
    pub fn new(stored: &FileRef, run: &Run, file: Arc<dyn ReadAt>, filter: Option<BinaryFuse8>) -> Self {
        let firsts = (0..run.entries).step_by(BLOCK_ENTRIES).map(|i| run.hash(i)).collect();
        Self { name: stored.name.clone(), file, entries: run.entries, firsts, filter }
    }

    /// Arrival of `hash`.
    ///
    /// # Errors
    /// The disk's.
    #[inline]
    pub fn find(&self, hash: u128) -> Result<Option<u32>, StorageError> {
        if self.filter.as_ref().is_some_and(|f| !f.contains(&filter_key(hash))) {
            return Ok(None);
        }
        self.find_in_block(hash).map_err(|e| StorageError::io("read", &self.name, e))
    }

    #[cold]
    fn find_in_block(&self, hash: u128) -> io::Result<Option<u32>> {
        let Some(block) = self.firsts.partition_point(|first| *first <= hash).checked_sub(1) else { return Ok(None) };
        let start = block * BLOCK_ENTRIES;
        let count = BLOCK_ENTRIES.min(self.entries - start);
        let mut buffer = [0; BLOCK_ENTRIES * 16];
        let hashes = &mut buffer[..count * 16];
        self.file.read_exact_at(hashes, (RUN_HEADER_BYTES + start * 16) as u64)?;
        let hashes: &[[u8; 16]] = hashes.as_chunks().0;
        let Ok(at) = hashes.binary_search_by_key(&hash, |bytes| u128::from_le_bytes(*bytes)) else { return Ok(None) };
        let mut second = [0; 4];
        self.file.read_exact_at(&mut second, (RUN_HEADER_BYTES + self.entries * 16 + (start + at) * 4) as u64)?;
        Ok(Some(u32::from_le_bytes(second)))
    }

    pub fn filter_bytes(&self) -> usize {
        self.filter.as_ref().map_or(0, |f| f.fingerprints.len())
    }

    /// The filter and the first hashes.
    pub fn memory_bytes(&self) -> usize {
        self.filter_bytes() + self.firsts.capacity() * size_of::<u128>()
    }
}
