//! The same as [`super::scan`] by way of serde_json: what the scan leaves aside (escapes in keys), and the reason when an event is refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Field, Fields};
use super::token::{Kind, TEXT_BYTES_MAX, Token};
use crate::event::{RejectCode, Rejection};

/// Where `text`, one JSON value with nothing but white space around it, has the fields of an event.
///
/// # Errors
/// `too_deep`, `bad_json`, `not_an_object`, or `bad_value` for a `value` that no double can hold.
pub(super) fn fields(text: &str, levels: usize) -> Result<Fields, Rejection> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Rejection::new(
            RejectCode::TooLarge,
            None,
            format!("the event is {} bytes long, at most {TEXT_BYTES_MAX}", text.len()),
        ));
    }
    if is_deeper(text, levels) {
        return Err(Rejection::new(RejectCode::TooDeep, None, format!("the event is nested deeper than {levels} levels")));
    }
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err(match serde_json::from_str::<Checked>(text) {
            Ok(Checked) => Rejection::new(RejectCode::NotAnObject, None, "an event is a JSON object"),
            Err(error) => bad_json(text, 0, &error),
        });
    }
    let Members(members) = serde_json::from_str(text).map_err(|e| bad_json(text, 0, &e))?;
    let mut fields = Fields::default();
    for (key, value) in members {
        let field = Field::of(key.as_bytes());
        let value = value.get();
        // Both are slices of one text, so this is how far in the value is.
        let start = value.as_ptr() as usize - text.as_ptr() as usize;
        if let Err(error) = serde_json::from_str::<Checked>(value) {
            if field == Some(Field::Value) && !value.starts_with(['"', '[', '{']) {
                return Err(Rejection::new(RejectCode::BadValue, Some("value"), "`value` is out of the range of a double"));
            }
            return Err(bad_json(text, start, &error));
        }
        fields.note(field, token(value, start));
    }
    Ok(fields)
}

/// Whether `text` is JSON by its grammar alone, however deep, large or odd its values are.
///
/// # Errors
/// What is wrong, and how many bytes in.
pub(crate) fn check_grammar(text: &str) -> Result<(), (usize, String)> {
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(|e| locate(text, &e))
}

fn bad_json(text: &str, start: usize, error: &serde_json::Error) -> Rejection {
    let (offset, message) = locate(&text[start..], error);
    Rejection::new(RejectCode::BadJson, None, format!("byte {}: {message}", start + offset))
}

/// Byte offset and message of an error.
fn locate(text: &str, error: &serde_json::Error) -> (usize, String) {
    let lines_before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    ((lines_before + error.column().saturating_sub(1)).min(text.len()), message)
}

/// Nesting outside of strings; does not mind whether the text is JSON.
fn is_deeper(text: &str, levels: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > levels {
            return true;
        }
    }
    false
}

/// `value` is one checked JSON value without white space around it, `start` bytes into the event's text.
fn token(value: &str, start: usize) -> Token {
    let end = start + value.len();
    let kind = match value.as_bytes().first() {
        Some(b'"') => {
            let kind = if value.contains('\\') { Kind::Escaped } else { Kind::Text };
            return Token::new(kind, start + 1, end - 1);
        }
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b't') => Kind::True,
        Some(b'f') => Kind::False,
        Some(b'n') => Kind::Null,
        _ if value.contains(['.', 'e', 'E']) => Kind::Decimal,
        _ => Kind::Integer,
    };
    Token::new(kind, start, end)
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// A value that `serde_json::Value` would hold, without building it. ([`IgnoredAny`] and [`RawValue`] let lone surrogates and huge numbers pass.)
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CheckedVisitor;
        impl<'de> Visitor<'de> for CheckedVisitor {
            type Value = Checked;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_unit<E>(self) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Checked, A::Error> {
                while seq.next_element::<Checked>()?.is_some() {}
                Ok(Checked)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checked, A::Error> {
                while map.next_entry::<Checked, Checked>()?.is_some() {}
                Ok(Checked)
            }
        }
        deserializer.deserialize_any(CheckedVisitor)
    }
}
