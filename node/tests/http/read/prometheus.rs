//! PromQL against plain counts of what was sent: through the interface, and through Prometheus' own client.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tallymesh_protocol::definition::MetricDefinition;
use tallymesh_protocol::time::{Grain, MINUTE_MS};

use super::super::harness::{Answer, TestNode, answer, in_time};

const MINUTES: i64 = 30;
const COUNTRIES: [&str; 3] = ["DE", "US", ""];

/// One event of the sample: minutes ago, name, country (none if empty), source, user, value.
struct Sent {
    ago: i64,
    event: &'static str,
    country: &'static str,
    source: &'static str,
    user: i64,
    value: f64,
}

struct World {
    node: TestNode,
    /// Start of the minute that runs when the sample is made: no full minute after it has any of it.
    now_ms: i64,
    sent: Vec<Sent>,
}

impl World {
    async fn start() -> Self {
        let loads =
            json!({"name": "load", "event": ["page_view"], "dimensions": ["properties.page-name", "source"], "description": "Pages"});
        let node = TestNode::start_with(|c| c.metrics = vec![serde_json::from_value::<MetricDefinition>(loads).expect("valid")]).await;
        let now_ms = Grain::Minute.floor(node.machine.clock.wall_ms());
        let mut sent = Vec::new();
        for i in 0..600_i64 {
            let (event, country) = (if i % 7 == 0 { "purchase" } else { "page_view" }, COUNTRIES[(i % 3) as usize]);
            sent.push(Sent {
                ago: 1 + (i * i) % MINUTES,
                event,
                country,
                source: if i % 5 == 0 { "api" } else { "web" },
                user: (i * 13) % 40,
                value: (i % 17) as f64,
            });
        }
        let event = |e: &Sent| {
            let country = (!e.country.is_empty()).then_some(e.country);
            json!({"event": e.event, "timestamp": now_ms - e.ago * MINUTE_MS + 30_000, "country_code": country, "source": e.source,
                   "user_id": e.user, "value": e.value, "properties": {"page-name": format!("/{}", e.user % 4)}})
        };
        let events: Vec<Value> = sent.iter().map(event).collect();
        assert_eq!(node.post_json("/v1/events", &json!(events)).await.counts().1, 600);
        Self { node, now_ms, sent }
    }

    /// Events of the minutes before a moment, in minutes ago.
    fn within(&self, ago: i64, minutes: i64) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(move |e| (ago + 1..=ago + minutes).contains(&e.ago))
    }

    async fn query(&self, expression: &str) -> Answer {
        let time = (self.now_ms / 1_000).to_string();
        self.ask("query", &[("query", expression), ("time", &time)]).await
    }

    async fn ask(&self, path: &str, pairs: &[(&str, &str)]) -> Answer {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        self.node.get(&format!("/prometheus/api/v1/{path}?{query}")).await
    }

    /// Values by one label.
    async fn by(&self, label: &str, expression: &str) -> BTreeMap<String, f64> {
        let got = self.query(expression).await;
        assert!(got.is_ok() && got.body["data"]["resultType"] == "vector", "{expression}: {got:?}");
        let rows = got.body["data"]["result"].as_array().expect("list");
        rows.iter().map(|row| (row["metric"][label].as_str().unwrap_or_default().to_owned(), number(&row["value"][1]))).collect()
    }

    async fn one(&self, expression: &str) -> f64 {
        let all = self.by("", expression).await;
        assert_eq!(all.len(), 1, "{expression}: {all:?}");
        all.into_values().next().expect("one")
    }
}

fn number(value: &Value) -> f64 {
    let text = value.as_str().expect("numbers are text");
    if text == "NaN" { f64::NAN } else { text.parse().expect("a number") }
}

#[track_caller]
fn error(got: &Answer) -> (u16, &str, &str) {
    assert_eq!((&got.body["status"], got.body["data"].is_null()), (&json!("error"), true), "{got:?}");
    (got.status, got.body["errorType"].as_str().expect("type"), got.body["error"].as_str().expect("text"))
}

fn counted<'a>(events: impl Iterator<Item = &'a Sent>, key: impl Fn(&Sent) -> String) -> BTreeMap<String, f64> {
    let mut out = BTreeMap::new();
    for event in events {
        *out.entry(key(event)).or_default() += 1.0;
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_numbers_are_a_plain_count() {
    let world = World::start().await;
    let views = |minutes| world.within(0, minutes).filter(|e| e.event == "page_view");
    let by_country = counted(views(10), |e| e.country.to_owned());
    assert_eq!(world.by("country_code", "sum by (country_code) (increase(page_view[10m]))").await, by_country);
    let rates: BTreeMap<String, f64> = by_country.iter().map(|(c, n)| (c.clone(), n / 600.0)).collect();
    assert_eq!(world.by("country_code", "sum by (country_code) (rate(page_view[10m]))").await, rates);
    assert_eq!(world.one("sum(page_view)").await, views(5).count() as f64, "the last five minutes");
    assert_eq!(
        world.one("count(increase(page_view[10m]))").await,
        counted(views(10), |e| format!("{} {}", e.country, e.source)).len() as f64
    );
    let all = world.within(0, 20).count() as f64;
    assert_eq!(world.one("sum(increase({__name__=\"*\"}[20m]))").await, all);
    assert_eq!(
        world.by("event", "sum by (event) (increase({__name__=\"*\"}[20m]))").await,
        counted(world.within(0, 20), |e| e.event.to_owned())
    );
    let bought = world.within(0, 20).filter(|e| e.event == "purchase").count() as f64;
    assert_eq!(world.one("sum(increase(purchase[20m])) / sum(increase({__name__=\"*\"}[20m])) * 100").await, bought / all * 100.0);
    let earlier = world.within(7, 10).filter(|e| e.event == "page_view" && e.source == "web" && e.country != "US").count() as f64;
    assert_eq!(world.one("sum(increase(page_view{source=~\"w.b\",country_code!=\"US\"}[10m] offset 7m))").await, earlier);
    let top = world.by("country_code", "topk(1, sum by (country_code) (increase(page_view[10m])))").await;
    assert_eq!(top.values().copied().fold(0.0, f64::max), by_country.values().copied().fold(0.0, f64::max));

    let values: Vec<f64> = views(10).map(|e| e.value).collect();
    let own = |agg: &str| format!("increase(page_view{{__agg__=\"{agg}\",__by__=\"\"}}[10m])");
    assert_eq!(world.one("sum(sum_over_time(page_view[10m]))").await, values.iter().sum::<f64>());
    assert_eq!(world.one(&own("avg")).await, values.iter().sum::<f64>() / values.len() as f64);
    assert_eq!(world.one("max(max_over_time(page_view[10m]))").await, values.iter().copied().fold(0.0, f64::max));
    let users: std::collections::BTreeSet<i64> = views(10).map(|e| e.user).collect();
    assert_eq!(world.one(&own("users")).await, users.len() as f64);
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    let exact = sorted[(0.9 * (sorted.len() - 1) as f64).floor() as usize];
    let sketched = world.one("quantile_over_time(0.9, page_view{__by__=\"\"}[10m])").await;
    assert!((sketched - exact).abs() <= exact * 0.01, "{sketched} of {exact}");
    assert_eq!(sketched, world.one(&own("p90")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_ranges_count_each_point_for_itself() {
    let world = World::start().await;
    let (start, end) = ((world.now_ms / 1_000 - 15 * 60).to_string(), (world.now_ms / 1_000).to_string());
    for (expression, step, minutes) in [("sum(page_view)", "3m", 3), ("sum(increase(page_view[7m]))", "60", 7)] {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("query", expression), ("start", &start), ("end", &end), ("step", step)])
            .finish();
        let request = world.node.request(Method::POST, "/prometheus/api/v1/query_range");
        let got = answer(request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)).await;
        assert!(got.is_ok() && got.body["data"]["resultType"] == "matrix", "{got:?}");
        let rows = got.body["data"]["result"].as_array().expect("list");
        assert_eq!(rows.len(), 1, "{got:?}");
        let points = rows[0]["values"].as_array().expect("list");
        assert_eq!(points.len(), if step == "60" { 16 } else { 6 });
        for point in points {
            let ago = (world.now_ms / 1_000 - point[0].as_i64().expect("seconds")) / 60;
            let expected = world.within(ago, minutes).filter(|e| e.event == "page_view").count() as f64;
            assert_eq!(number(&point[1]), expected, "{expression} {ago} minutes ago");
        }
    }
    let scalar = world.ask("query_range", &[("query", "1 + 1"), ("start", &start), ("end", &end), ("step", "15m")]).await;
    assert_eq!(scalar.body["data"]["result"][0]["values"][1][1], "2");
    let later = (world.now_ms / 1_000 + 3_600).to_string();
    let ahead = world.ask("query", &[("query", "sum(page_view)"), ("time", &later)]).await;
    assert_eq!(ahead.body["data"]["result"], json!([]), "nothing is known of what is to come");
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_look_ups_and_errors_are_as_its_clients_expect() {
    let world = World::start().await;
    let data = async |path: &str, pairs: &[(&str, &str)]| {
        let got = world.ask(path, pairs).await;
        assert!(got.is_ok() && got.body["status"] == "success", "{got:?}");
        got.body["data"].clone()
    };
    assert_eq!(data("label/__name__/values", &[]).await, json!(["load", "page_view", "purchase"]));
    assert_eq!(data("label/__name__/values", &[("match[]", "{__name__=~\".*a.e.*\"}")]).await, json!(["page_view", "purchase"]));
    assert_eq!(data("label/country_code/values", &[]).await, json!(["DE", "US"]));
    assert_eq!(data("label/page_name/values", &[]).await, json!(["/0", "/1", "/2", "/3"]));
    assert_eq!(data("label/source/values", &[("match[]", "purchase{source=\"web\"}")]).await, json!(["web"]));
    assert_eq!(data("labels", &[("match[]", "load")]).await, json!(["__name__", "page_name", "source"]));
    let series = data("series", &[("match[]", "load{page_name=\"/0\"}")]).await;
    assert_eq!(series.as_array().map(Vec::len), Some(2), "{series}");
    assert_eq!(series[0], json!({"__name__": "load", "page_name": "/0", "source": "api"}));
    assert_eq!(data("metadata", &[("metric", "load")]).await, json!({"load": [{"type": "counter", "help": "Pages", "unit": ""}]}));
    assert!(data("status/buildinfo", &[]).await["version"].is_string());
    assert_eq!(data("query", &[("query", "\"text\""), ("time", "5")]).await, json!({"resultType": "string", "result": [5, "text"]}));

    let unknown = world.query("page_veiw").await;
    assert_eq!(unknown.body["data"]["result"], json!([]));
    assert!(unknown.body["warnings"][0].as_str().is_some_and(|w| w.contains("did you mean `page_view`")), "{unknown:?}");
    for (path, pairs, status, kind, what) in [
        ("query", &[("query", "sum(")][..], 400, "bad_data", "parse error"),
        ("query", &[], 400, "bad_data", "\"query\""),
        ("query", &[("query", "rate(page_view[99999999999d5m])")], 400, "bad_data", "the duration `99999999999d5m`"),
        ("query_range", &[("query", "1"), ("start", "0"), ("end", "1"), ("step", "99999999999d5m")], 400, "bad_data", "99999999999d5m"),
        ("query", &[("query", "stddev(page_view)")], 422, "execution", "stddev"),
        ("query", &[("query", "page_view"), ("time", "soon")], 400, "bad_data", "soon"),
        ("query_range", &[("query", "1"), ("start", "0"), ("end", "11000"), ("step", "1")], 400, "bad_data", "11000 points"),
        ("query_range", &[("query", "page_view"), ("start", "0"), ("end", "1"), ("step", "0")], 400, "bad_data", "step"),
        ("query", &[("query", "page_view{__by__=\"colour\"}")], 422, "execution", "country_code"),
        ("series", &[], 400, "bad_data", "match[]"),
        ("series", &[("match[]", "sum(page_view)")], 400, "bad_data", "match[]"),
    ] {
        let got = world.ask(path, pairs).await;
        let (got_status, got_kind, text) = error(&got);
        assert!((got_status, got_kind) == (status, kind) && text.contains(what), "{path} {pairs:?}: {got:?}");
    }
}

/// The client, if there is one; where a path is given it has to be there.
fn promtool() -> Option<PathBuf> {
    match std::env::var_os("TALLYMESH_PROMTOOL") {
        Some(path) => {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "TALLYMESH_PROMTOOL is {}, and nothing is there; ops/setup.sh --promtool gets it", path.display());
            Some(path)
        }
        None => std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("promtool")).find(|path| path.is_file()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_own_client_is_answered() {
    let Some(promtool) = promtool() else {
        eprintln!("promtool is not here; `make test` gets it");
        return;
    };
    let world = World::start().await;
    let server = world.node.url("/prometheus");
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(&promtool);
        let output = in_time("promtool", command.arg("query").args(arguments).output()).await.expect("runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (time, start) = ((world.now_ms / 1_000).to_string(), (world.now_ms / 1_000 - 600).to_string());
    let times = format!("--time={time}");

    let (good, out, err) = run(&["instant", &times, &server, "sum by (country_code) (increase(page_view{source=\"web\"}[10m]))"]).await;
    assert!(good, "{err}");
    let expected = counted(world.within(0, 10).filter(|e| e.event == "page_view" && e.source == "web"), |e| e.country.to_owned());
    assert_eq!(out.lines().count(), expected.len(), "{out}");
    for (country, count) in expected {
        let labels = if country.is_empty() { "{}".to_owned() } else { format!("{{country_code=\"{country}\"}}") };
        assert!(out.lines().any(|line| line.starts_with(&format!("{labels} => {count} @"))), "{labels} {count} in {out}");
    }

    let ends = [format!("--start={start}"), format!("--end={time}")];
    let (good, out, err) = run(&["range", &ends[0], &ends[1], "--step=5m", &server, "sum(page_view)"]).await;
    assert!(good, "{err}");
    for ago in [0, 5, 10] {
        let count = world.within(ago, 5).filter(|e| e.event == "page_view").count();
        let line = format!("{count} @[{}]", world.now_ms / 1_000 - ago * 60);
        assert!(out.lines().any(|l| l == line), "{line} in {out}");
    }

    let (good, out, err) = run(&["labels", &server, "__name__"]).await;
    assert!(good && out.lines().eq(["load", "page_view", "purchase"]), "{out} {err}");
    let (good, out, err) = run(&["series", "--match=purchase{source=\"api\"}", &server]).await;
    assert!(good && out.lines().count() == 3, "{out} {err}");
    let (good, out, err) = run(&["instant", &server, "stddev(page_view)"]).await;
    assert!(!good && err.contains("execution: the aggregation `stddev` is not supported"), "{out} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_of_the_grafana_dashboard_is_accepted() {
    let node = TestNode::start_with(|c| {
        let usage = json!({"name": "feature_usage", "event": ["feature_used"], "dimensions": ["feature"]});
        c.metrics = vec![serde_json::from_value(usage).expect("valid")];
    })
    .await;
    let ago = node.machine.clock.wall_ms() - 2 * MINUTE_MS;
    let names = ["page_view", "signup_started", "signup_completed", "error_occurred", "feature_used"];
    let event = |name: &str| json!({"event": name, "timestamp": ago, "session_id": 1, "user_id": 1, "country_code": "DE", "properties": {"feature": "f"}});
    assert_eq!(node.post_json("/v1/events", &json!(names.map(event))).await.counts().1, 5);

    let board: Value = serde_json::from_str(include_str!("../../../../ops/grafana/tallymesh.json")).expect("JSON");
    let filled = |text: &str| text.replace("$__range", "6h").replace("$__rate_interval", "75s").replace("$country", "(DE|US)");
    let (start, end) = ((ago / 1_000 - 3_600).to_string(), (ago / 1_000 + 120).to_string());
    let mut asked = 0;
    for target in board["panels"].as_array().expect("panels").iter().flat_map(|panel| panel["targets"].as_array().expect("targets")) {
        let (expression, instant) = (filled(target["expr"].as_str().expect("an expression")), target["instant"] == true);
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("query", &*expression), ("time", &end), ("start", &start), ("end", &end), ("step", "15")])
            .finish();
        let path = if instant { "query" } else { "query_range" };
        let got = node.get(&format!("/prometheus/api/v1/{path}?{form}")).await;
        assert!(got.is_ok() && got.body["warnings"].is_null(), "{expression}: {got:?}");
        assert!(!got.body["data"]["result"].as_array().expect("list").is_empty(), "{expression}: {got:?}");
        asked += 1;
    }
    assert!(asked >= 10);
    let variables = board["templating"]["list"].as_array().expect("variables");
    let selector = variables.iter().find_map(|v| v["definition"].as_str()?.strip_prefix("label_values(")?.strip_suffix(", country_code)"));
    let form = form_urlencoded::Serializer::new(String::new()).append_pair("match[]", selector.expect("the country")).finish();
    assert_eq!(node.get(&format!("/prometheus/api/v1/label/country_code/values?{form}")).await.body["data"], json!(["DE"]));
}
