//! Metric keys as bytes: `kind, tenant, metric, dimension values`, each text with its length in front, so that no two
//! keys share an encoding. The home key of an event is the key of its default metric.

use serde::{Deserialize, Serialize};

use crate::limits::KEY_BYTES_MAX;

/// What family a metric key belongs to; a defined metric may bear the name of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum MetricKind {
    /// The metric that every event name has: dimensions `source`, `device_type`, `country_code`.
    Default = 0,
    /// A metric of `[[metrics]]` or `/v1/definitions`.
    Defined = 1,
}

/// Dimensions of every default metric, in key order.
pub const DEFAULT_DIMENSIONS: [&str; 3] = ["source", "device_type", "country_code"];

/// Appends the encoding of a metric key to `out`.
///
/// Layout: kind `u8`; tenant and metric as `u16` length and bytes; then for each dimension a `u16` that is 0 for null, else length + 1, and
/// the bytes. All little-endian. Lengths are bounded by [`crate::limits`], far below `u16::MAX`.
#[inline]
pub fn encode_key<'a>(
    out: &mut Vec<u8>,
    kind: MetricKind,
    tenant: &str,
    metric: &str,
    dimensions: impl IntoIterator<Item = Option<&'a str>>,
) {
    out.push(kind as u8);
    for text in [tenant, metric] {
        out.extend_from_slice(&(text.len() as u16).to_le_bytes());
        push_bytes(out, text.as_bytes());
    }
    for value in dimensions {
        encode_dimension(out, value);
    }
}

/// Appends one more dimension value to a key.
#[inline]
pub fn encode_dimension(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        None => out.extend_from_slice(&[0, 0]),
        Some(text) => {
            out.extend_from_slice(&(text.len() as u16 + 1).to_le_bytes());
            push_bytes(out, text.as_bytes());
        }
    }
}

/// As `extend_from_slice`, which calls `memcpy` for any length that is not known before; nearly all texts of keys fit one word of 16 bytes.
#[inline]
fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = bytes.len();
    // Ends that overlap agree where they do.
    let word = if length > 16 {
        return out.extend_from_slice(bytes);
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        u128::from(u64::from_le_bytes(*first)) | u128::from(u64::from_le_bytes(*last)) << (8 * (length - 8))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        u128::from(u32::from_le_bytes(*first)) | u128::from(u32::from_le_bytes(*last)) << (8 * (length - 4))
    } else if let (Some(first), Some(last)) = (bytes.first(), bytes.last()) {
        u128::from(*first) | u128::from(bytes[length / 2]) << (8 * (length / 2)) | u128::from(*last) << (8 * (length - 1))
    } else {
        return;
    };
    let end = out.len() + length;
    out.extend_from_slice(&word.to_le_bytes());
    out.truncate(end);
}

/// A key read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyView<'a> {
    pub kind: MetricKind,
    pub tenant: &'a str,
    pub metric: &'a str,
    dimensions: &'a [u8],
}

impl<'a> KeyView<'a> {
    /// `None` when the bytes are not a key. After it returned a view, [`Self::dimensions`] cannot fail.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > KEY_BYTES_MAX {
            return None;
        }
        let (&kind, mut rest) = bytes.split_first()?;
        let kind = match kind {
            0 => MetricKind::Default,
            1 => MetricKind::Defined,
            _ => return None,
        };
        let tenant = take_text(&mut rest, 0)??;
        let metric = take_text(&mut rest, 0)??;
        let dimensions = rest;
        while !rest.is_empty() {
            take_text(&mut rest, 1)?;
        }
        Some(Self { kind, tenant, metric, dimensions })
    }

    pub fn dimensions(&self) -> impl Iterator<Item = Option<&'a str>> + use<'a> {
        let mut rest = self.dimensions;
        std::iter::from_fn(move || if rest.is_empty() { None } else { take_text(&mut rest, 1) })
    }
}

/// Takes one text whose stored length is `length + offset`; `Some(None)` is null (only with an offset).
fn take_text<'a>(rest: &mut &'a [u8], offset: usize) -> Option<Option<&'a str>> {
    let (length, tail) = rest.split_first_chunk::<2>()?;
    let Some(length) = usize::from(u16::from_le_bytes(*length)).checked_sub(offset) else {
        *rest = tail;
        return Some(None);
    };
    let (text, tail) = tail.split_at_checked(length)?;
    *rest = tail;
    std::str::from_utf8(text).ok().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_with_null_and_empty_kept_apart() {
        let mut bytes = Vec::new();
        encode_key(&mut bytes, MetricKind::Defined, "default", "départ", [Some("UA"), None, Some("")]);
        let view = KeyView::parse(&bytes).expect("own encoding");
        assert_eq!((view.kind, view.tenant, view.metric), (MetricKind::Defined, "default", "départ"));
        assert_eq!(view.dimensions().collect::<Vec<_>>(), [Some("UA"), None, Some("")]);
    }

    #[test]
    fn texts_of_every_length_are_copied_whole() {
        let text: Vec<u8> = (1..=40).collect();
        for length in 0..=text.len() {
            let mut out = vec![7];
            push_bytes(&mut out, &text[..length]);
            assert_eq!((out[0], &out[1..]), (7, &text[..length]));
        }
    }

    #[test]
    fn damaged_keys_are_refused() {
        let mut bytes = Vec::new();
        encode_key(&mut bytes, MetricKind::Default, "default", "page_view", [Some("web"), None, None]);
        assert!(KeyView::parse(&[]).is_none());
        for cut in [1, 5, 12, bytes.len() - 1] {
            assert!(KeyView::parse(&bytes[..cut]).is_none_or(|v| v.dimensions().count() < 3), "cut at {cut}");
        }
        bytes[0] = 9;
        assert!(KeyView::parse(&bytes).is_none());
    }
}
