//! NDJSON: an event a line. A bad line is that line's affair, whatever is wrong with it.

use super::{EventSink, Items, empty_body};
use crate::error::Problem;
use crate::event::parse::parse_event_like;
use crate::event::{RejectCode, Rejection};

pub(super) struct LineSplitter {
    items: Items,
    /// The beginning of a line that goes on in the next piece, without leading white space.
    carry: Vec<u8>,
    /// The rest of the current line belongs to an item that was too large.
    is_skipping: bool,
}

impl LineSplitter {
    pub fn new(items: Items) -> Self {
        Self { items, carry: Vec::new(), is_skipping: false }
    }

    pub fn feed(&mut self, chunk: &[u8], sink: &mut impl EventSink) -> Result<(), Problem> {
        let mut rest = chunk;
        if self.is_skipping || !self.carry.is_empty() {
            let Some(end) = memchr::memchr(b'\n', rest) else { return self.keep(rest, sink) };
            self.keep(&rest[..end], sink)?;
            self.end_line(sink)?;
            rest = &rest[end + 1..];
        }
        let whole = memchr::memrchr(b'\n', rest).map_or(0, |end| end + 1);
        let (lines, tail) = rest.split_at(whole);
        // One check of all lines is cheaper than one each, and what is between line ends is valid when the whole is.
        match simdutf8::basic::from_utf8(lines) {
            Ok(lines) => {
                let mut start = 0;
                for end in memchr::memchr_iter(b'\n', lines.as_bytes()) {
                    self.line(&lines[start..end], sink)?;
                    start = end + 1;
                }
            }
            Err(_) => {
                for line in lines.split(|&b| b == b'\n') {
                    self.line_bytes(line, sink)?;
                }
            }
        }
        self.keep(tail, sink)
    }

    #[cfg(test)]
    pub fn carried_bytes(&self) -> usize {
        self.carry.capacity()
    }

    pub fn finish(mut self, sink: &mut impl EventSink) -> Result<u32, Problem> {
        self.end_line(sink)?;
        if self.items.next == 0 {
            return Err(empty_body());
        }
        Ok(self.items.next)
    }

    /// Keeps a part of a line until the rest of it comes.
    fn keep(&mut self, part: &[u8], sink: &mut impl EventSink) -> Result<(), Problem> {
        if self.is_skipping {
            return Ok(());
        }
        let part = if self.carry.is_empty() { trim_start(part) } else { part };
        // One byte more for the CR that a line may end with.
        let room = (self.items.limits.event_bytes_max + 2).saturating_sub(self.carry.len());
        self.carry.extend_from_slice(&part[..part.len().min(room)]);
        if self.items.is_too_large(self.carry.len().saturating_sub(1)) {
            let index = self.items.begin()?;
            self.items.reject_too_large(index, &self.carry, sink);
            self.carry = Vec::new();
            self.is_skipping = true;
        }
        Ok(())
    }

    fn end_line(&mut self, sink: &mut impl EventSink) -> Result<(), Problem> {
        if std::mem::take(&mut self.is_skipping) {
            return Ok(());
        }
        let mut line = std::mem::take(&mut self.carry);
        let outcome = self.line_bytes(&line, sink);
        line.clear();
        self.carry = line;
        outcome
    }

    fn line_bytes(&mut self, line: &[u8], sink: &mut impl EventSink) -> Result<(), Problem> {
        // First, so that offsets count from where the kept bytes begin.
        let line = trim_start(line);
        match std::str::from_utf8(line) {
            Ok(line) => self.line(line, sink),
            Err(error) => {
                let raw = line.strip_suffix(b"\r").unwrap_or(line);
                let index = self.items.begin()?;
                if self.items.is_too_large(raw.len()) {
                    self.items.reject_too_large(index, raw, sink);
                } else {
                    let detail = format!("byte {}: not UTF-8", error.valid_up_to());
                    sink.reject(index, Rejection::new(RejectCode::BadJson, None, detail), raw);
                }
                Ok(())
            }
        }
    }

    #[inline]
    fn line(&mut self, line: &str, sink: &mut impl EventSink) -> Result<(), Problem> {
        let line = line.trim_start_matches([' ', '\t', '\r']);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Ok(());
        }
        let index = self.items.begin()?;
        if self.items.is_too_large(line.len()) {
            self.items.reject_too_large(index, line.as_bytes(), sink);
        } else {
            let parsed = parse_event_like(line, self.items.limits.depth, &mut self.items.order);
            self.items.deliver(index, parsed, line, sink);
        }
        Ok(())
    }
}

fn trim_start(line: &[u8]) -> &[u8] {
    let blank = line.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r')).count();
    &line[blank..]
}
