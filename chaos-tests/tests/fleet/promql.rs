//! PromQL at any node of a fleet: what it says is what the query interface says of all shards (Q2, Q3, Q9).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tallymesh_chaos_tests::fleet::load::SEND_TIME_MAX;
use tallymesh_chaos_tests::fleet::node::http::{Asked, Body, Sent};
use tallymesh_chaos_tests::fleet::now::{rfc3339, wall_ms};
use tallymesh_chaos_tests::fleet::{Fleet, FleetOptions};
use tallymesh_chaos_tests::process::binary;

use super::desk::PATIENCE;

const STEP_MS: i64 = 5 * 60_000;
const STEPS: i64 = 4;
const EVENTS: i64 = 900;
const COUNTRIES: [&str; 3] = ["DE", "US", "NP"];
/// Longest wait for an answer of a fleet without a majority.
const ASK_TIME_MAX: Duration = Duration::from_secs(20);

/// By country and point in time (its step's end, UTC milliseconds; 0 of a single moment).
type Figures = BTreeMap<(String, i64), f64>;

/// Events of the steps before `end_ms`, many sources each, so that they are of many shards; sent to all nodes in turn.
async fn send_events(fleet: &Fleet, end_ms: i64) -> Result<Figures> {
    let mut counts = Figures::new();
    let mut bodies = vec![String::new(); fleet.nodes.len()];
    for i in 0..EVENTS {
        let at_ms = end_ms - 1 - (i * 7_919 * 13) % (STEPS * STEP_MS);
        let country = COUNTRIES[(i % 3) as usize];
        let body = &mut bodies[(i % fleet.nodes.len() as i64) as usize];
        writeln!(
            body,
            r#"{{"event":"page_view","event_id":"{i}","timestamp":{at_ms},"source":"s{}","country_code":"{country}","user_id":"u{}","value":{}}}"#,
            i % 40,
            i % 70,
            i % 17
        )?;
        *counts.entry((country.to_owned(), (at_ms / STEP_MS + 1) * STEP_MS)).or_default() += 1.0;
    }
    for (node, body) in fleet.nodes.iter().zip(bodies) {
        let body = Body { bytes: body.into_bytes(), content_type: "application/x-ndjson", gzip: false };
        let sent = fleet.http.send(node, body, SEND_TIME_MAX).await;
        ensure!(matches!(&sent, Sent::Acked(ack) if ack["count"] == EVENTS / 3), "{}: {sent:?}", node.name);
    }
    Ok(counts)
}

/// What the query interface says.
async fn native(fleet: &Fleet, node: usize, agg: &str, span_ms: (i64, i64), step: Option<&str>) -> Result<Figures> {
    let (from, to) = (rfc3339(span_ms.0), rfc3339(span_ms.1));
    let mut query = vec![("metric", "page_view"), ("agg", agg), ("group_by", "country_code"), ("from", &from), ("to", &to)];
    query.extend(step.map(|step| ("step", step)));
    let answer = fleet.http.get_ok(&fleet.nodes[node], "/v1/query", &query).await?;
    let shards = &answer["receipt"]["shards"];
    ensure!(answer["receipt"]["complete"] == true && shards["asked"] == 16 && shards["answered"] == 16, "{}", answer["receipt"]);
    let mut figures = Figures::new();
    for row in answer["data"].as_array().context("rows")? {
        let country = row["group"]["country_code"].as_str().context("a country")?.to_owned();
        let at_ms = match row["time"].as_str() {
            Some(time) => time.parse::<jiff::Timestamp>()?.as_millisecond() + STEP_MS,
            None => 0,
        };
        figures.insert((country, at_ms), row["values"][agg].as_f64().with_context(|| format!("{agg} in {row}"))?);
    }
    Ok(figures)
}

/// What PromQL says; of a moment, all is at 0.
async fn promql(fleet: &Fleet, node: usize, path: &str, pairs: &[(&str, &str)]) -> Result<Figures> {
    let answer = fleet.http.get_ok(&fleet.nodes[node], &format!("/prometheus/api/v1/{path}"), pairs).await?;
    ensure!(answer["status"] == "success" && answer["warnings"].is_null(), "{pairs:?}: {answer}");
    let mut figures = Figures::new();
    for series in answer["data"]["result"].as_array().context("series")? {
        let country = series["metric"]["country_code"].as_str().context("a country")?;
        let single = series["value"].as_array().map(|point| (true, Value::Array(point.clone())));
        let points = series["values"].as_array().into_iter().flatten().map(|point| (false, point.clone()));
        for (is_moment, point) in single.into_iter().chain(points) {
            let seconds = point[0].as_f64().context("a time")?;
            let value: f64 = point[1].as_str().context("a value")?.parse()?;
            figures.insert((country.to_owned(), if is_moment { 0 } else { (seconds * 1e3) as i64 }), value);
        }
    }
    Ok(figures)
}

fn same(what: &str, got: &Figures, want: &Figures) -> Result<()> {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs().max(1.0);
    let is_same = got.len() == want.len() && want.iter().all(|(key, value)| got.get(key).is_some_and(|it| close(*it, *value)));
    ensure!(is_same && !want.is_empty(), "{what}:\n{got:?} is not\n{want:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn promql_at_any_node_says_what_the_query_interface_says_of_all_shards() -> Result<()> {
    let fleet = Fleet::start(FleetOptions::new(3, binary()?)).await?;
    let end_ms = wall_ms() / STEP_MS * STEP_MS;
    let span_ms = (end_ms - STEPS * STEP_MS, end_ms);
    let counts = send_events(&fleet, end_ms).await?;
    let cluster = fleet.cluster(0).await?;
    let leaders: BTreeSet<&str> = cluster["shards"].as_array().context("shards")?.iter().filter_map(|s| s["leader"].as_str()).collect();
    ensure!(leaders.len() > 1, "no answer is of one node alone: {leaders:?}");

    let (first, end) = ((span_ms.0 + STEP_MS) / 1_000, end_ms / 1_000);
    let (first, end) = (first.to_string(), end.to_string());
    for node in 0..fleet.nodes.len() {
        for (agg, over_all, by_step) in [
            ("count", "sum by (country_code) (increase(page_view[20m]))", "sum by (country_code) (page_view)"),
            ("sum", "sum by (country_code) (sum_over_time(page_view[20m]))", "sum by (country_code) (sum_over_time(page_view[5m]))"),
            ("max", "max by (country_code) (max_over_time(page_view[20m]))", "max by (country_code) (max_over_time(page_view[5m]))"),
            (
                "p90",
                "quantile_over_time(0.9, page_view{__by__=\"country_code\"}[20m])",
                "quantile_over_time(0.9, page_view{__by__=\"country_code\"}[5m])",
            ),
        ] {
            // Asked of the same node and of its neighbour: any node's answer is that of all shards.
            for other in [node, (node + 1) % 3] {
                let said = |what: &str| format!("{agg} {what} at {} and natively at {}", fleet.nodes[node].name, fleet.nodes[other].name);
                let moment = promql(&fleet, node, "query", &[("query", over_all), ("time", &end)]).await?;
                same(&said("of a moment"), &moment, &native(&fleet, other, agg, span_ms, None).await?)?;
                let range = [("query", by_step), ("start", &*first), ("end", &*end), ("step", "300")];
                let steps = promql(&fleet, node, "query_range", &range).await?;
                same(&said("step by step"), &steps, &native(&fleet, other, agg, span_ms, Some("5m")).await?)?;
                if agg == "count" {
                    same("the events that were sent", &steps, &counts)?;
                }
            }
        }
        let users =
            [("query", "page_view{__agg__=\"users\",__by__=\"country_code\"}"), ("start", &*first), ("end", &*end), ("step", "300")];
        let users = promql(&fleet, node, "query_range", &users).await?;
        same("users", &users, &native(&fleet, node, "users", span_ms, Some("5m")).await?)?;
    }

    // What a node alone knows is no answer: it is refused, never a smaller number.
    for node in [1, 2] {
        fleet.nodes[node].kill().await?;
    }
    let query = [("query", "sum(increase(page_view[20m]))"), ("time", &*end), ("timeout", "3")];
    match fleet.http.ask(&fleet.nodes[0], "/prometheus/api/v1/query", &query, ASK_TIME_MAX).await {
        Asked::Problem(503 | 504, _) => {}
        other => anyhow::bail!("a minority answers PromQL with an error: {other:?}"),
    }
    for node in [1, 2] {
        fleet.nodes[node].start().await?;
    }
    fleet.all_ready(PATIENCE).await?;
    let after = promql(&fleet, 0, "query", &[("query", "sum by (country_code) (increase(page_view[20m]))"), ("time", &end)]).await?;
    same("after all that", &after, &native(&fleet, 1, "count", span_ms, None).await?)
}
