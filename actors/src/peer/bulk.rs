//! Files from peer to peer, beside the session: snapshots name immutable files, and a receiver fetches those that it lacks.
//!
//! One connection of the peer port for each transfer, after the same handshake. The client asks with one line of JSON ([`Ask`], length `u32`); the server
//! answers with a status byte, the file's length and then blocks: length `u32`, CRC-32 of the block, its bytes; a block of length zero ends it. The client gets a
//! file from where it broke off. All integers are little-endian. How fast a server reads is bounded over all its streams ([`Pace`]).

mod client;
mod pace;
mod server;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use client::{BulkClient, BulkError, Progress};
pub use pace::Pace;
pub use server::{BulkServer, BulkSource};

use super::limits::{BULK_BLOCK_BYTES, BULK_NAME_BYTES_MAX};

const STATUS_OK: u8 = 0;
const STATUS_NOT_FOUND: u8 = 1;
const STATUS_BUSY: u8 = 2;
const STATUS_FAILED: u8 = 3;

/// What a client asks for. Versioned: a server refuses what it does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ask {
    version: u8,
    shard: u16,
    name: String,
    offset: u64,
}

const ASK_VERSION: u8 = 1;
/// The JSON of an ask, in bytes.
const ASK_BYTES_MAX: usize = 6 * BULK_NAME_BYTES_MAX + 128;

/// A name of a file and of nothing else.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= BULK_NAME_BYTES_MAX && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

const _: () = assert!(BULK_BLOCK_BYTES <= u32::MAX as usize);
