use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::definition::MetricDefinition;
use crate::event::batch::{ArchivedShardBatch, check};
use crate::event::parse::parse_event;
use crate::key::KeyView;
use crate::limits::DIMENSION_BYTES_MAX;

const NOW_MS: i64 = 1_767_268_800_000;
const DOOR: Door = Door { now_ms: NOW_MS, future_tolerance_ms: 3_600_000, retention_day_ms: Some(10 * DAY_MS) };

fn metric(name: &str, event: &[&str], dimensions: &[&str], value: &str, filter: &[&str]) -> MetricDefinition {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    MetricDefinition {
        name: name.to_owned(),
        event: owned(event),
        dimensions: owned(dimensions),
        value: value.to_owned(),
        filter: owned(filter),
        description: String::new(),
    }
}

fn definitions(list: Vec<MetricDefinition>) -> Arc<DefinitionSet> {
    Arc::new(DefinitionSet::compile(7, list).expect("valid definitions"))
}

fn encoder(list: Vec<MetricDefinition>) -> BatchEncoder {
    BatchEncoder::new(16, definitions(list), DOOR, GeneratedIds::Random(1))
}

fn encode(list: Vec<MetricDefinition>, events: &[&str]) -> Encoded {
    let mut encoder = encoder(list);
    for (i, raw) in events.iter().enumerate() {
        encoder.push(i as u32, &parse_event(raw).expect(raw)).expect(raw);
    }
    encoder.finish()
}

/// A row of a batch: its key as `metric|dimension|...` with `-` for null, and its value.
type Row = (String, Option<f64>);

fn key_text(batch: &ArchivedShardBatch, index: u32) -> String {
    let key = KeyView::parse(batch.key(index as usize)).expect("checked");
    assert_eq!(key.tenant, DEFAULT_TENANT);
    std::iter::once(key.metric).chain(key.dimensions().map(|d| d.unwrap_or("-"))).collect::<Vec<_>>().join("|")
}

/// Event rows and derived rows of all parts, sorted; the key of a derived row leads with the time of its event, in milliseconds after now.
fn rows(encoded: &Encoded) -> (Vec<Row>, Vec<Row>) {
    let (mut events, mut derived) = (Vec::new(), Vec::new());
    let value = |v: f64| (!v.is_nan()).then_some(v);
    for (_, bytes) in &encoded.parts {
        let batch = check(bytes).expect("own encoding");
        events.extend(batch.keys.iter().zip(batch.values.iter()).map(|(k, v)| (key_text(batch, k.to_native()), value(v.to_native()))));
        for (row, event) in batch.derived_events.iter().enumerate() {
            let time = batch.times[event.to_native() as usize].to_native() - NOW_MS;
            let key = key_text(batch, batch.derived_keys[row].to_native());
            derived.push((format!("{time} {key}"), value(batch.derived_values[row].to_native())));
        }
    }
    for rows in [&mut events, &mut derived] {
        rows.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
    }
    (events, derived)
}

#[test]
fn an_event_is_one_row_of_its_home_shard() {
    let raw = r#"{"event":"page_view","event_id":"e1","timestamp":1767268700000,"source":"web","country_code":"US","user_id":"u_1","value":-0.0}"#;
    let encoded = encode(Vec::new(), &[raw]);
    assert_eq!((encoded.parts.len(), encoded.events, encoded.generated_ids), (1, 1, 0));
    let (shard, bytes) = &encoded.parts[0];
    let batch = check(bytes).expect("own encoding");
    let mut home = Vec::new();
    encode_key(&mut home, MetricKind::Default, DEFAULT_TENANT, "page_view", [Some("web"), None, Some("US")]);
    let hash = key_hash(&home);
    assert_eq!(*shard, shard_of(hash, 16));
    assert_eq!((batch.key(0), batch.key_hashes[0].to_native()), (&home[..], hash));
    assert_eq!(batch.times[0].to_native(), 1_767_268_700_000);
    assert_eq!(batch.ids[0].to_native(), event_hash(hash, b"e1"));
    assert_eq!((batch.users[0].to_native(), batch.sessions[0].to_native()), (identity_hash(b"u_1"), NO_IDENTITY));
    assert_eq!(batch.values[0].to_native().to_bits(), 0, "no minus at zero");
    assert_eq!((batch.definitions_version.to_native(), batch.routing_version.to_native()), (7, 0));
}

#[test]
fn keys_are_written_once_however_many_events_have_them() {
    let raw: Vec<String> = (0..500).map(|i| format!(r#"{{"event":"e{}","value":{i}}}"#, i % 3)).collect();
    let encoded = encode(Vec::new(), &raw.iter().map(String::as_str).collect::<Vec<_>>());
    let keys: usize = encoded.parts.iter().map(|(_, b)| check(b).expect("own encoding").key_ends.len()).sum();
    assert_eq!((encoded.events, keys, encoded.generated_ids), (500, 3, 500));
    assert!(encoded.parts.is_sorted_by_key(|(shard, _)| *shard));
}

#[test]
fn defined_metrics_take_their_dimensions_and_values_from_the_event() {
    let list = vec![
        metric("departures", &["flight", "charter"], &["carrier", "source", "delayed"], "properties.air_time", &["source:api"]),
        metric("by_dest", &["flight"], &["properties.dest"], "value", &["!dest:"]),
        metric("other", &["landing"], &["dest"], "value", &[]),
    ];
    let encoded = encode(
        list,
        &[
            r#"{"event":"flight","timestamp":1767268800001,"source":"api","value":3,"properties":{"carrier":"UA","air_time":227,"delayed":false,"dest":"IAH"}}"#,
            r#"{"event":"flight","timestamp":1767268800002,"source":"web","value":4,"properties":{"carrier":"UA","dest":7.0}}"#,
            r#"{"event":"charter","timestamp":1767268800003,"source":"api","carrier":"XX","properties":{"air_time":"227","carrier":["UA"]}}"#,
            r#"{"event":"flight","source":"web","properties":{"dest":{}}}"#,
            r#"{"event":"taxi","source":"api","value":9}"#,
        ],
    );
    let (events, derived) = rows(&encoded);
    assert_eq!(events.len(), 5);
    let expected = [
        ("1 by_dest|IAH", Some(3.0)),
        ("1 departures|UA|api|false", Some(227.0)),
        ("2 by_dest|7.0", Some(4.0)),
        ("3 departures|-|api|-", None),
    ];
    assert_eq!(derived, expected.map(|(k, v)| (k.to_owned(), v)));
}

#[test]
fn a_refused_event_leaves_no_trace() {
    let long = "x".repeat(DIMENSION_BYTES_MAX + 1);
    let list = vec![metric("a", &["e"], &["source"], "value", &[]), metric("b", &["e"], &["p"], "value", &["!q:skip"])];
    let mut encoder = encoder(list);
    let refused = format!(r#"{{"event":"e","properties":{{"p":"{long}"}}}}"#);
    let rejection = encoder.push(0, &parse_event(&refused).expect("valid")).expect_err("too long for a dimension");
    assert_eq!((rejection.code, rejection.field.as_deref()), (RejectCode::BadValue, Some("properties.p")));
    assert_eq!(encoder.encoded_bytes_estimate(), 0);
    let filtered = format!(r#"{{"event":"e","properties":{{"p":"{long}","q":"skip"}}}}"#);
    encoder.push(1, &parse_event(&filtered).expect("valid")).expect("no metric makes a dimension of it");
    let encoded = encoder.finish();
    assert_eq!((encoded.events, encoded.generated_ids), (1, 1));
    assert_eq!(rows(&encoded).1, [("0 a|-".to_owned(), None)]);
}

#[test]
fn time_is_judged_at_the_door() {
    let push = |door: Door, timestamp: &str| {
        let mut encoder = BatchEncoder::new(4, definitions(Vec::new()), door, GeneratedIds::Random(1));
        let raw = format!(r#"{{"event":"e","timestamp":{timestamp}}}"#);
        encoder.push(0, &parse_event(&raw).expect("valid")).map(|()| {
            let encoded = encoder.finish();
            check(&encoded.parts[0].1).expect("own encoding").times[0].to_native()
        })
    };
    let at = |ms: i64| push(DOOR, &ms.to_string());
    assert_eq!(push(DOOR, "null"), Ok(NOW_MS));
    assert_eq!(at(NOW_MS + 3_600_000), Ok(NOW_MS + 3_600_000));
    assert_eq!(at(NOW_MS + 3_600_001).expect_err("ahead").code, RejectCode::Future);
    assert_eq!(at(NOW_MS - 10 * DAY_MS), Ok(NOW_MS - 10 * DAY_MS));
    let expired = at(NOW_MS - 10 * DAY_MS - 1).expect_err("old");
    assert_eq!((expired.code, expired.field.as_deref()), (RejectCode::Expired, Some("timestamp")));
    assert!(expired.detail.contains("`retention.day`") && expired.detail.contains("10 days"), "{}", expired.detail);
    assert_eq!(push(Door { retention_day_ms: None, ..DOOR }, "\"0001-01-01T00:00:00Z\""), Ok(-62_135_596_800_000));
}

#[test]
fn generated_ids_repeat_with_the_idempotency_key_and_never_else() {
    let ids = |ids: GeneratedIds| {
        let mut encoder = BatchEncoder::new(1, definitions(Vec::new()), DOOR, ids);
        let event = parse_event(r#"{"event":"e"}"#).expect("valid");
        (0..100).for_each(|i| encoder.push(i, &event).expect("valid"));
        let encoded = encoder.finish();
        assert_eq!(encoded.generated_ids, 100);
        check(&encoded.parts[0].1).expect("own encoding").ids.iter().map(|id| id.to_native()).collect::<Vec<_>>()
    };
    let key = |key: &str| GeneratedIds::Idempotency(key.to_owned());
    assert_eq!(ids(key("k")), ids(key("k")));
    assert_eq!(ids(GeneratedIds::Random(5)), ids(GeneratedIds::Random(5)));
    let mut all = [ids(key("k")), ids(key("k1")), ids(key("")), ids(GeneratedIds::Random(5)), ids(GeneratedIds::Random(6))].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 500);
    // The text is what senders of the same id would send.
    let text = key("k").id(3);
    assert_eq!(text, format!("{:032x}", xxh3_128(b"\x01\0\0\0\0\0\0\0k\x03\0\0\0")));
    let mut home = Vec::new();
    encode_key(&mut home, MetricKind::Default, DEFAULT_TENANT, "e", [None, None, None]);
    assert_eq!(ids(key("k"))[3], event_hash(key_hash(&home), text.as_bytes()));
}

#[test]
fn a_part_that_grows_too_large_is_followed_by_another() {
    let dimensions: Vec<String> = (0..16).map(|i| format!("p{i}")).collect();
    let dimensions: Vec<&str> = dimensions.iter().map(String::as_str).collect();
    let list = vec![metric("wide", &["e"], &dimensions, "value", &[])];
    let mut encoder = encoder(list);
    for i in 0..1_500u32 {
        let properties: Vec<String> = (0..16).map(|d| format!("\"p{d}\":\"{i:0>1000}\"")).collect();
        let raw = format!("{{\"event\":\"e\",\"properties\":{{{}}}}}", properties.join(","));
        encoder.push(i, &parse_event(&raw).expect("valid")).expect("valid");
    }
    let estimate = encoder.encoded_bytes_estimate();
    let encoded = encoder.finish();
    let sizes: Vec<usize> = encoded.parts.iter().map(|(_, bytes)| bytes.len()).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|&s| s < PART_BYTES_MAX + 20_000), "{sizes:?}");
    assert!(sizes.iter().sum::<usize>().abs_diff(estimate) < 3 * 1_024, "{sizes:?}, estimated {estimate}");
    assert_eq!(rows(&encoded).1.len(), 1_500);
}

proptest! {
    /// Against maps filled event by event: which key has which values, and that a shard is a function of the key.
    #[test]
    fn batches_hold_what_was_pushed(events in proptest::collection::vec(("[ab]", proptest::option::of("[xy]?"), proptest::option::of(-3i32..3), "[pq]"), 0..60), shards in 1u16..20) {
        let list = vec![metric("m", &["a"], &["p", "source"], "properties.n", &["!p:q"])];
        let mut encoder = BatchEncoder::new(shards, definitions(list), DOOR, GeneratedIds::Random(3));
        let (mut expected, mut derived) = (Vec::<Row>::new(), Vec::<Row>::new());
        for (i, (name, source, value, p)) in events.iter().enumerate() {
            let json = |o: &Option<String>| o.as_ref().map_or("null".to_owned(), |s| format!("{s:?}"));
            let number = value.map_or("null".to_owned(), |v| v.to_string());
            let raw = format!("{{\"event\":{name:?},\"timestamp\":{},\"source\":{},\"value\":{number},\"properties\":{{\"n\":{i},\"p\":{p:?}}}}}", NOW_MS + i as i64, json(source));
            encoder.push(i as u32, &parse_event(&raw).expect("valid")).expect("valid");
            let source = source.as_deref().unwrap_or("-");
            expected.push((format!("{name}|{source}|-|-"), value.map(f64::from)));
            if name == "a" && p != "q" {
                derived.push((format!("{i} m|{p}|{source}"), Some(i as f64)));
            }
        }
        let encoded = encoder.finish();
        prop_assert_eq!(encoded.events as usize, events.len());
        for rows in [&mut expected, &mut derived] {
            rows.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
        }
        prop_assert_eq!(rows(&encoded), (expected, derived));
        let mut home = BTreeMap::new();
        for (shard, bytes) in &encoded.parts {
            let batch = check(bytes).expect("own encoding");
            for key in batch.keys.iter() {
                let key = batch.key(key.to_native() as usize);
                prop_assert_eq!(*home.entry(key.to_vec()).or_insert(*shard), *shard);
            }
        }
    }
}
