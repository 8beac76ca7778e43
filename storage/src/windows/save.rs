//! The windows on disk: new blocks go together into immutable files, open rows into one of their own, and a manifest says where each lies.
//!
//! A `blocks` file is a 16-byte header (magic `TMWB`, version `u32`, zeroes) and blocks at 16-aligned offsets. An `open` file is such a header
//! (magic `TMWO`) and the rkyv archive of the open hours. Both rely on the length and CRC that [`ImmutableFiles`] checks.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rkyv::util::AlignedVec;
use serde::{Deserialize, Serialize};
use tallymesh_protocol::time::{Grain, HOUR_MS};

use super::block::{BLOCK_ALIGN, Block, BlockError};
use super::partition::{Partition, Stored, pick_tier};
use super::{OpenRow, Tail, WindowSettings, WindowStore};
use crate::StorageError;
use crate::files::{FileRef, ImmutableFiles};

/// Version of the manifest and of both kinds of file.
const VERSION: u32 = 1;
const BLOCKS_MAGIC: [u8; 4] = *b"TMWB";
const OPEN_MAGIC: [u8; 4] = *b"TMWO";
const HEADER_BYTES: usize = 16;
/// Blocks of one file, in bytes; the last block may reach over it.
const FILE_BYTES_MAX: usize = 16 << 20;
/// Files of similar size that are rewritten into one at least.
const JOIN_FILES_MIN: usize = 8;
/// Bytes that one save rewrites at most only to have fewer files.
const JOIN_BYTES_MAX: usize = 16 << 20;

/// Where a block lies.
#[derive(Clone)]
pub(super) struct Saved {
    file: Arc<FileRef>,
    offset: u64,
    len: u64,
}

/// A block in its file: index into the manifest's files, offset and length in bytes, folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockEntry(pub u32, pub u64, pub u64, pub bool);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionEntry {
    pub grain: Grain,
    pub start_ms: i64,
    pub last_write_ms: i64,
    /// In their order, which further merges depend on.
    pub blocks: Vec<BlockEntry>,
}

/// All that [`WindowStore::load`] needs besides the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowsManifest {
    pub version: u32,
    pub stamp_ms: i64,
    pub files: Vec<FileRef>,
    pub partitions: Vec<PartitionEntry>,
    pub open: Option<FileRef>,
}

impl WindowsManifest {
    /// Every file that it refers to.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.files.iter().chain(&self.open)
    }
}

/// What a save wrote.
pub struct SavedWindows {
    pub manifest: WindowsManifest,
    places: Vec<Place>,
}

/// Blocks that are read from elsewhere now.
#[derive(Default)]
pub struct Replaced {
    _blocks: Vec<Arc<Block>>,
}

/// Where a block lies now.
struct Place {
    id: u64,
    saved: Saved,
    /// The block in its file, through a new map of it.
    block: Option<Arc<Block>>,
}

impl SavedWindows {
    /// Every file that the saved state refers to, old and new.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.manifest.files()
    }
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct OpenHour {
    hour_ms: i64,
    last_write_ms: i64,
    rows: Vec<OpenRow>,
}

/// A consistent copy of the state, to be written outside any lock.
pub struct WindowsSave {
    stamp_ms: i64,
    partitions: Vec<(Grain, i64, i64, Vec<Stored>)>,
    open: Vec<OpenHour>,
}

impl WindowStore {
    /// Notes what there is to save: shares the blocks, copies the open rows.
    pub fn save_plan(&self) -> WindowsSave {
        let partitions = Grain::ALL.into_iter().flat_map(|grain| {
            self.levels[grain as usize].iter().map(move |(&start_ms, p)| (grain, start_ms, p.last_write_ms, p.blocks.clone()))
        });
        let tails = self.tail_of_hour.values().map(|&t| &self.tails[t]);
        WindowsSave {
            stamp_ms: self.stamp_ms,
            partitions: partitions.collect(),
            open: tails.map(|t| OpenHour { hour_ms: t.hour_ms, last_write_ms: t.last_write_ms, rows: t.rows.clone() }).collect(),
        }
    }

    /// Remembers where the blocks lie that a save has written, once its manifest is durable, and reads them from there from now on: on a disk that maps
    /// files they take memory only as they are used, and memory that the system may take back. Blocks that are gone by now are ignored.
    ///
    /// What is read no more is handed back, to be dropped without a lock: that gives memory back to the system, which takes its time.
    pub fn mark_saved(&mut self, saved: &SavedWindows) -> Replaced {
        let mut replaced = Vec::new();
        let places: BTreeMap<u64, &Place> = saved.places.iter().map(|place| (place.id, place)).collect();
        for stored in self.levels.iter_mut().flat_map(BTreeMap::values_mut).flat_map(|p| &mut p.blocks) {
            if let Some(place) = places.get(&stored.id) {
                stored.saved = Some(place.saved.clone());
                if let Some(block) = &place.block {
                    replaced.push(std::mem::replace(&mut stored.block, block.clone()));
                }
            }
        }
        Replaced { _blocks: replaced }
    }

    /// Reads a saved state. Blocks are slices of the files' bytes; every one is checked here.
    ///
    /// # Errors
    /// The disk's; damage and unknown versions, naming file and offset.
    pub fn load(manifest: &WindowsManifest, settings: WindowSettings, files: &dyn ImmutableFiles) -> Result<Self, StorageError> {
        if manifest.version != VERSION {
            return Err(StorageError::Version { path: "windows manifest".into(), found: manifest.version, known: VERSION });
        }
        let mut store = Self::new(settings);
        store.stamp_ms = manifest.stamp_ms;
        let contents = |f: &FileRef| Ok((Arc::new(f.clone()), read(files, f, BLOCKS_MAGIC)?));
        let contents: Vec<(Arc<FileRef>, Bytes)> = manifest.files.iter().map(contents).collect::<Result<_, StorageError>>()?;
        for entry in &manifest.partitions {
            let mut partition = Partition { blocks: Vec::with_capacity(entry.blocks.len()), last_write_ms: entry.last_write_ms };
            for &BlockEntry(file, offset, len, folded) in &entry.blocks {
                let (file, bytes) = contents
                    .get(file as usize)
                    .ok_or_else(|| StorageError::Invalid(format!("windows manifest: a block of {} lies in no file", entry.start_ms)))?;
                let block = open_block(file, bytes, offset, len)?;
                if (block.grain, block.partition_ms) != (entry.grain, entry.start_ms) {
                    return Err(StorageError::damaged(&file.name, offset, "the block belongs to another partition"));
                }
                let mut stored = store.store(block, folded);
                stored.saved = Some(Saved { file: file.clone(), offset, len });
                partition.blocks.push(stored);
            }
            if partition.blocks.is_empty() || store.levels[entry.grain as usize].insert(entry.start_ms, partition).is_some() {
                return Err(StorageError::Invalid(format!("windows manifest: partition {} is empty or there twice", entry.start_ms)));
            }
        }
        // Checked as a whole, and from now on read through other maps, which the check has not brought into memory.
        let places = store.levels.iter().flat_map(BTreeMap::values).flat_map(|p| &p.blocks).filter_map(|s| s.saved.as_ref());
        let mut maps = Maps::of(places, |file, parts| files.map(file, parts))?;
        for stored in store.levels.iter_mut().flat_map(BTreeMap::values_mut).flat_map(|p| &mut p.blocks) {
            if let Some(block) = stored.saved.as_ref().and_then(|place| maps.next(&stored.block, place)) {
                stored.block = Arc::new(block?);
            }
        }
        if let Some(file) = &manifest.open {
            store.load_open(file, &read(files, file, OPEN_MAGIC)?)?;
        }
        store.idle_check_ms = i64::MIN;
        store.find_due();
        Ok(store)
    }

    fn load_open(&mut self, file: &FileRef, bytes: &Bytes) -> Result<(), StorageError> {
        let damaged = |detail: &str| StorageError::damaged(&file.name, HEADER_BYTES as u64, detail);
        let hours = rkyv::from_bytes::<Vec<OpenHour>, rkyv::rancor::Error>(&bytes[HEADER_BYTES..])
            .map_err(|_| damaged("the archive of open rows is malformed"))?;
        for OpenHour { hour_ms, last_write_ms, rows } in hours {
            let in_range = hour_ms.unsigned_abs() <= 2 * super::TIME_MS_MAX as u64 && hour_ms == Grain::Hour.floor(hour_ms);
            if !in_range || rows.is_empty() || rows.iter().any(|r| i64::from(r.offset_ms) >= HOUR_MS) {
                return Err(damaged("open rows lie outside their hour"));
            }
            if self.tail_of_hour.insert(hour_ms, self.tails.len()).is_some() {
                return Err(damaged("an open hour is there twice"));
            }
            self.open_rows += rows.len();
            self.some_full |= rows.len() >= super::SEAL_ROWS;
            self.tails.push(Tail::new(hour_ms, last_write_ms, rows));
        }
        Ok(())
    }
}

fn header(magic: [u8; 4], capacity: usize) -> AlignedVec<BLOCK_ALIGN> {
    let mut out = AlignedVec::with_capacity(HEADER_BYTES + capacity);
    out.extend_from_slice(&magic);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; HEADER_BYTES - 8]);
    out
}

fn read(files: &dyn ImmutableFiles, file: &FileRef, magic: [u8; 4]) -> Result<Bytes, StorageError> {
    let bytes = files.read(file)?;
    let header = bytes.get(..HEADER_BYTES).ok_or_else(|| StorageError::damaged(&file.name, 0, "the header is cut off"))?;
    if header[..4] != magic {
        return Err(StorageError::damaged(&file.name, 0, "not a file of this kind"));
    }
    let version = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if version != VERSION {
        return Err(StorageError::Version { path: file.name.clone().into(), found: version, known: VERSION });
    }
    Ok(bytes)
}

fn open_block(file: &FileRef, bytes: &Bytes, offset: u64, len: u64) -> Result<Block, StorageError> {
    let end = offset.checked_add(len).filter(|&end| end <= bytes.len() as u64);
    let end = end.ok_or_else(|| StorageError::damaged(&file.name, offset, "the block reaches beyond the file"))?;
    Block::open(bytes.slice(offset as usize..end as usize)).map_err(|error| match error {
        BlockError::Version(found) => StorageError::Version { path: file.name.clone().into(), found, known: super::block::BLOCK_VERSION },
        BlockError::Damaged(detail) => StorageError::damaged(&file.name, offset, detail),
    })
}

impl WindowsSave {
    /// Writes what is not on disk yet. Files of which less than half is still in use are rewritten, as are many small ones, so that neither
    /// space nor names leak.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(self, files: &mut dyn ImmutableFiles) -> Result<SavedWindows, StorageError> {
        let rewritten = self.files_to_rewrite();
        let mut places: Vec<Place> = Vec::new();
        let mut batch: Vec<&Stored> = Vec::new();
        let mut batch_bytes = 0;
        // Pages of a map stay with the process once they were read, as merging reads every block that it merges. Through a new map they count again only
        // when they are read again.
        let kept = self.partitions.iter().flat_map(|(.., blocks)| blocks).filter_map(|stored| stored.saved.as_ref());
        let kept = kept.filter(|place| files.is_mapped(&place.file) && !rewritten.contains(&place.file.name));
        let mut maps = Maps::of(kept, |file, parts| Ok(map_again(files, file, parts)))?;
        for stored in self.partitions.iter().flat_map(|(.., blocks)| blocks) {
            match &stored.saved {
                Some(place) if !rewritten.contains(&place.file.name) => {
                    let block = maps.next(&stored.block, place).transpose()?.map(Arc::new);
                    places.push(Place { id: stored.id, saved: place.clone(), block });
                }
                _ => {
                    batch_bytes += stored.block.bytes().len();
                    batch.push(stored);
                    if batch_bytes >= FILE_BYTES_MAX {
                        write_blocks(files, &std::mem::take(&mut batch), batch_bytes, &mut places)?;
                        batch_bytes = 0;
                    }
                }
            }
        }
        if !batch.is_empty() {
            write_blocks(files, &batch, batch_bytes, &mut places)?;
        }
        let open = if self.open.is_empty() { None } else { Some(files.write("open", &encode_open(&self.open))?) };
        let manifest = self.manifest(&places, open);
        Ok(SavedWindows { manifest, places })
    }

    fn manifest(&self, places: &[Place], open: Option<FileRef>) -> WindowsManifest {
        let by_id: BTreeMap<u64, &Saved> = places.iter().map(|place| (place.id, &place.saved)).collect();
        let mut files: Vec<FileRef> = Vec::new();
        let mut index_of: BTreeMap<&str, u32> = BTreeMap::new();
        let mut partitions = Vec::with_capacity(self.partitions.len());
        for (grain, start_ms, last_write_ms, blocks) in &self.partitions {
            let blocks = blocks.iter().map(|stored| {
                let place = by_id[&stored.id];
                let file = *index_of.entry(&place.file.name).or_insert_with(|| {
                    files.push((*place.file).clone());
                    files.len() as u32 - 1
                });
                BlockEntry(file, place.offset, place.len, stored.folded)
            });
            let blocks = blocks.collect();
            partitions.push(PartitionEntry { grain: *grain, start_ms: *start_ms, last_write_ms: *last_write_ms, blocks });
        }
        WindowsManifest { version: VERSION, stamp_ms: self.stamp_ms, files, partitions, open }
    }

    /// Names of files whose live blocks move into a new one.
    fn files_to_rewrite(&self) -> Vec<String> {
        let mut live: BTreeMap<&FileRef, usize> = BTreeMap::new();
        for place in self.partitions.iter().flat_map(|(.., blocks)| blocks).filter_map(|s| s.saved.as_ref()) {
            *live.entry(&place.file).or_default() += place.len as usize;
        }
        let (wasteful, kept): (Vec<_>, Vec<_>) = live.into_iter().partition(|(file, live)| 2 * *live as u64 <= file.bytes);
        let sizes = kept.iter().enumerate().map(|(at, (_, live))| (*live, at)).collect();
        let joined = pick_tier(sizes, JOIN_FILES_MIN, JOIN_BYTES_MAX / 4, JOIN_BYTES_MAX).unwrap_or_default();
        let names = wasteful.iter().map(|(file, _)| *file).chain(joined.into_iter().map(|at| kept[at].0));
        names.map(|file| file.name.clone()).collect()
    }
}

/// What cannot be mapped again goes on being read through the map that there is.
fn map_again(files: &dyn ImmutableFiles, file: &FileRef, parts: &[(u64, u64)]) -> Vec<Bytes> {
    let mapped = files.map(file, parts);
    mapped.unwrap_or_else(|error| {
        tracing::warn!(file = file.name, %error, "a file of windows could not be mapped again");
        Vec::new()
    })
}

/// Offsets and lengths, in bytes.
type Parts = Vec<(u64, u64)>;

/// Where blocks lie in their files, to be taken in the order in which they were asked for.
struct Maps(BTreeMap<String, std::vec::IntoIter<Bytes>>);

impl Maps {
    fn of<'a>(
        places: impl Iterator<Item = &'a Saved>,
        map: impl Fn(&FileRef, &[(u64, u64)]) -> Result<Vec<Bytes>, StorageError>,
    ) -> Result<Self, StorageError> {
        let mut wanted: BTreeMap<&str, (&FileRef, Parts)> = BTreeMap::new();
        for Saved { file, offset, len } in places {
            wanted.entry(&file.name).or_insert((file, Vec::new())).1.push((*offset, *len));
        }
        let maps = wanted.into_values().map(|(file, parts)| Ok((file.name.clone(), map(file, &parts)?.into_iter())));
        Ok(Self(maps.collect::<Result<_, StorageError>>()?))
    }

    /// The block at the next place asked for; none if its file could not be mapped.
    fn next(&mut self, block: &Block, place: &Saved) -> Option<Result<Block, StorageError>> {
        let bytes = self.0.get_mut(&place.file.name)?.next()?;
        Some(moved(block, &place.file, bytes, place.offset))
    }
}

fn write_blocks(files: &mut dyn ImmutableFiles, batch: &[&Stored], bytes: usize, places: &mut Vec<Place>) -> Result<(), StorageError> {
    let mut out = header(BLOCKS_MAGIC, bytes + BLOCK_ALIGN * batch.len());
    let mut offsets = Vec::with_capacity(batch.len());
    for stored in batch {
        out.resize(out.len().next_multiple_of(BLOCK_ALIGN), 0);
        offsets.push(out.len() as u64);
        out.extend_from_slice(stored.block.bytes());
    }
    let file = Arc::new(files.write("blocks", &out)?);
    drop(out);
    let parts: Parts = offsets.into_iter().zip(batch).map(|(offset, stored)| (offset, stored.block.bytes().len() as u64)).collect();
    for ((stored, (offset, len)), bytes) in batch.iter().zip(&parts).zip(files.map(&file, &parts)?) {
        let block = Some(Arc::new(moved(&stored.block, &file, bytes, *offset)?));
        places.push(Place { id: stored.id, saved: Saved { file: file.clone(), offset: *offset, len: *len }, block });
    }
    Ok(())
}

/// A block where it lies in its file.
fn moved(block: &Block, file: &FileRef, bytes: Bytes, offset: u64) -> Result<Block, StorageError> {
    block.moved_to(bytes).map_err(|_| StorageError::damaged(&file.name, offset, "the block is not where it was written"))
}

fn encode_open(open: &Vec<OpenHour>) -> AlignedVec<BLOCK_ALIGN> {
    let rows: usize = open.iter().map(|h| h.rows.len()).sum();
    let out = header(OPEN_MAGIC, 64 * open.len() + size_of::<OpenRow>() * rows);
    match rkyv::api::high::to_bytes_in::<_, rkyv::rancor::Error>(open, out) {
        Ok(bytes) => bytes,
        // Plain columns into memory: nothing in it can fail but allocation, which aborts.
        Err(error) => unreachable!("encoding open rows: {error}"),
    }
}
