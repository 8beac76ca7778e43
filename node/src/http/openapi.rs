//! `GET /openapi.json`: the interface as OpenAPI 3.1, made from the handlers themselves. Every route of the node is registered with its description, so that
//! there is none without.

mod bodies;
mod parameters;
mod problems;

use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::{Value, json};
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::event::RejectCode;
use tallymesh_protocol::question::answer::Answer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{AppState, routes_with};
use crate::limits::CONNECTION_BUFFER_BYTES_MAX;

pub use bodies::{ArrowStream, EventBody, NumberRow, QueryAnswer, QueryBody, RetryRequest};
pub use parameters::{
    DailyParameters, IngestHeaders, ListParameters, LiveParameters, NamedParameters, NumberParameters, PrometheusInstant, PrometheusLabels,
    PrometheusMetadata, PrometheusRange, PrometheusSeries, QueryParameters, TailParameters,
};
pub use problems::{
    ChangeProblems, IngestProblems, LiveProblems, NamedProblems, PageProblems, PrometheusProblems, QueryBodyProblems, QueryProblems,
    ReadyProblems, RemoveProblems, RetryProblems, StoredProblems, TailProblems,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tallymesh",
        description = "Counts events as they happen, each once, and answers with a receipt that says how complete, how fresh and how exact the numbers are. \
                       Times are UTC: RFC 3339 or epoch milliseconds in, RFC 3339 out. Errors follow RFC 9457. Additions to this interface are free; what is here \
                       only changes with a new version in the path.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "ingest", description = "Events in. A 2xx means durable and ready to be queried."),
        (name = "query", description = "Numbers out, each answer with its receipt."),
        (name = "dead letters", description = "Events that were refused are kept, and can be sent through the door again."),
        (name = "operations", description = "How the node and its cluster are."),
        (name = "first system", description = "Addresses and answers that dashboards of the first system know. Receipt and cursor travel in headers."),
        (name = "prometheus", description = "PromQL over the same numbers, for Grafana and promtool: Prometheus' own shapes of answers and errors."),
        (name = "pages", description = "For people, and this document."),
    ),
    components(schemas(Problem, ErrorCode, RejectCode, Answer, super::read::prometheus::ErrorBody, bodies::Event, bodies::Query))
)]
struct Frame;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_document))
}

/// The document and its bytes; the same for every node of a version.
struct Document {
    value: Value,
    json: Bytes,
}

static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    let (_, api) = routes_with(&[]).split_for_parts();
    let mut whole = Frame::openapi();
    whole.merge(api);
    let value = finished(serde_json::to_value(whole).unwrap_or_default());
    Document { json: serde_json::to_vec(&value).unwrap_or_default().into(), value }
});

pub fn document() -> &'static Value {
    &DOCUMENT.value
}

/// This document
///
/// OpenAPI 3.1, for programs and code generators; `/docs` shows the same to people.
#[utoipa::path(get, path = "/openapi.json", operation_id = "get_openapi", tag = "pages", responses((status = 200, description = "The document.", body = Object), PageProblems))]
async fn get_document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], DOCUMENT.json.clone())
}

/// What holds for every operation is said once, here.
fn finished(mut document: Value) -> Value {
    document["components"]["headers"] = json!({
        "RequestId": {
            "description": "Names the request in answers, logs and dead letters: the client's own `X-Request-Id` if it sent one, else a new one.",
            "schema": {"type": "string", "minLength": 1, "maxLength": crate::limits::REQUEST_ID_BYTES_MAX},
        },
        "RetryAfter": {"description": "Seconds to wait before the same request may succeed.", "schema": {"type": "integer", "minimum": 1}},
        "Receipt": {
            "description": "The answer's receipt as JSON, where the body has no place for it.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Receipt"}}},
        },
        "Cursor": {"description": "For the next page; absent after the last.", "schema": {"type": "string"}},
    });
    for (name, schema) in bodies::written() {
        document["components"]["schemas"][name] = schema;
    }
    let operations = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in operations.filter_map(Value::as_object_mut).flat_map(|methods| methods.values_mut()) {
        for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            response["headers"]["X-Request-Id"] = json!({"$ref": "#/components/headers/RequestId"});
            if ["429", "503", "507"].contains(&status.as_str()) && response["content"].get(problems::MEDIA_TYPE).is_some() {
                response["headers"]["Retry-After"] = json!({"$ref": "#/components/headers/RetryAfter"});
            }
            let is_bare = |content: &Value| {
                content.as_object().is_some_and(|types| types.iter().any(|(name, _)| name == "text/csv" || name.contains("arrow")))
                    || content["application/json"]["schema"]["type"] == "array"
            };
            if status == "200" && is_bare(&response["content"]) {
                response["headers"]["Tallymesh-Receipt"] = json!({"$ref": "#/components/headers/Receipt"});
                response["headers"]["Tallymesh-Cursor"] = json!({"$ref": "#/components/headers/Cursor"});
            }
        }
        // Said by the HTTP engine, before any of the node's own code sees the request.
        operation["responses"]["414"] = json!({"description": "The address is over 64 KiB. No body."});
        operation["responses"]["431"] = json!({
            "description": format!("The head of the request is over {} KiB. No body.", CONNECTION_BUFFER_BYTES_MAX >> 10),
        });
    }
    document
}

#[cfg(test)]
mod tests {
    use super::super::pages::dashboard;
    use super::*;

    #[test]
    fn every_route_is_in_the_document_and_the_other_way_round() {
        let (router, _) = routes_with(&[]).split_for_parts();
        let shown = format!("{router:?}");
        let is_path = |text: &&str| text.starts_with('/') && !text.contains(' ');
        // Files of the pages, and the dashboard's own, are no part of the interface.
        let of_pages = |path: &&str| path.starts_with("/assets/") || path.starts_with("/docs/") || dashboard::PAGES.contains(path);
        let routes: std::collections::BTreeSet<&str> =
            shown.split('"').filter(is_path).filter(|path| !of_pages(path) && !path.contains("axum_fallback")).collect();
        let documented: std::collections::BTreeSet<&str> =
            document()["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
        assert_eq!(routes, documented);
        assert!(documented.len() >= 16);
    }

    #[test]
    fn the_parameters_are_those_that_a_query_takes() {
        let operation = &document()["paths"]["/v1/query"]["get"];
        let mut documented: Vec<&str> =
            operation["parameters"].as_array().expect("a list").iter().filter_map(|p| p["name"].as_str()).collect();
        let mut taken: Vec<&str> = tallymesh_protocol::question::query::PARAMETERS.into_iter().chain(["format"]).collect();
        documented.sort_unstable();
        taken.sort_unstable();
        assert_eq!(documented, taken);
        for methods in document()["paths"].as_object().expect("paths").values() {
            for operation in methods.as_object().expect("methods").values() {
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let text = parameter["description"].as_str().unwrap_or_default();
                    assert!(
                        !text.is_empty() && (parameter["schema"]["type"].is_string() || parameter["schema"]["$ref"].is_string()),
                        "{parameter}"
                    );
                }
            }
        }
    }
}
