//! What the raft layer writes into the log and the snapshots, as bytes with a version.
//!
//! Meta of an entry, little-endian: version `u8`, kind `u8`, term `u64`; in a node's own log then, from version 2 on, the index up to which the log was known to be
//! committed when the entry was written, `u64`. The index is the log's own. The body is the command itself, so that it can be read in
//! place; of a membership, its JSON. Votes, purge marks and what a snapshot ends with are rare and small: JSON.

use bytes::Bytes;
use openraft::{CommittedLeaderId, Entry, EntryPayload, Vote};
use serde::{Deserialize, Serialize};
use tallymesh_storage::StorageError;
use tallymesh_storage::wal::LogEntry;

use super::given_up::GivenUp;
use super::{Command, LogId, Membership, ShardRaft};

const VERSION: u8 = 1;
const META_BYTES: usize = 10;
/// Of an entry that says what was committed.
const VERSION_COMMITTED: u8 = 2;
const COMMITTED_META_BYTES: usize = META_BYTES + 8;

/// Where a snapshot ends: what a replica that starts from it has applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotTail {
    pub last_log_id: Option<LogId>,
    pub membership: Membership,
}

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 0), index)
}

fn damaged(what: &str, detail: impl std::fmt::Display) -> StorageError {
    StorageError::Invalid(format!("{what} does not read back: {detail}"))
}

pub fn encode_entry(entry: Entry<ShardRaft>) -> Result<LogEntry, StorageError> {
    let (kind, body) = match entry.payload {
        EntryPayload::Blank => (0, Bytes::new()),
        EntryPayload::Normal(command) => (1, command.0),
        EntryPayload::Membership(membership) => (2, to_json("a membership", &membership)?),
    };
    let mut meta = [0; META_BYTES];
    meta[0] = VERSION;
    meta[1] = kind;
    meta[2..].copy_from_slice(&entry.log_id.leader_id.term.to_le_bytes());
    Ok(LogEntry { index: entry.log_id.index, meta: Bytes::copy_from_slice(&meta), body })
}

/// As a node writes it into its own log, which is what a restart finds out from up to where it may apply.
pub fn encode_own_entry(entry: Entry<ShardRaft>, committed: u64) -> Result<LogEntry, StorageError> {
    let entry = encode_entry(entry)?;
    let mut meta = [0; COMMITTED_META_BYTES];
    meta[..META_BYTES].copy_from_slice(&entry.meta);
    meta[0] = VERSION_COMMITTED;
    meta[META_BYTES..].copy_from_slice(&committed.to_le_bytes());
    Ok(LogEntry { meta: Bytes::copy_from_slice(&meta), ..entry })
}

/// The same of a command.
pub fn encode_own_command(term: u64, index: u64, committed: u64, command: Bytes) -> LogEntry {
    let mut meta = [0; COMMITTED_META_BYTES];
    (meta[0], meta[1]) = (VERSION_COMMITTED, 1);
    meta[2..META_BYTES].copy_from_slice(&term.to_le_bytes());
    meta[META_BYTES..].copy_from_slice(&committed.to_le_bytes());
    LogEntry { index, meta: Bytes::copy_from_slice(&meta), body: command }
}

fn decode_meta(index: u64, meta: &[u8]) -> Result<(u8, LogId), StorageError> {
    let known = match meta.first() {
        Some(&VERSION) => META_BYTES,
        Some(&VERSION_COMMITTED) => COMMITTED_META_BYTES,
        found => {
            let detail = format!("version {found:?} at index {index} (this build reads {VERSION} to {VERSION_COMMITTED})");
            return Err(damaged("an entry's header", detail));
        }
    };
    if meta.len() != known {
        return Err(damaged("an entry's header", format!("{} bytes at index {index}", meta.len())));
    }
    let mut term = [0; 8];
    term.copy_from_slice(&meta[2..META_BYTES]);
    Ok((meta[1], log_id(u64::from_le_bytes(term), index)))
}

/// Up to where the log was known to be committed when this entry was written; 0 if it does not say.
pub fn decode_committed(meta: &[u8]) -> u64 {
    let said = meta.get(META_BYTES..).and_then(|bytes| bytes.try_into().ok());
    said.map_or(0, u64::from_le_bytes)
}

pub fn decode_log_id(index: u64, meta: &[u8]) -> Result<LogId, StorageError> {
    decode_meta(index, meta).map(|(_, id)| id)
}

pub fn decode_entry(LogEntry { index, meta, body }: LogEntry) -> Result<Entry<ShardRaft>, StorageError> {
    let (kind, log_id) = decode_meta(index, &meta)?;
    let payload = match kind {
        0 => EntryPayload::Blank,
        1 => EntryPayload::Normal(Command(body)),
        2 => EntryPayload::Membership(from_json("a membership", &body)?),
        other => return Err(damaged("an entry's header", format!("kind {other} at index {index}"))),
    };
    Ok(Entry { log_id, payload })
}

/// The meta of an entry with this id, as a purge mark carries it.
pub fn encode_log_id(id: &LogId) -> Bytes {
    let mut meta = [0; META_BYTES];
    meta[0] = VERSION;
    meta[2..].copy_from_slice(&id.leader_id.term.to_le_bytes());
    Bytes::copy_from_slice(&meta)
}

pub fn encode_vote(vote: &Vote<u64>) -> Result<Bytes, StorageError> {
    to_json("a vote", vote)
}

pub fn decode_vote(bytes: &[u8]) -> Result<Vote<u64>, StorageError> {
    from_json("the vote", bytes)
}

pub fn encode_given_up(given_up: &GivenUp) -> Result<Bytes, StorageError> {
    to_json("what is known of a replica that was given up", given_up)
}

pub fn decode_given_up(bytes: &[u8]) -> Result<GivenUp, StorageError> {
    from_json("what is known of a replica that was given up", bytes)
}

impl SnapshotTail {
    pub fn encode(&self) -> Result<Bytes, StorageError> {
        to_json("the end of a snapshot", self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        from_json("the end of a snapshot", bytes)
    }
}

fn to_json<T: Serialize>(what: &str, value: &T) -> Result<Bytes, StorageError> {
    serde_json::to_vec(&Versioned { version: VERSION, value })
        .map(Bytes::from)
        .map_err(|e| StorageError::Invalid(format!("{what} cannot be written: {e}")))
}

fn from_json<T: for<'a> Deserialize<'a>>(what: &str, bytes: &[u8]) -> Result<T, StorageError> {
    let read: Versioned<T> = serde_json::from_slice(bytes).map_err(|e| damaged(what, e))?;
    if read.version != VERSION {
        return Err(damaged(what, format!("version {} (this build reads {VERSION})", read.version)));
    }
    Ok(read.value)
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u8,
    value: T,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Peer;
    use super::*;

    #[test]
    fn entries_of_every_kind_read_back() {
        let members = BTreeMap::from([(7, Peer { address: "10.0.0.1:7071".to_owned() })]);
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Command(Bytes::from_static(b"command"))),
            EntryPayload::Membership(openraft::Membership::from(members)),
        ];
        for (index, payload) in payloads.into_iter().enumerate() {
            let entry = Entry { log_id: log_id(9, index as u64), payload };
            assert_eq!(decode_entry(encode_entry(entry.clone()).expect("encodes")).expect("own encoding"), entry);
            assert_eq!(decode_log_id(index as u64, &encode_log_id(&entry.log_id)).expect("own encoding"), entry.log_id);
            let own = encode_own_entry(entry.clone(), 77).expect("encodes");
            assert_eq!(decode_committed(&own.meta), 77);
            assert_eq!(decode_entry(own).expect("own encoding"), entry);
            assert_eq!(decode_committed(&encode_entry(entry).expect("encodes").meta), 0, "older logs do not say");
        }
    }

    #[test]
    fn bytes_of_other_versions_are_refused() {
        let entry = encode_entry(Entry { log_id: log_id(1, 2), payload: EntryPayload::Blank }).expect("encodes");
        for (at, value) in [(0, 2), (0, 3), (1, 9)] {
            let mut meta = entry.meta.to_vec();
            meta[at] = value;
            assert!(decode_entry(LogEntry { meta: meta.into(), ..entry.clone() }).is_err());
        }
        assert!(decode_entry(LogEntry { meta: entry.meta.slice(1..), ..entry }).is_err());
        assert!(decode_vote(br#"{"version":2,"value":{"leader_id":{"term":1,"voted_for":0},"committed":true}}"#).is_err());
        assert_eq!(
            decode_vote(br#"{"version":1,"value":{"leader_id":{"term":1,"voted_for":0},"committed":true}}"#).expect("what is on disks"),
            Vote::new_committed(1, 0)
        );
    }

    #[test]
    fn commands_print_as_their_size() {
        let entry = Entry::<ShardRaft> { log_id: log_id(1, 2), payload: EntryPayload::Normal(Command(Bytes::from_static(b"secret"))) };
        assert!(!format!("{entry:?} {entry}").contains("secret"));
        assert_eq!(format!("{:?}", Command(Bytes::from_static(b"secret"))), "Command(6 bytes)");
    }
}
