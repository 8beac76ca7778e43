//! What replicas say to each other, as bytes.
//!
//! Little-endian: magic `TMR`, version `u8`, length of the head `u32`, zero to 16 bytes; the head as rkyv bytes; then, each at a multiple of 16, the bodies of the
//! entries, so that a batch is read in place where it arrives. What an entry's meta and body are is the log's format ([`super::super::codec`]): a follower's log
//! holds the bytes of the leader's.

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{Snapshot, SnapshotMeta, Vote};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use tallymesh_storage::StorageError;
use tallymesh_storage::wal::LogEntry;

use super::super::{LogId, Peer, ShardRaft, ShardSnapshot, codec};

const MAGIC: &[u8; 3] = b"TMR";
const VERSION: u8 = 1;
const ALIGN: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error("no message of replicas")]
    NoMessage,
    #[error("version {0} of what replicas say; this build speaks {VERSION}")]
    Version(u8),
    #[error("a message of replicas does not read: {0}")]
    Damaged(String),
    #[error(transparent)]
    Entry(#[from] StorageError),
}

#[derive(Clone, Copy, Archive, Serialize, Deserialize)]
struct WireVote {
    term: u64,
    voted_for: u64,
    has_voted_for: bool,
    committed: bool,
}

#[derive(Clone, Copy, Archive, Serialize, Deserialize)]
struct WireLogId {
    term: u64,
    index: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct WireEntry {
    index: u64,
    meta: Vec<u8>,
    at: u64,
    bytes: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct WireAppend {
    vote: WireVote,
    prev: Option<WireLogId>,
    commit: Option<WireLogId>,
    entries: Vec<WireEntry>,
}

/// `outcome`: 0 success, 1 partial success up to `log`, 2 conflict, 3 higher vote.
#[derive(Archive, Serialize, Deserialize)]
struct WireAppendAnswer {
    outcome: u8,
    log: Option<WireLogId>,
    vote: Option<WireVote>,
}

#[derive(Archive, Serialize, Deserialize)]
struct WireVoteRequest {
    vote: WireVote,
    last: Option<WireLogId>,
}

#[derive(Archive, Serialize, Deserialize)]
struct WireVoteAnswer {
    vote: WireVote,
    granted: bool,
    last: Option<WireLogId>,
}

/// The meta is rare and small: JSON.
#[derive(Archive, Serialize, Deserialize)]
struct WireSnapshot {
    vote: WireVote,
    meta: Vec<u8>,
    manifest: Vec<u8>,
}

impl From<Vote<u64>> for WireVote {
    fn from(vote: Vote<u64>) -> Self {
        let voted_for = vote.leader_id.voted_for;
        Self { term: vote.leader_id.term, voted_for: voted_for.unwrap_or(0), has_voted_for: voted_for.is_some(), committed: vote.committed }
    }
}

impl From<WireVote> for Vote<u64> {
    fn from(wire: WireVote) -> Self {
        let leader_id = openraft::LeaderId { term: wire.term, voted_for: wire.has_voted_for.then_some(wire.voted_for) };
        Self { leader_id, committed: wire.committed }
    }
}

impl From<LogId> for WireLogId {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<WireLogId> for LogId {
    fn from(wire: WireLogId) -> Self {
        codec::log_id(wire.term, wire.index)
    }
}

fn encode<T>(head: &T, bodies: &[Bytes]) -> Result<Bytes, MessageError>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    let head = rkyv::to_bytes::<rancor::Error>(head).map_err(|e| MessageError::Damaged(e.to_string()))?;
    let size = ALIGN + head.len().next_multiple_of(ALIGN) + bodies.iter().map(|b| b.len().next_multiple_of(ALIGN)).sum::<usize>();
    let mut out = AlignedVec::<ALIGN>::with_capacity(size);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION]);
    out.extend_from_slice(&(head.len() as u32).to_le_bytes());
    out.resize(ALIGN, 0);
    out.extend_from_slice(&head);
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    for body in bodies {
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
    }
    Ok(Bytes::from_owner(out))
}

/// The head, and where the bodies begin.
fn decode<T>(bytes: &Bytes) -> Result<(T, usize), MessageError>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    let (prefix, rest) = bytes.split_first_chunk::<ALIGN>().ok_or(MessageError::NoMessage)?;
    if &prefix[..3] != MAGIC {
        return Err(MessageError::NoMessage);
    }
    if prefix[3] != VERSION {
        return Err(MessageError::Version(prefix[3]));
    }
    let length = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]) as usize;
    let encoded = rest.get(..length).ok_or(MessageError::NoMessage)?;
    let mut aligned = AlignedVec::<ALIGN>::with_capacity(length);
    aligned.extend_from_slice(encoded);
    let head = rkyv::from_bytes::<T, rancor::Error>(&aligned).map_err(|e| MessageError::Damaged(e.to_string()))?;
    Ok((head, ALIGN + length.next_multiple_of(ALIGN)))
}

pub fn encode_append(rpc: AppendEntriesRequest<ShardRaft>) -> Result<Bytes, MessageError> {
    let (mut entries, mut bodies, mut at) = (Vec::with_capacity(rpc.entries.len()), Vec::with_capacity(rpc.entries.len()), 0);
    for entry in rpc.entries {
        let LogEntry { index, meta, body } = codec::encode_entry(entry)?;
        let bytes = body.len() as u64;
        entries.push(WireEntry { index, meta: meta.to_vec(), at, bytes });
        at += bytes.next_multiple_of(ALIGN as u64);
        bodies.push(body);
    }
    let (vote, prev, commit) = (rpc.vote.into(), rpc.prev_log_id.map(Into::into), rpc.leader_commit.map(Into::into));
    encode(&WireAppend { vote, prev, commit, entries }, &bodies)
}

pub fn decode_append(bytes: &Bytes) -> Result<AppendEntriesRequest<ShardRaft>, MessageError> {
    let (append, bodies_at): (WireAppend, usize) = decode(bytes)?;
    let entry = |wire: WireEntry| {
        let begin = (wire.at as usize).checked_add(bodies_at);
        let end = begin.and_then(|begin| begin.checked_add(wire.bytes as usize));
        let range = begin.zip(end).filter(|(_, end)| *end <= bytes.len());
        let (begin, end) = range.ok_or_else(|| MessageError::Damaged("an entry is cut off".to_owned()))?;
        let entry = LogEntry { index: wire.index, meta: wire.meta.into(), body: bytes.slice(begin..end) };
        codec::decode_entry(entry).map_err(MessageError::from)
    };
    let entries = append.entries.into_iter().map(entry).collect::<Result<_, _>>()?;
    Ok(AppendEntriesRequest {
        vote: append.vote.into(),
        prev_log_id: append.prev.map(Into::into),
        entries,
        leader_commit: append.commit.map(Into::into),
    })
}

pub fn encode_append_answer(answer: &AppendEntriesResponse<u64>) -> Result<Bytes, MessageError> {
    let (outcome, log, vote) = match answer {
        AppendEntriesResponse::Success => (0, None, None),
        AppendEntriesResponse::PartialSuccess(log) => (1, log.map(Into::into), None),
        AppendEntriesResponse::Conflict => (2, None, None),
        AppendEntriesResponse::HigherVote(vote) => (3, None, Some((*vote).into())),
    };
    encode(&WireAppendAnswer { outcome, log, vote }, &[])
}

pub fn decode_append_answer(bytes: &Bytes) -> Result<AppendEntriesResponse<u64>, MessageError> {
    let (answer, _): (WireAppendAnswer, _) = decode(bytes)?;
    match (answer.outcome, answer.vote) {
        (0, _) => Ok(AppendEntriesResponse::Success),
        (1, _) => Ok(AppendEntriesResponse::PartialSuccess(answer.log.map(Into::into))),
        (2, _) => Ok(AppendEntriesResponse::Conflict),
        (3, Some(vote)) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
        (other, _) => Err(MessageError::Damaged(format!("outcome {other} of an append"))),
    }
}

pub fn encode_vote(rpc: &VoteRequest<u64>) -> Result<Bytes, MessageError> {
    encode(&WireVoteRequest { vote: rpc.vote.into(), last: rpc.last_log_id.map(Into::into) }, &[])
}

pub fn decode_vote(bytes: &Bytes) -> Result<VoteRequest<u64>, MessageError> {
    let (rpc, _): (WireVoteRequest, _) = decode(bytes)?;
    Ok(VoteRequest { vote: rpc.vote.into(), last_log_id: rpc.last.map(Into::into) })
}

pub fn encode_vote_answer(answer: &VoteResponse<u64>) -> Result<Bytes, MessageError> {
    encode(&WireVoteAnswer { vote: answer.vote.into(), granted: answer.vote_granted, last: answer.last_log_id.map(Into::into) }, &[])
}

pub fn decode_vote_answer(bytes: &Bytes) -> Result<VoteResponse<u64>, MessageError> {
    let (answer, _): (WireVoteAnswer, _) = decode(bytes)?;
    Ok(VoteResponse { vote: answer.vote.into(), vote_granted: answer.granted, last_log_id: answer.last.map(Into::into) })
}

pub fn encode_snapshot(vote: Vote<u64>, snapshot: &Snapshot<ShardRaft>) -> Result<Bytes, MessageError> {
    let meta = serde_json::to_vec(&snapshot.meta).map_err(|e| MessageError::Damaged(e.to_string()))?;
    encode(&WireSnapshot { vote: vote.into(), meta, manifest: snapshot.snapshot.manifest.to_vec() }, &[])
}

pub fn decode_snapshot(bytes: &Bytes) -> Result<(Vote<u64>, Snapshot<ShardRaft>), MessageError> {
    let (wire, _): (WireSnapshot, _) = decode(bytes)?;
    let meta: SnapshotMeta<u64, Peer> = serde_json::from_slice(&wire.meta).map_err(|e| MessageError::Damaged(e.to_string()))?;
    Ok((wire.vote.into(), Snapshot { meta, snapshot: Box::new(ShardSnapshot { manifest: wire.manifest.into() }) }))
}

pub fn encode_snapshot_answer(answer: &SnapshotResponse<u64>) -> Result<Bytes, MessageError> {
    encode(&WireVoteRequest { vote: answer.vote.into(), last: None }, &[])
}

pub fn decode_snapshot_answer(bytes: &Bytes) -> Result<SnapshotResponse<u64>, MessageError> {
    let (answer, _): (WireVoteRequest, _) = decode(bytes)?;
    Ok(SnapshotResponse { vote: answer.vote.into() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openraft::{Entry, EntryPayload};

    use super::super::super::Command;
    use super::*;

    fn append() -> AppendEntriesRequest<ShardRaft> {
        let members = BTreeMap::from([(7, Peer { address: "10.0.0.1:7071".to_owned() })]);
        let payloads = [
            EntryPayload::Normal(Command(Bytes::from(vec![1; 33]))),
            EntryPayload::Blank,
            EntryPayload::Normal(Command(Bytes::from(vec![2; 16]))),
            EntryPayload::Membership(openraft::Membership::from(members)),
        ];
        let entry = |(at, payload)| Entry { log_id: codec::log_id(5, 10 + at as u64), payload };
        AppendEntriesRequest {
            vote: Vote::new_committed(5, 7),
            prev_log_id: Some(codec::log_id(4, 9)),
            entries: payloads.into_iter().enumerate().map(entry).collect(),
            leader_commit: Some(codec::log_id(5, 8)),
        }
    }

    #[test]
    fn append_reads_back_with_its_bodies_in_place() {
        let bytes = encode_append(append()).expect("encodes");
        let read = decode_append(&bytes).expect("own bytes");
        let sent = append();
        assert_eq!((read.vote, read.prev_log_id, read.leader_commit), (sent.vote, sent.prev_log_id, sent.leader_commit));
        assert_eq!(read.entries, sent.entries);
        for entry in &read.entries {
            if let EntryPayload::Normal(Command(body)) = &entry.payload {
                assert!(bytes.as_ptr_range().contains(&body.as_ptr()), "not copied");
                assert!((body.as_ptr() as usize).is_multiple_of(ALIGN));
            }
        }
    }

    #[test]
    fn answers_and_votes_read_back() {
        let vote = Vote::new(3, 9);
        for answer in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::PartialSuccess(Some(codec::log_id(1, 2))),
            AppendEntriesResponse::HigherVote(vote),
        ] {
            let read = decode_append_answer(&encode_append_answer(&answer).expect("encodes")).expect("own bytes");
            assert_eq!(read, answer);
        }
        let request = VoteRequest::new(Vote::default(), Some(codec::log_id(1, 2)));
        assert_eq!(decode_vote(&encode_vote(&request).expect("encodes")).expect("own bytes"), request);
        let answer = VoteResponse::new(vote, None, true);
        assert_eq!(decode_vote_answer(&encode_vote_answer(&answer).expect("encodes")).expect("own bytes"), answer);
        let meta =
            SnapshotMeta { last_log_id: Some(codec::log_id(1, 2)), last_membership: Default::default(), snapshot_id: "1-2".to_owned() };
        let snapshot = Snapshot { meta, snapshot: Box::new(ShardSnapshot { manifest: Bytes::from_static(b"manifest") }) };
        let (its_vote, read) = decode_snapshot(&encode_snapshot(vote, &snapshot).expect("encodes")).expect("own bytes");
        assert_eq!((its_vote, read.meta, read.snapshot), (vote, snapshot.meta, snapshot.snapshot));
    }

    #[test]
    fn damaged_bytes_are_refused_without_harm() {
        let bytes = encode_append(append()).expect("encodes");
        for length in 0..bytes.len() - 8 {
            // The last body is a membership: shorter by more than the padding it does not read.
            let _ = decode_append(&bytes.slice(..length));
        }
        assert!(matches!(decode_append(&bytes.slice(..20)), Err(MessageError::NoMessage)));
        let change = |at: usize, value: u8| {
            let mut changed = bytes.to_vec();
            changed[at] = value;
            decode_append(&Bytes::from(changed)).map(drop)
        };
        assert!(matches!(change(0, b'X'), Err(MessageError::NoMessage)));
        assert!(matches!(change(3, 2), Err(MessageError::Version(2))));
        for at in 0..bytes.len() {
            let _ = change(at, 0xff);
        }
    }
}
