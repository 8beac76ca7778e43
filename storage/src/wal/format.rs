//! The bytes of a segment, little-endian, everything 16-aligned.
//!
//! Segment header, 32 bytes: magic `TMWL`, version `u32`, number `u64`, CRC-32 of these `u32`, zeroes. Then records, the first a checkpoint:
//!
//! | at | | |
//! |---|---|---|
//! | 0 | `u32` | length of the whole record, a multiple of 16 |
//! | 4 | `u32` | CRC-32 of the header but for this field |
//! | 8 | `u32` | CRC-32 of the payload with its padding |
//! | 12 | `u8` | kind |
//! | 13 | `u8` | zero bytes behind the body |
//! | 14 | `u16` | group |
//! | 16 | `u64` | index |
//! | 24 | `u32` | length of the meta |
//! | 28 | `u32` | up to where the segment had been synced when this was written |
//! | 32 | `u32` | number of the record within its group, from 1, wrapping |
//! | 36 | `u32`, `u64` | offset and segment of the record itself: bytes of a body that look like a record are not taken for one |
//! | 48 | | meta, zeroes to the next multiple of 16, body, zeroes |
//!
//! A purge up to [`NO_INDEX`] without a meta leaves no mark either: the group has no log any more. Builds that do not know that find a mark that does not read
//! back, as long as the record is there, and stop this one group.

use std::fmt;

use super::RECORD_BYTES_MAX;

pub(super) const VERSION: u32 = 1;
pub(super) const SEGMENT_HEADER_BYTES: usize = 32;
pub(super) const RECORD_HEADER_BYTES: usize = 48;
pub(super) const ALIGN: usize = 16;
/// The group of checkpoints, which concern all; in checkpoints and in memory it stands for every group of which nothing is known.
pub(super) const NO_GROUP: u16 = u16::MAX;

/// No entry has it.
pub(super) const NO_INDEX: u64 = u64::MAX;

const MAGIC: [u8; 4] = *b"TMWL";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Append = 1,
    Truncate = 2,
    Purge = 3,
    Vote = 4,
    Meta = 5,
    Checkpoint = 6,
}

impl Kind {
    fn parse(byte: u8) -> Option<Self> {
        [Self::Append, Self::Truncate, Self::Purge, Self::Vote, Self::Meta, Self::Checkpoint].into_iter().find(|k| *k as u8 == byte)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: u64,
    pub offset: u32,
}

/// A record's header but for its length, place and checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub kind: Kind,
    pub group: u16,
    pub index: u64,
    pub synced: u32,
    pub sequence: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub head: RecordHead,
    /// Of the whole record.
    pub len: usize,
    pub meta: &'a [u8],
    pub body: &'a [u8],
}

/// Why there is no record. If its header could be trusted, what it was and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadRecord {
    pub detail: &'static str,
    pub known: Option<(RecordHead, usize)>,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadSegmentHeader {
    Damaged(&'static str),
    Version(u32),
}

pub(super) fn segment_header(segment: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&segment.to_le_bytes());
    let crc = crc32fast::hash(&header[..16]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    header
}

pub(super) fn check_segment_header(bytes: &[u8], segment: u64) -> Result<(), BadSegmentHeader> {
    let header: &[u8; SEGMENT_HEADER_BYTES] = bytes.first_chunk().ok_or(BadSegmentHeader::Damaged("the segment header is cut off"))?;
    if header[..4] != MAGIC || u32_at(header, 16) != crc32fast::hash(&header[..16]) {
        return Err(BadSegmentHeader::Damaged("the segment header's checksum is wrong"));
    }
    match u32_at(header, 4) {
        VERSION if u64_at(header, 8) == segment => Ok(()),
        VERSION => Err(BadSegmentHeader::Damaged("the segment header has another segment's number")),
        version => Err(BadSegmentHeader::Version(version)),
    }
}

/// Bytes of a whole record.
pub(super) fn record_bytes(meta: usize, body: usize) -> usize {
    RECORD_HEADER_BYTES + meta.next_multiple_of(ALIGN) + body.next_multiple_of(ALIGN)
}

/// Appends a record to `out`; it must fit [`RECORD_BYTES_MAX`].
pub(super) fn encode(out: &mut Vec<u8>, place: Place, head: &RecordHead, meta: &[u8], body: &[u8]) {
    let start = out.len();
    let len = record_bytes(meta.len(), body.len());
    debug_assert!(len <= RECORD_BYTES_MAX);
    out.reserve(len);
    out.resize(start + RECORD_HEADER_BYTES, 0);
    out.extend_from_slice(meta);
    out.resize(out.len() + (meta.len().next_multiple_of(ALIGN) - meta.len()), 0);
    out.extend_from_slice(body);
    let padding = body.len().next_multiple_of(ALIGN) - body.len();
    out.resize(out.len() + padding, 0);

    let (header, payload) = out[start..].split_at_mut(RECORD_HEADER_BYTES);
    header[..4].copy_from_slice(&(len as u32).to_le_bytes());
    header[8..12].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    header[12] = head.kind as u8;
    header[13] = padding as u8;
    header[14..16].copy_from_slice(&head.group.to_le_bytes());
    header[16..24].copy_from_slice(&head.index.to_le_bytes());
    header[24..28].copy_from_slice(&(meta.len() as u32).to_le_bytes());
    header[28..32].copy_from_slice(&head.synced.to_le_bytes());
    header[32..36].copy_from_slice(&head.sequence.to_le_bytes());
    header[36..40].copy_from_slice(&place.offset.to_le_bytes());
    header[40..48].copy_from_slice(&place.segment.to_le_bytes());
    let crc = header_crc(header);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn header_crc(header: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..4]);
    crc.update(&header[8..RECORD_HEADER_BYTES]);
    crc.finalize()
}

/// The record at the start of `bytes`, which are those of the segment from `place` on.
pub(super) fn parse(bytes: &[u8], place: Place) -> Result<Record<'_>, BadRecord> {
    let unknown = |detail| BadRecord { detail, known: None };
    let header: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk().ok_or_else(|| unknown("the record's header is cut off"))?;
    if u32_at(header, 36) != place.offset || u64_at(header, 40) != place.segment {
        return Err(unknown("no record starts here"));
    }
    if u32_at(header, 4) != header_crc(header) {
        return Err(unknown("the record header's checksum is wrong"));
    }
    let (len, meta_len, padding) = (u32_at(header, 0) as usize, u32_at(header, 24) as usize, header[13] as usize);
    let kind = Kind::parse(header[12]).ok_or_else(|| unknown("the record's kind is not known"))?;
    let head = RecordHead {
        kind,
        group: u16::from_le_bytes([header[14], header[15]]),
        index: u64_at(header, 16),
        synced: u32_at(header, 28),
        sequence: u32_at(header, 32),
    };
    let body_start = RECORD_HEADER_BYTES + meta_len.next_multiple_of(ALIGN);
    let shape_holds = len.is_multiple_of(ALIGN) && len <= RECORD_BYTES_MAX && padding < ALIGN && body_start + padding <= len;
    if !shape_holds {
        return Err(unknown("the record's lengths contradict each other"));
    }
    let known = Some((head, len));
    let record = bytes.get(..len).ok_or(BadRecord { detail: "the record is cut off", known })?;
    if u32_at(header, 8) != crc32fast::hash(&record[RECORD_HEADER_BYTES..]) {
        return Err(BadRecord { detail: "the record's checksum is wrong", known });
    }
    let meta = &record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + meta_len];
    Ok(Record { head, len, meta, body: &record[body_start..len - padding] })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
