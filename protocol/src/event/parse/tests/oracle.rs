//! The parser against a naive reading of `serde_json::Value`, on valid, odd and mutated lines.

use std::collections::BTreeMap;

use serde_json::Map;
use serde_json::value::RawValue;

use super::*;

/// What an event means, from its text, with no regard to speed.
fn naive(raw: &str) -> Result<Event<'_>, Code> {
    if nesting(raw) > JSON_DEPTH_MAX {
        return Err(Code::TooDeep);
    }
    let value: Value = serde_json::from_str(raw).map_err(|_| Code::BadJson)?;
    let object = value.as_object().ok_or(Code::NotAnObject)?;
    let get = |map: &Map<String, Value>, key: &str| map.get(key).filter(|v| !v.is_null()).cloned();
    let text = |value: Option<Value>| match value {
        None => Ok(None),
        Some(Value::String(s)) => Ok(Some(s)),
        Some(_) => Err(Code::WrongType),
    };
    let metadata = match get(object, "_metadata") {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Code::WrongType),
    };
    let dimension = |value: Option<Value>| match text(value)? {
        Some(s) if s.len() > 1_024 => Err(Code::BadValue),
        text => Ok(text.map(Cow::Owned)),
    };
    let received: BTreeMap<String, &RawValue> = serde_json::from_str(raw).map_err(|_| Code::BadJson)?;
    let identity = |key: &str| match get(object, key) {
        Some(Value::Number(_)) if !received[key].get().contains(['.', 'e', 'E']) => Ok(Some(Cow::Borrowed(received[key].get()))),
        value => match text(value)? {
            Some(s) if s.len() > 1_024 => Err(Code::BadValue),
            text => Ok(text.filter(|s| !s.is_empty()).map(Cow::Owned)),
        },
    };
    let event_id = match text(get(object, "event_id"))? {
        Some(id) if id.is_empty() || id.len() > 200 => return Err(Code::BadValue),
        id => id.map(Cow::Owned),
    };
    let (event, alias) = (text(get(object, "event"))?, text(get(object, "event_name"))?);
    let name = match (event, alias) {
        (None, None) => return Err(Code::MissingField),
        (Some(a), Some(b)) if a != b => return Err(Code::BadName),
        (Some(name), _) | (None, Some(name)) => name,
    };
    if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
        return Err(Code::BadName);
    }
    let timestamp_ms = match get(object, "timestamp") {
        None => None,
        Some(Value::String(s)) => Some(timestamp::from_rfc3339(&s).ok_or(Code::BadTimestamp)?),
        Some(Value::Number(n)) => Some(naive_time(&n).ok_or(Code::BadTimestamp)?),
        Some(_) => return Err(Code::WrongType),
    };
    Ok(Event {
        event_id,
        name: Cow::Owned(name),
        timestamp_ms,
        session_id: identity("session_id")?,
        user_id: identity("user_id")?,
        source: dimension(get(object, "source").or_else(|| get(&metadata, "source")))?,
        device_type: dimension(get(object, "device_type").or_else(|| get(object, "device")))?,
        country_code: dimension(get(object, "country_code").or_else(|| get(object, "country")))?,
        value: match get(object, "value") {
            None => None,
            Some(value) => Some(value.as_f64().ok_or(Code::WrongType)?),
        },
        schema_version: dimension(get(object, "schema_version").or_else(|| get(&metadata, "schema_version")))?,
        properties: match get(object, "properties") {
            None => None,
            Some(Value::Object(_)) => Some("{}"),
            Some(_) => return Err(Code::WrongType),
        },
        raw: raw.trim(),
        has_extra_fields: object.keys().any(|k| !KNOWN.contains(&k.as_str())),
    })
}

const KNOWN: [&str; 15] = [
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

fn naive_time(n: &serde_json::Number) -> Option<i64> {
    let f = n.as_f64()?;
    let ms = if let Some(i) = n.as_i64() {
        if i.abs() < 100_000_000_000 { i * 1_000 } else { i }
    } else if f.abs() < 1e11 {
        (f * 1_000.0).floor() as i64
    } else {
        f.floor() as i64
    };
    (-62_135_596_800_000..=253_402_300_799_999).contains(&ms).then_some(ms)
}

fn nesting(raw: &str) -> usize {
    let (mut depth, mut deepest, mut in_string) = (0usize, 0, false);
    let mut bytes = raw.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'\\' if in_string => {
                bytes.next();
            }
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

thread_local! {
    static ORDER: std::cell::Cell<KeyOrder> = std::cell::Cell::default();
}

/// Both ways against the oracle, and against each other.
fn agrees(raw: &str) -> Result<(), TestCaseError> {
    let parsed = parse_event(raw);
    let mut fast = Fields::default();
    // What the texts before it taught is no more than a guess.
    let mut order = ORDER.get();
    let end = fast_fields(raw, JSON_DEPTH_MAX, &mut fast, &mut order).filter(|&end| is_space(&raw.as_bytes()[end..]));
    ORDER.set(order);
    let slow = slow::fields(raw, JSON_DEPTH_MAX);
    if end.is_some() {
        prop_assert_eq!(Ok(&fast), slow.as_ref(), "the fast way found other fields");
    }
    match naive(raw) {
        Ok(mut expected) => {
            let event = parsed.map_err(|r| TestCaseError::fail(format!("refused: {r:?}")))?;
            // The oracle has no text of the properties, and doubles of fractional times.
            if let (Some(Value::Object(p)), Some(text)) =
                (serde_json::from_str::<Value>(raw).ok().and_then(|v| v.get("properties").cloned()), event.properties)
            {
                prop_assert_eq!(&Value::Object(p), &serde_json::from_str::<Value>(text).expect("valid properties"));
                expected.properties = event.properties;
            }
            if let (Some(a), Some(b)) = (event.timestamp_ms, expected.timestamp_ms) {
                prop_assert!((a - b).abs() <= 1, "{} or {}", a, b);
                expected.timestamp_ms = event.timestamp_ms;
            }
            prop_assert_eq!(event.value.map(f64::to_bits), expected.value.map(f64::to_bits));
            prop_assert_eq!(event, expected);
        }
        Err(expected) => {
            let rejection = match parsed {
                Ok(event) => return Err(TestCaseError::fail(format!("took {event:?}, expected {expected:?}"))),
                Err(rejection) => rejection,
            };
            let out_of_range = rejection.code == Code::BadValue && rejection.detail.contains("range of a double");
            prop_assert!(
                rejection.code == expected || (out_of_range && expected == Code::BadJson),
                "{:?}, expected {:?}",
                rejection,
                expected
            );
        }
    }
    Ok(())
}

fn json_string() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z_]{0,12}".prop_map(|s| format!("\"{s}\"")),
        2 => "\\PC{0,24}".prop_map(|s| serde_json::to_string(&s).expect("text")),
        1 => proptest::collection::vec(any::<u16>(), 0..6).prop_map(|units| format!("\"{}\"", units.iter().map(|u| format!("\\u{u:04x}")).collect::<String>())),
        1 => prop_oneof![Just("\\ud83e\\udd80"), Just("\\n\\\"\\\\"), Just("\\/\\b\\f\\r\\t"), Just("\\ud83e"), Just("é\u{7f}")].prop_map(|s| format!("\"{s}\"")),
        1 => (190usize..210).prop_map(|n| format!("\"{}\"", "x".repeat(n))),
        1 => (1_020usize..1_030).prop_map(|n| format!("\"{}\"", "y".repeat(n))),
    ]
}

fn json_number() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?(0|[1-9][0-9]{0,15})",
        "-?(0|[1-9][0-9]{0,17})\\.[0-9]{1,12}",
        "-?[1-9](\\.[0-9]{1,20})?[eE][+-]?[0-9]{1,3}",
        (1_600_000_000_000i64..1_900_000_000_000).prop_map(|n| n.to_string()),
    ]
}

fn json_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![json_string(), json_number(), Just("null".to_owned()), Just("true".to_owned()), Just("false".to_owned())];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let member = (json_string(), inner.clone()).prop_map(|(k, v)| format!("{k} : {v}"));
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" ,"))),
            proptest::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(",\t"))),
        ]
    })
}

fn time_text() -> impl Strategy<Value = String> {
    "\"20[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,9})?([Zz]|[+-][0-2][0-9]:[0-5][0-9])\""
}

fn member() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        12 => proptest::sample::select(&KNOWN[..]).prop_map(|k| format!("\"{k}\"")),
        1 => Just("\"\\u0065vent\"".to_owned()),
        1 => Just("\"val\\u0075e\"".to_owned()),
        2 => json_string(),
    ];
    let usual = prop_oneof![
        Just("\"event\":\"page_view\"".to_owned()),
        Just("\"_metadata\":{\"source\":\"web\",\"schema_version\":\"1\"}".to_owned()),
        (json_number()).prop_map(|n| format!("\"value\":{n}")),
        time_text().prop_map(|t| format!("\"timestamp\": {t}")),
        json_number().prop_map(|n| format!("\"timestamp\":{n}")),
        json_value().prop_map(|v| format!("\"properties\":{{\"a\":{v}}}")),
        proptest::sample::select(&["event_id", "session_id", "user_id", "source", "device_type", "country_code"][..])
            .prop_flat_map(|k| json_string().prop_map(move |v| format!("\"{k}\":{v}"))),
    ];
    prop_oneof![4 => usual, 1 => (key, json_value()).prop_map(|(k, v)| format!("{k} :{v}"))]
}

fn line() -> impl Strategy<Value = String> {
    proptest::collection::vec(member(), 0..10).prop_map(|members| format!("{{{}}}", members.join(",")))
}

/// Cuts, swaps, doubles and replaces bytes of a line, with a taste for what means something in JSON.
fn mutate(line: &str, edits: &[(u8, u16, u16)]) -> String {
    const PIECES: [&str; 24] = [
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "0",
        "-",
        ".",
        "e",
        "\u{1}",
        "\n",
        " ",
        "\\u",
        "\\ud800",
        "null",
        "é",
        "1e999",
        "\"event\":",
        "\u{7f}",
        "9",
        "tru",
    ];
    let mut chars: Vec<char> = line.chars().collect();
    for &(kind, at, with) in edits {
        let at = usize::from(at) % (chars.len() + 1);
        let piece = PIECES[usize::from(with) % PIECES.len()].chars();
        match kind % 4 {
            0 => drop(chars.splice(at..at, piece)),
            1 if at < chars.len() => drop(chars.splice(at..=at, piece)),
            2 if at < chars.len() => drop(chars.remove(at)),
            3 => chars.truncate(if with % 4 == 0 { at } else { chars.len() }),
            _ => {}
        }
    }
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn events_are_read_as_a_naive_reader_reads_them(line in line()) {
        agrees(&line)?;
    }

    #[test]
    fn mutated_events_are_taken_or_refused_as_by_a_naive_reader(line in line(), edits in proptest::collection::vec(any::<(u8, u16, u16)>(), 1..4)) {
        agrees(&mutate(&line, &edits))?;
    }
}

#[test]
fn every_cut_and_every_byte_replaced_is_judged_as_by_a_naive_reader() {
    let line = r#"{"event_id":"e","event":"pv","timestamp":1767268800123,"user_id":null,"source":"w\u00e9","value":-1.5e1,"x":[tru,{"a":[]},0.1],"properties":{"p":"q"}}"#
        .replace("tru,", "true,");
    agrees(&line).expect("the line itself");
    for at in 0..line.len() {
        agrees(&line[..at]).unwrap_or_else(|e| panic!("{}: {e}", &line[..at]));
        for byte in 0..0x80u8 {
            let mut bytes = line.clone().into_bytes();
            bytes[at] = byte;
            let mutated = String::from_utf8(bytes).expect("ASCII");
            agrees(&mutated).unwrap_or_else(|e| panic!("{mutated}: {e}"));
        }
    }
}
