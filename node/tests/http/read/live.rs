//! Who watches a query is told its answer, and then what changes in it.

mod slow;
mod socket;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tallymesh_node::boot::Machine;
use tallymesh_storage::clock::{Clock, SystemClock};

use super::super::harness::{TestNode, in_time, lines};
use stream::{LiveStream, live_path, rows};

const HOUR: &str = "metric=page_view&range=1h";

async fn watch(node: &TestNode, queries: &[&str], last_event_id: Option<&str>) -> LiveStream {
    LiveStream::open(node, &live_path(queries), last_event_id).await
}

async fn send(node: &TestNode, from: u32, to: u32) {
    assert_eq!(node.post_ndjson(lines(from..to)).await.counts(), (200, u64::from(to - from), 0, 0));
}

fn count(row: &Value) -> u64 {
    row["values"]["count"].as_u64().unwrap_or_else(|| panic!("a count in {row}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_comes_first_and_a_change_within_a_second_of_its_ack() {
    let node = TestNode::start().await;
    send(&node, 0, 5).await;
    let mut stream = watch(&node, &[HOUR, "metric=*&agg=count,users&range=1h&group_by=source"], None).await;
    let mut first = [stream.next().await.expect("a snapshot"), stream.next().await.expect("another")];
    first.sort_by_key(|event| event.data["query"].as_u64());
    assert!(first.iter().all(|event| event.kind == "snapshot" && !event.id.is_empty()));
    assert_eq!(count(&first[0].data["answer"]["data"][0]), 5);
    assert_eq!(first[0].data["answer"]["receipt"]["complete"], true);
    assert_eq!(first[1].data["answer"]["data"][0]["group"], json!({"source": "web"}));

    send(&node, 5, 9).await;
    let mut seen = [None, None];
    while seen.iter().any(Option::is_none) {
        let event = stream.next().await.expect("a delta");
        assert_eq!((event.kind.as_str(), &event.data["removed"]), ("delta", &json!([])), "{event:?}");
        let query = event.data["query"].as_u64().expect("an index") as usize;
        // A shard may have been read before the others had their part.
        seen[query] = event.data["changed"].get(0).cloned().filter(|row| count(row) == 9).or(seen[query].take());
    }
    assert_eq!(seen[1].as_ref().expect("seen")["values"]["users"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_again_is_told_what_changed_meanwhile_and_after_a_restart_everything() {
    let mut node = TestNode::start().await;
    let by_source = "metric=*&range=1h&group_by=source&order=-value";
    node.post_json("/v1/events", &json!([{"event": "a", "source": "x"}, {"event": "a", "source": "y"}])).await;
    let mut stream = watch(&node, &[by_source], None).await;
    let id = stream.next().await.expect("a snapshot").id;
    // Keeps the query alive, and tells when the node knows the change.
    let mut other = watch(&node, &[by_source], None).await;
    drop(stream);
    node.post_json("/v1/events", &json!([{"event": "a", "source": "z"}])).await;
    other.until(|rows| rows.len() == 3).await;

    let mut again = watch(&node, &[by_source], Some(&id)).await;
    let event = again.next().await.expect("an event");
    assert_eq!(event.kind, "delta");
    assert_eq!(
        event.data["changed"].as_array().map(|rows| rows.iter().map(|r| r["group"]["source"].clone()).collect()),
        Some(vec![json!("z")])
    );
    let by_parameter = format!("{}&last_event_id={}", live_path(&[by_source]), event.id);
    let nothing = LiveStream::open(&node, &by_parameter, None).await.next().await.expect("an event");
    assert_eq!((nothing.kind.as_str(), &nothing.data["changed"]), ("delta", &json!([])), "it is current, and is told so");

    let others = watch(&node, &["metric=*&range=1h"], Some(&id)).await.next().await.expect("an event");
    assert_eq!(others.kind, "snapshot", "the id of other queries");
    let forged = watch(&node, &[by_source], Some("not an id")).await.next().await.expect("an event");
    assert_eq!(forged.kind, "snapshot");
    node.restart_with(|_| {}).await;
    let restarted = watch(&node, &[by_source], Some(&event.id)).await.next().await.expect("an event");
    assert_eq!((restarted.kind.as_str(), rows(&restarted.data["answer"]["data"]).len()), ("snapshot", 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_evaluation_serves_all_who_watch() {
    const WATCHERS: usize = 40;
    let node = TestNode::start().await;
    send(&node, 0, 3).await;
    let mut streams = Vec::new();
    for i in 0..WATCHERS {
        // The same question, however it is put.
        let query = if i % 2 == 0 { HOUR.to_owned() } else { "range=1h&timeout_ms=5000&metric=page_view".to_owned() };
        streams.push(watch(&node, &[&query], None).await);
    }
    for stream in &mut streams {
        stream.until(|rows| rows.iter().any(|row| count(row) == 3)).await;
    }
    let evaluations = async || node.metric("tallymesh_live_evaluations_total").await;
    let before = evaluations().await;
    send(&node, 3, 4).await;
    for stream in &mut streams {
        stream.until(|rows| rows.iter().any(|row| count(row) == 4)).await;
    }
    let made = evaluations().await - before;
    assert!((1.0..10.0).contains(&made), "{made} evaluations for {WATCHERS} watchers");
    assert_eq!((node.metric("tallymesh_live_subscribers").await, node.metric("tallymesh_live_queries").await), (WATCHERS as f64, 1.0));
    drop(streams);
    node.until("tallymesh_live_subscribers", |watching| watching == 0.0).await;
}

/// The system's clock, set forward as a test says.
struct ForwardClock {
    system: SystemClock,
    forward_ms: AtomicI64,
}

impl Clock for ForwardClock {
    fn wall_ms(&self) -> i64 {
        self.system.wall_ms() + self.forward_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_leave_the_range_are_removed_though_nothing_is_written() {
    let clock = Arc::new(ForwardClock { system: SystemClock::new(), forward_ms: AtomicI64::new(0) });
    let node = TestNode::start_on(Machine { clock: clock.clone(), ..Machine::this_one() }, |_| {}).await;
    send(&node, 0, 2).await;
    let mut stream = watch(&node, &["metric=page_view&range=10m&step=1m"], None).await;
    let first = stream.next().await.expect("a snapshot");
    let time = first.data["answer"]["data"][0]["time"].clone();
    assert!(time.is_string(), "{first:?}");
    clock.forward_ms.store(11 * 60_000, Ordering::Relaxed);
    let event = stream.next().await.expect("a delta");
    assert_eq!((event.kind.as_str(), &event.data["removed"]), ("delta", &json!([{"time": time}])), "{event:?}");
    assert_eq!(event.data["changed"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_others_push_past_the_limit_is_removed() {
    let node = TestNode::start().await;
    let source = |name: &str, count: usize| Value::Array((0..count).map(|_| json!({"event": "a", "source": name})).collect());
    node.post_json("/v1/events", &source("x", 1)).await;
    let mut stream = watch(&node, &["metric=a&range=1h&group_by=source&order=-value&limit=1"], None).await;
    stream.until(|rows| rows.len() == 1).await;
    node.post_json("/v1/events", &source("y", 2)).await;
    stream.until(|rows| rows.len() == 1 && rows[0]["group"]["source"] == "y").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metric_that_nobody_has_sent_yet_is_a_problem_until_it_comes() {
    let node = TestNode::start().await;
    let mut stream = watch(&node, &[HOUR], None).await;
    let event = stream.next().await.expect("a problem");
    assert_eq!((event.kind.as_str(), &event.data["query"], &event.data["problem"]["status"]), ("problem", &json!(0), &json!(404)));
    send(&node, 0, 2).await;
    stream.until(|rows| rows.iter().any(|row| count(row) == 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_refused_before_the_stream_begins_and_named() {
    let node = TestNode::start().await;
    for (queries, field) in [
        (&[HOUR, "metric=page_view&range=never"][..], "query[1].range"),
        (&["metric=page_view"], "query[0].range"),
        (&["metric=page_view&range=1h&stpe=1m"], "query[0].stpe"),
        (&["metric=page_view&range=1h&format=csv"], "query[0].format"),
        (&["metric=page_view&range=1h&limit=50000"], "query[0].limit"),
        (&["metric=page_view&range=1h&cursor=x"], "query[0].cursor"),
        (&["metric=page_view&range=1h&group_by=nonsense"], "query[0].group_by"),
        (&[], "query"),
        (&[HOUR; 33], "query"),
    ] {
        let answer = node.get(&live_path(queries)).await;
        assert_eq!((answer.problem().0, answer.body["field"].as_str()), (422, Some(field)), "{queries:?}");
    }
    assert_eq!(node.get("/v1/live?qery=x").await.problem(), (422, "bad_parameter"));
    assert_eq!(node.metric("tallymesh_live_queries").await, 1.0, "only the good one of the first stream, which goes after a while");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_queries_are_bounded_and_end_cleanly_with_the_node() {
    let mut node = TestNode::start_with(|c| (c.live.subscribers_max, c.live.queries_max) = (2, 1)).await;
    send(&node, 0, 1).await;
    let mut stream = watch(&node, &[HOUR], None).await;
    assert_eq!(node.get(&live_path(&["metric=*&range=1h"])).await.problem(), (429, "overloaded"), "another query");
    let _second = watch(&node, &[HOUR], None).await;
    assert_eq!(node.get(&live_path(&[HOUR])).await.problem(), (429, "overloaded"), "another stream");
    stream.next().await.expect("a snapshot");
    in_time("the end of the node", node.stop()).await;
    assert!(stream.next().await.is_none(), "the end of the stream, not of the connection under it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_says_that_it_is_alive_and_where_it_is() {
    let node = TestNode::start_with(|c| c.live.heartbeat = tallymesh_node::config::units::Period::ms(100)).await;
    send(&node, 0, 1).await;
    let mut stream = watch(&node, &["metric=page_view&from=2020-01-01&to=2020-02-01"], None).await;
    let first = stream.next().await.expect("a snapshot");
    let heartbeat = stream.next_of_any_kind().await.expect("a heartbeat");
    assert_eq!((heartbeat.kind.as_str(), &heartbeat.id), ("heartbeat", &first.id));
    assert!(stream.retry_ms.is_some_and(|ms| ms >= 1_000));
}
