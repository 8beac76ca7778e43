//! Segment files: names, creation, reading one record back.

pub(super) mod checkpoint;

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::LogEntry;
use super::format::{self, Kind, NO_GROUP, Place, RecordHead, SEGMENT_HEADER_BYTES};
use crate::StorageError;
use crate::disk::{Disk, DiskFile, temporary_name};

const SUFFIX: &str = ".wal";
const DIGITS: usize = 12;

pub(super) fn path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:0DIGITS$}{SUFFIX}"))
}

/// Numbers of the segments in a directory, ascending.
pub(super) fn numbers(names: &[String]) -> Vec<u64> {
    let number = |name: &String| {
        let digits = name.strip_suffix(SUFFIX)?;
        (digits.len() >= DIGITS && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

pub(super) fn is_temporary(name: &str) -> bool {
    name.strip_suffix(".tmp").is_some_and(|name| name.ends_with(SUFFIX))
}

/// An open segment and its length.
pub(super) struct OpenSegment {
    pub file: Box<dyn DiskFile>,
    pub len: u32,
}

/// Makes a segment with its checkpoint. Its name appears when it is complete and synced: a segment without a checkpoint is a damaged one, and one
/// with a successor was synced to its end.
pub(super) fn create(disk: &dyn Disk, dir: &Path, segment: u64, checkpoint: &[u8]) -> Result<OpenSegment, StorageError> {
    let path = path(dir, segment);
    let temporary = temporary_name(&path);
    let mut bytes = format::segment_header(segment).to_vec();
    let place = Place { segment, offset: SEGMENT_HEADER_BYTES as u32 };
    format::encode(&mut bytes, place, &checkpoint_head(place.offset), &[], checkpoint);
    let make = || {
        let mut file = disk.create(&temporary)?;
        file.append(&bytes)?;
        file.sync()?;
        disk.rename(&temporary, &path)?;
        disk.sync_dir(dir)?;
        Ok(file)
    };
    let file = make().map_err(|e| StorageError::io("make", &path, e))?;
    Ok(OpenSegment { file, len: bytes.len() as u32 })
}

/// A checkpoint is only ever written when all before it is synced.
pub(super) fn checkpoint_head(offset: u32) -> RecordHead {
    RecordHead { kind: Kind::Checkpoint, group: NO_GROUP, index: 0, synced: offset, sequence: 0 }
}

/// The entry at a place, checked; its body is 16-aligned.
pub(super) fn read_entry(disk: &dyn Disk, dir: &Path, place: Place, len: u32, index: u64) -> Result<LogEntry, StorageError> {
    let path = path(dir, place.segment);
    let bytes = disk.read_at(&path, u64::from(place.offset), len as usize).map_err(|e| StorageError::io("read", &path, e))?;
    let damaged = |detail: &str| StorageError::damaged(&path, u64::from(place.offset), detail);
    let record = format::parse(&bytes, place).map_err(|bad| damaged(bad.detail))?;
    if record.head.kind != Kind::Append || record.head.index != index {
        return Err(damaged("another record is in the place of this entry"));
    }
    let slice = |part: &[u8]| if part.is_empty() { Bytes::new() } else { bytes.slice_ref(part) };
    Ok(LogEntry { index, meta: slice(record.meta), body: slice(record.body) })
}
