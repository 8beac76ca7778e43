//! Messages of which not all frames have come.

use std::collections::HashMap;

use bytes::Bytes;
use rkyv::util::AlignedVec;

use super::super::wire::Head;
use crate::peer::limits::{ARRIVING_BYTES_MAX, CHUNK_BYTES_MAX, MESSAGE_BYTES_MAX};

#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    Partly,
    /// All of it, 16-aligned: what is inside is read in place.
    Whole(Bytes),
    /// The rest of a message that was cancelled or refused.
    Ignored,
    NoRoom,
    Violation(String),
}

#[derive(Default)]
pub struct Arriving {
    /// By whether it is an answer, and the number of its request.
    messages: HashMap<(bool, u64), AlignedVec<16>>,
    /// Announced by what is in `messages`, in bytes.
    announced: HashMap<(bool, u64), usize>,
    announced_bytes: usize,
}

impl Arriving {
    pub fn take(&mut self, is_answer: bool, head: &Head, body: &[u8]) -> Taken {
        let (key, total, offset) = ((is_answer, head.request), head.total as usize, head.offset as usize);
        if total > MESSAGE_BYTES_MAX || body.len() > CHUNK_BYTES_MAX || offset + body.len() > total || (body.is_empty() && total > 0) {
            return Taken::Violation(format!("{} bytes at {offset} of a message of {total} bytes", body.len()));
        }
        if offset == 0 {
            if self.messages.contains_key(&key) {
                return Taken::Violation(format!("message {} begins twice", head.request));
            }
            if body.len() < total && self.announced_bytes + total > ARRIVING_BYTES_MAX {
                return Taken::NoRoom;
            }
            let mut message = AlignedVec::with_capacity(total);
            message.extend_from_slice(body);
            if message.len() == total {
                return Taken::Whole(Bytes::from_owner(message));
            }
            self.messages.insert(key, message);
            self.announced.insert(key, total);
            self.announced_bytes += total;
            return Taken::Partly;
        }
        let Some(message) = self.messages.get_mut(&key) else { return Taken::Ignored };
        if message.len() != offset || self.announced.get(&key) != Some(&total) {
            return Taken::Violation(format!("bytes at {offset} of a message of which {} have come", message.len()));
        }
        message.extend_from_slice(body);
        if message.len() < total {
            return Taken::Partly;
        }
        match self.remove(key) {
            Some(message) => Taken::Whole(Bytes::from_owner(message)),
            None => Taken::Ignored,
        }
    }

    pub fn forget(&mut self, is_answer: bool, request: u64) {
        self.remove((is_answer, request));
    }

    fn remove(&mut self, key: (bool, u64)) -> Option<AlignedVec<16>> {
        self.announced_bytes -= self.announced.remove(&key).unwrap_or(0);
        self.messages.remove(&key)
    }
}
