//! Read your writes (Q8): an ack names where its events are in the logs of their shards, and a query that brings this along is answered from a state that has
//! applied them, or not at all.
//!
//! Bytes: version `u8`, cluster `u64`, for each shard its number less the one before it and its log index as LEB128, then the low half of the xxh3 hash of all
//! that, `u32`; little-endian, base64url without padding. An entry that was acked keeps its place whoever leads, so no term is needed. The hash tells damage;
//! a token grants nothing, so there is nothing to sign.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{ErrorCode, Problem};
use crate::hash::ShardId;
use crate::limits::SHARDS_MAX;

/// 1 had neither cluster nor checksum.
const VERSION: u8 = 2;
const CLUSTER_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;
/// Longest LEB128 of 64 bits.
const NUMBER_BYTES_MAX: usize = 10;
/// Numbers from here on take a second byte.
const ONE_BYTE_END: usize = 0x80;
/// Longest token, in characters: every shard there may be, each with the largest index. Shard numbers are told by their gaps, so hardly any takes two bytes.
pub const TOKEN_CHARS_MAX: usize =
    (1 + CLUSTER_BYTES + SHARDS_MAX * (1 + NUMBER_BYTES_MAX) + SHARDS_MAX / ONE_BYTE_END + CHECKSUM_BYTES).div_ceil(3) * 4;

/// What a cluster is called in tokens.
pub fn cluster_mark(cluster_id: &str) -> u64 {
    xxh3_64(cluster_id.as_bytes())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteToken {
    /// [`cluster_mark`] of the cluster that acked.
    pub cluster: u64,
    /// Log index of the last entry that holds something of the write; by shard, ascending.
    positions: Vec<(ShardId, u64)>,
}

impl WriteToken {
    /// A shard that is there several times counts with its last index.
    pub fn new(cluster: u64, mut positions: Vec<(ShardId, u64)>) -> Self {
        positions.sort_unstable_by_key(|&(shard, index)| (shard, std::cmp::Reverse(index)));
        positions.dedup_by_key(|(shard, _)| *shard);
        Self { cluster, positions }
    }

    pub fn positions(&self) -> &[(ShardId, u64)] {
        &self.positions
    }

    pub fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.cluster.to_le_bytes());
        let mut before = 0;
        for (shard, index) in &self.positions {
            put_number(&mut bytes, u64::from(shard.0 - before));
            put_number(&mut bytes, *index);
            before = shard.0;
        }
        bytes.extend_from_slice(&checksum(&bytes));
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// # Errors
    /// 422 for anything that [`Self::encode`] did not make.
    pub fn decode(text: &str) -> Result<Self, Problem> {
        read(text).ok_or_else(|| bad_token("the token is not one that an ack carried: send it back as it came, or leave it out"))
    }
}

/// A token that cannot be used here.
pub fn bad_token(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::BadParameter, detail).field("token")
}

fn read(text: &str) -> Option<WriteToken> {
    if text.len() > TOKEN_CHARS_MAX {
        return None;
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let (bytes, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    let (&version, rest) = bytes.split_first()?;
    if version != VERSION || *sum != checksum(bytes) {
        return None;
    }
    let (cluster, mut rest) = rest.split_first_chunk::<CLUSTER_BYTES>()?;
    let mut positions: Vec<(ShardId, u64)> = Vec::new();
    while !rest.is_empty() {
        let before = positions.last().map_or(0, |(shard, _)| u64::from(shard.0));
        let gap = take_number(&mut rest)?;
        let shard = u16::try_from(before.checked_add(gap)?).ok()?;
        if !positions.is_empty() && gap == 0 {
            return None;
        }
        positions.push((ShardId(shard), take_number(&mut rest)?));
    }
    Some(WriteToken { cluster: u64::from_le_bytes(*cluster), positions })
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    (xxh3_64(bytes) as u32).to_le_bytes()
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for (i, &byte) in bytes.iter().take(NUMBER_BYTES_MAX).enumerate() {
        let part = u64::from(byte & 0x7f);
        number |= part.checked_shl(7 * i as u32).filter(|shifted| shifted >> (7 * i) == part)?;
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(positions: &[(u16, u64)]) -> WriteToken {
        WriteToken::new(cluster_mark("a"), positions.iter().map(|&(shard, index)| (ShardId(shard), index)).collect())
    }

    #[test]
    fn a_token_keeps_the_bytes_that_it_was_made_with() {
        let made = token(&[(3, 7), (3, 900), (1, 2)]);
        assert_eq!(made.positions(), [(ShardId(1), 2), (ShardId(3), 900)]);
        // Never edited: tokens outlive an upgrade.
        assert_eq!(made.encode(), "Ah9Olh62MsbmAQIChAcqmLJQ");
        assert_eq!(WriteToken::decode("Ah9Olh62MsbmAQIChAcqmLJQ"), Ok(made));
    }

    #[test]
    fn all_of_a_usual_cluster_fits_in_a_short_token() {
        let positions: Vec<(u16, u64)> = (0..16).map(|shard| (shard, 1_000_000 + u64::from(shard))).collect();
        assert!(token(&positions).encode().len() <= 104);
    }

    #[test]
    fn the_longest_token_there_may_be_is_read() {
        let positions: Vec<(u16, u64)> = (0..SHARDS_MAX as u16).map(|shard| (shard, u64::MAX)).collect();
        let made = token(&positions);
        assert_eq!(WriteToken::decode(&made.encode()), Ok(made));
    }

    #[test]
    fn what_no_ack_carried_is_refused() {
        let good = token(&[(1, 2), (3, 900)]).encode();
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&good).expect("base64");
        for at in 0..bytes.len() {
            bytes[at] ^= 0x10;
            assert!(WriteToken::decode(&BASE64_URL_SAFE_NO_PAD.encode(&bytes)).is_err(), "byte {at}");
            bytes[at] ^= 0x10;
        }
        let of_first_version = "AQMACQAAAAAAAAABAAIAAAAAAAAA";
        let long = "A".repeat(TOKEN_CHARS_MAX + 1);
        for bad in ["", "AQ", "%%%", of_first_version, &good[..good.len() - 2], &format!("{good}AA"), &long] {
            let problem = WriteToken::decode(bad).expect_err("refused");
            assert_eq!((problem.status, problem.field.as_deref()), (422, Some("token")), "{bad:.20}");
        }
    }

    proptest! {
        #[test]
        fn every_write_comes_back_as_it_was(cluster: u64, positions in proptest::collection::vec((0..1_024u16, any::<u64>()), 0..40)) {
            let made = WriteToken::new(cluster, positions.into_iter().map(|(shard, index)| (ShardId(shard), index)).collect());
            prop_assert_eq!(WriteToken::decode(&made.encode()), Ok(made));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[A-Za-z0-9_-]{0,80}") {
            let _ = WriteToken::decode(&text);
        }
    }
}
