//! What the events of a body become in the shards' batches, row by row, against keys and hashes made from [`super::oracle`]'s fields.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use tallymesh_protocol::definition::{DefinitionSet, MetricDefinition};
use tallymesh_protocol::event::batch::{NO_IDENTITY, NO_VALUE, check as check_batch};
use tallymesh_protocol::event::body::{BodyFormat, BodyLimits, BodyParser, EventSink};
use tallymesh_protocol::event::encode::{BatchEncoder, Door, GeneratedIds};
use tallymesh_protocol::event::{Event, RejectCode, Rejection};
use tallymesh_protocol::hash::{DEFAULT_TENANT, ShardId, event_hash, identity_hash, key_hash, shard_of};
use tallymesh_protocol::key::{MetricKind, encode_key};
use tallymesh_protocol::limits::DIMENSION_BYTES_MAX;

use super::oracle::{Facts, members};

const NOW_MS: i64 = 1_767_268_800_000;
const SHARDS: u16 = 3;

/// Event `e` by property `p` and country where the source is not `bot`, with property `v` as the value.
static DEFINITIONS: LazyLock<Arc<DefinitionSet>> = LazyLock::new(|| {
    let definition = MetricDefinition {
        name: "defined".to_owned(),
        event: vec!["e".to_owned()],
        dimensions: vec!["p".to_owned(), "country".to_owned()],
        value: "properties.v".to_owned(),
        filter: vec!["!source:bot".to_owned()],
        description: String::new(),
    };
    Arc::new(DefinitionSet::compile(1, vec![definition]).unwrap_or_default())
});

/// A row of a batch: key, time, id, user, session, bits of the value; `derived` rows have no time and no identities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    shard: u16,
    key: Vec<u8>,
    derived: bool,
    time_ms: i64,
    id: u128,
    user: u64,
    session: u64,
    value: u64,
}

struct Encoding {
    encoder: BatchEncoder,
    expected: Vec<Row>,
    events: u32,
}

impl EventSink for Encoding {
    fn event(&mut self, index: u32, event: &Event<'_>) {
        let taken = self.encoder.push(index, event);
        match rows(index, &Facts::of(event)) {
            Ok(rows) => {
                assert_eq!(taken, Ok(()));
                self.events += 1;
                self.expected.extend(rows);
            }
            Err(code) => assert_eq!(taken.map_err(|r| r.code), Err(code)),
        }
    }

    fn reject(&mut self, _: u32, _: Rejection, _: &[u8]) {}
}

pub(super) fn check(format: BodyFormat, limits: BodyLimits, body: &[u8]) {
    let door = Door { now_ms: NOW_MS, future_tolerance_ms: i64::MAX, retention_day_ms: None };
    let encoder = BatchEncoder::new(SHARDS, DEFINITIONS.clone(), door, GeneratedIds::Random(7));
    let (mut parser, mut encoding) = (BodyParser::new(format, limits), Encoding { encoder, expected: Vec::new(), events: 0 });
    if parser.feed(body, &mut encoding).and_then(|()| parser.finish(&mut encoding)).is_err() {
        return;
    }
    let encoded = encoding.encoder.finish();
    assert_eq!(encoded.events, encoding.events);
    let mut found = Vec::new();
    for (ShardId(shard), bytes) in &encoded.parts {
        let batch = check_batch(bytes).unwrap_or_else(|e| panic!("own encoding: {e}"));
        assert_eq!(batch.definitions_version.to_native(), 1);
        let row = |event: usize, key: &rkyv::rend::u32_le, value: f64, derived: bool| Row {
            shard: *shard,
            key: batch.key(key.to_native() as usize).to_vec(),
            derived,
            time_ms: batch.times[event].to_native(),
            id: batch.ids[event].to_native(),
            user: batch.users[event].to_native(),
            session: batch.sessions[event].to_native(),
            value: value.to_bits(),
        };
        for (event, key) in batch.keys.iter().enumerate() {
            found.push(row(event, key, batch.values[event].to_native(), false));
        }
        for (at, event) in batch.derived_events.iter().enumerate() {
            found.push(row(event.to_native() as usize, &batch.derived_keys[at], batch.derived_values[at].to_native(), true));
        }
    }
    found.sort_unstable();
    encoding.expected.sort_unstable();
    assert_eq!(found, encoding.expected);
}

/// The rows of one event, that of its default metric first.
fn rows(index: u32, facts: &Facts) -> Result<Vec<Row>, RejectCode> {
    let mut key = Vec::new();
    let dimensions = [&facts.source, &facts.device_type, &facts.country_code];
    encode_key(&mut key, MetricKind::Default, DEFAULT_TENANT, &facts.name, dimensions.map(|d| d.as_deref()));
    let home = key_hash(&key);
    let id = facts.event_id.clone().unwrap_or_else(|| GeneratedIds::Random(7).id(index));
    let identity = |id: &Option<String>| id.as_ref().map_or(NO_IDENTITY, |id| identity_hash(id.as_bytes()));
    let first = Row {
        shard: shard_of(home, SHARDS).0,
        key,
        derived: false,
        time_ms: facts.timestamp_ms.unwrap_or(NOW_MS),
        id: event_hash(home, id.as_bytes()),
        user: identity(&facts.user_id),
        session: identity(&facts.session_id),
        value: column(facts.value.map(f64::from_bits)),
    };
    if facts.name != "e" || facts.source.as_deref() == Some("bot") {
        return Ok(vec![first]);
    }
    let (p, v) = (property(facts, "p"), property(facts, "v"));
    let text = match p.as_ref().map(|raw| (raw, serde_json::from_str::<Value>(raw))) {
        Some((_, Ok(Value::String(text)))) => Some(text),
        Some((raw, Ok(Value::Number(_) | Value::Bool(_)))) => Some(raw.clone()),
        _ => None,
    };
    if text.as_ref().is_some_and(|text| text.len() > DIMENSION_BYTES_MAX) {
        return Err(RejectCode::BadValue);
    }
    let number = v.and_then(|raw| serde_json::from_str::<Value>(&raw).ok().filter(Value::is_number).and_then(|_| raw.parse::<f64>().ok()));
    let mut key = Vec::new();
    encode_key(&mut key, MetricKind::Defined, DEFAULT_TENANT, "defined", [text.as_deref(), facts.country_code.as_deref()]);
    Ok(vec![first.clone(), Row { key, derived: true, value: column(number), ..first }])
}

/// JSON text of a property: of `properties`, else an unknown top-level field.
fn property(facts: &Facts, name: &str) -> Option<String> {
    let of = |text: &str| members(text).ok()?.get(name).map(|raw| raw.get().to_owned());
    facts.properties.as_deref().and_then(of).or_else(|| of(&facts.raw))
}

fn column(value: Option<f64>) -> u64 {
    match value {
        Some(0.0) => 0f64.to_bits(),
        Some(value) => value.to_bits(),
        None => NO_VALUE.to_bits(),
    }
}
