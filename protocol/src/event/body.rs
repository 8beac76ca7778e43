//! A request body to events, piece by piece as it is decompressed, so that it never has to be in memory whole.
//!
//! What lies whole within a piece is parsed in place. Only an item that spans pieces is put together in a carry buffer, which the limit on one event
//! bounds; a larger item is refused and skipped without being kept. Outcomes do not depend on where the pieces are cut.

mod array;
mod extent;
mod lines;

#[cfg(test)]
mod tests;

use crate::error::{ErrorCode, Problem};
use crate::event::parse::KeyOrder;
use crate::event::{Event, RejectCode, Rejection};
use crate::limits::REJECTED_BYTES_KEPT;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// An array of events, or one event.
    Json,
    /// An event a line.
    NdJson,
}

/// What a body may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Items, good or bad.
    pub events_max: u32,
    /// One item, in bytes; a larger one is rejected, the others go on.
    pub event_bytes_max: usize,
    /// The body after decompression, in bytes.
    pub decoded_bytes_max: u64,
    /// Nesting of one item, in levels, at most [`crate::limits::JSON_DEPTH_MAX`].
    pub depth: usize,
}

/// Takes what a body holds, in order; `index` counts array items or non-empty lines from 0.
pub trait EventSink {
    fn event(&mut self, index: u32, event: &Event<'_>);
    /// `raw` is the item as sent; the first [`REJECTED_BYTES_KEPT`] bytes of one that is too large.
    fn reject(&mut self, index: u32, rejection: Rejection, raw: &[u8]);
}

const BOM: &[u8] = b"\xEF\xBB\xBF";

enum Splitter {
    Array(array::ArraySplitter),
    Lines(lines::LineSplitter),
}

/// Splits one body. Feed it every piece, then finish.
pub struct BodyParser {
    splitter: Splitter,
    limits: BodyLimits,
    fed_bytes: u64,
    /// Bytes of a leading byte order mark seen so far; `None` behind it.
    mark: Option<usize>,
}

impl BodyParser {
    pub fn new(format: BodyFormat, limits: BodyLimits) -> Self {
        let items = Items { limits, next: 0, order: KeyOrder::default() };
        let splitter = match format {
            BodyFormat::Json => Splitter::Array(array::ArraySplitter::new(items)),
            BodyFormat::NdJson => Splitter::Lines(lines::LineSplitter::new(items)),
        };
        Self { splitter, limits, fed_bytes: 0, mark: Some(0) }
    }

    /// Takes the next piece, of any size.
    ///
    /// # Errors
    /// The body as a whole is refused: `body_too_large`, `too_many_events`, and outside of NDJSON `bad_json`. What went to the sink before must then
    /// be thrown away, and the parser must not be used again.
    pub fn feed(&mut self, chunk: &[u8], sink: &mut impl EventSink) -> Result<(), Problem> {
        self.fed_bytes += chunk.len() as u64;
        let limit = self.limits.decoded_bytes_max;
        if self.fed_bytes > limit {
            return Err(
                Problem::new(ErrorCode::BodyTooLarge, format!("the decoded body is over {limit} bytes: send it in parts")).limit(limit)
            );
        }
        let mut chunk = chunk;
        if let Some(seen) = self.mark {
            let matching = chunk.iter().zip(&BOM[seen..]).take_while(|(a, b)| a == b).count();
            let seen = seen + matching;
            if seen == BOM.len() {
                chunk = &chunk[matching..];
                self.mark = None;
                self.split(BOM, true, sink)?;
            } else if matching == chunk.len() {
                self.mark = Some(seen);
                return Ok(());
            } else {
                // No mark after all: what was held back belongs to the text.
                self.mark = None;
                self.split(&BOM[..seen - matching], false, sink)?;
            }
        }
        self.split(chunk, false, sink)
    }

    fn split(&mut self, bytes: &[u8], skip: bool, sink: &mut impl EventSink) -> Result<(), Problem> {
        match &mut self.splitter {
            Splitter::Array(array) if skip => {
                array.skip(bytes.len());
                Ok(())
            }
            Splitter::Lines(_) if skip => Ok(()),
            Splitter::Array(array) => array.feed(bytes, sink),
            Splitter::Lines(lines) => lines.feed(bytes, sink),
        }
    }

    /// The body is complete. Answers how many items it had.
    ///
    /// # Errors
    /// As [`Self::feed`], and `empty_body`.
    pub fn finish(mut self, sink: &mut impl EventSink) -> Result<u32, Problem> {
        if let Some(seen @ 1..) = self.mark {
            self.split(&BOM[..seen], false, sink)?;
        }
        match self.splitter {
            Splitter::Array(array) => array.finish(sink),
            Splitter::Lines(lines) => lines.finish(sink),
        }
    }
}

fn empty_body() -> Problem {
    Problem::new(ErrorCode::EmptyBody, "send a JSON array of events, one event, or NDJSON")
}

/// Counts items and holds them against the limits.
struct Items {
    limits: BodyLimits,
    next: u32,
    order: KeyOrder,
}

impl Items {
    /// Index of the next item.
    fn begin(&mut self) -> Result<u32, Problem> {
        let limit = self.limits.events_max;
        if self.next >= limit {
            let detail = format!("more than {limit} events in one request: send them in parts");
            return Err(Problem::new(ErrorCode::TooManyEvents, detail).limit(u64::from(limit)));
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    fn is_too_large(&self, bytes: usize) -> bool {
        bytes > self.limits.event_bytes_max
    }

    /// `raw` is at least the beginning of the item, and longer than the limit.
    fn reject_too_large(&self, index: u32, raw: &[u8], sink: &mut impl EventSink) {
        let limit = self.limits.event_bytes_max;
        let detail = format!("the event is over {limit} bytes");
        sink.reject(index, Rejection::new(RejectCode::TooLarge, None, detail), &raw[..limit.min(REJECTED_BYTES_KEPT)]);
    }

    fn deliver(&self, index: u32, parsed: Result<Event<'_>, Rejection>, raw: &str, sink: &mut impl EventSink) {
        match parsed {
            Ok(event) => sink.event(index, &event),
            Err(rejection) => sink.reject(index, rejection, raw.as_bytes()),
        }
    }
}
