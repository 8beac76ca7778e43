//! Queries as clients write them: parameters, plans, cursors, pages.

mod pages;
mod plans;

use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use tallymesh_protocol::definition::{DefinitionSet, MetricDefinition};
use tallymesh_protocol::error::Problem;
use tallymesh_protocol::limits::{AGGREGATES_MAX, FILTERS_MAX, GROUP_BY_MAX, QUERY_TIMEOUT_MS_MAX, ROWS_MAX};
use tallymesh_protocol::question::filter::Filter;
use tallymesh_protocol::question::plan::Retention;
use tallymesh_protocol::question::query::{MetricQuery, PreparedQuery, QueryParams};
use tallymesh_protocol::time::DAY_MS;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::input::Input;
use crate::memory::peak_of;

/// Memory of understanding and planning one query, beside 64 bytes for each of its own, in bytes: the names of all time zones for a hint, or the
/// slices of the largest answer.
const MEMORY_BYTES_MAX: usize = 64 << 20;

const NOW_MS: [i64; 4] = [1_767_268_800_000, 0, 1_711_846_799_999, 253_402_128_000_000];

const RETENTIONS: [Retention; 4] = [
    Retention { minute_ms: None, hour_ms: None, day_ms: None },
    Retention { minute_ms: Some(7 * DAY_MS as u64), hour_ms: Some(90 * DAY_MS as u64), day_ms: Some(2_555 * DAY_MS as u64) },
    Retention { minute_ms: Some(1), hour_ms: None, day_ms: None },
    Retention { minute_ms: Some(u64::MAX), hour_ms: Some(3_600_000), day_ms: Some(0) },
];

static DEFINITIONS: LazyLock<DefinitionSet> = LazyLock::new(|| {
    let definition = |name: &str, dimensions: &[&str]| MetricDefinition {
        name: name.to_owned(),
        event: vec!["flight".to_owned()],
        dimensions: dimensions.iter().map(|d| (*d).to_owned()).collect(),
        value: "value".to_owned(),
        filter: Vec::new(),
        description: String::new(),
    };
    let definitions = vec![definition("departures", &["carrier", "properties.origin", "country"]), definition("total", &[])];
    DefinitionSet::compile(1, definitions).unwrap_or_default()
});

/// What surrounds a query.
#[derive(Clone, Copy)]
struct Setting {
    now_ms: i64,
    retention: Retention,
}

/// First byte: bits 0-1 how the rest is read, 2-3 the retention, 4-5 the clock; the rest is text.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let options = usize::from(input.byte());
    let setting = Setting { now_ms: NOW_MS[(options >> 4) % NOW_MS.len()], retention: RETENTIONS[(options >> 2) % RETENTIONS.len()] };
    match options % 4 {
        0 | 1 => from_url(setting, input.rest()),
        2 => {
            if let Some(params) = serde_json::from_slice::<Value>(input.rest()).ok().and_then(|json| QueryParams::from_json(&json).ok()) {
                understand(setting, &params);
            }
        }
        _ => forge(setting, input.rest()),
    }
}

fn from_url(setting: Setting, text: &[u8]) {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(text).into_owned().collect();
    let Ok(params) = QueryParams::from_pairs(pairs.iter().map(|(n, v)| (n, v.clone()))) else { return };
    let again = params.clone();
    assert_eq!(as_json(&pairs).as_ref(), Ok(&params), "JSON and URL say the same");
    if let Some(query) = understand(setting, &params) {
        assert_eq!(MetricQuery::parse(&again, setting.now_ms).as_ref(), Ok(&query), "the same question twice");
    }
}

fn as_json(pairs: &[(String, String)]) -> Result<QueryParams, Problem> {
    let mut object = Map::new();
    for (name, value) in pairs {
        match object.get_mut(name) {
            Some(Value::Array(filters)) => filters.push(value.as_str().into()),
            // A name that is there twice, once without a value, is no business of JSON.
            Some(Value::String(text)) if text.is_empty() => *text = value.clone(),
            Some(_) => {}
            None if name == "filter" => drop(object.insert(name.clone(), Value::Array(vec![value.as_str().into()]))),
            None => drop(object.insert(name.clone(), value.as_str().into())),
        }
    }
    QueryParams::from_json(&Value::Object(object))
}

/// A cursor whose checksum is right around whatever fields: the text before the first line end is the query, the rest is the cursor's JSON.
fn forge(setting: Setting, text: &[u8]) {
    let (url, fields) = text.iter().position(|&b| b == b'\n').map_or((text, &[][..]), |at| (&text[..at], &text[at + 1..]));
    let pairs: Vec<(String, String)> = form_urlencoded::parse(url).into_owned().filter(|(name, _)| name != "cursor").collect();
    let parse = |pairs: &[(String, String)]| QueryParams::from_pairs(pairs.iter().map(|(n, v)| (n, v.clone())));
    let Some(query) = parse(&pairs).ok().and_then(|params| MetricQuery::parse(&params, setting.now_ms).ok()) else { return };
    let mut bytes = fields.to_vec();
    bytes.extend_from_slice(&xxh3_64_with_seed(fields, query.fingerprint).to_le_bytes());
    let mut forged = pairs;
    forged.push(("cursor".to_owned(), BASE64_URL_SAFE_NO_PAD.encode(bytes)));
    if let Ok(params) = parse(&forged) {
        understand(setting, &params);
    }
}

fn understand(setting: Setting, params: &QueryParams) -> Option<MetricQuery> {
    let bytes = params.canonical().len() + params.get("cursor").map_or(0, str::len);
    let (outcome, peak) = peak_of(|| {
        let query = MetricQuery::parse(params, setting.now_ms)?;
        check_parsed(&query);
        let prepared = PreparedQuery::new(query.clone(), "default", &DEFINITIONS, setting.retention, setting.now_ms);
        Ok::<_, Problem>((query, prepared))
    });
    assert!(peak <= MEMORY_BYTES_MAX + 64 * bytes, "{peak} bytes of memory for a query of {bytes}");
    let (query, prepared) = outcome.map_err(|problem| check_refusal(&problem)).ok()?;
    match prepared {
        Ok(prepared) => {
            plans::check(&prepared);
            pages::check(setting, params, &prepared);
        }
        Err(problem) => check_refusal(&problem),
    }
    Some(query)
}

fn check_refusal(problem: &Problem) {
    assert!(problem.status == 422 || problem.status == 404, "{problem:?}");
    assert!(problem.field.is_some() && !problem.detail.is_empty(), "{problem:?}");
}

fn check_parsed(query: &MetricQuery) {
    let is_unique = |n: usize, same: &dyn Fn(usize, usize) -> bool| (0..n).all(|i| (0..i).all(|j| !same(i, j)));
    assert!((1..=AGGREGATES_MAX).contains(&query.aggregates.len()));
    assert!(
        is_unique(query.aggregates.len(), &|i, j| query.aggregates[i].label() == query.aggregates[j].label()),
        "{:?}",
        query.aggregates
    );
    assert!(query.group_by.len() <= GROUP_BY_MAX && is_unique(query.group_by.len(), &|i, j| query.group_by[i] == query.group_by[j]));
    assert!(query.filters.len() <= FILTERS_MAX);
    for filter in &query.filters {
        assert_eq!(Filter::parse(&filter.to_string()).as_ref(), Ok(filter), "{filter} reads as it prints");
    }
    assert!((1..=ROWS_MAX).contains(&query.limit));
    assert!(query.timeout_ms.is_none_or(|ms| (1..=QUERY_TIMEOUT_MS_MAX).contains(&ms)));
    assert!(query.range.from_ms < query.range.to_ms, "{:?}", query.range);
}
