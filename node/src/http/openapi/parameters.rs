//! Parameters in the query string and in headers. Each is described once; operations take those that they have.

use serde_json::{Value, json};
use tallymesh_protocol::limits::{
    AGGREGATES_MAX, DIMENSION_BYTES_MAX, FILTERS_MAX, GROUP_BY_MAX, QUERY_TIMEOUT_MS_MAX, ROWS_DEFAULT, ROWS_MAX,
};
use tallymesh_protocol::question::token::TOKEN_CHARS_MAX;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use crate::limits::{DEAD_LETTERS_PAGE_DEFAULT, DEAD_LETTERS_PAGE_MAX, IDEMPOTENCY_KEY_BYTES_MAX, LIVE_QUERIES_MAX, PROMQL_LOOKUPS_MAX};

/// Aggregates in a fixed shape; any other quantile is written `pNN.N`.
pub const AGGREGATE_PATTERN: &str = r"^(count|sum|min|max|avg|last|users|sessions|p([0-9]|[1-9][0-9]|100)(\.[0-9]{1,6})?)$";
/// `15m`, `24h`, `7d`.
pub const RANGE_PATTERN: &str = "^[0-9]{1,7}[smhdw]$";

/// Description and schema of a parameter of a metric query.
pub fn described(name: &str) -> (&'static str, Value) {
    match name {
        "metric" => (
            "An event name, a defined metric, or `*` for every event.",
            json!({"type": "string", "minLength": 1, "examples": ["page_view"]}),
        ),
        "agg" => (
            "What to compute. `avg` is the sum over the events that have a value; sum, min, max, avg, last and quantiles are null without values; \
             `users` and `sessions` are distinct ones; `pNN.N` is a quantile, within 1 %.",
            json!({"type": "array", "items": {"type": "string", "pattern": AGGREGATE_PATTERN}, "minItems": 1, "maxItems": AGGREGATES_MAX,
                   "default": ["count"], "examples": [["count", "users"]]}),
        ),
        "range" => (
            "A range that ends now: a whole number of `s`, `m`, `h`, `d` or `w`. Either this or `from`.",
            json!({"type": "string", "pattern": RANGE_PATTERN, "examples": ["24h"]}),
        ),
        "from" => (
            "Start of the range: RFC 3339, epoch milliseconds, or a date of `tz`.",
            json!({"type": "string", "examples": ["2026-01-01T00:00:00Z"]}),
        ),
        "to" => ("End of the range, not part of it; now if it is left out.", json!({"type": "string", "examples": ["2026-01-02"]})),
        "step" => (
            "Width of a step, aligned to `tz`; `none` is one value for the whole range. `auto` stays within a few hundred steps.",
            json!({"type": "string", "enum": ["none", "auto", "1m", "5m", "15m", "1h", "1d"], "default": "none"}),
        ),
        "group_by" => (
            "Dimensions to group by; `event` is one. A comma in a name is written `\\,`.",
            json!({"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": GROUP_BY_MAX, "examples": [["country_code"]]}),
        ),
        "filter" => (
            "`dimension:value`, `dimension:a|b`, `!dimension:value`, or `dimension:` for null; repeatable, all must hold. \
             `\\|`, `\\:` and `\\,` stand for themselves.",
            json!({"type": "array", "items": {"type": "string"}, "maxItems": FILTERS_MAX, "examples": [["device_type:mobile"]]}),
        ),
        "order" => (
            "`value` is the first of `agg`; ties are broken by time, then group.",
            json!({"type": "string", "enum": ["time", "-time", "value", "-value"], "default": "time"}),
        ),
        "limit" => (
            "Rows of one answer; when there are more, a `cursor` leads on.",
            json!({"type": "integer", "minimum": 1, "maximum": ROWS_MAX, "default": ROWS_DEFAULT}),
        ),
        "cursor" => ("Where the last page ended, as its answer gave it; with the same other parameters.", json!({"type": "string"})),
        "tz" => (
            "IANA time zone that steps and dates are aligned to.",
            json!({"type": "string", "default": "UTC", "examples": ["Europe/Berlin"]}),
        ),
        "compare" => (
            "Beside each row the same one earlier: the range just before, or one or seven days back by the calendar of `tz`.",
            json!({"type": "string", "enum": ["previous", "day", "week"]}),
        ),
        "partial" => (
            "When a shard does not answer: fail, or answer from the others and say so in the receipt.",
            json!({"type": "string", "enum": ["fail", "allow"], "default": "fail"}),
        ),
        "token" => (
            "The token of an ack: the answer has seen that write, or it is refused with `write_not_visible`.",
            json!({"type": "string", "maxLength": TOKEN_CHARS_MAX}),
        ),
        "cache" => (
            "`on` may answer from the cache, as old as `cache_age_ms` in the receipt says.",
            json!({"type": "string", "enum": ["off", "on"], "default": "off"}),
        ),
        "fill" => (
            "Rows for steps without events: none, with counts and sums of 0, or with nulls.",
            json!({"type": "string", "enum": ["none", "zero", "null"], "default": "none"}),
        ),
        "timeout_ms" => (
            "Longest the query may take, in milliseconds; the configured time-out if it is left out.",
            json!({"type": "integer", "minimum": 1, "maximum": QUERY_TIMEOUT_MS_MAX}),
        ),
        "format" => (
            "JSON, CSV (RFC 4180), or an Arrow IPC stream. Receipt and cursor of the latter two are in headers, of Arrow also in the schema's metadata.",
            json!({"type": "string", "enum": ["json", "csv", "arrow"], "default": "json"}),
        ),
        _ => ("", json!({})),
    }
}

/// Every parameter of a metric query, in reading order.
pub const QUERY_PARAMETERS: [&str; 19] = [
    "metric",
    "agg",
    "range",
    "from",
    "to",
    "step",
    "group_by",
    "filter",
    "order",
    "limit",
    "cursor",
    "tz",
    "compare",
    "partial",
    "token",
    "cache",
    "fill",
    "timeout_ms",
    "format",
];

fn parameter(place: ParameterIn, name: &str, description: &str, required: bool, schema: Value) -> Parameter {
    let mut parameter = Parameter::new(name);
    parameter.parameter_in = place;
    parameter.description = Some(description.to_owned());
    parameter.required = if required { utoipa::openapi::Required::True } else { utoipa::openapi::Required::False };
    if schema["type"] == "array" {
        // `agg` and `group_by` are comma lists; `filter` and `match[]` repeat.
        parameter.style = Some(utoipa::openapi::path::ParameterStyle::Form);
        parameter.explode = Some(matches!(name, "filter" | "match[]"));
    }
    parameter.schema = serde_json::from_value(schema).ok();
    parameter
}

fn queried(names: &[&str], required: &[&str]) -> Vec<Parameter> {
    let one = |name: &&str| {
        let (description, schema) = described(name);
        parameter(ParameterIn::Query, name, description, required.contains(name), schema)
    };
    names.iter().map(one).collect()
}

macro_rules! parameters {
    ($($(#[$doc:meta])* $name:ident: $make:expr;)+) => {$(
        $(#[$doc])*
        pub enum $name {}

        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                $make
            }
        }
    )+};
}

parameters! {
    QueryParameters: queried(&QUERY_PARAMETERS, &["metric"]);
    NamedParameters: queried(&super::super::read::named::PARAMETERS, &[]);
    NumberParameters: numbers();
    DailyParameters: daily();
    ListParameters: list();
    TailParameters: vec![parameter(
        ParameterIn::Query,
        "filter",
        "As in a query, over `event`, `source`, `device_type`, `country_code`, `user_id` and `session_id`.",
        false,
        json!({"type": "array", "items": {"type": "string"}, "maxItems": FILTERS_MAX, "examples": [["event:purchase"]]}),
    )];
    LiveParameters: live();
    IngestHeaders: ingest_headers();
    PrometheusInstant: prometheus(&["query", "time", "timeout"], &["query"]);
    PrometheusRange: prometheus(&["query", "start", "end", "step", "timeout"], &["query", "start", "end", "step"]);
    PrometheusLabels: prometheus(&["match[]", "start", "end", "limit"], &[]);
    PrometheusSeries: prometheus(&["match[]", "start", "end", "limit"], &["match[]"]);
    PrometheusMetadata: prometheus(&["metric", "limit"], &[]);
}

fn prometheus(names: &[&str], required: &[&str]) -> Vec<Parameter> {
    let described = |name: &str| match name {
        "query" => {
            ("A PromQL expression.", json!({"type": "string", "minLength": 1, "examples": ["sum by (country_code) (rate(page_view[5m]))"]}))
        }
        "time" => {
            ("When; unix seconds or RFC 3339, now if it is left out.", json!({"type": "string", "examples": ["2026-01-01T12:00:00Z"]}))
        }
        "start" => ("The first moment; unix seconds or RFC 3339.", json!({"type": "string", "examples": ["1767225600"]})),
        "end" => ("The last moment; unix seconds or RFC 3339.", json!({"type": "string", "examples": ["1767268800"]})),
        "step" => ("Seconds or a duration.", json!({"type": "string", "examples": ["5m"]})),
        "timeout" => ("Longest it may take; seconds or a duration.", json!({"type": "string", "examples": ["10s"]})),
        "match[]" => (
            "A selector; repeatable, series of any are meant.",
            json!({"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": PROMQL_LOOKUPS_MAX, "examples": [["page_view"]]}),
        ),
        "metric" => ("Only this one.", json!({"type": "string"})),
        _ => ("At most so many; 0 is all.", json!({"type": "integer", "minimum": 0})),
    };
    let one = |name: &&str| {
        let (description, schema) = described(name);
        parameter(ParameterIn::Query, name, description, required.contains(name), schema)
    };
    names.iter().map(one).collect()
}

fn live() -> Vec<Parameter> {
    let query = "The query string of a `GET /v1/query`, encoded once more; events name it by its place, from 0.";
    let queries = json!({
        "type": "array", "minItems": 1, "maxItems": LIVE_QUERIES_MAX,
        "items": {"type": "string", "minLength": 1}, "examples": [["metric=page_view&range=1h&step=1m"]],
    });
    let id = "The `id` of the last event that the client has, for those that cannot send it as `Last-Event-ID`.";
    vec![
        parameter(ParameterIn::Query, "query", query, true, queries),
        parameter(ParameterIn::Query, "last_event_id", id, false, json!({"type": "string"})),
    ]
}

fn numbers() -> Vec<Parameter> {
    let name = "With it, one number of that metric or one of each group, the largest first; a plural stands for its singular. Without it, the node's own \
                figures for Prometheus.";
    let mut all =
        vec![parameter(ParameterIn::Query, "name", name, false, json!({"type": "string", "minLength": 1, "examples": ["page_views"]}))];
    for name in super::super::read::seed::NUMBERS_PARAMETERS.into_iter().filter(|name| *name != "name") {
        let (description, mut schema) = described(name);
        if name == "agg" {
            schema = json!({"type": "string", "pattern": AGGREGATE_PATTERN, "default": "count"});
        }
        if name == "limit" {
            schema["default"] = json!(ROWS_MAX);
        }
        if name == "order" {
            schema["default"] = json!("-value");
        }
        all.push(parameter(ParameterIn::Query, name, description, false, schema));
    }
    all
}

fn daily() -> Vec<Parameter> {
    let (_, mut limit) = described("limit");
    limit["default"] = json!(ROWS_MAX);
    let text = |name, description, schema| parameter(ParameterIn::Query, name, description, false, schema);
    vec![
        text("source", "The source whose events are meant.", json!({"type": "string", "default": "web"})),
        text("start", "First day, UTC.", json!({"type": "string", "format": "date", "default": "2024-01-01"})),
        text("end", "Last day, UTC, part of the range; today if it is left out.", json!({"type": "string", "format": "date"})),
        text("limit", "Rows of one answer; when there are more, the `Tallymesh-Cursor` header leads on.", limit),
        text("cursor", described("cursor").0, json!({"type": "string"})),
    ]
}

fn list() -> Vec<Parameter> {
    let limit = json!({"type": "integer", "minimum": 1, "maximum": DEAD_LETTERS_PAGE_MAX, "default": DEAD_LETTERS_PAGE_DEFAULT});
    vec![
        parameter(ParameterIn::Query, "limit", "Letters of one page.", false, limit),
        parameter(
            ParameterIn::Query,
            "cursor",
            "Where the last page ended, as it gave it.",
            false,
            json!({"type": "string", "pattern": "^[0-9]{1,19}$"}),
        ),
    ]
}

fn ingest_headers() -> Vec<Parameter> {
    let header = |name, description, schema| parameter(ParameterIn::Header, name, description, false, schema);
    let version = json!({"type": "string", "maxLength": DIMENSION_BYTES_MAX, "examples": ["1.0.0"]});
    vec![
        header(
            "Content-Encoding",
            "How the body is compressed.",
            json!({"type": "string", "enum": ["gzip", "zstd", "lz4", "identity"], "default": "identity"}),
        ),
        header(
            "Idempotency-Key",
            "Makes a request whose events have no ids safe to send again: each gets an id made of the key and its place.",
            json!({"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_BYTES_MAX}),
        ),
        header("Schema-Version", "Schema version of the events that name none; `X-Schema-Version` is the same.", version),
    ]
}
