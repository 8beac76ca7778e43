//! Takes a body apart: decode, split, parse, judge and encode in one pass, in windows; a body never exists whole once it is unpacked, and what came as
//! it is, never does.

use std::sync::Arc;

use bytes::Bytes;
use tallymesh_actors::tail::TailEvent;
use tallymesh_protocol::definition::DefinitionSet;
use tallymesh_protocol::error::Problem;
use tallymesh_protocol::event::body::{BodyFormat, BodyLimits, BodyParser, EventSink};
use tallymesh_protocol::event::encode::{BatchEncoder, Door, Encoded, GeneratedIds};
use tallymesh_protocol::event::{Event, RejectCode, Rejection};
use tallymesh_storage::dead_letters::NewLetter;

use super::ack::{Refusal, Refusals};
use super::decode::{Encoding, decode};
use crate::limits::{LETTER_EXCERPT_BYTES, REQUEST_LETTER_BYTES_MAX};

/// Everything that reading one body depends on.
pub struct Reading {
    pub format: BodyFormat,
    pub encoding: Encoding,
    pub limits: BodyLimits,
    pub letter_bytes_max: usize,
    pub shards: u16,
    pub definitions: Arc<DefinitionSet>,
    pub door: Door,
    pub ids: GeneratedIds,
    pub request_id: String,
    /// Of events that name none.
    pub schema_version: Option<String>,
    /// Whether somebody watches accepted events.
    pub is_watched: bool,
}

/// What a body held.
pub struct Batch {
    pub encoded: Encoded,
    pub letters: Vec<NewLetter>,
    pub refusals: Refusals,
    pub watched: Vec<TailEvent>,
    pub decoded_bytes: u64,
}

impl Batch {
    /// What it holds on to, in bytes, give or take its small change.
    pub fn memory_bytes(&self) -> usize {
        let parts: usize = self.encoded.parts.iter().map(|(_, bytes)| bytes.len()).sum();
        let letters: usize =
            self.letters.iter().map(|l| l.raw.len() + l.schema_version.as_ref().map_or(0, String::len) + size_of::<NewLetter>()).sum();
        let watched: usize = self.watched.iter().map(|w| w.json.len()).sum();
        parts + letters + watched
    }
}

impl Reading {
    /// The whole of a body, as it was sent.
    ///
    /// # Errors
    /// The body as a whole is refused.
    pub fn read(self, pieces: Vec<Bytes>) -> Result<Batch, Problem> {
        let encoding = self.encoding;
        let mut reader = self.begin();
        decode(encoding, pieces, &mut |window| reader.feed(window))?;
        reader.finish()
    }

    /// A body that is taken apart as it comes.
    pub fn begin(self) -> Reader {
        let parser = BodyParser::new(self.format, self.limits);
        let encoder = BatchEncoder::new(self.shards, self.definitions.clone(), self.door, self.ids.clone());
        let watched = self.is_watched.then(Vec::new);
        let sink = Sink { reading: self, encoder, letters: Vec::new(), letter_bytes: 0, refusals: Refusals::default(), watched };
        Reader { parser, sink, decoded_bytes: 0 }
    }
}

/// A body of which the beginning has been read.
pub struct Reader {
    parser: BodyParser,
    sink: Sink,
    decoded_bytes: u64,
}

impl Reader {
    /// # Errors
    /// The body as a whole is refused; nothing more may be fed.
    pub fn feed(&mut self, window: &[u8]) -> Result<(), Problem> {
        self.decoded_bytes += window.len() as u64;
        self.parser.feed(window, &mut self.sink)
    }

    /// # Errors
    /// As [`Self::feed`].
    pub fn finish(mut self) -> Result<Batch, Problem> {
        self.parser.finish(&mut self.sink)?;
        let Sink { encoder, letters, refusals, watched, .. } = self.sink;
        Ok(Batch { encoded: encoder.finish(), letters, refusals, watched: watched.unwrap_or_default(), decoded_bytes: self.decoded_bytes })
    }
}

struct Sink {
    reading: Reading,
    encoder: BatchEncoder,
    letters: Vec<NewLetter>,
    letter_bytes: usize,
    refusals: Refusals,
    watched: Option<Vec<TailEvent>>,
}

impl EventSink for Sink {
    fn event(&mut self, index: u32, event: &Event<'_>) {
        let versioned = match &self.reading.schema_version {
            Some(version) if event.schema_version.is_none() => {
                Some(Event { schema_version: Some(version.as_str().into()), ..event.clone() })
            }
            _ => None,
        };
        match self.encoder.push(index, versioned.as_ref().unwrap_or(event)) {
            Ok(()) => {
                if let Some(watched) = &mut self.watched {
                    watched.push(TailEvent::new(event, self.reading.door.now_ms));
                }
            }
            Err(rejection) => self.reject(index, rejection, event.raw.as_bytes()),
        }
    }

    fn reject(&mut self, index: u32, rejection: Rejection, raw: &[u8]) {
        let left = REQUEST_LETTER_BYTES_MAX.saturating_sub(self.letter_bytes).max(LETTER_EXCERPT_BYTES);
        let kept = &raw[..raw.len().min(self.reading.letter_bytes_max).min(left)];
        self.letter_bytes += kept.len();
        self.letters.push(NewLetter {
            arrived_ms: self.reading.door.now_ms,
            request_id: self.reading.request_id.clone(),
            index,
            rejection: rejection.clone(),
            raw: Bytes::copy_from_slice(kept),
            // A too large event came cut already.
            truncated: kept.len() < raw.len() || rejection.code == RejectCode::TooLarge,
            event_id: self.reading.ids.id(index),
            schema_version: self.reading.schema_version.clone(),
        });
        self.refusals.add(Refusal { index, rejection });
    }
}
