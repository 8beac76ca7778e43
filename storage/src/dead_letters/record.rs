//! One letter and its bytes: version `u8`, length of the description `u32` little-endian, the description as JSON, the event as received.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tallymesh_protocol::event::Rejection;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// A refused event on its way into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLetter {
    /// UTC milliseconds.
    pub arrived_ms: i64,
    pub request_id: String,
    /// Place in its request.
    pub index: u32,
    pub rejection: Rejection,
    /// The event as received, perhaps cut.
    pub raw: Bytes,
    /// Whether `raw` was cut: such a letter can be read, but not sent again.
    pub truncated: bool,
    /// The id that an event without one gets when it is sent again, so that sending it twice counts once.
    pub event_id: String,
    /// What its request said about the events that name no schema version.
    pub schema_version: Option<String>,
}

/// A refused event as kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Rises with each letter; never used twice.
    pub id: u64,
    pub letter: NewLetter,
}

#[derive(Serialize, Deserialize)]
struct Description {
    arrived_ms: i64,
    request_id: String,
    index: u32,
    rejection: Rejection,
    truncated: bool,
    event_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schema_version: Option<String>,
}

impl NewLetter {
    pub(super) fn encode(&self) -> Vec<u8> {
        let description = Description {
            arrived_ms: self.arrived_ms,
            request_id: self.request_id.clone(),
            index: self.index,
            rejection: self.rejection.clone(),
            truncated: self.truncated,
            event_id: self.event_id.clone(),
            schema_version: self.schema_version.clone(),
        };
        let mut out = vec![VERSION, 0, 0, 0, 0];
        // Plain text and numbers into memory: it cannot fail.
        let _ = serde_json::to_writer(&mut out, &description);
        let length = (out.len() - HEADER_BYTES) as u32;
        out[1..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.raw);
        out
    }

    /// `None` when the bytes are not a letter of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        if header[0] != VERSION {
            return None;
        }
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let (description, raw) = rest.split_at_checked(length)?;
        let d: Description = serde_json::from_slice(description).ok()?;
        Some(Self {
            arrived_ms: d.arrived_ms,
            request_id: d.request_id,
            index: d.index,
            rejection: d.rejection,
            raw: Bytes::copy_from_slice(raw),
            truncated: d.truncated,
            event_id: d.event_id,
            schema_version: d.schema_version,
        })
    }
}
