//! Pages: a cursor pins the range that the first page was read for (`range=24h` moves on, pages must not) and says where the last page ended.
//!
//! It belongs to one query and is opaque; a checksum tells a damaged or foreign one. It grants nothing that the query itself does not, but is
//! not signed: what it says is checked like any other parameter.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::TimeRange;
use crate::error::{ErrorCode, Problem};
use crate::question::answer::GroupKey;
use crate::question::merge::PagePosition;

/// Longest cursor that is looked at, in bytes: eight group values of the greatest length, escaped.
const CURSOR_BYTES_MAX: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Fields {
    from: i64,
    to: i64,
    time: i64,
    group: GroupKey,
    /// Bits of the value, so that infinity passes too.
    value: Option<u64>,
}

/// `fingerprint` identifies the query apart from its page.
pub(super) fn encode(fingerprint: u64, range: TimeRange, position: &PagePosition) -> String {
    let fields = Fields {
        from: range.from_ms,
        to: range.to_ms,
        time: position.time_ms,
        group: position.group.clone(),
        value: position.value.map(f64::to_bits),
    };
    let mut bytes = serde_json::to_vec(&fields).unwrap_or_default();
    bytes.extend_from_slice(&xxh3_64_with_seed(&bytes, fingerprint).to_le_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// # Errors
/// 422 for anything that [`encode`] did not make for this query.
pub(super) fn decode(fingerprint: u64, text: &str) -> Result<(TimeRange, PagePosition), Problem> {
    read(fingerprint, text).ok_or_else(|| {
        let detail = "the cursor is not one of this query: send back what the last page had, with the same parameters, or leave it out";
        Problem::new(ErrorCode::BadParameter, detail).field("cursor")
    })
}

fn read(fingerprint: u64, text: &str) -> Option<(TimeRange, PagePosition)> {
    if text.len() > CURSOR_BYTES_MAX {
        return None;
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let (json, checksum) = bytes.split_last_chunk::<8>()?;
    if xxh3_64_with_seed(json, fingerprint) != u64::from_le_bytes(*checksum) {
        return None;
    }
    let fields: Fields = serde_json::from_slice(json).ok()?;
    let range = TimeRange { from_ms: fields.from, to_ms: fields.to };
    // The checksum has no secret: anyone can make one for whatever range.
    if !range.is_possible() {
        return None;
    }
    Some((range, PagePosition { time_ms: fields.time, group: fields.group, value: fields.value.map(f64::from_bits) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_query_only() {
        let range = TimeRange { from_ms: -5, to_ms: 7 };
        let position = PagePosition { time_ms: 3, group: vec![Some("a".to_owned()), None], value: Some(f64::INFINITY) };
        let text = encode(1, range, &position);
        assert_eq!(decode(1, &text), Ok((range, position.clone())));
        for (from_ms, to_ms) in [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (0, 0), (5, 3), (0, i64::MAX), (i64::MIN, 0)] {
            let text = encode(1, TimeRange { from_ms, to_ms }, &position);
            assert_eq!(decode(1, &text).expect_err("no range").field.as_deref(), Some("cursor"), "{from_ms} to {to_ms}");
        }
        let mut forged = text.clone().into_bytes();
        forged[5] ^= 1;
        let forged = String::from_utf8(forged).expect("ascii");
        for (fingerprint, text) in [(2, text.as_str()), (1, &text[..text.len() - 4]), (1, &forged), (1, ""), (1, "AAAA"), (1, "%%%")] {
            assert_eq!(decode(fingerprint, text).expect_err("refused").field.as_deref(), Some("cursor"), "{text}");
        }
    }
}
