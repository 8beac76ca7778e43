//! What a body means, read with serde_json and everything in memory, with no regard to speed.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tallymesh_protocol::error::ErrorCode;
use tallymesh_protocol::event::body::{BodyFormat, BodyLimits};
use tallymesh_protocol::event::{Event, RejectCode as Code};
use tallymesh_protocol::limits::{
    DIMENSION_BYTES_MAX, EVENT_ID_BYTES_MAX, EVENT_NAME_BYTES_MAX, IDENTITY_BYTES_MAX, JSON_DEPTH_MAX, REJECTED_BYTES_KEPT,
};

use super::times;

/// An event's fields, owned.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    pub event_id: Option<String>,
    pub name: String,
    pub timestamp_ms: Option<i64>,
    pub session_id: Option<String>,
    pub user_id: Option<String>,
    pub source: Option<String>,
    pub device_type: Option<String>,
    pub country_code: Option<String>,
    /// Bits of the value.
    pub value: Option<u64>,
    pub schema_version: Option<String>,
    pub properties: Option<String>,
    pub raw: String,
    pub has_extra_fields: bool,
}

impl Facts {
    pub fn of(event: &Event<'_>) -> Self {
        let owned = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Self {
            event_id: owned(&event.event_id),
            name: event.name.clone().into_owned(),
            timestamp_ms: event.timestamp_ms,
            session_id: owned(&event.session_id),
            user_id: owned(&event.user_id),
            source: owned(&event.source),
            device_type: owned(&event.device_type),
            country_code: owned(&event.country_code),
            value: event.value.map(f64::to_bits),
            schema_version: owned(&event.schema_version),
            properties: event.properties.map(str::to_owned),
            raw: event.raw.to_owned(),
            has_extra_fields: event.has_extra_fields,
        }
    }
}

#[derive(Debug)]
pub(super) enum Expected {
    Items(Vec<Result<Facts, (Code, Vec<u8>)>>),
    /// As a whole, with one of these.
    Refused(Vec<ErrorCode>),
}

pub(super) fn expect(format: BodyFormat, limits: BodyLimits, body: &[u8]) -> Expected {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let items = match format {
        BodyFormat::NdJson => lines(body),
        BodyFormat::Json => match array(body) {
            Ok(items) => items,
            // Items before the broken place may be too many already.
            Err(code) => return Expected::Refused(vec![code, ErrorCode::TooManyEvents]),
        },
    };
    if items.is_empty() && format == BodyFormat::NdJson {
        return Expected::Refused(vec![ErrorCode::EmptyBody]);
    }
    if items.len() > limits.events_max as usize {
        return Expected::Refused(vec![ErrorCode::TooManyEvents]);
    }
    Expected::Items(items.into_iter().map(|item| one(item, limits)).collect())
}

fn lines(body: &[u8]) -> Vec<&[u8]> {
    let lines = body.split(|&b| b == b'\n').map(|line| {
        let start = line.iter().position(|b| !b" \t\r".contains(b)).unwrap_or(line.len());
        let line = &line[start..];
        line.strip_suffix(b"\r").unwrap_or(line)
    });
    lines.filter(|line| !line.is_empty()).collect()
}

fn array(body: &[u8]) -> Result<Vec<&[u8]>, ErrorCode> {
    if body.iter().all(|b| b" \t\r\n".contains(b)) {
        return Err(ErrorCode::EmptyBody);
    }
    let text = std::str::from_utf8(body).map_err(|_| ErrorCode::BadJson)?;
    let items: Vec<&RawValue> = if text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('[') {
        serde_json::from_str(text).map_err(|_| ErrorCode::BadJson)?
    } else {
        vec![serde_json::from_str(text).map_err(|_| ErrorCode::BadJson)?]
    };
    Ok(items.into_iter().map(|item| item.get().as_bytes()).collect())
}

fn one(item: &[u8], limits: BodyLimits) -> Result<Facts, (Code, Vec<u8>)> {
    if item.len() > limits.event_bytes_max {
        return Err((Code::TooLarge, item[..limits.event_bytes_max.min(REJECTED_BYTES_KEPT)].to_vec()));
    }
    let text = std::str::from_utf8(item).map_err(|_| (Code::BadJson, item.to_vec()))?;
    event(text, limits.depth.min(JSON_DEPTH_MAX)).map_err(|code| (code, item.to_vec()))
}

pub(super) fn members(text: &str) -> Result<BTreeMap<String, &RawValue>, Code> {
    serde_json::from_str(text).map_err(|_| Code::BadJson)
}

fn event(raw: &str, depth: usize) -> Result<Facts, Code> {
    if nesting(raw) > depth {
        return Err(Code::TooDeep);
    }
    let value: Value = match serde_json::from_str(raw) {
        Ok(value) => value,
        Err(_) => return Err(if has_endless_value(raw) { Code::BadValue } else { Code::BadJson }),
    };
    let object = value.as_object().ok_or(Code::NotAnObject)?;
    let received = members(raw)?;
    let metadata = match get(object, "_metadata") {
        None => &Map::new(),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Code::WrongType),
    };
    let identity = |key: &str| match get(object, key) {
        Some(Value::Number(_)) if !received[key].get().contains(['.', 'e', 'E']) => {
            within(IDENTITY_BYTES_MAX, Some(received[key].get().to_owned()))
        }
        value => Ok(within(IDENTITY_BYTES_MAX, text(value)?)?.filter(|id| !id.is_empty())),
    };
    let dimension = |key: &str, other: Option<&Value>| within(DIMENSION_BYTES_MAX, text(get(object, key).or(other))?);
    let event_id = within(EVENT_ID_BYTES_MAX, text(get(object, "event_id"))?)?;
    if event_id.as_deref() == Some("") {
        return Err(Code::BadValue);
    }
    let name = match (text(get(object, "event"))?, text(get(object, "event_name"))?) {
        (None, None) => return Err(Code::MissingField),
        (Some(name), Some(alias)) if name != alias => return Err(Code::BadName),
        (Some(name), _) | (None, Some(name)) => name,
    };
    if name.is_empty() || name.len() > EVENT_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Code::BadName);
    }
    let timestamp_ms = match get(object, "timestamp") {
        None => None,
        Some(Value::String(text)) => Some(times::of_text(text).ok_or(Code::BadTimestamp)?),
        Some(Value::Number(_)) => Some(times::of_number(received["timestamp"].get()).ok_or(Code::BadTimestamp)?),
        Some(_) => return Err(Code::WrongType),
    };
    Ok(Facts {
        event_id,
        name,
        timestamp_ms,
        session_id: identity("session_id")?,
        user_id: identity("user_id")?,
        source: dimension("source", get(metadata, "source"))?,
        device_type: dimension("device_type", get(object, "device"))?,
        country_code: dimension("country_code", get(object, "country"))?,
        value: match get(object, "value") {
            None => None,
            // The standard library rounds to the nearest double.
            Some(Value::Number(_)) => Some(received["value"].get().parse::<f64>().map_err(|_| Code::BadValue)?.to_bits()),
            Some(_) => return Err(Code::WrongType),
        },
        schema_version: dimension("schema_version", get(metadata, "schema_version"))?,
        properties: match get(object, "properties") {
            None => None,
            Some(Value::Object(_)) => Some(received["properties"].get().to_owned()),
            Some(_) => return Err(Code::WrongType),
        },
        raw: raw.trim_matches([' ', '\t', '\r', '\n']).to_owned(),
        has_extra_fields: object.keys().any(|key| !KNOWN.contains(&key.as_str())),
    })
}

/// Null counts as absent.
fn get<'v>(object: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn text(value: Option<&Value>) -> Result<Option<String>, Code> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Code::WrongType),
    }
}

fn within(bytes_max: usize, text: Option<String>) -> Result<Option<String>, Code> {
    if text.as_ref().is_some_and(|text| text.len() > bytes_max) { Err(Code::BadValue) } else { Ok(text) }
}

/// Whether a `value` that no double can hold is all that is wrong, or the first thing: then it is named.
fn has_endless_value(raw: &str) -> bool {
    let mut found = false;
    // A map visitor sees every member, also those of one name.
    for (key, value) in serde_json::from_str::<Members<'_>>(raw).map(|m| m.0).unwrap_or_default() {
        if serde_json::from_str::<Value>(value.get()).is_err() {
            found = key == "value" && !value.get().starts_with(['"', '{', '[']);
            break;
        }
    }
    found
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> serde::de::Visitor<'de> for All {
            type Value = Vec<(String, &'de RawValue)>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(All).map(Members)
    }
}

pub(super) const KNOWN: [&str; 15] = [
    "event_id",
    "event",
    "event_name",
    "timestamp",
    "session_id",
    "user_id",
    "source",
    "device_type",
    "device",
    "country_code",
    "country",
    "value",
    "schema_version",
    "properties",
    "_metadata",
];

fn nesting(raw: &str) -> usize {
    let (mut depth, mut deepest, mut in_string) = (0usize, 0, false);
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_string => drop(bytes.next()),
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
