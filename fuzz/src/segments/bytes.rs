//! Segment files as bytes, their checksums made right where the input asks for it: recovery must cope with whatever a checksum vouches for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tallymesh_storage::StorageError;

use super::{DIR, disk_of, found, open};
use crate::input::Input;
use crate::memory::peak_of;

const FILES_MAX: usize = 4;
const HEADER_BYTES: usize = 32;
const RECORD_BYTES: usize = 48;
/// Memory of recovering files, beside a share for each of their bytes.
const MEMORY_BYTES_MAX: usize = 4 << 20;
const MEMORY_FACTOR_MAX: usize = 100;

/// For each file: flags (1 mend the segment header, 2 the records' headers, 4 their payload checksums, 8 skip a number), its length, its bytes.
pub(super) fn run(mut input: Input<'_>) {
    let mut files = BTreeMap::new();
    let mut number = 0;
    while !input.is_empty() && files.len() < FILES_MAX {
        let flags = input.byte();
        let length = input.short();
        let mut bytes = input.take(length).to_vec();
        number += 1 + u64::from(flags >> 3 & 1);
        mend(&mut bytes, number, flags);
        files.insert(Path::new(DIR).join(format!("{number:012}.wal")), bytes);
    }
    check(&files);
}

/// An independent writer of the format's checksums and places.
fn mend(bytes: &mut [u8], number: u64, flags: u8) {
    if flags & 1 == 1 && bytes.len() >= HEADER_BYTES {
        bytes[..8].copy_from_slice(b"TMWL\x01\0\0\0");
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..16]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    }
    let mut at = HEADER_BYTES;
    while flags & 6 != 0 && at + RECORD_BYTES <= bytes.len() {
        let record = &mut bytes[at..];
        let claimed = u32::from_le_bytes([record[0], record[1], record[2], record[3]]) as usize;
        let length = claimed.clamp(RECORD_BYTES, record.len());
        if flags & 4 == 4 {
            let crc = crc32fast::hash(&record[RECORD_BYTES..length]);
            record[8..12].copy_from_slice(&crc.to_le_bytes());
        }
        if flags & 2 == 2 {
            record[36..40].copy_from_slice(&(at as u32).to_le_bytes());
            record[40..48].copy_from_slice(&number.to_le_bytes());
            let covered = [&record[..4], &record[8..RECORD_BYTES]].concat();
            record[4..8].copy_from_slice(&crc32fast::hash(&covered).to_le_bytes());
        }
        at += length.next_multiple_of(16);
    }
}

fn check(files: &BTreeMap<PathBuf, Vec<u8>>) {
    let disk = disk_of(files);
    let total: usize = files.values().map(Vec::len).sum();
    let (opened, peak) = peak_of(|| open(&disk));
    assert!(peak <= MEMORY_BYTES_MAX + MEMORY_FACTOR_MAX * total, "{peak} bytes of memory for {total} bytes of log");
    let first = match opened {
        Ok(first) => first,
        // Both are said, with the file, and nothing was touched.
        Err(StorageError::Version { .. }) => return assert_eq!(&disk.files(), files),
        Err(StorageError::Invalid(_)) => return,
        Err(other) => panic!("{other}"),
    };
    let groups: Vec<u16> = first.recovered.groups.iter().copied().chain([1]).collect();
    let states = found(&first.wal, groups.iter().copied());
    for damage in &first.recovered.damage {
        assert!(damage.groups.iter().all(|group| states[group].is_none()), "{damage:?} stopped a group that goes on");
    }
    drop(first);
    let again = open(&disk).unwrap_or_else(|e| panic!("opened once, not again: {e}"));
    assert_eq!(found(&again.wal, groups), states, "after another restart");
    assert_eq!(again.recovered.torn, None);
}
