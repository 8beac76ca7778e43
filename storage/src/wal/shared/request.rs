//! What callers ask for: when it may be taken, and what it changes in memory at once.

use bytes::Bytes;

use super::super::format::{NO_INDEX, record_bytes};
use super::super::{Done, LogEntry, RECORD_BYTES_MAX, SMALL_BYTES_MAX};
use super::index::{GroupIndex, Slot};
use crate::StorageError;

pub(in crate::wal) enum Op {
    Append(Vec<LogEntry>),
    Truncate {
        from: u64,
    },
    Purge {
        upto: u64,
        meta: Bytes,
    },
    Forget,
    Vote(Bytes),
    Meta(Bytes),
    /// Nothing to write, but told in its turn.
    Nothing,
}

impl Op {
    pub fn records(&self) -> usize {
        match self {
            Self::Append(entries) => entries.len(),
            Self::Nothing => 0,
            _ => 1,
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::Append(entries) => entries.iter().map(|e| record_bytes(e.meta.len(), e.body.len())).sum(),
            Self::Purge { meta: small, .. } | Self::Vote(small) | Self::Meta(small) => record_bytes(small.len(), 0),
            Self::Truncate { .. } | Self::Forget => record_bytes(0, 0),
            Self::Nothing => 0,
        }
    }
}

pub(in crate::wal) struct Request {
    pub group: u16,
    /// Number of its first record within the group.
    pub sequence: u32,
    pub op: Op,
    pub bytes: usize,
    pub done: Done,
}

/// Whether the request may be taken, and what it comes down to.
pub(super) fn check(index: &GroupIndex, group: u16, op: Op) -> Result<Op, StorageError> {
    let refuse = |detail: String| Err(StorageError::Invalid(format!("group {group}: {detail}")));
    match &op {
        Op::Append(entries) => {
            let mut next = index.next_index();
            for entry in entries {
                if let Some(next) = next.filter(|&next| next != entry.index) {
                    return refuse(format!("entry {} appended where {next} comes next", entry.index));
                }
                let bytes = record_bytes(entry.meta.len(), entry.body.len());
                if bytes > RECORD_BYTES_MAX {
                    return refuse(format!("entry {} takes {bytes} bytes, at most {RECORD_BYTES_MAX}", entry.index));
                }
                next = Some(entry.index.wrapping_add(1));
            }
            Ok(if entries.is_empty() { Op::Nothing } else { op })
        }
        Op::Truncate { from } => match (&index.purged, index.entries()) {
            (Some((upto, _)), _) if from <= upto => refuse(format!("truncated from {from}, but entries up to {upto} are purged")),
            (_, Some((_, last))) if *from <= last => Ok(op),
            _ => Ok(Op::Nothing),
        },
        Op::Purge { upto: NO_INDEX, .. } => refuse(format!("no entry has the index {NO_INDEX}")),
        Op::Forget if index.entries().is_none() && index.purged.is_none() => Ok(Op::Nothing),
        Op::Purge { upto, .. } if index.purged.as_ref().is_some_and(|(purged, _)| upto <= purged) => Ok(Op::Nothing),
        Op::Purge { meta: small, .. } | Op::Vote(small) | Op::Meta(small) if small.len() > SMALL_BYTES_MAX => {
            refuse(format!("a vote, purge mark or meta of {} bytes, at most {SMALL_BYTES_MAX}", small.len()))
        }
        _ => Ok(op),
    }
}

/// What reads see from now on.
pub(super) fn take_effect(index: &mut GroupIndex, sequence: u32, op: &Op) {
    match op {
        Op::Append(entries) => {
            for (entry, nth) in entries.iter().zip(0_u32..) {
                let (meta, body) = (entry.meta.clone(), entry.body.clone());
                let len = record_bytes(meta.len(), body.len()) as u32;
                index.append(entry.index, Slot { sequence: sequence.wrapping_add(nth), len, place: None, kept: Some((meta, body)) });
            }
        }
        Op::Truncate { from } => index.truncate(*from),
        Op::Purge { upto, meta } => index.purge(*upto, meta.clone()),
        Op::Forget => index.forget(),
        Op::Vote(vote) => index.vote = Some(vote.clone()),
        Op::Meta(meta) => index.meta = Some(meta.clone()),
        Op::Nothing => {}
    }
}
