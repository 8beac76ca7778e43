//! Keys beyond the cardinality budget (A7): totals stay exact, what was lost is said, and who did it.

use serde_json::{Value, json};
use tallymesh_protocol::definition::MetricDefinition;

use super::super::harness::TestNode;

async fn small_budget() -> TestNode {
    TestNode::start_with(|c| {
        // One shard has the whole budget, so that the numbers below are exact.
        c.cluster.shards = 1;
        c.cardinality.keys_per_metric = 8;
        c.cardinality.keys = 100;
        c.cardinality.event_names = 2;
        c.cardinality.metrics.insert("click".to_owned(), 3);
        c.metrics = vec![
            serde_json::from_value::<MetricDefinition>(
                json!({"name": "by_plan", "event": ["page_view"], "dimensions": ["plan", "source"]}),
            )
            .expect("valid"),
        ];
    })
    .await
}

async fn send(node: &TestNode, events: &[Value]) {
    assert_eq!(node.post_json("/v1/events", &json!(events)).await.counts(), (200, events.len() as u64, 0, 0));
}

async fn ask(node: &TestNode, query: &str) -> Value {
    let got = node.get(&format!("/v1/query?range=1h&{query}")).await;
    assert!(got.is_ok(), "{query}: {got:?}");
    got.body
}

/// 50 views of as many sources, 10 clicks of as many countries, 5 events of as many names.
async fn too_many(node: &TestNode) {
    let mut events: Vec<Value> = (0..50)
        .map(|n| json!({"event": "page_view", "source": format!("s{n}"), "plan": "pro", "user_id": format!("u{}", n % 20), "value": n}))
        .collect();
    events.extend((0..10).map(|n| json!({"event": "click", "source": "web", "country": format!("c{n}")})));
    send(node, &events).await;
    let names: Vec<Value> = (0..5).map(|n| json!({"event": format!("name {n}"), "source": "web", "value": 1})).collect();
    send(node, &names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_exact_and_the_receipt_says_what_lies_in_other() {
    let mut node = small_budget().await;
    too_many(&node).await;
    for restarted in [false, true] {
        if restarted {
            node.restart_with(|_| {}).await;
        }
        let total = ask(&node, "metric=page_view&agg=count,sum,min,max,users").await;
        assert_eq!(total["data"][0]["values"], json!({"count": 50, "sum": 1225, "min": 0, "max": 49, "users": 20}));
        assert_eq!(ask(&node, "metric=*").await["data"][0]["values"], json!({"count": 65}));
        assert_eq!(ask(&node, "metric=*").await["receipt"]["other_share"], 0.0, "a total of all is exact");

        let grouped = ask(&node, "metric=by_plan&agg=count,sum&group_by=source&order=-value").await;
        let rows = grouped["data"].as_array().expect("rows");
        assert_eq!((rows.len(), grouped["receipt"]["other_share"].as_f64()), (9, Some(42.0 / 50.0)));
        assert_eq!(rows[0], json!({"group": {"source": "__other__"}, "values": {"count": 42, "sum": (8..50).sum::<u32>()}}));

        let by_name = ask(&node, "metric=*&group_by=event&order=-value").await;
        let names: Vec<(&str, u64)> = by_name["data"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|r| (r["group"]["event"].as_str().expect("a name"), r["values"]["count"].as_u64().expect("a count")))
            .collect();
        assert_eq!(names, [("page_view", 50), ("click", 10), ("__other__", 5)]);
        assert_eq!(by_name["receipt"]["other_share"], 5.0 / 65.0);
        assert_eq!(ask(&node, "metric=__other__&agg=sum").await["data"][0]["values"], json!({"sum": 5}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_leaves_out_what_nobody_can_judge_and_says_how_much_that_is() {
    let node = small_budget().await;
    let views: Vec<Value> = (0..50).map(|n| json!({"event": "page_view", "source": format!("s{n}")})).collect();
    send(&node, &views).await;
    for (query, count, share) in [
        ("metric=page_view", 50, 0.0),
        ("metric=page_view&filter=source:s3", 1, 42.0 / 43.0),
        ("metric=page_view&filter=source:s40", 0, 1.0),
        ("metric=page_view&filter=!source:s3", 7, 42.0 / 49.0),
        ("metric=page_view&filter=source:__other__", 42, 1.0),
        ("metric=page_view&filter=!source:__other__", 8, 0.0),
        ("metric=*&filter=event:page_view", 50, 0.0),
        ("metric=*&filter=country_code:US", 0, 1.0),
        ("metric=page_view&filter=source:s3&compare=previous", 1, 42.0 / 43.0),
    ] {
        let got = ask(&node, query).await;
        assert_eq!(got["data"][0]["values"]["count"], count, "{query}: {got}");
        assert_eq!(got["receipt"]["other_share"].as_f64(), Some(share), "{query}: {got}");
    }
    send(&node, &[json!({"event": "click"}), json!({"event": "third"})]).await;
    let got = ask(&node, "metric=page_view").await;
    assert_eq!(
        (&got["data"][0]["values"]["count"], &got["receipt"]["other_share"]),
        (&json!(50), &json!(0.0)),
        "its name was always known"
    );
    let unknown = node.get("/v1/query?range=1h&metric=third").await;
    assert_eq!(unknown.problem(), (404, "unknown_metric"));
    assert!(unknown.body["detail"].as_str().expect("text").contains("`__other__`"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn offenders_are_named_in_the_catalogue_the_health_and_the_metrics() {
    let node = small_budget().await;
    assert!(node.get("/health").await.body.get("warnings").is_none());
    too_many(&node).await;
    let catalogue = node.get("/v1/metrics").await.body;
    let metric = |name: &str| catalogue["metrics"].as_array().expect("a list").iter().find(|m| m["name"] == name).expect(name).clone();
    let (by_plan, click, other) = (metric("by_plan"), metric("click"), metric("__other__"));
    assert_eq!((&by_plan["cardinality"], &by_plan["budget"], &by_plan["other_events"]), (&json!(8), &json!(8), &json!(42)));
    let samples = json!(["s7", "s6", "s5", "s4", "s3"]);
    assert_eq!(by_plan["offenders"], json!([{"dimension": "source", "values": 8, "samples": samples}]));
    assert_eq!((&click["cardinality"], &click["budget"], &click["other_events"]), (&json!(3), &json!(3), &json!(7)));
    assert_eq!(click["offenders"][0]["dimension"], "country_code");
    assert_eq!((&other["cardinality"], &other["budget"], &other["other_events"]), (&json!(0), &json!(2), &json!(5)));
    assert_eq!(other["offenders"], json!([{"dimension": "event", "values": 2, "samples": ["click", "page_view"]}]));

    let health = node.get("/health").await.body;
    assert_eq!(health["status"], "ok", "everything works, and anybody can send many keys: {health}");
    let warnings = health["warnings"].to_string();
    assert!(["`page_view`", "`by_plan`", "`click`", "event names"].iter().all(|w| warnings.contains(w)), "{warnings}");
    let text = node.text("/metrics").await;
    for line in [
        r#"tallymesh_metric_keys{metric="page_view",kind="event",tenant="default"} 8"#,
        r#"tallymesh_metric_other_rows_total{metric="page_view",kind="event",tenant="default"} 42"#,
        r#"tallymesh_metric_other_rows_total{metric="by_plan",kind="defined",tenant="default"} 42"#,
        r#"tallymesh_metric_other_rows_total{metric="__other__",kind="event",tenant="default"} 5"#,
        r#"tallymesh_shard_other_rows_total{shard="0"} 96"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing from\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_budget_holds_from_the_next_start_for_keys_that_come_then() {
    let mut node = small_budget().await;
    too_many(&node).await;
    node.restart_with(|c| {
        c.cardinality.keys_per_metric = 50;
        c.cardinality.event_names = 3;
    })
    .await;
    let again: Vec<Value> = (30..40).map(|n| json!({"event": "page_view", "source": format!("s{n}")})).collect();
    send(&node, &again).await;
    let grouped = ask(&node, "metric=page_view&group_by=source&order=-value").await;
    let rows = grouped["data"].as_array().expect("rows");
    assert_eq!((rows.len(), &rows[0]["values"]["count"]), (8 + 10 + 1, &json!(42)), "what was counted stays where it is");
    assert_eq!(grouped["receipt"]["other_share"], 42.0 / 60.0);
    send(&node, &[json!({"event": "name 3", "source": "web"})]).await;
    let named = ask(&node, "metric=name%203").await;
    let (count, share) = (&named["data"][0]["values"]["count"], &named["receipt"]["other_share"]);
    assert_eq!((count, share), (&json!(1), &json!(5.0 / 6.0)), "an earlier one is among the five without a name");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_without_end_cost_no_memory_without_end() {
    let node = TestNode::start_with(|c| {
        c.cardinality.keys_per_metric = 400;
        c.cardinality.keys = 1_000;
        c.cardinality.event_names = 50;
    })
    .await;
    let mut memory = Vec::new();
    for round in 0..6u32 {
        let line = |n: u32| match n % 3 {
            0 => format!("{{\"event\":\"page_view\",\"source\":\"s{n}\",\"value\":1}}\n"),
            1 => format!("{{\"event\":\"click\",\"source\":\"web\",\"country\":\"c{n}\",\"value\":1}}\n"),
            _ => format!("{{\"event\":\"event {n}\",\"value\":1}}\n"),
        };
        let body: String = (round * 9_000..(round + 1) * 9_000).map(line).collect();
        assert_eq!(node.post_ndjson(body).await.status, 200);
        memory.push(node.metric("tallymesh_shard_keys_memory_bytes").await);
    }
    let total = ask(&node, "metric=*&agg=count,sum").await;
    assert_eq!(total["data"][0]["values"], json!({"count": 54_000, "sum": 54_000}));
    // For each of four shards: the keys it may have, those reserved for each name, and the other keys.
    let keys = node.metric("tallymesh_shard_keys").await;
    assert!((800.0..4.0 * (400.0 + 50.0 * 17.0)).contains(&keys), "{keys} keys");
    assert_eq!(memory[1], memory[5], "the budget is used up: {memory:?}");
    assert!(memory[5] < 2e6, "{memory:?}");
    let series = node.text("/metrics").await.lines().filter(|l| l.starts_with("tallymesh_metric_keys{")).count();
    assert_eq!(series, 50);
}
