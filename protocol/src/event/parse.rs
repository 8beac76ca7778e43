//! JSON text to [`Event`]: the door where everything is checked once (I2, I4).
//!
//! Two ways to the same result. `scan` goes once over the text and is for nearly every event; what it does not accept goes to `slow`, which is
//! serde_json and either accepts it after all (escaped keys) or says what is wrong. Both only find where the fields are; `fields` makes the event
//! of either, by `rules`.

mod fields;
mod number;
mod property;
mod rules;
mod run;
mod scan;
mod slow;
mod timestamp;
mod token;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub(crate) use fields::KeyOrder;
use fields::{Field, Fields};
pub use property::PropertyReader;
use scan::Scanner;
pub(crate) use slow::check_grammar;

use crate::definition::FieldRef;
use crate::event::{Event, RejectCode, Rejection};
use crate::limits::{DIMENSION_BYTES_MAX, JSON_DEPTH_MAX};

/// Parses one event: a JSON object and nothing else but white space.
///
/// Members of the same name: the last one counts. Numbers are rounded to the nearest double.
///
/// # Errors
/// `not_an_object`, `bad_json`, `too_deep`, or what is wrong with a field; see [`crate::event::RejectCode`].
#[inline]
pub fn parse_event(raw: &str) -> Result<Event<'_>, Rejection> {
    parse_event_within(raw, JSON_DEPTH_MAX)
}

/// The same with a depth of at most `levels`, the event's own object being the first; above [`JSON_DEPTH_MAX`] counts as that.
///
/// # Errors
/// As [`parse_event`].
pub fn parse_event_within(raw: &str, levels: usize) -> Result<Event<'_>, Rejection> {
    parse_event_like(raw, levels, &mut KeyOrder::default())
}

/// The same of one event of several, that tend to have their keys in the same order.
#[inline]
pub(crate) fn parse_event_like<'a>(raw: &'a str, levels: usize, order: &mut KeyOrder) -> Result<Event<'a>, Rejection> {
    let mut fields = Fields::default();
    if let Some(end) = fast_fields(raw, levels, &mut fields, order)
        && is_space(&raw.as_bytes()[end..])
    {
        return fields.event(raw, raw.trim_ascii());
    }
    slow::fields(raw, levels.min(JSON_DEPTH_MAX))?.event(raw, raw.trim_ascii())
}

/// Parses the event that `text` starts with, if the fast way can: the outcome and how many bytes it took.
pub(crate) fn parse_leading_event<'a>(text: &'a str, levels: usize, order: &mut KeyOrder) -> Option<(Result<Event<'a>, Rejection>, usize)> {
    let mut fields = Fields::default();
    let end = fast_fields(text, levels, &mut fields, order)?;
    Some((fields.event(text, &text[..end]), end))
}

/// Finds the fields and where the event ends.
fn fast_fields(text: &str, levels: usize, fields: &mut Fields, order: &mut KeyOrder) -> Option<usize> {
    let inner = levels.min(JSON_DEPTH_MAX).checked_sub(1)?;
    let mut scanner = Scanner::new(text, 0)?;
    scanner.space();
    scanner.take(b'{')?;
    scanner.space();
    if scanner.take(b'}').is_some() {
        return Some(scanner.at);
    }
    for place in 0.. {
        let field = match order.at(place, &mut scanner) {
            Some(field) => Some(field),
            None => {
                let key = scanner.key()?;
                if key.kind() != token::Kind::Text {
                    return None;
                }
                Field::of(key.of(text).as_bytes())
            }
        };
        let value = scanner.value(inner)?;
        fields.note(field, value);
        if !scanner.next_member()? {
            return Some(scanner.at);
        }
    }
    None
}

fn is_space(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| matches!(b, b' ' | b'\n' | b'\t' | b'\r'))
}

/// What a definition reads as a dimension: strings as they are, numbers and booleans as their JSON text as received, `None` for null, arrays, objects
/// and what is not there. For several properties of one event a [`PropertyReader`] is one pass instead of one each.
///
/// # Errors
/// `bad_value` when a property is longer than [`crate::limits::DIMENSION_BYTES_MAX`].
pub fn dimension_text<'e>(event: &'e Event<'_>, field: &FieldRef) -> Result<Option<Cow<'e, str>>, Rejection> {
    let text = match field {
        FieldRef::Property(name) => {
            let mut reader = PropertyReader::default();
            reader.read(std::slice::from_ref(name), event);
            reader.text(0, event)
        }
        known => field_text(event, known),
    };
    check_dimension(field, text)
}

/// What a definition reads as a number; `None` for anything else.
pub fn number(event: &Event<'_>, field: &FieldRef) -> Option<f64> {
    match field {
        FieldRef::Value => event.value,
        FieldRef::Property(name) => {
            let mut reader = PropertyReader::default();
            reader.read(std::slice::from_ref(name), event);
            reader.number(0, event)
        }
        _ => None,
    }
}

/// Text of a field that is not a property.
pub(crate) fn field_text<'e>(event: &'e Event<'_>, field: &FieldRef) -> Option<Cow<'e, str>> {
    match field {
        FieldRef::Event => Some(Cow::Borrowed(&event.name)),
        FieldRef::Source => event.source.as_deref().map(Cow::Borrowed),
        FieldRef::DeviceType => event.device_type.as_deref().map(Cow::Borrowed),
        FieldRef::CountryCode => event.country_code.as_deref().map(Cow::Borrowed),
        FieldRef::SessionId => event.session_id.as_deref().map(Cow::Borrowed),
        FieldRef::UserId => event.user_id.as_deref().map(Cow::Borrowed),
        FieldRef::SchemaVersion => event.schema_version.as_deref().map(Cow::Borrowed),
        FieldRef::Value => property::value_text(event),
        FieldRef::Property(_) => None,
    }
}

/// Refuses a text that is too long to be a dimension.
pub(crate) fn check_dimension<'e>(field: &FieldRef, text: Option<Cow<'e, str>>) -> Result<Option<Cow<'e, str>>, Rejection> {
    match &text {
        Some(long) if long.len() > DIMENSION_BYTES_MAX => {
            let name = match field {
                FieldRef::Property(name) => format!("properties.{name}"),
                // The other fields were measured when the event was parsed.
                _ => "value".to_owned(),
            };
            Err(rules::too_long(RejectCode::BadValue, &name, long.len(), DIMENSION_BYTES_MAX))
        }
        _ => Ok(text),
    }
}
