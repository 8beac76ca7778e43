//! What one entry of a shard's log says. Bytes, versioned, read in place.
//!
//! Layout, little-endian: magic `TMCM`, version `u16`, kind `u16`, stamp `i64` (16 bytes); then for `Batches` a `u32` count and 12 zero bytes, and
//! for each part a `u32` length, 4 zero bytes, the `u64` number of the request, the encoded batch, and zeroes to the next multiple of 16. For `Configure` the JSON of
//! [`ShardSettings`] follows the header. Everything a shard's state depends on is in here, the time too: `stamp` is the leader's clock.

use bytes::Bytes;
use rkyv::util::AlignedVec;
use serde::{Deserialize, Serialize};

use crate::cardinality::KeyBudget;
use crate::definition::MetricDefinition;
use crate::limits::ENTRY_PARTS_MAX;

const MAGIC: [u8; 4] = *b"TMCM";
/// 2: settings may carry a cardinality budget, which a build that knows only 1 would overlook.
const VERSION_PLAIN: u16 = 2;
/// 3: parts have numbers of requests, by which a shard knows an attempt that it has answered; written where there are any. Whoever gives numbers makes sure that
/// all replicas read this format.
pub const FORMAT_NUMBERED: u16 = 3;
/// The newest format that this build reads.
pub const FORMAT: u16 = FORMAT_NUMBERED;
const VERSION_MIN: u16 = 1;
const ALIGN: usize = 16;

/// Settings that a shard's state depends on; they reach it through its log, never from the side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSettings {
    /// A window is closed this long after the later of its end and its last write, in milliseconds.
    pub lateness_ms: u64,
    /// Event ids are remembered this long after arrival, in milliseconds.
    pub dedup_horizon_ms: u64,
    /// How long windows of each grain are kept, in milliseconds of event time; `None` is for ever.
    pub retention_minute_ms: Option<u64>,
    pub retention_hour_ms: Option<u64>,
    pub retention_day_ms: Option<u64>,
    pub definitions_version: u64,
    pub definitions: Vec<MetricDefinition>,
    /// How many keys the shard keeps apart; `None` is without end.
    #[serde(default)]
    pub cardinality: Option<KeyBudget>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CommandBody<'a> {
    Batches(Vec<PartView<'a>>),
    /// Time passes.
    Tick,
    Configure(ShardSettings),
}

/// One request's share of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartView<'a> {
    /// The same for every attempt to have the part counted; 0 when there is only one.
    pub request: u64,
    /// An encoded [`crate::event::batch::ShardBatch`], 16-aligned when the command is.
    pub batch: &'a [u8],
}

#[derive(Clone, Debug, PartialEq)]
pub struct CommandView<'a> {
    /// The leader's clock, UTC milliseconds, never backwards within a shard's log.
    pub stamp_ms: i64,
    pub body: CommandBody<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("not a shard command")]
    Magic,
    #[error("shard command version {0} is not known here (this build reads {VERSION_MIN} to {FORMAT})")]
    Version(u16),
    #[error("shard command is damaged: {0}")]
    Layout(String),
}

fn header(version: u16, kind: u16, stamp_ms: i64, capacity: usize) -> AlignedVec<ALIGN> {
    let mut out = AlignedVec::with_capacity(16 + capacity);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&stamp_ms.to_le_bytes());
    out
}

/// [`encode_requests`] of parts that are sent once.
pub fn encode_batches<P: AsRef<[u8]>>(stamp_ms: i64, parts: &[P]) -> Bytes {
    encode(stamp_ms, parts.iter().map(|part| (0, part.as_ref())))
}

/// Joins the batches of several requests into one entry (group commit).
pub fn encode_requests<P: AsRef<[u8]>>(stamp_ms: i64, parts: &[(u64, P)]) -> Bytes {
    encode(stamp_ms, parts.iter().map(|(request, part)| (*request, part.as_ref())))
}

fn encode<'a>(stamp_ms: i64, parts: impl ExactSizeIterator<Item = (u64, &'a [u8])> + Clone) -> Bytes {
    debug_assert!(parts.len() <= ENTRY_PARTS_MAX);
    let size = 16 + parts.clone().map(|(_, part)| 16 + part.len().next_multiple_of(ALIGN)).sum::<usize>();
    let version = if parts.clone().any(|(request, _)| request != 0) { FORMAT_NUMBERED } else { VERSION_PLAIN };
    let mut out = header(version, 1, stamp_ms, size);
    out.extend_from_slice(&(parts.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 12]);
    for (request, part) in parts {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&request.to_le_bytes());
        out.extend_from_slice(part);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
    }
    Bytes::from_owner(out)
}

pub fn encode_tick(stamp_ms: i64) -> Bytes {
    Bytes::from_owner(header(VERSION_PLAIN, 2, stamp_ms, 0))
}

pub fn encode_configure(stamp_ms: i64, settings: &ShardSettings) -> Bytes {
    let json = serde_json::to_vec(settings).unwrap_or_default();
    let mut out = header(VERSION_PLAIN, 3, stamp_ms, json.len());
    out.extend_from_slice(&json);
    Bytes::from_owner(out)
}

impl<'a> CommandView<'a> {
    /// # Errors
    /// See [`CommandError`]; batches inside are not checked here ([`crate::event::batch::check`]).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CommandError> {
        let short = |what: &str| CommandError::Layout(format!("{what} is cut off"));
        let (header, mut rest) = bytes.split_first_chunk::<16>().ok_or(CommandError::Magic)?;
        if header[..4] != MAGIC {
            return Err(CommandError::Magic);
        }
        let version = u16::from_le_bytes([header[4], header[5]]);
        if !(VERSION_MIN..=FORMAT).contains(&version) {
            return Err(CommandError::Version(version));
        }
        let mut stamp = [0; 8];
        stamp.copy_from_slice(&header[8..]);
        let body = match u16::from_le_bytes([header[6], header[7]]) {
            1 => {
                let count = take_head(&mut rest).ok_or_else(|| short("the part count"))?.0 as usize;
                if count > ENTRY_PARTS_MAX {
                    return Err(CommandError::Layout(format!("{count} parts, at most {ENTRY_PARTS_MAX}")));
                }
                let mut parts = Vec::with_capacity(count);
                for _ in 0..count {
                    let (length, request) = take_head(&mut rest).ok_or_else(|| short("a part's length"))?;
                    let length = length as usize;
                    let (batch, _) = rest.split_at_checked(length).ok_or_else(|| short("a part"))?;
                    parts.push(PartView { request, batch });
                    rest = rest.get(length.next_multiple_of(ALIGN)..).ok_or_else(|| short("a part's padding"))?;
                }
                CommandBody::Batches(parts)
            }
            2 => CommandBody::Tick,
            3 => CommandBody::Configure(serde_json::from_slice(rest).map_err(|e| CommandError::Layout(format!("settings: {e}")))?),
            other => return Err(CommandError::Layout(format!("kind {other}"))),
        };
        Ok(Self { stamp_ms: i64::from_le_bytes(stamp), body })
    }
}

/// A number of 32 bits, and one of 64 at the end of its 16 bytes.
fn take_head(rest: &mut &[u8]) -> Option<(u32, u64)> {
    let (head, tail) = rest.split_first_chunk::<16>()?;
    *rest = tail;
    let mut request = [0; 8];
    request.copy_from_slice(&head[8..]);
    Some((u32::from_le_bytes([head[0], head[1], head[2], head[3]]), u64::from_le_bytes(request)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_aligned_and_whole() {
        let parts: [&[u8]; 3] = [b"one", &[7; 40], b""];
        let bytes = encode_batches(-5, &parts);
        let view = CommandView::parse(&bytes).expect("own encoding");
        assert_eq!(view.stamp_ms, -5);
        let CommandBody::Batches(read) = view.body else { panic!("batches") };
        assert_eq!(read, parts.map(|batch| PartView { request: 0, batch }));
        assert!(read.iter().all(|p| (p.batch.as_ptr() as usize).is_multiple_of(ALIGN)));
        assert_eq!(bytes[4..6], [2, 0], "a build that knows no requests can read it");
        let numbered = [(u64::MAX - 3, parts[0]), (0, parts[1])];
        let bytes = encode_requests(-5, &numbered);
        let CommandBody::Batches(read) = CommandView::parse(&bytes).expect("own encoding").body else { panic!("batches") };
        assert_eq!(read, numbered.map(|(request, batch)| PartView { request, batch }));
        assert_eq!(bytes[4..6], [3, 0], "one that does not must not count a second attempt's events as duplicates");
    }

    #[test]
    fn cut_or_foreign_commands_are_refused() {
        let bytes = encode_batches(1, &[[9u8; 33]]);
        for cut in 0..bytes.len() {
            assert!(CommandView::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut newer = bytes.to_vec();
        newer[4] = 4;
        assert_eq!(CommandView::parse(&newer), Err(CommandError::Version(4)));
    }

    #[test]
    fn settings_of_version_1_have_no_budget() {
        let json = br#"{"lateness_ms":1,"dedup_horizon_ms":2,"retention_minute_ms":null,"retention_hour_ms":null,"retention_day_ms":3,
            "definitions_version":4,"definitions":[]}"#;
        let mut bytes = b"TMCM\x01\x00\x03\x00".to_vec();
        bytes.extend_from_slice(&7i64.to_le_bytes());
        bytes.extend_from_slice(json);
        let view = CommandView::parse(&bytes).expect("an old entry");
        let CommandBody::Configure(settings) = view.body else { panic!("settings") };
        assert_eq!((settings.retention_day_ms, settings.definitions_version, &settings.cardinality), (Some(3), 4, &None));
        let again = encode_configure(7, &settings);
        assert_eq!(CommandView::parse(&again).expect("own encoding").body, CommandBody::Configure(settings));
    }
}
