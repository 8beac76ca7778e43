//! What nodes ask each other, and answer: `ShardQuery -> bytes -> ShardQuery`, and the answers of several shards back the same way.
//!
//! Little-endian: magic `TMQA`, version `u16`, kind `u16` (1 a query, 2 answers), length of the body `u32`, four zeroes; then the body as rkyv bytes. A body is made
//! of columns, so that an answer is a few long runs of numbers whatever the number of its cells, and columns that say nothing are left empty. The transport has
//! a checksum of its own.
//!
//! Bytes are checked before they are believed: layout, lengths, offsets, limits, and that counts cannot overflow when many shards are added up. What is read takes a
//! small multiple of the bytes that it came as.

mod answer;
mod cells;
mod groups;
mod pieces;
mod query;

use bytes::Bytes;
use rkyv::api::high::{HighSerializer, HighValidator, to_bytes_in};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Portable, Serialize};

use crate::error::Problem;
use crate::hash::ShardId;
use crate::limits::{SHARDS_MAX, WIRE_ANSWERS_BYTES_MAX, WIRE_QUERY_BYTES_MAX};
use crate::question::answer::PartialAnswer;
use crate::question::query::ShardQuery;

const MAGIC: [u8; 4] = *b"TMQA";
const VERSION: u16 = 1;
const ALIGN: usize = 16;
const HEADER_BYTES: usize = 16;

/// What a shard has to say to a query.
pub type ShardResult = Result<PartialAnswer, Problem>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("neither a query nor answers between nodes")]
    Magic,
    #[error("version {0} of queries between nodes is not known here (this build reads {VERSION})")]
    Version(u16),
    #[error("a query or answers between nodes are damaged: {0}")]
    Damaged(&'static str),
    #[error("too large to go between nodes: {size} {what}, at most {limit}")]
    TooLarge { what: &'static str, size: usize, limit: usize },
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
enum Kind {
    Query = 1,
    Answers = 2,
}

impl Kind {
    const fn bytes_max(self) -> usize {
        match self {
            Self::Query => WIRE_QUERY_BYTES_MAX,
            Self::Answers => WIRE_ANSWERS_BYTES_MAX,
        }
    }
}

/// # Errors
/// [`WireError::TooLarge`]; see [`crate::limits`].
pub fn encode_query(query: &ShardQuery) -> Result<Bytes, WireError> {
    let body = query::WireQuery::of(query)?;
    frame(Kind::Query, &body, body.bytes_estimate())
}

/// From bytes of any alignment.
///
/// # Errors
/// See [`WireError`]; hostile bytes do no harm.
pub fn decode_query(bytes: &[u8]) -> Result<ShardQuery, WireError> {
    let mut copy = AlignedVec::new();
    access::<query::ArchivedWireQuery>(Kind::Query, bytes, &mut copy)?.read()
}

/// # Errors
/// [`WireError::TooLarge`]: one or several messages with fewer shards may do.
pub fn encode_answers(answers: &[(ShardId, ShardResult)]) -> Result<Bytes, WireError> {
    at_most("shards", answers.len(), SHARDS_MAX)?;
    let body = answer::WireAnswers::of(answers)?;
    frame(Kind::Answers, &body, body.bytes_estimate())
}

/// From bytes of any alignment. No shard is there twice, and cells name groups that there are; whether groups and steps are those of a query is seen by
/// [`PartialAnswer::fits`].
///
/// # Errors
/// See [`WireError`]; hostile bytes do no harm.
pub fn decode_answers(bytes: &[u8]) -> Result<Vec<(ShardId, ShardResult)>, WireError> {
    let mut copy = AlignedVec::new();
    access::<answer::ArchivedWireAnswers>(Kind::Answers, bytes, &mut copy)?.read()
}

fn at_most(what: &'static str, size: usize, limit: usize) -> Result<(), WireError> {
    if size > limit { Err(WireError::TooLarge { what, size, limit }) } else { Ok(()) }
}

/// `estimate` is looked at before the bytes are made; they are a little more.
fn frame<T>(kind: Kind, body: &T, estimate: usize) -> Result<Bytes, WireError>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec<ALIGN>, ArenaHandle<'a>, rancor::Error>>,
{
    at_most("bytes", estimate, kind.bytes_max())?;
    let mut out = AlignedVec::<ALIGN>::with_capacity(HEADER_BYTES + estimate + 1_024);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(kind as u16).to_le_bytes());
    out.resize(HEADER_BYTES, 0);
    let mut out = match to_bytes_in::<_, rancor::Error>(body, out) {
        Ok(bytes) => bytes,
        // Plain columns into memory, far below what its offsets reach.
        Err(error) => unreachable!("encoding columns: {error}"),
    };
    let length = out.len() - HEADER_BYTES;
    at_most("bytes", length, kind.bytes_max())?;
    out[8..12].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(Bytes::from_owner(out))
}

/// The body in place, or in `copy` when it is not aligned.
fn access<'b, A>(kind: Kind, bytes: &'b [u8], copy: &'b mut AlignedVec<ALIGN>) -> Result<&'b A, WireError>
where
    A: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>,
{
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(WireError::Magic)?;
    if header[..4] != MAGIC {
        return Err(WireError::Magic);
    }
    let version = u16::from_le_bytes([header[4], header[5]]);
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    if header[6..8] != (kind as u16).to_le_bytes() {
        return Err(WireError::Damaged("of another kind"));
    }
    at_most("bytes", body.len(), kind.bytes_max())?;
    let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if length as usize != body.len() || header[12..] != [0; 4] {
        return Err(WireError::Damaged("of another length than stated"));
    }
    let body = if (body.as_ptr() as usize).is_multiple_of(ALIGN) {
        body
    } else {
        copy.extend_from_slice(body);
        copy
    };
    rkyv::access::<A, rancor::Error>(body).map_err(|_| WireError::Damaged("layout"))
}

#[cfg(test)]
mod tests;
