//! The frames of a session, as bytes.
//!
//! A frame: magic `TMF` and version `u8`, length of the head `u32` (both little-endian), the head as rkyv bytes, the body. What a message carries beyond one
//! frame's body is split, in order, over several. The checksum is of the body.

use bytes::{BufMut, Bytes, BytesMut};
use rkyv::util::AlignedVec;

use super::super::limits::FRAME_BYTES_MAX;
use super::super::rpc::Lane;

const MAGIC: &[u8; 3] = b"TMF";
const PREFIX_BYTES: usize = 8;
/// Versions of the frames that this build speaks.
pub const VERSION_MIN: u8 = 1;
pub const VERSION_MAX: u8 = 1;

/// The numbers are the wire format: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    Request = 1,
    Answer = 2,
    /// An answer that says why there is none: `code`, and the detail as text.
    Refusal = 3,
    /// Nobody waits for the answer any more.
    Cancel = 4,
    /// `total` bytes of a lane were taken in.
    Credit = 5,
}

/// What a frame says about its body. Integers only: names and enums would be part of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Head {
    /// The connection, by the number that both sides know from the handshake: what comes late from an earlier one is told apart.
    pub connection: u64,
    pub request: u64,
    /// Bytes of the whole message, and where this frame's body begins in it.
    pub total: u32,
    pub offset: u32,
    pub crc32: u32,
    /// Of a request: how long its asker waits, in milliseconds.
    pub timeout_ms: u32,
    pub rpc: u16,
    pub shard: u16,
    pub kind: u8,
    pub urgent: bool,
    /// Of a refusal.
    pub code: u8,
}

impl Head {
    pub fn lane(&self) -> Lane {
        if self.urgent { Lane::Urgent } else { Lane::Normal }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub head: Head,
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("no frame: {0} bytes that do not begin like one")]
    NoFrame(usize),
    #[error("version {found} of the frames; this build reads {VERSION_MIN} to {VERSION_MAX}")]
    Version { found: u8 },
    #[error("a frame of {0} bytes: at most {FRAME_BYTES_MAX}")]
    TooLarge(usize),
    #[error("the head of a frame does not read: {0}")]
    Head(String),
    #[error("the checksum of a frame is wrong")]
    Checksum { connection: u64 },
}

/// Encodes a frame with its checksum, in the version that was agreed on (there is one so far).
pub fn encode(mut head: Head, body: &[u8]) -> Vec<u8> {
    head.crc32 = crc32fast::hash(body);
    // An archive of integers cannot fail to be written to memory.
    let encoded = rkyv::to_bytes::<rkyv::rancor::Error>(&head).unwrap_or_default();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + encoded.len() + body.len());
    bytes.put_slice(MAGIC);
    bytes.put_u8(VERSION_MAX);
    bytes.put_u32_le(encoded.len() as u32);
    bytes.put_slice(&encoded);
    bytes.put_slice(body);
    bytes.into()
}

/// # Errors
/// Whatever is not a frame of a version that this build reads.
pub fn decode(bytes: Vec<u8>) -> Result<Frame, FrameError> {
    let bytes = Bytes::from(bytes);
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge(bytes.len()));
    }
    let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Err(FrameError::NoFrame(bytes.len())) };
    let [m0, m1, m2, version, length @ ..] = *prefix;
    if &[m0, m1, m2] != MAGIC {
        return Err(FrameError::NoFrame(bytes.len()));
    }
    if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
        return Err(FrameError::Version { found: version });
    }
    let body_at = PREFIX_BYTES.saturating_add(u32::from_le_bytes(length) as usize);
    let Some(encoded) = bytes.get(PREFIX_BYTES..body_at) else { return Err(FrameError::NoFrame(bytes.len())) };
    let mut aligned = AlignedVec::<16>::with_capacity(encoded.len());
    aligned.extend_from_slice(encoded);
    let head = rkyv::from_bytes::<Head, rkyv::rancor::Error>(&aligned).map_err(|e| FrameError::Head(e.to_string()))?;
    let body = bytes.slice(body_at..);
    if crc32fast::hash(&body) != head.crc32 {
        return Err(FrameError::Checksum { connection: head.connection });
    }
    Ok(Frame { head, body })
}

impl FrameKind {
    pub fn from_wire(number: u8) -> Option<Self> {
        [Self::Request, Self::Answer, Self::Refusal, Self::Cancel, Self::Credit].into_iter().find(|kind| *kind as u8 == number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> Head {
        Head {
            connection: 0x0011_2233_4455_6677,
            request: 4,
            total: 5,
            offset: 1,
            timeout_ms: 6,
            rpc: 2,
            shard: 7,
            kind: FrameKind::Request as u8,
            urgent: true,
            ..Head::default()
        }
    }

    #[test]
    fn frame_reads_back_and_its_bytes_are_fixed() {
        let bytes = encode(head(), b"body");
        let frame = decode(bytes.clone()).expect("own bytes");
        assert_eq!((frame.head, &frame.body[..]), (Head { crc32: crc32fast::hash(b"body"), ..head() }, &b"body"[..]));
        let golden = include_str!("testdata/frame-v1.hex");
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden.trim(), "frames of version 1 never change");
    }

    #[test]
    fn changed_body_or_version_is_refused() {
        let bytes = encode(head(), b"body");
        let change = |at: usize, value: u8| {
            let mut changed = bytes.clone();
            changed[at] = value;
            decode(changed)
        };
        assert_eq!(change(3, 9), Err(FrameError::Version { found: 9 }));
        assert_eq!(change(bytes.len() - 1, b'Y'), Err(FrameError::Checksum { connection: head().connection }));
        assert!(matches!(change(0, b'X'), Err(FrameError::NoFrame(_))));
        assert!(matches!(decode(vec![0; FRAME_BYTES_MAX + 1]), Err(FrameError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_without_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), keep in 0..12_usize) {
            let whole = encode(head(), b"body");
            for (at, byte) in bytes.iter_mut().enumerate().take(keep) {
                *byte = whole[at];
            }
            prop_assert!(decode(bytes).is_err());
        }
    }
}
