//! The document and the node say the same: every route, every method, every answer.

mod contract;
mod random;

use std::collections::BTreeSet;

use reqwest::Method;
use reqwest::header::ALLOW;
use serde_json::{Value, json};

use self::contract::Contract;
use super::harness::{TestNode, lines};

/// Their answers never end, or are no answers.
const ENDLESS: [&str; 3] = ["/v1/tail", "/v1/live", "/v1/ws"];
/// A single node has nowhere to move a shard to.
const OF_FLEETS: [&str; 3] = ["/v1/cluster/drain", "/v1/cluster/move", "/v1/cluster/rebalance"];

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_path_has_the_documented_methods_and_no_other() {
    let node = TestNode::start().await;
    let document = node.get("/openapi.json").await.body;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let brew = Method::from_bytes(b"BREW").expect("a method");
        let response = node.request(brew, &path.replace("{query}", "error_rate")).send().await.expect("answered");
        assert_eq!(response.status(), 405, "{path}");
        let allowed: BTreeSet<String> =
            response.headers()[ALLOW].to_str().expect("text").split(',').map(|m| m.trim().to_lowercase()).collect();
        let mut documented: BTreeSet<String> = methods.as_object().expect("methods").keys().cloned().collect();
        if documented.contains("get") {
            documented.insert("head".to_owned());
        }
        assert_eq!(allowed, documented, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_the_document_says() {
    let node = TestNode::start().await;
    let contract = Contract::of(&node).await;
    let bad = json!([{"event": "page_view", "value": 1}, {"source": "web"}, 7]);
    let several = json!({"queries": [{"metric": "page_view", "range": "1h"}, {"metric": "page_view"}, 7]});
    let all = "agg=count,sum,users,p95&step=5m&group_by=source,event&compare=day&fill=null&limit=3";
    let requests: Vec<(Method, String, Option<String>, u16)> = vec![
        (Method::GET, "/health".into(), None, 200),
        (Method::GET, "/ready".into(), None, 200),
        (Method::POST, "/v1/events".into(), Some(bad.to_string()), 200),
        (Method::POST, "/events".into(), Some("[{}]".into()), 422),
        (Method::POST, "/events".into(), Some("{\"event\":\"page_view\"}".into()), 200),
        (Method::POST, "/v1/events".into(), Some("nonsense".into()), 400),
        (Method::POST, "/v1/events".into(), Some(String::new()), 400),
        (Method::POST, "/v1/events".into(), Some(json!(vec![json!({"event": "a"}); 10_001]).to_string()), 413),
        (Method::GET, "/v1/query?metric=page_view&range=1h".into(), None, 200),
        (Method::GET, format!("/v1/query?metric=*&range=1h&{all}"), None, 200),
        (Method::GET, "/v1/query?metric=page_view&range=1h&format=csv".into(), None, 200),
        (Method::GET, "/v1/query?metric=page_view&range=1h&format=arrow".into(), None, 200),
        (Method::GET, "/v1/query?metric=nothing&range=1h".into(), None, 404),
        (Method::GET, "/v1/query?metric=page_view&range=365d&step=1m".into(), None, 422),
        (Method::GET, "/v1/dead-letters?colour=red".into(), None, 422),
        (Method::POST, "/v1/query".into(), Some(json!({"metric": "page_view", "range": "1h", "agg": ["count"]}).to_string()), 200),
        (Method::POST, "/v1/query".into(), Some(several.to_string()), 200),
        (Method::POST, "/v1/query".into(), Some("[".into()), 400),
        (Method::GET, "/v1/named/active_users".into(), None, 200),
        (Method::GET, "/v1/named/signup_funnel?range=2h".into(), None, 200),
        (Method::GET, "/v1/named/top_features".into(), None, 422),
        (Method::GET, "/v1/named/error_rate".into(), None, 200),
        (Method::GET, "/v1/named/none".into(), None, 404),
        (Method::GET, "/v1/metrics".into(), None, 200),
        (Method::GET, "/v1/cluster".into(), None, 200),
        (Method::POST, "/v1/cluster/drain".into(), Some("{\"node\":\"n1\"}".into()), 400),
        (Method::POST, "/v1/cluster/move".into(), Some("{\"shard\":0,\"node\":\"n1\"}".into()), 400),
        (Method::POST, "/v1/cluster/rebalance".into(), Some("{}".into()), 400),
        (Method::GET, "/v1/definitions".into(), None, 200),
        (Method::POST, "/v1/definitions".into(), Some("{\"name\":\"m\",\"event\":[\"page_view\"]}".into()), 200),
        (Method::PUT, "/v1/definitions".into(), Some("{\"version\":1,\"definitions\":[]}".into()), 422),
        (Method::DELETE, "/v1/definitions/m".into(), None, 200),
        (Method::PUT, "/v1/definitions".into(), Some("{\"version\":3,\"definitions\":[]}".into()), 200),
        (Method::GET, "/v1/dead-letters?limit=1".into(), None, 200),
        (Method::GET, "/v1/dead-letters?limit=0".into(), None, 422),
        (Method::POST, "/v1/dead-letters/retry".into(), Some(String::new()), 200),
        (Method::POST, "/v1/dead-letters/retry".into(), Some("{\"ids\":[\"x\"]}".into()), 422),
        (Method::GET, "/metrics".into(), None, 200),
        (Method::GET, "/metrics?name=page_views&range=1d&group_by=source,country".into(), None, 200),
        (Method::GET, "/api/metrics/daily".into(), None, 200),
        (Method::GET, "/api/metrics/daily?start=x".into(), None, 422),
        (Method::GET, "/prometheus/api/v1/query?query=sum(page_view)".into(), None, 200),
        (Method::GET, "/prometheus/api/v1/query?query=1%2B1".into(), None, 200),
        (Method::GET, "/prometheus/api/v1/query?query=sum(".into(), None, 400),
        (Method::GET, "/prometheus/api/v1/query?query=stddev(page_view)".into(), None, 422),
        (Method::POST, "/prometheus/api/v1/query?query=page_view".into(), None, 200),
        (Method::GET, "/prometheus/api/v1/query_range?query=page_view&start=1767268800&end=1767272400&step=3600".into(), None, 200),
        (Method::POST, "/prometheus/api/v1/query_range?query=1&start=1&end=3600&step=60".into(), None, 200),
        (Method::GET, "/prometheus/api/v1/labels".into(), None, 200),
        (Method::POST, "/prometheus/api/v1/labels".into(), None, 200),
        (Method::GET, "/prometheus/api/v1/label/source/values".into(), None, 200),
        (Method::GET, "/prometheus/api/v1/series".into(), None, 400),
        (Method::GET, "/prometheus/api/v1/series?match[]=page_view".into(), None, 200),
        (Method::POST, "/prometheus/api/v1/series?match[]=page_view".into(), None, 200),
        (Method::GET, "/prometheus/api/v1/metadata".into(), None, 200),
        (Method::GET, "/prometheus/api/v1/status/buildinfo".into(), None, 200),
        (Method::GET, "/v1/tail?colour=red".into(), None, 422),
        (Method::GET, "/v1/live?query=metric%3Dpage_view".into(), None, 422),
        (Method::GET, "/v1/ws".into(), None, 400),
        (Method::GET, "/openapi.json".into(), None, 200),
        (Method::GET, "/docs".into(), None, 200),
        (Method::GET, "/".into(), None, 200),
    ];
    assert_eq!(node.post_ndjson(lines(0..50)).await.counts().1, 50);
    for (method, path, body, status) in requests {
        let got = contract.hold(&node, method.clone(), &path, body).await;
        assert_eq!(got, status, "{method} {path}");
    }
    let untried = contract.untried();
    assert!(
        untried.iter().all(|operation| ENDLESS.iter().chain(&OF_FLEETS).any(|path| operation.ends_with(path))),
        "no 200 of {untried:?} was looked at"
    );
}

#[test]
fn what_the_schema_forbids_is_noticed() {
    let problems =
        |value: Value| contract::errors(tallymesh_node::http::document(), &json!({"$ref": "#/components/schemas/Ack"}), &value).len();
    let good = json!({"status": "accepted", "count": 1, "duplicates": 0, "generated_ids": 0, "rejected": [], "token": "x"});
    assert_eq!(problems(good.clone()), 0);
    for (field, value) in [("status", json!("maybe")), ("count", json!(-1)), ("rejected", json!([{"index": 1}])), ("token", Value::Null)] {
        let mut bad = good.clone();
        bad[field] = value;
        assert!(problems(bad) > 0, "{field}");
    }
}
