//! The fields of an event: which there are, where they are in the text, and the short way to a typed event for nearly all.

use std::borrow::Cow;

use super::scan::Scanner;
use super::token::{Kind, Token};
use super::{number, rules, timestamp};
use crate::event::{Event, Rejection};
use crate::limits::{DIMENSION_BYTES_MAX, EVENT_ID_BYTES_MAX, EVENT_NAME_BYTES_MAX, IDENTITY_BYTES_MAX};

/// Top-level names that the schema knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Field {
    EventId,
    Event,
    EventName,
    Timestamp,
    SessionId,
    UserId,
    Source,
    DeviceType,
    Device,
    CountryCode,
    Country,
    Value,
    SchemaVersion,
    Properties,
    Metadata,
}

const FIELDS: usize = Field::Metadata as usize + 1;

const ALL: [Field; FIELDS] = [
    Field::EventId,
    Field::Event,
    Field::EventName,
    Field::Timestamp,
    Field::SessionId,
    Field::UserId,
    Field::Source,
    Field::DeviceType,
    Field::Device,
    Field::CountryCode,
    Field::Country,
    Field::Value,
    Field::SchemaVersion,
    Field::Properties,
    Field::Metadata,
];

/// A key as nearly everybody writes it, in its quotes and with its colon: the first and the last eight bytes, first byte lowest.
#[derive(Clone, Copy)]
struct Spelling {
    head: u64,
    tail: u64,
    len: usize,
}

/// Two words overlap or touch up to here, so that they are all of a spelling.
const SPELLING_BYTES_MAX: usize = 16;

const SPELLINGS: [Spelling; FIELDS] = {
    let mut spellings = [Spelling { head: 0, tail: 0, len: 0 }; FIELDS];
    let mut i = 0;
    while i < FIELDS {
        assert!(ALL[i] as usize == i);
        spellings[i] = Spelling::of(ALL[i].name().as_bytes());
        i += 1;
    }
    spellings
};

impl Spelling {
    const fn of(name: &[u8]) -> Self {
        let len = name.len() + 3;
        let (mut head, mut tail, mut i) = (0, 0, 0);
        while i < len {
            let byte = if i == 0 || i == len - 2 {
                b'"'
            } else if i == len - 1 {
                b':'
            } else {
                name[i - 1]
            } as u64;
            if i < 8 {
                head |= byte << (8 * i);
            }
            if i >= len - 8 {
                tail |= byte << (8 * (i - (len - 8)));
            }
            i += 1;
        }
        Self { head, tail, len }
    }
}

/// Places of an event's keys that are predicted.
const PLACES: usize = 16;

/// Which key was where in the last event: producers write them in one order, and comparing with the one that is expected is cheaper than finding out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyOrder([Field; PLACES]);

impl Default for KeyOrder {
    fn default() -> Self {
        use Field::{CountryCode, DeviceType, Event, EventId, Properties, SessionId, Source, Timestamp, UserId, Value};
        let mut order = [EventId; PLACES];
        order[..10].copy_from_slice(&[EventId, Event, Timestamp, SessionId, UserId, DeviceType, CountryCode, Source, Value, Properties]);
        Self(order)
    }
}

impl KeyOrder {
    /// The known key at the scanner, the one at `place` of its event; as [`Field::at`].
    #[inline(always)]
    pub(super) fn at(&mut self, place: usize, scanner: &mut Scanner<'_>) -> Option<Field> {
        let Some(expected) = self.0.get(place) else { return Field::at(scanner) };
        let spelling = &SPELLINGS[*expected as usize];
        if scanner.word(scanner.at) == Some(spelling.head) && scanner.word(scanner.at + spelling.len - 8) == Some(spelling.tail) {
            scanner.at += spelling.len;
            scanner.space();
            return Some(*expected);
        }
        self.learn(place, scanner)
    }

    fn learn(&mut self, place: usize, scanner: &mut Scanner<'_>) -> Option<Field> {
        let field = Field::at(scanner)?;
        if SPELLINGS[field as usize].len <= SPELLING_BYTES_MAX {
            self.0[place] = field;
        }
        Some(field)
    }
}

/// Text up to this is within the limit of every field, in bytes.
const USUAL_BYTES_MAX: usize = 200;

const _: () = assert!(
    USUAL_BYTES_MAX <= EVENT_ID_BYTES_MAX
        && USUAL_BYTES_MAX <= EVENT_NAME_BYTES_MAX
        && USUAL_BYTES_MAX <= IDENTITY_BYTES_MAX
        && USUAL_BYTES_MAX <= DIMENSION_BYTES_MAX
);

impl Field {
    pub const fn name(self) -> &'static str {
        match self {
            Self::EventId => "event_id",
            Self::Event => "event",
            Self::EventName => "event_name",
            Self::Timestamp => "timestamp",
            Self::SessionId => "session_id",
            Self::UserId => "user_id",
            Self::Source => "source",
            Self::DeviceType => "device_type",
            Self::Device => "device",
            Self::CountryCode => "country_code",
            Self::Country => "country",
            Self::Value => "value",
            Self::SchemaVersion => "schema_version",
            Self::Properties => "properties",
            Self::Metadata => "_metadata",
        }
    }

    /// The known key at the scanner, which then is at its value; `None` leaves it where it is. Takes keys as nearly everybody writes them: without
    /// escapes, the colon at the quote. Comparing with constants lets the processor run ahead, where a search for the closing quote would hold it up.
    #[inline]
    pub fn at(scanner: &mut Scanner<'_>) -> Option<Self> {
        const fn head(key: &[u8; 8]) -> u64 {
            u64::from_le_bytes(*key)
        }
        const EVENT_ID: u64 = head(b"\"event_i");
        const EVENT: u64 = head(b"\"event\":");
        const EVENT_NAME: u64 = head(b"\"event_n");
        const TIMESTAMP: u64 = head(b"\"timesta");
        const SESSION_ID: u64 = head(b"\"session");
        const USER_ID: u64 = head(b"\"user_id");
        const SOURCE: u64 = head(b"\"source\"");
        const DEVICE_TYPE: u64 = head(b"\"device_");
        const COUNTRY: u64 = head(b"\"country");
        const VALUE: u64 = head(b"\"value\":");
        const PROPERTIES: u64 = head(b"\"propert");
        let rest = scanner.rest(scanner.at + 8);
        let (field, length) = match scanner.word(scanner.at)? {
            EVENT_ID if rest.starts_with(b"d\":") => (Self::EventId, 11),
            EVENT => (Self::Event, 8),
            TIMESTAMP if rest.starts_with(b"mp\":") => (Self::Timestamp, 12),
            SESSION_ID if rest.starts_with(b"_id\":") => (Self::SessionId, 13),
            USER_ID if rest.starts_with(b"\":") => (Self::UserId, 10),
            DEVICE_TYPE if rest.starts_with(b"type\":") => (Self::DeviceType, 14),
            COUNTRY if rest.starts_with(b"_code\":") => (Self::CountryCode, 15),
            SOURCE if rest.starts_with(b":") => (Self::Source, 9),
            VALUE => (Self::Value, 8),
            PROPERTIES if rest.starts_with(b"ies\":") => (Self::Properties, 13),
            EVENT_NAME if rest.starts_with(b"ame\":") => (Self::EventName, 13),
            _ => return None,
        };
        scanner.at += length;
        scanner.space();
        Some(field)
    }

    /// By length first: one comparison of known size decides.
    #[inline]
    pub fn of(key: &[u8]) -> Option<Self> {
        let is = |field: Self| (key == field.name().as_bytes()).then_some(field);
        match key.len() {
            5 => is(Self::Event).or_else(|| is(Self::Value)),
            6 => is(Self::Source).or_else(|| is(Self::Device)),
            7 => is(Self::UserId).or_else(|| is(Self::Country)),
            8 => is(Self::EventId),
            9 => is(Self::Timestamp).or_else(|| is(Self::Metadata)),
            10 => is(Self::SessionId).or_else(|| is(Self::Properties)).or_else(|| is(Self::EventName)),
            11 => is(Self::DeviceType),
            12 => is(Self::CountryCode),
            14 => is(Self::SchemaVersion),
            _ => None,
        }
    }
}

/// Where the known fields of one event are in its text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    tokens: [Token; FIELDS],
    has_extra_fields: bool,
}

impl Fields {
    /// A later member of the same name replaces an earlier one.
    #[inline]
    pub fn note(&mut self, field: Option<Field>, value: Token) {
        match field {
            Some(field) => self.tokens[field as usize] = value,
            None => self.has_extra_fields = true,
        }
    }

    #[inline]
    pub fn get(&self, field: Field) -> Token {
        self.tokens[field as usize]
    }

    pub fn has_extra_fields(&self) -> bool {
        self.has_extra_fields
    }

    /// Applies the rules. `text` is what the tokens point into, `raw` the event in it.
    #[inline]
    pub fn event<'a>(&self, text: &'a str, raw: &'a str) -> Result<Event<'a>, Rejection> {
        // Checked first and made then, in one go: with a result for each field, making the event takes as long as finding the fields.
        let Some((timestamp_ms, value)) = self.usual(text) else { return rules::event(self, text, raw) };
        Ok(Event {
            event_id: self.usual_text(Field::EventId, text).map(Cow::Borrowed),
            name: Cow::Borrowed(self.get(Field::Event).of(text)),
            timestamp_ms,
            session_id: self.usual_text(Field::SessionId, text).map(Cow::Borrowed),
            user_id: self.usual_text(Field::UserId, text).map(Cow::Borrowed),
            source: self.usual_text(Field::Source, text).map(Cow::Borrowed),
            device_type: self.usual_text(Field::DeviceType, text).map(Cow::Borrowed),
            country_code: self.usual_text(Field::CountryCode, text).map(Cow::Borrowed),
            value,
            schema_version: self.usual_text(Field::SchemaVersion, text).map(Cow::Borrowed),
            properties: self.usual_text(Field::Properties, text),
            raw,
            has_extra_fields: self.has_extra_fields,
        })
    }

    /// Time and value of an event as nearly all are: valid, no aliases, no escapes, nothing near a limit.
    #[inline]
    fn usual(&self, text: &str) -> Option<(Option<i64>, Option<f64>)> {
        const TEXTS: [Field; 7] =
            [Field::EventId, Field::SessionId, Field::UserId, Field::Source, Field::DeviceType, Field::CountryCode, Field::SchemaVersion];
        const ALIASES: [Field; 4] = [Field::EventName, Field::Device, Field::Country, Field::Metadata];
        let [name, timestamp, value, properties] = [Field::Event, Field::Timestamp, Field::Value, Field::Properties].map(|f| self.get(f));
        let is_usual = TEXTS.iter().all(|&f| self.get(f).is_nothing() || self.get(f).is_text_within(USUAL_BYTES_MAX))
            && ALIASES.iter().all(|&f| self.get(f).is_nothing())
            && name.is_text_within(USUAL_BYTES_MAX)
            // Below space there is nothing in it.
            && name.of(text).bytes().all(|b| b < 0x7F)
            && (properties.is_nothing() || properties.kind() == Kind::Object);
        if !is_usual {
            return None;
        }
        let timestamp_ms = match timestamp.kind() {
            Kind::Absent | Kind::Null => None,
            Kind::Integer | Kind::Decimal => Some(timestamp::from_number(timestamp.of(text))?),
            Kind::Text => Some(timestamp::from_rfc3339(timestamp.of(text))?),
            _ => return None,
        };
        match value.kind() {
            Kind::Absent | Kind::Null => Some((timestamp_ms, None)),
            Kind::Integer | Kind::Decimal => Some((timestamp_ms, Some(number::parse(value.of(text))))),
            _ => None,
        }
    }

    #[inline(always)]
    fn usual_text<'a>(&self, field: Field, text: &'a str) -> Option<&'a str> {
        let token = self.get(field);
        if token.is_nothing() { None } else { Some(token.of(text)) }
    }
}
