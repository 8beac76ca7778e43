//! Answers as Arrow, and what a request says for all of its events.

use std::io::Cursor;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, TimestampMillisecondType, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::StreamReader;
use reqwest::Method;
use serde_json::{Value, json};

use super::super::harness::{TestNode, answer, lines};

async fn arrow(node: &TestNode, query: &str) -> (RecordBatch, Value) {
    let response = node.request(Method::GET, &format!("/v1/query?{query}&format=arrow")).send().await.expect("answered");
    assert_eq!(response.headers()["content-type"], "application/vnd.apache.arrow.stream", "{}", response.status());
    let bytes = response.bytes().await.expect("a body");
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None).expect("a stream");
    let batch = reader.next().expect("one batch").expect("readable");
    assert!(reader.next().is_none());
    let receipt = serde_json::from_str(&batch.schema().metadata()["receipt"]).expect("JSON");
    (batch, receipt)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arrow_stream_says_the_same_as_json() {
    let node = TestNode::start().await;
    let events: Vec<Value> = (0..200)
        .map(|i| {
            json!({"event": "buy", "event_id": i.to_string(), "timestamp": 1_767_268_800_000i64 + i * 60_000, "country_code": (i % 3 > 0).then(|| format!("C{}", i % 3)),
                "user_id": i % 7, "value": (i % 2 == 0).then_some(f64::from(i as i32) / 4.0)})
        })
        .collect();
    assert_eq!(node.post_json("/v1/events", &json!(events)).await.counts().1, 200);
    for query in [
        "metric=buy&agg=count,avg,p95,users&from=2026-01-01&to=2026-01-03&step=1h&group_by=country_code&compare=day&fill=null",
        "metric=buy&agg=max,count&from=2026-01-01&to=2026-01-03",
        "metric=buy&from=2030-01-01&to=2030-01-03&group_by=country_code",
    ] {
        let (batch, receipt) = arrow(&node, query).await;
        let got = node.get(&format!("/v1/query?{query}")).await;
        assert_eq!(receipt["shards"], got.body["receipt"]["shards"]);
        let rows = got.body["data"].as_array().expect("rows");
        assert_eq!(batch.num_rows(), rows.len(), "{query}");
        for (column, field) in batch.columns().iter().zip(batch.schema().fields()) {
            let name = field.name().as_str();
            let (of_row, name): (fn(&Value) -> &Value, &str) = match name.strip_prefix("compare.") {
                Some(rest) => (|row| &row["compare"], rest),
                None => (|row| row, name),
            };
            for (i, row) in rows.iter().enumerate() {
                let row = of_row(row);
                let null = column.is_null(i);
                match name {
                    "time" => {
                        let at: jiff::Timestamp = row["time"].as_str().expect("time").parse().expect("RFC 3339");
                        assert_eq!(column.as_primitive::<TimestampMillisecondType>().value(i), at.as_millisecond());
                        assert_eq!(field.data_type().to_string(), "Timestamp(ms, \"UTC\")");
                    }
                    "country_code" => assert_eq!((!null).then(|| column.as_string::<i32>().value(i)), row["group"][name].as_str()),
                    "count" => assert_eq!((!null).then(|| column.as_primitive::<UInt64Type>().value(i)), row["values"][name].as_u64()),
                    _ => assert_eq!((!null).then(|| column.as_primitive::<Float64Type>().value(i)), row["values"][name].as_f64(), "{name}"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_queries_are_not_answered_as_arrow() {
    let node = TestNode::start().await;
    let got = node.post_json("/v1/query", &json!({"queries": [{"metric": "*", "range": "1h", "format": "arrow"}]})).await;
    assert_eq!((got.status, &got.body["results"][0]["code"]), (200, &json!("bad_parameter")));
    let beside = node.post_json("/v1/query", &json!({"queries": [{"metric": "*", "range": "1h"}], "format": "arrow"})).await;
    assert_eq!(beside.problem(), (422, "bad_parameter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_version_of_a_request_is_that_of_events_without_one() {
    let by_version = serde_json::from_value(json!({"name": "versions", "event": ["page_view", "late"], "dimensions": ["schema_version"]}))
        .expect("valid");
    let node = TestNode::start_with(|c| c.metrics = vec![by_version]).await;
    let send = async |headers: &[(&str, &str)], body: String| {
        let request = headers.iter().fold(node.request(Method::POST, "/v1/events"), |r, (name, value)| r.header(*name, *value));
        answer(request.header("content-type", "application/x-ndjson").body(body)).await
    };
    assert_eq!(send(&[("schema-version", "1.0.0")], lines(0..3)).await.counts().1, 3);
    assert_eq!(send(&[("x-schema-version", "2.0.0"), ("schema-version", "2.0.0")], lines(3..5)).await.counts().1, 2);
    let own =
        "{\"event\":\"page_view\",\"schema_version\":\"3\"}\n{\"event\":\"page_view\",\"_metadata\":{\"schema_version\":\"3\"}}".to_owned();
    assert_eq!(send(&[("schema-version", "1.0.0")], own).await.counts().1, 2);
    assert_eq!(send(&[], lines(5..6)).await.counts().1, 1);
    let contradicting = send(&[("schema-version", "1"), ("x-schema-version", "2")], lines(6..7)).await;
    assert_eq!(contradicting.problem(), (400, "bad_request"));
    assert_eq!(send(&[("schema-version", &"1".repeat(1_025))], lines(6..7)).await.problem(), (400, "bad_request"));

    let got = node.get("/v1/query?metric=versions&range=1h&group_by=schema_version").await;
    let counts: Vec<(Option<&str>, u64)> = got.body["data"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (row["group"]["schema_version"].as_str(), row["values"]["count"].as_u64().expect("count")))
        .collect();
    let mut sorted = counts.clone();
    sorted.sort();
    assert_eq!(sorted, [(None, 1), (Some("1.0.0"), 3), (Some("2.0.0"), 2), (Some("3"), 2)]);
}
