//! The rules of every field, and what is said about an event that breaks one.

use std::borrow::Cow;

use super::fields::{Field, Fields};
use super::property::find;
use super::token::{Kind, Token};
use super::{number, timestamp};
use crate::event::{Event, RejectCode, Rejection};
use crate::limits::{DIMENSION_BYTES_MAX, EVENT_ID_BYTES_MAX, EVENT_NAME_BYTES_MAX, IDENTITY_BYTES_MAX};

/// Any event, by every rule.
#[inline(never)]
pub(super) fn event<'a>(fields: &Fields, text: &'a str, raw: &'a str) -> Result<Event<'a>, Rejection> {
    let read = Reader { fields, text };
    let metadata = match fields.get(Field::Metadata).kind() {
        Kind::Absent => [Token::default(); 2],
        _ => read.metadata()?,
    };
    Ok(Event {
        event_id: read.event_id()?,
        name: read.name()?,
        timestamp_ms: read.timestamp()?,
        session_id: read.identity(Field::SessionId)?,
        user_id: read.identity(Field::UserId)?,
        source: read.dimension(Field::Source, (metadata[0], "_metadata.source"))?,
        device_type: read.dimension(Field::DeviceType, (fields.get(Field::Device), "device"))?,
        country_code: read.dimension(Field::CountryCode, (fields.get(Field::Country), "country"))?,
        value: read.value()?,
        schema_version: read.dimension(Field::SchemaVersion, (metadata[1], "_metadata.schema_version"))?,
        properties: read.properties()?,
        raw,
        has_extra_fields: fields.has_extra_fields(),
    })
}

/// Text of a checked string token.
#[inline]
pub(super) fn text_of(token: Token, text: &str) -> Option<Cow<'_, str>> {
    match token.kind() {
        Kind::Text => Some(Cow::Borrowed(token.of(text))),
        Kind::Escaped => serde_json::from_str(token.quoted(text)).ok().map(Cow::Owned),
        _ => None,
    }
}

/// What a value that was refused is called.
fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Absent => "nothing",
        Kind::Null => "null",
        Kind::True | Kind::False => "a boolean",
        Kind::Integer | Kind::Decimal => "a number",
        Kind::Text | Kind::Escaped => "a string",
        Kind::Array => "an array",
        Kind::Object => "an object",
    }
}

#[cold]
fn wrong_type(name: &str, wanted: &str, token: Token) -> Rejection {
    Rejection::new(RejectCode::WrongType, Some(name), format!("`{name}` must be {wanted}, not {}", kind_name(token.kind())))
}

#[cold]
pub(super) fn too_long(code: RejectCode, name: &str, bytes: usize, limit: usize) -> Rejection {
    Rejection::new(code, Some(name), format!("`{name}` is {bytes} bytes long, at most {limit}"))
}

struct Reader<'f, 'a> {
    fields: &'f Fields,
    text: &'a str,
}

impl<'a> Reader<'_, 'a> {
    /// A string; null and absent are `None`.
    fn string(&self, token: Token, name: &str) -> Result<Option<Cow<'a, str>>, Rejection> {
        match token.kind() {
            Kind::Absent | Kind::Null => Ok(None),
            _ => match text_of(token, self.text) {
                Some(text) => Ok(Some(text)),
                None => Err(wrong_type(name, "a string", token)),
            },
        }
    }

    fn event_id(&self) -> Result<Option<Cow<'a, str>>, Rejection> {
        let name = Field::EventId.name();
        let id = self.string(self.fields.get(Field::EventId), name)?;
        match id.as_ref().map(|id| id.len()) {
            Some(0) => Err(Rejection::new(RejectCode::BadValue, Some(name), "`event_id` is empty: leave it out, or send 1 byte or more")),
            Some(bytes) if bytes > EVENT_ID_BYTES_MAX => Err(too_long(RejectCode::BadValue, name, bytes, EVENT_ID_BYTES_MAX)),
            _ => Ok(id),
        }
    }

    fn name(&self) -> Result<Cow<'a, str>, Rejection> {
        let event = self.string(self.fields.get(Field::Event), Field::Event.name())?;
        let (name, field) = match self.string(self.fields.get(Field::EventName), Field::EventName.name())? {
            None => (event, Field::Event.name()),
            Some(alias) => match event {
                None => (Some(alias), Field::EventName.name()),
                Some(event) if event == alias => (Some(event), Field::Event.name()),
                Some(_) => {
                    let detail = "`event` and `event_name` differ: send one of them";
                    return Err(Rejection::new(RejectCode::BadName, Some(Field::EventName.name()), detail));
                }
            },
        };
        let Some(name) = name else {
            return Err(Rejection::new(RejectCode::MissingField, Some(Field::Event.name()), "`event` is required"));
        };
        if name.is_empty() {
            return Err(Rejection::new(RejectCode::BadName, Some(field), format!("`{field}` is empty")));
        }
        if name.len() > EVENT_NAME_BYTES_MAX {
            return Err(too_long(RejectCode::BadName, field, name.len(), EVENT_NAME_BYTES_MAX));
        }
        if name.chars().any(char::is_control) {
            return Err(Rejection::new(RejectCode::BadName, Some(field), format!("`{field}` has control characters")));
        }
        Ok(name)
    }

    fn timestamp(&self) -> Result<Option<i64>, Rejection> {
        let (token, name) = (self.fields.get(Field::Timestamp), Field::Timestamp.name());
        let time = match token.kind() {
            Kind::Absent | Kind::Null => return Ok(None),
            Kind::Integer | Kind::Decimal => timestamp::from_number(token.of(self.text)),
            Kind::Text => timestamp::from_rfc3339(token.of(self.text)),
            Kind::Escaped => text_of(token, self.text).and_then(|t| timestamp::from_rfc3339(&t)),
            _ => return Err(wrong_type(name, "an RFC 3339 string or a number", token)),
        };
        match time {
            Some(_) => Ok(time),
            None => {
                let detail = "`timestamp` must be RFC 3339 with an offset (2026-01-01T12:00:00Z), or epoch milliseconds or seconds as a number, \
                              in the years 0001-9999";
                Err(Rejection::new(RejectCode::BadTimestamp, Some(name), detail))
            }
        }
    }

    fn identity(&self, field: Field) -> Result<Option<Cow<'a, str>>, Rejection> {
        let token = self.fields.get(field);
        let id = match token.kind() {
            Kind::Absent | Kind::Null => return Ok(None),
            Kind::Integer => Cow::Borrowed(token.of(self.text)),
            _ => text_of(token, self.text).ok_or_else(|| wrong_type(field.name(), "a string or an integer", token))?,
        };
        if id.len() > IDENTITY_BYTES_MAX {
            return Err(too_long(RejectCode::BadValue, field.name(), id.len(), IDENTITY_BYTES_MAX));
        }
        Ok((!id.is_empty()).then_some(id))
    }

    /// The field, or what stands in for it when it is null or absent.
    fn dimension(&self, field: Field, alias: (Token, &str)) -> Result<Option<Cow<'a, str>>, Rejection> {
        let token = self.fields.get(field);
        let (token, name) = match token.kind() {
            Kind::Absent | Kind::Null => alias,
            _ => (token, field.name()),
        };
        let text = self.string(token, name)?;
        match &text {
            Some(text) if text.len() > DIMENSION_BYTES_MAX => Err(too_long(RejectCode::BadValue, name, text.len(), DIMENSION_BYTES_MAX)),
            _ => Ok(text),
        }
    }

    fn value(&self) -> Result<Option<f64>, Rejection> {
        let token = self.fields.get(Field::Value);
        match token.kind() {
            Kind::Absent | Kind::Null => Ok(None),
            Kind::Integer | Kind::Decimal => Ok(Some(number::parse(token.of(self.text)))),
            _ => Err(wrong_type(Field::Value.name(), "a number", token)),
        }
    }

    fn properties(&self) -> Result<Option<&'a str>, Rejection> {
        let token = self.fields.get(Field::Properties);
        match token.kind() {
            Kind::Absent | Kind::Null => Ok(None),
            Kind::Object => Ok(Some(token.of(self.text))),
            _ => Err(wrong_type(Field::Properties.name(), "an object", token)),
        }
    }

    /// `source` and `schema_version` within `_metadata`.
    #[cold]
    fn metadata(&self) -> Result<[Token; 2], Rejection> {
        let token = self.fields.get(Field::Metadata);
        match token.kind() {
            Kind::Null => Ok([Token::default(); 2]),
            Kind::Object => {
                let mut found = [Token::default(); 2];
                find(self.text, token, &["source", "schema_version"], &mut found);
                Ok(found)
            }
            _ => Err(wrong_type(Field::Metadata.name(), "an object", token)),
        }
    }
}
