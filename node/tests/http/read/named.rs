//! Ready-made queries against plain counts of what was sent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tallymesh_protocol::definition::MetricDefinition;
use tallymesh_protocol::time::{Grain, HOUR_MS, MINUTE_MS, rfc3339};

use super::super::harness::{Answer, TestNode};

fn by_feature(name: &str, event: &[&str], dimension: &str, filter: &[&str]) -> MetricDefinition {
    serde_json::from_value(json!({"name": name, "event": event, "dimensions": ["source", dimension], "filter": filter})).expect("valid")
}

async fn send(node: &TestNode, events: &[Value]) {
    assert_eq!(node.post_json("/v1/events", &json!(events)).await.counts(), (200, events.len() as u64, 0, 0));
}

#[track_caller]
fn rows(answer: &Answer) -> &Vec<Value> {
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!((&answer.body["receipt"]["complete"], &answer.body["receipt"]["shards"]["answered"]), (&json!(true), &json!(4)));
    answer.body["data"].as_array().expect("list")
}

/// Steps of the rows, by their start.
fn by_time(rows: &[Value]) -> BTreeMap<&str, &Value> {
    rows.iter().map(|row| (row["time"].as_str().expect("time"), &row["values"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn active_users_are_distinct_sessions_of_five_minutes_and_of_each_minute() {
    let node = TestNode::start().await;
    let now = node.machine.clock.wall_ms();
    let mut events = Vec::new();
    let mut sent: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for (i, minutes_ago) in [2, 2, 3, 3, 3, 20, 21, 21].into_iter().cycle().take(64).enumerate() {
        let (time, session) = (now - minutes_ago * MINUTE_MS, (i as u32 * 7) % 11 + if minutes_ago > 10 { 100 } else { 0 });
        let event = if i % 2 == 0 { "page_view" } else { "click" };
        events.push(json!({"event": event, "timestamp": time, "session_id": format!("s{session}"), "user_id": "one"}));
        sent.entry(rfc3339(Grain::Minute.floor(time))).or_default().insert(session);
    }
    send(&node, &events).await;

    let got = node.get("/v1/named/active_users?range=30m").await;
    let by_time = by_time(rows(&got));
    assert!((30..=31).contains(&by_time.len()), "every minute has a row: {got:?}");
    for (time, values) in &by_time {
        assert_eq!(values["sessions"], sent.get(*time).map_or(0, BTreeSet::len), "{time}");
    }
    assert!(sent.keys().all(|time| by_time.contains_key(time.as_str())));
    let active: BTreeSet<u32> = sent.values().flatten().copied().filter(|s| *s < 100).collect();
    assert_eq!(got.body["now"]["values"], json!({"sessions": active.len()}), "{got:?}");
    assert_eq!(got.body["now"]["receipt"]["error"]["sessions"], 0.0);
    assert_eq!(got.body["query"], "active_users");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_funnel_has_every_hour_and_no_conversion_where_nobody_started() {
    let node = TestNode::start().await;
    let this_hour = Grain::Hour.floor(node.machine.clock.wall_ms());
    let hour = |ago: i64| this_hour - ago * HOUR_MS;
    let hours = [(hour(1), 4, 3), (hour(2), 0, 2), (hour(3), 5, 0)];
    let mut events = vec![json!({"event": "page_view", "timestamp": hour(2)})];
    for (start, started, completed) in hours {
        let event = |name: &str, i: i64| json!({"event": name, "timestamp": start + i * MINUTE_MS, "user_id": i});
        events.extend((0..started).map(|i| event("signup_started", i)));
        events.extend((0..completed).map(|i| event("signup_completed", i)));
    }
    send(&node, &events).await;

    let got = node.get("/v1/named/signup_funnel?range=6h").await;
    let mut by_time = by_time(rows(&got));
    assert!((6..=7).contains(&by_time.len()), "{got:?}");
    for (start, started, completed) in hours {
        let conversion = if started == 0 { Value::Null } else { whole_or_real(completed as f64 / started as f64) };
        let expected = json!({"started": started, "completed": completed, "conversion": conversion});
        assert_eq!(by_time.remove(rfc3339(start).as_str()), Some(&expected));
    }
    let quiet = json!({"started": 0, "completed": 0, "conversion": null});
    assert!(by_time.values().all(|values| **values == quiet), "{by_time:?}");
}

fn whole_or_real(number: f64) -> Value {
    if number.fract() == 0.0 { json!(number as i64) } else { json!(number) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_rate_is_errors_of_all_events_and_null_without_any() {
    let node = TestNode::start().await;
    assert!(rows(&node.get("/v1/named/error_rate").await).iter().all(|row| row["values"]["error_rate"].is_null()), "an empty node answers");
    let now = node.machine.clock.wall_ms();
    let minutes = [(5, 1, 3), (6, 0, 4), (7, 2, 0)];
    let mut events = Vec::new();
    for (ago, errors, others) in minutes {
        let event = |name: &str| json!({"event": name, "timestamp": now - ago * MINUTE_MS});
        events.extend((0..errors).map(|_| event("error_occurred")));
        events.extend((0..others).map(|i| event(if i % 2 == 0 { "click" } else { "page_view" })));
    }
    send(&node, &events).await;

    let got = node.get("/v1/named/error_rate?range=15m").await;
    let mut by_time = by_time(rows(&got));
    for (ago, errors, others) in minutes {
        let rate = whole_or_real(f64::from(errors) / f64::from(errors + others));
        let expected = json!({"errors": errors, "events": errors + others, "error_rate": rate});
        assert_eq!(by_time.remove(rfc3339(Grain::Minute.floor(now - ago * MINUTE_MS)).as_str()), Some(&expected));
    }
    assert!(by_time.len() >= 12, "{got:?}");
    let quiet = json!({"errors": 0, "events": 0, "error_rate": null});
    assert!(by_time.values().all(|values| **values == quiet), "{by_time:?}");
    assert!(rows(&node.get("/v1/named/error_rate?range=60d").await).len() >= 60 * 24 * 60, "no minute is left out of a long range");
}

#[tokio::test(flavor = "multi_thread")]
async fn top_features_are_ten_by_users_through_whatever_metric_counts_them() {
    // Only the last one counts every use, nothing else, and each by its feature.
    let node = TestNode::start_with(|c| {
        c.metrics = vec![
            by_feature("with_clicks", &["feature_used", "click"], "feature", &[]),
            by_feature("of_the_web", &["feature_used"], "feature", &["source:web"]),
            by_feature("by_page", &["feature_used"], "page", &[]),
            by_feature("odd, name", &["feature_used"], "properties.feature", &[]),
        ];
    })
    .await;
    // Uses of no feature, and something else that names the most used one.
    let mut events: Vec<Value> = (0..20).map(|user| json!({"event": "feature_used", "user_id": user})).collect();
    events.push(json!({"event": "click", "user_id": "x", "properties": {"feature": "f11"}}));
    let mut sent: Vec<(usize, String, usize)> = Vec::new();
    for feature in 0..14_usize {
        let (name, users) = (format!("f{feature}"), (feature * 5) % 14 + 1);
        for user in 0..users {
            let source = if user % 2 == 0 { "web" } else { "api" };
            let event = json!({"event": "feature_used", "source": source, "user_id": user, "properties": {"feature": name}});
            // Much used by few is not much used by many.
            events.extend(std::iter::repeat_n(event, 15 - users));
        }
        sent.push((users, name, users * (15 - users)));
    }
    send(&node, &events).await;

    sent.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let expected: Vec<Value> = sent
        .iter()
        .take(10)
        .map(|(users, name, count)| json!({"group": {"feature": name}, "values": {"users": users, "count": count}}))
        .collect();
    let got = node.get("/v1/named/top_features?range=1h").await;
    assert_eq!(*rows(&got), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_metric_by_feature_the_answer_says_which_to_define() {
    let node = TestNode::start_with(|c| c.metrics = vec![by_feature("feature_usage", &["feature_used"], "page", &[])]).await;
    let got = node.get("/v1/named/top_features?range=1h").await;
    assert_eq!(got.problem(), (422, "unknown_dimension"));
    let detail = got.body["detail"].as_str().expect("text");
    let block = &detail[detail.find("[[metrics]]").expect("a block")..];
    let file: BTreeMap<String, Vec<MetricDefinition>> = toml::from_str(block).expect("TOML");
    let added = file["metrics"].clone();
    assert_ne!(added[0].name, "feature_usage", "that name is taken");

    let defined = TestNode::start_with(|c| c.metrics = added).await;
    send(&defined, &[json!({"event": "feature_used", "user_id": "a", "properties": {"feature": "export"}})]).await;
    let got = defined.get("/v1/named/top_features?range=1h").await;
    assert_eq!(*rows(&got), [json!({"group": {"feature": "export"}, "values": {"users": 1, "count": 1}})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slips_are_told_what_was_meant() {
    let node = TestNode::start().await;
    for (path, status, code, field, guess) in [
        ("active_user", 404, "not_found", "query", Some("active_users")),
        ("nothing_like_it", 404, "not_found", "query", None),
        ("error_rate?rnage=1h", 422, "bad_parameter", "rnage", Some("range")),
        ("error_rate?range=soon", 422, "bad_range", "range", None),
        ("error_rate?range=400d", 422, "too_many_points", "range", None),
    ] {
        let got = node.get(&format!("/v1/named/{path}")).await;
        assert_eq!(got.problem(), (status, code), "{path}");
        assert_eq!((got.body["field"].as_str(), got.body["did_you_mean"].as_str()), (Some(field), guess), "{path}");
    }
}
