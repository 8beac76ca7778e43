use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::event::RejectCode as Code;
use crate::limits::{EVENT_ID_BYTES_MAX, EVENT_NAME_BYTES_MAX, IDENTITY_BYTES_MAX};

mod oracle;
mod property;

fn code(raw: &str) -> (Code, Option<String>) {
    let rejection = parse_event(raw).expect_err(raw);
    (rejection.code, rejection.field)
}

fn refused(raw: &str, expected: Code, field: Option<&str>) {
    assert_eq!(code(raw), (expected, field.map(str::to_owned)), "{raw}");
}

#[test]
fn every_field_is_read_as_it_was_sent() {
    let raw = r#" {"event_id":"e1","event":"page_view","timestamp":"2026-01-01T12:00:00.123Z","session_id":"s","user_id":"u","source":"web",
        "device_type":"mobile","country_code":"US","value":12.5,"schema_version":"1.0.0","properties":{"any":["json",{}]}} "#;
    let event = parse_event(raw).expect("valid");
    let expected = Event {
        event_id: Some("e1".into()),
        name: "page_view".into(),
        timestamp_ms: Some(1_767_268_800_123),
        session_id: Some("s".into()),
        user_id: Some("u".into()),
        source: Some("web".into()),
        device_type: Some("mobile".into()),
        country_code: Some("US".into()),
        value: Some(12.5),
        schema_version: Some("1.0.0".into()),
        properties: Some(r#"{"any":["json",{}]}"#),
        raw: raw.trim(),
        has_extra_fields: false,
    };
    assert_eq!(event, expected);
    assert!(matches!(event.source, Some(Cow::Borrowed(_))), "text without escapes is not copied");
}

#[test]
fn aliases_stand_in_for_fields_that_are_null_or_absent() {
    let raw = r#"{"event_name":"e","device":"tv","country":"DE","_metadata":{"source":"api","schema_version":"2","sdk_version":"x"}}"#;
    let event = parse_event(raw).expect("valid");
    assert_eq!((&*event.name, event.default_dimensions()), ("e", [Some("api"), Some("tv"), Some("DE")]));
    assert_eq!(event.schema_version.as_deref(), Some("2"));
    assert!(!event.has_extra_fields);
    let raw = r#"{"event":"e","event_name":"e","device":7,"device_type":"tv","country":"DE","country_code":null,"_metadata":{"source":5},"source":"web"}"#;
    let event = parse_event(raw).expect("the field wins, whatever its alias holds");
    assert_eq!(event.default_dimensions(), [Some("web"), Some("tv"), Some("DE")]);
}

#[test]
fn names_are_1_to_200_bytes_without_control_characters() {
    let longest = "é".repeat(EVENT_NAME_BYTES_MAX / 2);
    assert_eq!(parse_event(&format!(r#"{{"event":"{longest}"}}"#)).expect("valid").name, longest);
    refused(&format!(r#"{{"event":"{longest}x"}}"#), Code::BadName, Some("event"));
    refused(r#"{"event":""}"#, Code::BadName, Some("event"));
    refused(r#"{"event_name":"a\tb"}"#, Code::BadName, Some("event_name"));
    refused("{\"event\":\"a\u{7f}b\"}", Code::BadName, Some("event"));
    refused("{\"event\":\"a\u{85}b\"}", Code::BadName, Some("event"));
    refused(r#"{"event":"a","event_name":"b"}"#, Code::BadName, Some("event_name"));
    refused(r#"{"event":5}"#, Code::WrongType, Some("event"));
    refused(r#"{"event":"a","event_name":5}"#, Code::WrongType, Some("event_name"));
    refused(r#"{"event":null}"#, Code::MissingField, Some("event"));
    refused("{}", Code::MissingField, Some("event"));
    for odd in ["🦀 ünïcode", "\u{a0}", "~", "*"] {
        assert_eq!(parse_event(&format!(r#"{{"event":"{odd}"}}"#)).expect(odd).name, odd);
    }
}

#[test]
fn ids_are_text_of_limited_length() {
    let id = "i".repeat(EVENT_ID_BYTES_MAX);
    assert_eq!(parse_event(&format!(r#"{{"event":"e","event_id":"{id}"}}"#)).expect("valid").event_id.as_deref(), Some(&*id));
    refused(&format!(r#"{{"event":"e","event_id":"{id}i"}}"#), Code::BadValue, Some("event_id"));
    refused(r#"{"event":"e","event_id":""}"#, Code::BadValue, Some("event_id"));
    refused(r#"{"event":"e","event_id":1}"#, Code::WrongType, Some("event_id"));
    assert_eq!(parse_event(r#"{"event":"e","event_id":null}"#).expect("null is absent").event_id, None);

    let event = parse_event(r#"{"event":"e","user_id":123456789012345678901,"session_id":""}"#).expect("valid");
    assert_eq!((event.user_id.as_deref(), event.session_id), (Some("123456789012345678901"), None));
    refused(r#"{"event":"e","user_id":1.0}"#, Code::WrongType, Some("user_id"));
    refused(r#"{"event":"e","session_id":[]}"#, Code::WrongType, Some("session_id"));
    let long = "u".repeat(IDENTITY_BYTES_MAX + 1);
    refused(&format!(r#"{{"event":"e","user_id":"{long}"}}"#), Code::BadValue, Some("user_id"));
}

#[test]
fn dimensions_and_values_are_not_coerced() {
    refused(r#"{"event":"e","source":1}"#, Code::WrongType, Some("source"));
    refused(r#"{"event":"e","device":true}"#, Code::WrongType, Some("device"));
    refused(r#"{"event":"e","_metadata":{"source":1}}"#, Code::WrongType, Some("_metadata.source"));
    refused(r#"{"event":"e","_metadata":1}"#, Code::WrongType, Some("_metadata"));
    refused(r#"{"event":"e","schema_version":1}"#, Code::WrongType, Some("schema_version"));
    refused(r#"{"event":"e","properties":[]}"#, Code::WrongType, Some("properties"));
    refused(r#"{"event":"e","value":"12.5"}"#, Code::WrongType, Some("value"));
    let long = "x".repeat(DIMENSION_BYTES_MAX + 1);
    refused(&format!(r#"{{"event":"e","country":"{long}"}}"#), Code::BadValue, Some("country"));
    let event = parse_event(r#"{"event":"e","source":"","value":null,"properties":null}"#).expect("valid");
    assert_eq!((event.source.as_deref(), event.value, event.properties), (Some(""), None, None));
}

#[test]
fn numbers_beyond_doubles_are_refused_where_they_stand() {
    refused(r#"{"event":"e","value":1e999}"#, Code::BadValue, Some("value"));
    refused(r#"{"event":"e","properties":{"x":[-1e999]}}"#, Code::BadJson, None);
    refused(&format!(r#"{{"event":"e","x":{}}}"#, "9".repeat(400)), Code::BadJson, None);
    let long = format!(r#"{{"event":"e","value":{}}}"#, "9".repeat(305));
    assert_eq!(parse_event(&long).expect("finite").value, "9".repeat(305).parse().ok());
    assert_eq!(parse_event(r#"{"event":"e","value":0e99999999999}"#).expect("zero").value, Some(0.0));
}

#[test]
fn times_are_text_or_numbers_and_numbers_in_text_are_neither() {
    let time = |value: &str| parse_event(&format!(r#"{{"event":"e","timestamp":{value}}}"#)).map(|e| e.timestamp_ms).map_err(|r| r.code);
    assert_eq!(time(r#""2026-01-01T12:00:00Z""#), Ok(Some(1_767_268_800_000)));
    assert_eq!(time(r#""2026-01-01\u005412:00:00Z""#), Ok(Some(1_767_268_800_000)));
    assert_eq!(time("1767268800123"), Ok(Some(1_767_268_800_123)));
    assert_eq!(time("1767268800.5"), Ok(Some(1_767_268_800_500)));
    assert_eq!(time("null"), Ok(None));
    for bad in [r#""1767268800123""#, r#""""#, r#""yesterday""#, "1e300", "253402300800000"] {
        assert_eq!(time(bad), Err(Code::BadTimestamp), "{bad}");
    }
    assert_eq!(time("true"), Err(Code::WrongType));
}

#[test]
fn the_last_member_of_a_name_counts() {
    let raw = r#"{"event":7,"value":1,"event":"a","value":2,"\u0065vent":"b","properties":[],"properties":{}}"#;
    let event = parse_event(raw).expect("valid");
    assert_eq!((&*event.name, event.value, event.properties), ("b", Some(2.0), Some("{}")));
}

#[test]
fn escapes_are_read_in_keys_and_text() {
    let event = parse_event(r#"{"\u0065vent":"a\"\\\/\n\u00e9\ud83e\udd80".  }"#.replace(r"\n", "").replace(".", "").as_str())
        .expect("valid")
        .name
        .into_owned();
    assert_eq!(event, "a\"\\/é🦀");
    for bad in [r#"\x"#, r#"\u12g4"#, r#"\ud800"#, r#"\udc00"#, r#"\ud800\u0041"#, r#"\ud800x"#, "\u{1}", "\n", r#"\u12"#] {
        refused(&format!(r#"{{"event":"e","properties":{{"x":"{bad}"}}}}"#), Code::BadJson, None);
        refused(&format!(r#"{{"event":"{bad}"}}"#), Code::BadJson, None);
        refused(&format!(r#"{{"event":"e","{bad}":1}}"#), Code::BadJson, None);
    }
}

#[test]
fn what_is_not_an_object_or_not_json_is_told_apart() {
    for raw in ["42", "\"x\"", " [1] ", "null", "[{\"event\":\"e\"}]"] {
        refused(raw, Code::NotAnObject, None);
    }
    for raw in [
        "",
        "  ",
        "{",
        "nul",
        "{\"event\":\"e\"",
        "{\"event\":\"e\",}",
        "{\"event\":\"e\"}x",
        "{'event':'e'}",
        "[1",
        "\u{feff}{}",
        "{\"event\":\"e\"}\u{c}",
    ] {
        refused(raw, Code::BadJson, None);
    }
    let detail = parse_event("{\"event\":\"e\",\n\"value\":01}").expect_err("leading zero").detail;
    assert_eq!(detail, "byte 23: invalid number");
}

#[test]
fn nesting_is_bounded_and_never_recursive() {
    let nested = |levels: usize| {
        format!(r#"{{"event":"e","properties":{}{}}}"#, r#"{"a":"#.repeat(levels - 2) + "[", "]".to_owned() + &"}".repeat(levels - 2))
    };
    assert!(parse_event(&nested(JSON_DEPTH_MAX)).is_ok());
    refused(&nested(JSON_DEPTH_MAX + 1), Code::TooDeep, None);
    refused(&nested(200_000), Code::TooDeep, None);
    refused(&"[".repeat(1_000_000), Code::TooDeep, None);
    assert!(parse_event_within(r#"{"event":"e","properties":{}}"#, 2).is_ok());
    assert!(parse_event_within(r#"{"event":"e","properties":{"a":[]}}"#, 2).is_err());
    assert!(parse_event_within(r#"{"event":"e"}"#, 0).is_err());
}
