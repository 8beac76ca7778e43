//! One JSON text: an array of items, or one item. Its items may be wrong one by one; what is not JSON as a whole is refused as a whole.

use super::extent::Extent;
use super::{EventSink, Items, empty_body};
use crate::error::{ErrorCode, Problem};
use crate::event::parse::{check_grammar, parse_event_within, parse_leading_event};
use crate::event::{RejectCode, Rejection};

/// What may come next, between items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Body,
    FirstItemOrEnd,
    Item,
    CommaOrEnd,
    Nothing,
}

/// An item that began in an earlier piece.
struct Open {
    index: u32,
    extent: Extent,
    /// Where it begins in the body, in bytes.
    offset: u64,
    is_too_large: bool,
}

pub(super) struct ArraySplitter {
    items: Items,
    expect: Expect,
    in_array: bool,
    open: Option<Open>,
    /// The beginning of the open item.
    carry: Vec<u8>,
    /// Bytes of the body before the current piece.
    offset: u64,
}

impl ArraySplitter {
    pub fn new(items: Items) -> Self {
        Self { items, expect: Expect::Body, in_array: false, open: None, carry: Vec::new(), offset: 0 }
    }

    /// Counts bytes that are not part of the text.
    pub fn skip(&mut self, bytes: usize) {
        self.offset += bytes as u64;
    }

    pub fn feed(&mut self, chunk: &[u8], sink: &mut impl EventSink) -> Result<(), Problem> {
        let mut start = 0;
        if let Some(mut open) = self.open.take() {
            let end = open.extent.find_end(chunk);
            self.keep(&mut open, &chunk[..end.unwrap_or(chunk.len())], sink);
            match end {
                None => self.open = Some(open),
                Some(end) => {
                    self.close(&open, sink)?;
                    start = end;
                }
            }
        }
        if self.open.is_none() {
            self.walk(chunk, start, sink)?;
        }
        self.offset += chunk.len() as u64;
        Ok(())
    }

    #[cfg(test)]
    pub fn carried_bytes(&self) -> usize {
        self.carry.capacity()
    }

    pub fn finish(mut self, sink: &mut impl EventSink) -> Result<u32, Problem> {
        match self.open.take() {
            Some(open) if !self.in_array && open.extent.may_end() => self.close(&open, sink)?,
            Some(open) => return Err(bad_json(self.offset, &format!("the body ends within the item that begins at byte {}", open.offset))),
            None => {}
        }
        match self.expect {
            Expect::Nothing => Ok(self.items.next),
            Expect::Body => Err(empty_body()),
            _ => Err(bad_json(self.offset, "the body ends within the array")),
        }
    }

    /// From `start`, which is between items, to the end of the piece.
    fn walk(&mut self, chunk: &[u8], start: usize, sink: &mut impl EventSink) -> Result<(), Problem> {
        let mut at = start;
        // What is known to be UTF-8, and where it begins: all of the piece at once but for bad bytes and a character that is cut at its end.
        let (mut text, mut text_start) = ("", start);
        while let Some(&byte) = chunk.get(at) {
            at += match (self.expect, byte) {
                (_, b' ' | b'\n' | b'\t' | b'\r') => 1,
                (Expect::Body | Expect::FirstItemOrEnd | Expect::Item, _) if !b",]}:".contains(&byte) && !self.opens_array(byte) => {
                    if at >= text_start + text.len() {
                        (text, text_start) = (valid_part(&chunk[at..]), at);
                    }
                    let index = self.items.begin()?;
                    match self.item(index, &text[at - text_start..], &chunk[at..], at, sink)? {
                        Some(length) => length,
                        None => return Ok(()),
                    }
                }
                _ => {
                    self.punctuation(byte, self.offset + at as u64)?;
                    1
                }
            };
        }
        Ok(())
    }

    fn opens_array(&self, byte: u8) -> bool {
        self.expect == Expect::Body && byte == b'['
    }

    fn punctuation(&mut self, byte: u8, offset: u64) -> Result<(), Problem> {
        self.expect = match (self.expect, byte) {
            (Expect::Body, b'[') => {
                self.in_array = true;
                Expect::FirstItemOrEnd
            }
            (Expect::FirstItemOrEnd | Expect::CommaOrEnd, b']') => Expect::Nothing,
            (Expect::CommaOrEnd, b',') => Expect::Item,
            (Expect::CommaOrEnd, _) => return Err(bad_json(offset, "expected `,` or `]`")),
            (Expect::Nothing, b'{') => {
                return Err(bad_json(offset, "a second JSON text follows; for an event a line send `Content-Type: application/x-ndjson`"));
            }
            (Expect::Nothing, _) => return Err(bad_json(offset, "trailing characters")),
            (Expect::Body | Expect::FirstItemOrEnd | Expect::Item, _) => return Err(bad_json(offset, "expected a value")),
        };
        Ok(())
    }

    /// Delivers the item at the start of `bytes`, `at` bytes into the piece, and says how long it is; or opens it and answers `None` when the piece
    /// ends before it does. `text` is what of `bytes` is valid UTF-8.
    #[inline]
    fn item(&mut self, index: u32, text: &str, bytes: &[u8], at: usize, sink: &mut impl EventSink) -> Result<Option<usize>, Problem> {
        let length = match parse_leading_event(text, self.items.limits.depth, &mut self.items.order) {
            Some((parsed, length)) => {
                if self.items.is_too_large(length) {
                    self.items.reject_too_large(index, &bytes[..length], sink);
                } else {
                    self.items.deliver(index, parsed, &text[..length], sink);
                }
                length
            }
            None => {
                let mut extent = Extent::new(bytes[0]);
                let offset = self.offset + at as u64;
                let Some(length) = extent.find_end(bytes) else {
                    let mut open = Open { index, extent, offset, is_too_large: false };
                    self.keep(&mut open, bytes, sink);
                    self.open = Some(open);
                    return Ok(None);
                };
                self.whole_item(index, &bytes[..length], offset, sink)?;
                length
            }
        };
        self.end_item();
        Ok(Some(length))
    }

    /// An item that is too large, or that the fast way does not take.
    fn whole_item(&self, index: u32, bytes: &[u8], offset: u64, sink: &mut impl EventSink) -> Result<(), Problem> {
        if self.items.is_too_large(bytes.len()) {
            self.items.reject_too_large(index, bytes, sink);
            return Ok(());
        }
        let text = std::str::from_utf8(bytes).map_err(|e| bad_json(offset + e.valid_up_to() as u64, "not UTF-8"))?;
        let parsed = parse_event_within(text, self.items.limits.depth);
        if let Err(Rejection { code: RejectCode::BadJson | RejectCode::TooDeep, .. }) = &parsed {
            // Where the grammar breaks, where the next item begins is a guess.
            check_grammar(text).map_err(|(at, message)| bad_json(offset + at as u64, &message))?;
        }
        self.items.deliver(index, parsed, text, sink);
        Ok(())
    }

    /// Keeps a part of the open item until the rest of it comes.
    fn keep(&mut self, open: &mut Open, part: &[u8], sink: &mut impl EventSink) {
        if open.is_too_large {
            return;
        }
        let room = (self.items.limits.event_bytes_max + 1).saturating_sub(self.carry.len());
        self.carry.extend_from_slice(&part[..part.len().min(room)]);
        if self.items.is_too_large(self.carry.len()) {
            self.items.reject_too_large(open.index, &self.carry, sink);
            self.carry = Vec::new();
            open.is_too_large = true;
        }
    }

    fn close(&mut self, open: &Open, sink: &mut impl EventSink) -> Result<(), Problem> {
        if !open.is_too_large {
            let mut item = std::mem::take(&mut self.carry);
            self.whole_item(open.index, &item, open.offset, sink)?;
            item.clear();
            self.carry = item;
        }
        self.end_item();
        Ok(())
    }

    fn end_item(&mut self) {
        self.expect = if self.in_array { Expect::CommaOrEnd } else { Expect::Nothing };
    }
}

fn valid_part(bytes: &[u8]) -> &str {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => {
            let valid = simdutf8::compat::from_utf8(bytes).map_or_else(|e| e.valid_up_to(), str::len);
            std::str::from_utf8(&bytes[..valid]).unwrap_or_default()
        }
    }
}

fn bad_json(offset: u64, message: &str) -> Problem {
    Problem::new(ErrorCode::BadJson, format!("byte {offset}: {message}"))
}
