//! What a checkpoint says of each group: all that matters of the records before it, but for the entries that are still live.
//!
//! Layout, little-endian: count `u32`; for each group its number `u16`, flags `u16`, record number `u32`, purged index, first and last live index `u64`
//! each, and the lengths of purge meta, vote and meta `u32` each, followed by their bytes.

use bytes::Bytes;

use super::super::writer::on_disk::GroupOnDisk;

const DAMAGED: u16 = 1;
const PURGED: u16 = 2;
const LIVE: u16 = 4;
const VOTE: u16 = 8;
const META: u16 = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::wal) struct GroupCheckpoint {
    pub group: u16,
    /// Number of its last record so far.
    pub sequence: u32,
    /// It was stopped for damage when this was written.
    pub damaged: bool,
    pub purged: Option<(u64, Bytes)>,
    /// First and last live entry.
    pub live: Option<(u64, u64)>,
    pub vote: Option<Bytes>,
    pub meta: Option<Bytes>,
}

pub(in crate::wal) fn encode<'a>(groups: impl ExactSizeIterator<Item = (&'a u16, &'a GroupOnDisk)>) -> Vec<u8> {
    let mut out = (groups.len() as u32).to_le_bytes().to_vec();
    for (number, group) in groups {
        let flag = |is_set: bool, flag: u16| if is_set { flag } else { 0 };
        let live = group.live();
        let flags = flag(group.pinned_segment.is_some(), DAMAGED)
            | flag(group.purged.is_some(), PURGED)
            | flag(live.is_some(), LIVE)
            | flag(group.vote.is_some(), VOTE)
            | flag(group.meta.is_some(), META);
        let (purged, purge_meta) = group.purged.as_ref().map_or((0, None), |(index, meta)| (*index, Some(meta)));
        let (first, last) = live.unwrap_or_default();
        let parts = [purge_meta, group.vote.as_ref(), group.meta.as_ref()].map(|part| part.map_or(&[][..], |bytes| bytes));
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&group.sequence.to_le_bytes());
        for value in [purged, first, last] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        for part in parts {
            out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        }
        for part in parts {
            out.extend_from_slice(part);
        }
    }
    out
}

/// `None` if the bytes are none of [`encode`]'s.
pub(in crate::wal) fn parse(mut bytes: &[u8]) -> Option<Vec<GroupCheckpoint>> {
    let bytes = &mut bytes;
    let count = u32::from_le_bytes(*take(bytes)?);
    let groups = (0..count).map(|_| parse_group(bytes)).collect::<Option<Vec<_>>>()?;
    bytes.is_empty().then_some(groups)
}

fn parse_group(bytes: &mut &[u8]) -> Option<GroupCheckpoint> {
    let group = u16::from_le_bytes(*take(bytes)?);
    let flags = u16::from_le_bytes(*take(bytes)?);
    let sequence = u32::from_le_bytes(*take(bytes)?);
    let [purged, first, last] = [take(bytes)?, take(bytes)?, take(bytes)?].map(|value| u64::from_le_bytes(*value));
    let lengths = [take(bytes)?, take(bytes)?, take(bytes)?].map(|value| u32::from_le_bytes(*value) as usize);
    let mut part = |at: usize, flag: u16| {
        let (part, rest) = bytes.split_at_checked(lengths[at])?;
        *bytes = rest;
        Some((flags & flag != 0).then(|| Bytes::copy_from_slice(part)))
    };
    let (purge_meta, vote, meta) = (part(0, PURGED)?, part(1, VOTE)?, part(2, META)?);
    let live = (flags & LIVE != 0).then_some((first, last));
    if live.is_some_and(|(first, last)| first > last) {
        return None;
    }
    Some(GroupCheckpoint {
        group,
        sequence,
        damaged: flags & DAMAGED != 0,
        purged: purge_meta.map(|meta| (purged, meta)),
        live,
        vote,
        meta,
    })
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(head)
}
