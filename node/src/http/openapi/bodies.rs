//! Schemas of what is parsed by hand: events, queries, and answers in several formats.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use tallymesh_protocol::error::Problem;
use tallymesh_protocol::limits::{EVENT_ID_BYTES_MAX, EVENT_NAME_BYTES_MAX, QUERIES_MAX};
use tallymesh_protocol::question::answer::Answer;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{Object, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::parameters::{QUERY_PARAMETERS, described};
use crate::limits::RETRY_IDS_MAX;

type Schemas = Vec<(String, RefOr<Schema>)>;

macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident: $value:expr, [$($needs:ty),*];)+) => {$(
        $(#[$doc])*
        pub enum $name {}

        impl PartialSchema for $name {
            /// Its place; [`written`] has the content.
            fn schema() -> RefOr<Schema> {
                Object::new().into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn schemas(all: &mut Schemas) {
                let _ = &all;
                $(all.push((<$needs>::name().into_owned(), <$needs>::schema()));)*
            }
        }
    )+

    /// By name: what utoipa's own schema types have no room for stays as it is written here.
    pub fn written() -> Vec<(&'static str, Value)> {
        vec![$((stringify!($name), $value)),+]
    }};
}

schemas! {
    /// One event.
    Event: event(), [];
    /// One event or a list of them.
    EventBody: json!({"oneOf": [component("Event"), {"type": "array", "items": component("Event")}]}), [Event];
    /// One metric query.
    Query: query(), [];
    /// One query or several.
    QueryBody: json!({"oneOf": [component("Query"), {
        "type": "object",
        "description": "Several queries, each answered for itself, as JSON.",
        "required": ["queries"],
        "properties": {"queries": {"type": "array", "items": component("Query"), "minItems": 1, "maxItems": QUERIES_MAX}},
        "additionalProperties": false,
    }]}), [Query];
    /// What one query or several are answered with.
    QueryAnswer: json!({"oneOf": [component("Answer"), {
        "type": "object",
        "description": "In the order of the queries.",
        "required": ["results"],
        "properties": {"results": {"type": "array", "items": {"oneOf": [component("Answer"), component("Problem")]}}},
    }]}), [Answer, Problem];
    /// A number, or one of each group: the dimensions as they were asked for, and `value`.
    NumberRow: json!({
        "type": "object",
        "required": ["value"],
        "properties": {"value": {"type": ["number", "null"], "description": "The number; null without values."}},
        "additionalProperties": {"type": ["string", "null"], "description": "A dimension."},
        "example": {"country": "US", "value": 1_500_000},
    }), [];
    /// Rows as an Arrow IPC stream.
    ArrowStream: json!({
        "type": "string",
        "format": "binary",
        "description": "An Arrow IPC stream: `time` (timestamp in milliseconds, UTC), a text column for each dimension, counts as `uint64` and other values as \
                        `float64`. The schema's metadata has `receipt` as JSON, and `cursor` when there are more rows.",
    }), [];
    /// Which letters to send again.
    RetryRequest: json!({
        "type": "object",
        "properties": {"ids": {
            "type": ["array", "null"],
            "description": "As listed; all letters if it is left out.",
            "items": {"oneOf": [{"type": "string", "pattern": "^[0-9]{1,19}$"}, {"type": "integer", "minimum": 0}]},
            "maxItems": RETRY_IDS_MAX,
        }},
        "additionalProperties": false,
    }), [];
}

fn component(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn event() -> Value {
    let text = |description: &str| json!({"type": ["string", "null"], "description": description});
    let identity = |description: &str| json!({"type": ["string", "integer", "null"], "description": description});
    json!({
        "type": "object",
        "description": "One event. An event that breaks a rule is refused with its place and a reason, and does not hold up the others.",
        "anyOf": [{"required": ["event"]}, {"required": ["event_name"]}],
        "properties": {
            "event_id": {"type": ["string", "null"], "minLength": 1, "maxLength": EVENT_ID_BYTES_MAX,
                "description": "With event, source, device and country as sent it is what makes a resend count once. One is made if it is left out."},
            "event": {"type": "string", "minLength": 1, "maxLength": EVENT_NAME_BYTES_MAX, "description": "Name of the event, without control characters."},
            "event_name": {"type": "string", "minLength": 1, "maxLength": EVENT_NAME_BYTES_MAX, "description": "The same as `event`."},
            "timestamp": {"type": ["string", "number", "null"],
                "description": "RFC 3339, or epoch milliseconds (seconds below 1e11); the time of arrival if it is left out."},
            "session_id": identity("Counted as a distinct session; null and empty are not."),
            "user_id": identity("Counted as a distinct user; null and empty are not."),
            "source": text("A dimension of the default metric."),
            "device_type": text("A dimension of the default metric; `device` is the same."),
            "country_code": text("A dimension of the default metric; `country` is the same."),
            "value": {"type": ["number", "null"], "description": "What sum, min, max, avg, last and quantiles are made of."},
            "schema_version": text("Version of the event's schema; that of the request's header if it is left out."),
            "properties": {"type": ["object", "null"], "additionalProperties": true, "description": "Anything; metric definitions may read it."},
        },
        "additionalProperties": {"description": "Joins the properties."},
        "example": {"event_id": "6f9a", "event": "page_view", "timestamp": "2026-01-01T12:00:00.123Z", "session_id": "s_9", "user_id": "u_1",
            "source": "web", "device_type": "mobile", "country_code": "US", "value": 12.5, "properties": {"path": "/pricing"}},
    })
}

/// The same names as in the query string. Lists may be arrays or comma lists, numbers may be numbers.
fn query() -> Value {
    let one = |name: &str| {
        let (description, mut schema) = described(name);
        schema["description"] = json!(description);
        match name {
            "agg" | "group_by" | "filter" => {
                if let Some(list) = schema.as_object_mut() {
                    list.remove("examples");
                    list.remove("default");
                }
                schema =
                    json!({"oneOf": [schema, {"type": "string", "description": "The same as a comma list."}], "description": description});
            }
            "from" | "to" => schema["type"] = json!(["string", "integer"]),
            _ => {}
        }
        (name.to_owned(), schema)
    };
    let properties: Map<String, Value> = QUERY_PARAMETERS.iter().map(|name| one(name)).collect();
    json!({
        "type": "object",
        "description": "One metric query.",
        "required": ["metric"],
        "properties": properties,
        "additionalProperties": false,
        "example": {"metric": "page_view", "agg": ["count", "users"], "range": "24h", "step": "1h", "group_by": ["country_code"]},
    })
}
