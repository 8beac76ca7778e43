//! Health, readiness, metrics, and the way in and out.

use serde_json::json;
use tallymesh_node::config::units::{OrAuto, Period};

use super::super::harness::{TestNode, in_time, lines};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_is_healthy_ready_and_shows_its_shards() {
    let node = TestNode::start().await;
    node.post_ndjson(lines(0..50)).await;
    let health = node.get("/health").await;
    assert_eq!((health.status, &health.body["status"], &health.body["node"]), (200, &json!("ok"), &json!("node-1")));
    assert_eq!(health.body["shards"], json!({"total": 4, "leading": 4, "stopped": 0}));
    assert_eq!(health.body["buffered_events"], 50);
    assert!(node.get("/ready").await.is_ok());
    let cluster = node.get("/v1/cluster").await.body;
    assert_eq!(cluster["shards"].as_array().expect("list").len(), 4);
    assert_eq!(cluster["nodes"][0]["ready"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_well_formed_and_move() {
    let node = TestNode::start().await;
    node.post_ndjson(lines(0..50)).await;
    node.post_ndjson(lines(0..50)).await;
    let text = node.text("/metrics").await;
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok() && series.starts_with(|c: char| c.is_ascii_lowercase()), "{line}");
    }
    for (name, at_least) in [
        ("tallymesh_events_total", 50.0),
        ("tallymesh_duplicates_total", 50.0),
        ("tallymesh_append_seconds_count", 2.0),
        ("tallymesh_http_request_seconds_count", 2.0),
        ("tallymesh_shard_dedup_memory_bytes", 1.0),
        ("tallymesh_log_written_bytes_total", 50.0),
        ("tallymesh_log_syncs_total", 2.0),
        ("tallymesh_disk_free_bytes", 1.0),
        ("process_cpu_seconds_total", 0.001),
        ("process_resident_memory_bytes", 1e6),
    ] {
        assert!(node.metric(name).await >= at_least, "{name} in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_says_so_before_it_stops_listening() {
    let mut node = TestNode::start_with(|c| c.node.shutdown_grace = OrAuto::Set(Period::ms(300))).await;
    let (client, ready, events) = (node.client.clone(), node.url("/ready"), node.url("/v1/events"));
    let life = node.node().app().life.clone();
    let watch = tokio::spawn(async move {
        life.drained().await;
        let ready = client.get(&ready).send().await.expect("still listening");
        let sent =
            client.post(&events).header("content-type", "application/x-ndjson").body(lines(0..10)).send().await.expect("still listening");
        (ready.status(), sent.status(), sent.headers()["connection"].to_str().map(str::to_owned).expect("text"))
    });
    node.stop().await;
    let (ready, sent, connection) = watch.await.expect("no panic");
    assert_eq!((ready.as_u16(), sent.as_u16(), connection.as_str()), (503, 200, "close"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_is_finished_before_the_node_goes() {
    let mut node = TestNode::start().await;
    let (feed, body) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(body));
    let request = node.request(reqwest::Method::POST, "/v1/events").header("content-type", "application/x-ndjson").body(body);
    let answered = tokio::spawn(super::super::harness::answer(request));
    feed.send(Ok(lines(0..10))).await.expect("reading");
    node.until("tallymesh_admission_held_bytes", |held| held > 0.0).await;
    let app = node.node().app().clone();
    let stopping = tokio::spawn(async move {
        app.life.drained().await;
        feed.send(Ok(lines(10..20))).await.expect("still reading");
    });
    node.stop().await;
    stopping.await.expect("no panic");
    assert_eq!(answered.await.expect("no panic").counts(), (200, 20, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_does_not_keep_the_node_for_ever() {
    let mut node = TestNode::start_with(|c| c.node.drain_timeout = Period::ms(200)).await;
    let body = reqwest::Body::wrap_stream(futures::stream::pending::<Result<String, std::io::Error>>());
    let request = node.request(reqwest::Method::POST, "/v1/events").body(body).send();
    let hanging = tokio::spawn(request);
    node.until("tallymesh_admission_held_bytes", |held| held > 0.0).await;
    in_time("the end of the node", node.stop()).await;
    assert!(hanging.await.expect("no panic").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_same_directory_or_port_is_refused_clearly() {
    let node = TestNode::start().await;
    let same_directory = node.start_another(node.config.clone()).await.err().expect("refused").to_string();
    assert!(same_directory.contains(&node.config.node.data_dir), "{same_directory}");
    let mut config = node.config.clone();
    config.http.addr = node.node().address().to_string();
    config.node.data_dir = node.dir().join("other").display().to_string();
    let same_port = node.start_another(config.clone()).await.err().expect("refused").to_string();
    assert!(same_port.contains(&config.http.addr) && same_port.contains("--http"), "{same_port}");
}
