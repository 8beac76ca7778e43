//! What nodes of a fleet ask each other beside what replicas say. Rare and small questions are JSON with a version; batches of events go as they are.
//!
//! Layout of batches, little-endian: magic `TMFI`, version `u8`, zero to 8, count `u32`, zero to 16; for each part shard `u16`, zero to 4, length `u32`, number of the
//! request `u64` (0 from builds that give none), the bytes, zero to the next multiple of 16, so that a batch is read in place where it arrives.

use bytes::Bytes;
use rkyv::util::AlignedVec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::limits::SHARDS_MAX;

use super::meta::MetaCommand;
use crate::mesh::{AppendError, PartOutcome, SentPart, ShardStatus};
use crate::peer::{Refusal, RefusalCode};

const VERSION: u8 = 1;
const MAGIC: &[u8; 4] = b"TMFI";
const ALIGN: usize = 16;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u8,
    value: T,
}

/// # Errors
/// It cannot be written as JSON.
pub fn to_bytes<T: Serialize>(value: T) -> Result<Bytes, Refusal> {
    let json = serde_json::to_vec(&Versioned { version: VERSION, value });
    json.map(Bytes::from).map_err(|e| Refusal::new(RefusalCode::Failed, e.to_string()))
}

/// # Errors
/// What does not read, or another version.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let read: Versioned<T> = serde_json::from_slice(bytes).map_err(|e| Refusal::new(RefusalCode::Invalid, e.to_string()))?;
    if read.version != VERSION {
        let detail = format!("version {} of what nodes ask each other; this build speaks {VERSION}", read.version);
        return Err(Refusal::new(RefusalCode::Invalid, detail));
    }
    Ok(read.value)
}

/// Questions of kind [`crate::peer::RpcKind::Metadata`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// How do you stand? Answered by [`Beat`].
    Beat,
    /// Answered by [`Proposed`].
    Propose(MetaCommand),
    /// Have you, too, lost the leader of the shard? Answered by a `bool`.
    Lost { shard: u16 },
    /// Stand for election as the shard's leader: its present one hands over. Answered by nothing.
    Stand { shard: u16 },
    /// Let go of the shard's leader, which asks this itself: it hands over the lead of this term to that member. Answered by a `bool`.
    LetGo { shard: u16, term: u64, heir: u64 },
    /// Answered by a [`ShardStatus`] for each replica that the node has.
    Status,
    /// Names of all events that these shards have. Answered by strings.
    EventNames { shards: Vec<u16> },
    /// What the catalogue needs of these shards. Answered by [`crate::mesh::Uses`].
    MetricUses { shards: Vec<u16> },
}

/// What a shard's leader says of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    pub shard: u16,
    pub term: u64,
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    /// That these make up the group is committed. Older builds do not say so, and nothing is removed on their word.
    #[serde(default)]
    pub settled: bool,
}

/// A sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub leads: Vec<Lead>,
    pub leads_metadata: bool,
    /// Its wall clock as it answered, UTC milliseconds.
    #[serde(default)]
    pub wall_ms: i64,
    /// It is on its way out: it should get no more leaders.
    pub leaving: bool,
    pub definitions_version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proposed {
    Done,
    Refused(String),
    /// Ask that one.
    NotLeader(Option<u64>),
    Failed(String),
}

/// What a node knows of replicas of its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    pub shards: Vec<ReplicaReport>,
    /// Settings that its configuration has otherwise than the cluster. None from builds that do not say.
    #[serde(default)]
    pub deviates: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaReport {
    pub status: ShardStatus,
    /// Of the state at `status.applied_index`, for comparison with other replicas; none while it is busy.
    pub checksum: Option<u64>,
}

pub(crate) fn encode_parts(parts: &[SentPart]) -> Bytes {
    let size = ALIGN + parts.iter().map(|part| ALIGN + part.batch.len().next_multiple_of(ALIGN)).sum::<usize>();
    let mut out = AlignedVec::<ALIGN>::with_capacity(size);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, 0, 0, 0]);
    out.extend_from_slice(&(parts.len() as u32).to_le_bytes());
    out.resize(ALIGN, 0);
    for SentPart { shard, request, batch } in parts {
        out.extend_from_slice(&shard.0.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(batch.len() as u32).to_le_bytes());
        out.extend_from_slice(&request.to_le_bytes());
        out.extend_from_slice(batch);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
    }
    Bytes::from_owner(out)
}

/// # Errors
/// What is no such message.
pub(crate) fn decode_parts(bytes: &Bytes) -> Result<Vec<SentPart>, Refusal> {
    let invalid = |detail: &str| Refusal::new(RefusalCode::Invalid, detail);
    let (head, _) = bytes.split_first_chunk::<ALIGN>().ok_or_else(|| invalid("no batches of events"))?;
    if &head[..4] != MAGIC {
        return Err(invalid("no batches of events"));
    }
    if head[4] != VERSION {
        return Err(Refusal::new(RefusalCode::Invalid, format!("version {} of batches; this build speaks {VERSION}", head[4])));
    }
    let count = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    if count > SHARDS_MAX {
        return Err(invalid("more batches than there can be shards"));
    }
    let (mut parts, mut at) = (Vec::with_capacity(count), ALIGN);
    for _ in 0..count {
        let head = bytes.get(at..at + ALIGN).ok_or_else(|| invalid("a batch is cut off"))?;
        let shard = ShardId(u16::from_le_bytes([head[0], head[1]]));
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let begin = at + ALIGN;
        let end = begin.checked_add(length).filter(|end| *end <= bytes.len()).ok_or_else(|| invalid("a batch is cut off"))?;
        let mut request = [0; 8];
        request.copy_from_slice(&head[8..]);
        parts.push(SentPart { shard, request: u64::from_le_bytes(request), batch: bytes.slice(begin..end) });
        at = end.next_multiple_of(ALIGN);
    }
    Ok(parts)
}

/// What became of one part where it was sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireOutcome {
    Counted { counted: u32, duplicates: u32, index: u64 },
    NotLeader { leader: Option<u64> },
    Overloaded { limit_bytes: u64 },
    LogFull { limit_bytes: u64 },
    Timeout { waited_ms: u64 },
    Stopped { detail: String },
    Refused { detail: String },
    Stale { shard_version: u64 },
}

/// # Errors
/// It cannot be written as JSON.
pub fn encode_outcomes(outcomes: &[Result<PartOutcome, AppendError>]) -> Result<Bytes, Refusal> {
    let wire = |outcome: &Result<PartOutcome, AppendError>| match outcome.clone() {
        Ok(PartOutcome { counted, duplicates, index }) => WireOutcome::Counted { counted, duplicates, index },
        Err(AppendError::NotLeader { leader, .. }) => WireOutcome::NotLeader { leader },
        Err(AppendError::Overloaded { limit_bytes, .. }) => WireOutcome::Overloaded { limit_bytes: limit_bytes as u64 },
        Err(AppendError::LogFull { limit_bytes }) => WireOutcome::LogFull { limit_bytes },
        Err(AppendError::Timeout { waited_ms, .. }) => WireOutcome::Timeout { waited_ms },
        Err(AppendError::Stopped { detail, .. }) => WireOutcome::Stopped { detail },
        Err(AppendError::Refused { detail, .. }) => WireOutcome::Refused { detail },
        Err(AppendError::Stale { .. }) => WireOutcome::Stale { shard_version: 0 },
        Err(AppendError::Unreachable { detail, .. }) => WireOutcome::Stopped { detail },
    };
    to_bytes(outcomes.iter().map(wire).collect::<Vec<_>>())
}

/// In the order of the parts of these shards.
///
/// # Errors
/// What does not read, or is not as many.
pub fn decode_outcomes(shards: &[ShardId], bytes: &[u8]) -> Result<Vec<Result<PartOutcome, AppendError>>, Refusal> {
    let read: Vec<WireOutcome> = from_bytes(bytes)?;
    if read.len() != shards.len() {
        return Err(Refusal::new(RefusalCode::Invalid, format!("{} outcomes for {} batches", read.len(), shards.len())));
    }
    let outcome = |(shard, wire): (&ShardId, WireOutcome)| {
        let shard = *shard;
        match wire {
            WireOutcome::Counted { counted, duplicates, index } => Ok(PartOutcome { counted, duplicates, index }),
            WireOutcome::NotLeader { leader } => Err(AppendError::NotLeader { shard, leader }),
            WireOutcome::Overloaded { limit_bytes } => Err(AppendError::Overloaded { shard, limit_bytes: limit_bytes as usize }),
            WireOutcome::LogFull { limit_bytes } => Err(AppendError::LogFull { limit_bytes }),
            WireOutcome::Timeout { waited_ms } => Err(AppendError::Timeout { shard, waited_ms }),
            WireOutcome::Stopped { detail } => Err(AppendError::Stopped { shard, detail }),
            WireOutcome::Refused { detail } => Err(AppendError::Refused { shard, detail }),
            WireOutcome::Stale { .. } => Err(AppendError::Stale { shard }),
        }
    };
    Ok(shards.iter().zip(read).map(outcome).collect())
}

/// Which shards a query asks, and the query ([`tallymesh_protocol::question::wire`]): count `u32`, numbers `u16`, zero to 16, the query.
pub fn encode_query(shards: &[ShardId], query: &[u8]) -> Bytes {
    let mut out = AlignedVec::<ALIGN>::with_capacity(2 * ALIGN + 2 * shards.len() + query.len());
    out.extend_from_slice(&(shards.len() as u32).to_le_bytes());
    shards.iter().for_each(|shard| out.extend_from_slice(&shard.0.to_le_bytes()));
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    out.extend_from_slice(query);
    Bytes::from_owner(out)
}

/// # Errors
/// What is no such message.
pub fn decode_query(bytes: &Bytes) -> Result<(Vec<ShardId>, Bytes), Refusal> {
    let invalid = || Refusal::new(RefusalCode::Invalid, "no query");
    let (count, rest) = bytes.split_first_chunk::<4>().ok_or_else(invalid)?;
    let count = u32::from_le_bytes(*count) as usize;
    if count > SHARDS_MAX || rest.len() < 2 * count {
        return Err(invalid());
    }
    let shards = rest[..2 * count].chunks_exact(2).map(|pair| ShardId(u16::from_le_bytes([pair[0], pair[1]]))).collect();
    let at = (4 + 2 * count).next_multiple_of(ALIGN);
    Ok((shards, bytes.get(at..).map(|_| bytes.slice(at..)).ok_or_else(invalid)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_read_back_in_place_and_what_is_cut_off_is_refused() {
        let part = |shard, request, batch: &'static [u8]| SentPart { shard: ShardId(shard), request, batch: Bytes::from_static(batch) };
        let parts = [part(3, 0, b"seventeen bytes.."), part(9, u64::MAX - 7, b""), part(0, 1, b"x")];
        let bytes = encode_parts(&parts);
        let read = decode_parts(&bytes).expect("own encoding");
        assert_eq!(read, parts);
        assert!(read.iter().all(|part| (part.batch.as_ptr() as usize).is_multiple_of(ALIGN) || part.batch.is_empty()));
        for length in 0..bytes.len() - 16 {
            assert!(decode_parts(&bytes.slice(..length)).is_err(), "{length} of {} bytes", bytes.len());
        }
        let mut other = bytes.to_vec();
        other[4] = 9;
        assert!(decode_parts(&other.into()).is_err_and(|refusal| refusal.detail.contains("version 9")));
    }

    #[test]
    fn outcomes_belong_to_the_shards_that_were_asked() {
        let shards = [ShardId(1), ShardId(2)];
        let outcomes = vec![
            Ok(PartOutcome { counted: 1, duplicates: 2, index: 3 }),
            Err(AppendError::NotLeader { shard: ShardId(2), leader: Some(9) }),
        ];
        let bytes = encode_outcomes(&outcomes).expect("encodes");
        assert_eq!(decode_outcomes(&shards, &bytes).expect("own encoding"), outcomes);
        assert!(decode_outcomes(&shards[..1], &bytes).is_err());
    }

    #[test]
    fn query_reads_back_with_its_shards() {
        let shards: Vec<ShardId> = (0..7).map(ShardId).collect();
        let bytes = encode_query(&shards, b"query");
        assert_eq!(decode_query(&bytes).expect("own encoding"), (shards, Bytes::from_static(b"query")));
        assert!(decode_query(&Bytes::from_static(&[255, 255, 255, 255, 0])).is_err());
    }
}
