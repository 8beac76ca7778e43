//! The addresses of the first system, against plain counts of what was sent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tallymesh_protocol::time::{DAY_MS, rfc3339};

use super::super::harness::TestNode;

#[tokio::test(flavor = "multi_thread")]
async fn metrics_by_name_group_filter_and_name_fields_as_asked() {
    let node = TestNode::start().await;
    let mut sent: BTreeMap<&str, u64> = BTreeMap::new();
    let mut events = Vec::new();
    for (country, device, times) in [("DE", "mobile", 3), ("US", "mobile", 5), ("US", "desktop", 4), ("FR", "tablet", 9)] {
        events.extend((0..times).map(|_| json!({"event": "page_view", "country": country, "device": device})));
        if device == "mobile" {
            *sent.entry(country).or_default() += times;
        }
    }
    events.push(json!({"event": "click", "country": "US", "device": "mobile"}));
    assert!(node.post_json("/v1/events", &json!(events)).await.is_ok());

    let by_country = node.get("/metrics?name=page_views&range=7d&group_by=country&filter=device:mobile").await;
    assert_eq!(by_country.body, json!([{"country": "US", "value": sent["US"]}, {"country": "DE", "value": sent["DE"]}]));
    let receipt: Value = serde_json::from_str(by_country.headers["tallymesh-receipt"].to_str().expect("text")).expect("JSON");
    assert_eq!(receipt["complete"], true);
    for (query, expected) in [
        ("name=page_view&range=7d", json!([{"value": 21}])),
        (
            "name=page_view&range=7d&group_by=country_code,device&filter=country:US&filter=device_type:mobile",
            json!([{"country_code": "US", "device": "mobile", "value": 5}]),
        ),
        ("name=*&range=7d&group_by=event_name", json!([{"event_name": "page_view", "value": 21}, {"event_name": "click", "value": 1}])),
    ] {
        assert_eq!(node.get(&format!("/metrics?{query}")).await.body, expected, "{query}");
    }
    assert!(node.text("/metrics?other=1").await.starts_with("# HELP"), "without a name these are the node's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_the_plural_name_is_itself() {
    let node = TestNode::start().await;
    let events = json!([{"event": "views"}, {"event": "views"}, {"event": "view"}, {"event": "query"}]);
    assert!(node.post_json("/v1/events", &events).await.is_ok());
    for (name, value) in [("views", 2), ("view", 1), ("queries", 1)] {
        assert_eq!(node.get(&format!("/metrics?name={name}&range=1h")).await.body, json!([{"value": value}]), "{name}");
    }
    for (query, status, code, field, guess) in [
        ("name=veiw&range=1h", 404, "unknown_metric", "name", Some("view")),
        ("name=&range=1h", 422, "bad_parameter", "name", None),
        ("name=view", 422, "bad_range", "range", None),
        ("name=view&range=1h&groupby=country", 422, "bad_parameter", "groupby", Some("group_by")),
        ("name=view&range=1h&agg=count,users", 422, "bad_parameter", "agg", None),
        ("name=view&range=1h&group_by=colour", 422, "unknown_dimension", "group_by", None),
    ] {
        let got = node.get(&format!("/metrics?{query}")).await;
        assert_eq!(got.problem(), (status, code), "{query}");
        assert_eq!((got.body["field"].as_str(), got.body["did_you_mean"].as_str()), (Some(field), guess), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daily_counts_users_and_events_by_day_and_name_with_both_days() {
    let node = TestNode::start().await;
    let first = node.machine.clock.wall_ms() - 3 * DAY_MS;
    let midnight = first - first.rem_euclid(DAY_MS);
    let date = |day: i64| rfc3339(midnight + day * DAY_MS)[..10].to_owned();
    let mut sent: BTreeMap<(String, String, &str), (BTreeSet<i64>, u64)> = BTreeMap::new();
    let mut events = Vec::new();
    for i in 0..120_i64 {
        // The first and the last millisecond of a day are of that day.
        let (day, at) = (i % 4, [0, DAY_MS - 1][(i % 2) as usize].min(if i % 4 == 3 { 0 } else { DAY_MS }));
        let (event, source, user) = (["page_view", "click"][(i % 3 % 2) as usize], ["web", "a,b|c"][(i % 5 % 2) as usize], i % 9);
        events.push(json!({"event": event, "source": source, "user_id": user, "timestamp": midnight + day * DAY_MS + at}));
        let counted = sent.entry((source.to_owned(), date(day), event)).or_default();
        counted.0.insert(user);
        counted.1 += 1;
    }
    assert_eq!(node.post_json("/v1/events", &json!(events)).await.counts(), (200, 120, 0, 0));

    let expected = |source: &str, from: i64, to: i64| -> Value {
        let row = |((of, day, event), (users, count)): (&(String, String, &str), &(BTreeSet<i64>, u64))| {
            let asked = of == source && (date(from)..=date(to)).contains(day);
            asked.then(|| json!({"date": day, "event_name": event, "users": users.len(), "events": count}))
        };
        sent.iter().filter_map(row).collect()
    };
    for (query, rows) in [
        (String::new(), expected("web", 0, 3)),
        (format!("?source=web&start={}&end={}", date(1), date(2)), expected("web", 1, 2)),
        (format!("?source=a,b%7Cc&start={}&end={}", date(2), date(2)), expected("a,b|c", 2, 2)),
        ("?source=nowhere".to_owned(), json!([])),
    ] {
        let got = node.get(&format!("/api/metrics/daily{query}")).await;
        assert_eq!(got.body, rows, "{query}");
        assert!(got.headers.contains_key("tallymesh-receipt"));
    }
    for (query, code, field) in [
        ("start=2025-01-02&end=2025-01-01", "bad_range", "start"),
        ("start=yesterday", "bad_range", "start"),
        ("end=2025-02-30", "bad_range", "end"),
        ("begin=2025-01-01", "bad_parameter", "begin"),
    ] {
        let got = node.get(&format!("/api/metrics/daily?{query}")).await;
        assert_eq!((got.problem(), got.body["field"].as_str()), ((422, code), Some(field)), "{query}");
    }
}
