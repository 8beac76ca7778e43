//! Which shards an ack's token names. To clients a token means nothing; here it tells which shard took an event, which a client need not know.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

const VERSION: u8 = 2;
const CLUSTER_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;

/// Shards and the log positions of the write in them.
///
/// # Errors
/// It is not a token as this version of the product makes them.
pub fn positions(token: &str) -> Result<Vec<(u64, u64)>> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).context("a token is base64")?;
    ensure!(bytes.first() == Some(&VERSION) && bytes.len() >= 1 + CLUSTER_BYTES + CHECKSUM_BYTES, "a token of another version: {token}");
    let mut numbers = bytes[1 + CLUSTER_BYTES..bytes.len() - CHECKSUM_BYTES].iter();
    let mut positions: Vec<(u64, u64)> = Vec::new();
    while !numbers.as_slice().is_empty() {
        let (gap, index) = (number(&mut numbers)?, number(&mut numbers)?);
        let before = positions.last().map_or(0, |(shard, _)| *shard);
        positions.push((before + gap, index));
    }
    Ok(positions)
}

/// LEB128.
fn number<'a>(bytes: &mut impl Iterator<Item = &'a u8>) -> Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.next().context("a token ends in a number")?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    anyhow::bail!("a number in a token is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_shards() {
        // Made by a node: shards 1 and 3.
        assert_eq!(positions("Ah9Olh62MsbmAQIChAcqmLJQ").expect("a token"), [(1, 2), (3, 900)]);
        assert!(positions("AQMACQAAAAAAAAABAAIAAAAAAAAA").is_err());
    }
}
