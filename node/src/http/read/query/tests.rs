use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tallymesh_actors::Mesh;
use tallymesh_storage::dead_letters::{DeadLetterLimits, DeadLetters};
use tower::ServiceExt;

use super::*;
use crate::boot::{Machine, mesh_options};
use crate::config::Config;
use crate::http::{App, router};
use crate::limits::SMALL_BODY_BYTES_MAX;

struct Node {
    app: AppState,
    _dir: tempfile::TempDir,
}

async fn node() -> Node {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config::default();
    config.node.data_dir = dir.path().to_string_lossy().into_owned();
    config.cluster.shards = 2;
    config.metrics = vec![
        serde_json::from_value(
            json!({"name": "departures", "event": ["flight_departed"], "dimensions": ["carrier"], "description": "left"}),
        )
        .expect("valid"),
    ];
    let machine = Machine::this_one();
    let mesh = Mesh::start(mesh_options(&config, &machine)).await.expect("starts");
    let letters = DeadLetters::open(&dir.path().join("letters"), DeadLetterLimits { bytes_max: 1 << 20, count_max: 100 }).expect("opens");
    Node { app: App::new(config, machine, mesh, letters).expect("randomness"), _dir: dir }
}

impl Node {
    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = router(self.app.clone()).oneshot(request).await.expect("infallible");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn get(&self, query: &str) -> (StatusCode, Value) {
        self.send(Request::get(format!("/v1/query?{query}")).body(Body::empty()).expect("a request")).await
    }

    async fn post(&self, body: impl Into<Body>) -> (StatusCode, Value) {
        self.send(Request::post("/v1/query").body(body.into()).expect("a request")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_the_code_the_field_and_what_was_meant() {
    let node = node().await;
    for (query, status, code, field, guess) in [
        ("range=1h", 422, "bad_parameter", Some("metric"), None),
        ("metric=a", 422, "bad_range", Some("range"), None),
        ("metric=a&range=1h&groupby=x", 422, "bad_parameter", Some("groupby"), Some("group_by")),
        ("metric=a&range=1h&group_by=contry_code", 422, "unknown_dimension", Some("group_by"), Some("country_code")),
        ("metric=a&range=1h&tz=Europe/Berln", 422, "bad_time_zone", Some("tz"), Some("Europe/Berlin")),
        ("metric=a&range=1h&limit=0", 422, "bad_parameter", Some("limit"), None),
        ("metric=a&from=2026-01-02&to=2026-01-01", 422, "bad_range", Some("from"), None),
        ("metric=a&range=365d&step=1m", 422, "too_many_points", Some("step"), None),
        ("metric=a&range=1h&cursor=forged", 422, "bad_parameter", Some("cursor"), None),
        ("metric=departures&range=1h&group_by=carier", 422, "unknown_dimension", Some("group_by"), Some("carrier")),
    ] {
        let (got, problem) = node.get(query).await;
        assert_eq!(got.as_u16(), status, "{query}: {problem}");
        assert_eq!(problem["code"], code, "{query}");
        assert_eq!((problem["field"].as_str(), problem["did_you_mean"].as_str()), (field, guess), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_query_are_refused() {
    let node = node().await;
    let long = "x".repeat(SMALL_BODY_BYTES_MAX + 1);
    let many = json!({"queries": vec![json!({}); QUERIES_MAX + 1]}).to_string();
    for (body, status, code) in [
        (" ", 400, "empty_body"),
        ("{", 400, "bad_json"),
        ("[]", 422, "bad_parameter"),
        ("{\"queries\":{}}", 422, "bad_parameter"),
        ("{\"queries\":[]}", 422, "bad_parameter"),
        ("{\"queries\":[{}],\"metric\":\"a\"}", 422, "bad_parameter"),
        (many.as_str(), 422, "bad_parameter"),
        (long.as_str(), 413, "body_too_large"),
    ] {
        let (got, problem) = node.post(body.to_owned()).await;
        assert_eq!((got.as_u16(), problem["code"].as_str()), (status, Some(code)), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_several_queries_stands_alone() {
    let node = node().await;
    let queries = json!({"queries": [
        {"metric": "*", "range": "1h", "limit": 0},
        {"metric": "*", "range": "1h", "format": "csv"},
        {"metric": "*", "range": "1h", "tz": "Nowhere"},
        7,
    ]});
    let (status, body) = node.post(queries.to_string()).await;
    assert_eq!(status, 200, "{body}");
    let got: Vec<_> = body["results"].as_array().expect("a list").iter().map(|r| (r["code"].as_str(), r["field"].as_str())).collect();
    let bad = Some("bad_parameter");
    assert_eq!(got, [(bad, Some("limit")), (bad, Some("format")), (Some("bad_time_zone"), Some("tz")), (bad, None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_lists_what_is_defined() {
    let node = node().await;
    let (status, body) = node.send(Request::get("/v1/metrics").body(Body::empty()).expect("a request")).await;
    assert_eq!(status, 200);
    let expected = json!({"name": "departures", "kind": "defined", "description": "left", "dimensions": ["carrier"],
        "events": ["flight_departed"], "cardinality": 0, "budget": 100_000, "other_events": 0});
    assert_eq!(body["metrics"][0], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_lists_a_defined_metric_once_also_when_it_has_counted() {
    let node = node().await;
    let event = json!({"event": "flight_departed", "carrier": "UA"}).to_string();
    let (status, ack) = node.send(Request::post("/v1/events").body(Body::from(event)).expect("a request")).await;
    assert_eq!((status.as_u16(), &ack["count"]), (200, &json!(1)), "{ack}");
    let (_, body) = node.send(Request::get("/v1/metrics").body(Body::empty()).expect("a request")).await;
    let listed: Vec<_> = body["metrics"].as_array().expect("a list").iter().map(|m| (m["name"].as_str(), m["kind"].as_str())).collect();
    assert_eq!(listed, [(Some("departures"), Some("defined")), (Some("flight_departed"), Some("event"))]);
}
