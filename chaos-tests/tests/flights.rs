//! The real flights: imported with the node killed ten times on the way and everything sent twice, every figure must equal an independent count
//! (I4, I5, I6, I8, A1-A3, Q1, Q3). `TALLYMESH_FLIGHTS` names the whole year's file; without it the January extract of `ops/examples` runs.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use reqwest::Client;
use serde_json::Value;
use tallymesh_chaos_tests::oracle::{Tallies, ValueOf, check_answer, tally};
use tallymesh_chaos_tests::process::Node;

const KILLS: usize = 10;
const BATCH_EVENTS: usize = 700;
const SEED: u64 = 2013;
const KILL_MOMENT_US_MAX: u64 = 25_000;
/// Requests under way when the node is killed, so that some are durable and not acked, and some neither.
const REQUESTS_AT_A_KILL: usize = 35;
/// A batch may meet a kill, a restart and a busy moment; more tries than this mean that the node does not come back.
const TRIES_MAX: usize = 20;
/// A request that crosses a kill may never be answered; then whether it counted is unknown, and it is sent again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const RANGE: [(&str, &str); 2] = [("from", "2013-01-01T00:00:00Z"), ("to", "2014-01-03T00:00:00Z")];

fn examples() -> PathBuf {
    // Asked when it runs: a binary built from another checkout may be reused from a shared target directory.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.join("../ops/examples")
}

/// Past the test harness's capture: which data ran is part of every output.
fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "{line}")?)
}

fn lines() -> Result<(bool, Vec<String>)> {
    let (whole, path) = match std::env::var_os("TALLYMESH_FLIGHTS") {
        Some(path) => (true, PathBuf::from(path)),
        None => (false, examples().join("flights-january.ndjson.gz")),
    };
    let mut text = String::new();
    let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
    flate2::read::GzDecoder::new(file).read_to_string(&mut text)?;
    say(&format!("flights: {} ({})", if whole { "the whole year" } else { "the January extract" }, path.display()))?;
    Ok((whole, text.lines().map(str::to_owned).collect()))
}

struct Import {
    client: Client,
    address: String,
    data_dir: PathBuf,
    node: Node,
    kills: usize,
    /// Requests whose fate the kill left open.
    unknown: usize,
    random: StdRng,
}

impl Import {
    async fn restart(&mut self) -> Result<()> {
        self.node.kill()?;
        self.node = Node::start(&self.client, &self.address, &examples().join("flights.toml"), &self.data_dir).await?;
        Ok(())
    }

    fn post(&self, batch: &[String]) -> tokio::task::JoinHandle<reqwest::Result<reqwest::Response>> {
        let request = self.client.post(format!("{}/v1/events", self.node.url)).header("content-type", "application/x-ndjson");
        tokio::spawn(request.body(batch.join("\n")).send())
    }

    /// Sends one batch until it is acked. Returns (counted, duplicates) of the ack.
    async fn send(&self, batch: &[String]) -> Result<(u64, u64)> {
        for _ in 0..TRIES_MAX {
            if let Some(acked) = settled(self.post(batch).await?).await? {
                return Ok(acked);
            }
        }
        anyhow::bail!("a batch was not acked after {TRIES_MAX} tries")
    }

    /// Sends a batch as many small requests at once and kills the node under them; whatever was not acked is sent again.
    async fn send_and_kill(&mut self, batch: &[String]) -> Result<(u64, u64)> {
        let pieces: Vec<&[String]> = batch.chunks(BATCH_EVENTS / REQUESTS_AT_A_KILL).collect();
        let requests: Vec<_> = pieces.iter().map(|piece| self.post(piece)).collect();
        // Somewhere between the first byte and shortly after the last ack: the moment is not the same twice, and need not be.
        let moment = Duration::from_micros(self.random.random_range(0..KILL_MOMENT_US_MAX));
        let _ = tokio::time::timeout(moment, std::future::pending::<()>()).await;
        self.kills += 1;
        self.restart().await?;
        let (mut counted, mut duplicates) = (0, 0);
        for (piece, request) in pieces.into_iter().zip(requests) {
            let (new, again) = match settled(request.await?).await? {
                Some(acked) => acked,
                None => {
                    self.unknown += 1;
                    self.send(piece).await?
                }
            };
            counted += new;
            duplicates += again;
        }
        Ok((counted, duplicates))
    }
}

/// What an answer acks; `None` when whether it counted is unknown or it was put off, and a retry must settle it.
async fn settled(answer: reqwest::Result<reqwest::Response>) -> Result<Option<(u64, u64)>> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) if error.is_connect() || error.is_request() || error.is_body() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let status = answer.status();
    if status.is_server_error() || status == 429 {
        return Ok(None);
    }
    let Ok(text) = answer.text().await else { return Ok(None) };
    ensure!(status.is_success(), "{status}: {text}");
    let body: Value = serde_json::from_str(&text)?;
    ensure!(body["rejected"].as_array().is_some_and(Vec::is_empty), "rejected: {}", body["rejected"]);
    Ok(Some((body["count"].as_u64().context("count")?, body["duplicates"].as_u64().context("duplicates")?)))
}

fn text(event: &Value, field: &str) -> Option<String> {
    match &event[field] {
        Value::Null => event["properties"][field].as_str().map(str::to_owned),
        value => value.as_str().map(str::to_owned),
    }
}

/// Start of the event's day at an offset from UTC, as the answer prints it.
fn day(event: &Value, hours_behind_utc: u8) -> Option<String> {
    let time = event["timestamp"].as_str()?;
    let (date, hour): (&str, u8) = (&time[..10], time[11..13].parse().ok()?);
    if hour >= hours_behind_utc {
        return Some(format!("{date}T{hours_behind_utc:02}:00:00Z"));
    }
    let (year, month, day): (i32, u32, u32) = (date[..4].parse().ok()?, date[5..7].parse().ok()?, date[8..10].parse().ok()?);
    let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let (year, month, day) = match (month, day) {
        (1, 1) => (year - 1, 12, 31),
        (m, 1) => (year, m - 1, lengths[m as usize - 2]),
        (m, d) => (year, m, d - 1),
    };
    Some(format!("{year}-{month:02}-{day:02}T{hours_behind_utc:02}:00:00Z"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flights_imported_through_ten_kills_and_sent_twice_equal_an_independent_count() -> Result<()> {
    let (whole, lines) = lines()?;
    let events: Vec<Value> = lines.iter().map(|l| serde_json::from_str(l)).collect::<Result<_, _>>()?;
    ensure!(events.iter().map(|e| e["event_id"].as_str()).collect::<BTreeSet<_>>().len() == events.len(), "ids are distinct");

    let mut random = StdRng::seed_from_u64(SEED);
    let mut sends: Vec<&[String]> = lines.chunks(BATCH_EVENTS).chain(lines.chunks(BATCH_EVENTS)).collect();
    sends.shuffle(&mut random);
    let mut kill_at: Vec<usize> = (0..sends.len()).collect();
    kill_at.shuffle(&mut random);
    let kill_at: BTreeSet<usize> = kill_at.into_iter().take(KILLS).collect();

    let directory = tempfile::tempdir()?;
    let client = Client::builder().timeout(REQUEST_TIMEOUT).build()?;
    let address = Node::free_address()?;
    let data_dir = directory.path().join("data");
    let node = Node::start(&client, &address, &examples().join("flights.toml"), &data_dir).await?;
    let mut import = Import { client, address, data_dir, node, kills: 0, unknown: 0, random };
    let (mut counted, mut duplicates) = (0, 0);
    for (i, batch) in sends.iter().enumerate() {
        let (new, again) = if kill_at.contains(&i) { import.send_and_kill(batch).await? } else { import.send(batch).await? };
        counted += new;
        duplicates += again;
    }
    say(&format!(
        "flights: {} kills left {} requests open; of {} events sent twice {counted} were acked as new, {duplicates} as duplicates",
        import.kills,
        import.unknown,
        events.len()
    ))?;
    ensure!(import.unknown > 0, "no kill met a request under way");
    ensure!(import.kills == KILLS, "{} kills", import.kills);
    ensure!(counted + duplicates == 2 * events.len() as u64, "every event of every acked batch is either new or a duplicate");

    check_everything(&import, &events).await?;
    if whole {
        check_published_facts(&import).await?;
    }
    import.restart().await?;
    check_everything(&import, &events).await.context("after one more kill -9")?;
    let Import { node, .. } = import;
    ensure!(node.terminate()? == Some(0), "SIGTERM ends the node with exit code 0");
    Ok(())
}

/// Asks `metric` with every aggregate and compares the whole answer.
async fn compare(import: &Import, metric: &str, extra: &[(&str, &str)], labels: &[&str], want: &Tallies) -> Result<()> {
    let mut query = vec![("metric", metric), ("agg", "count,sum,avg,min,max,users,sessions,p50,p95,p99"), ("limit", "100000")];
    query.extend(RANGE);
    query.extend_from_slice(extra);
    let answer = import.node.get(&import.client, "/v1/query", &query).await?;
    let receipt = &answer["receipt"];
    ensure!(receipt["complete"] == true && receipt["shards"]["asked"] == receipt["shards"]["answered"], "{metric} {extra:?}: {receipt}");
    check_answer(&answer, labels, want, &format!("{metric} {extra:?}"))
}

async fn check_everything(import: &Import, events: &[Value]) -> Result<()> {
    let value: ValueOf = |e| e["value"].as_f64();
    let air_time: ValueOf = |e| e["properties"]["air_time_min"].as_f64();
    let distance: ValueOf = |e| e["properties"]["distance_miles"].as_f64();
    let departed = |e: &Value| e["event"] == "flight_departed";
    let own = |e: &Value, fields: &[&str]| fields.iter().map(|f| text(e, f)).collect::<Vec<_>>();

    compare(import, "*", &[], &[], &tally(events, value, |_| Some(vec![]))).await?;
    compare(import, "*", &[("group_by", "event")], &["event"], &tally(events, value, |e| Some(own(e, &["event"])))).await?;
    for event in ["flight_departed", "flight_cancelled"] {
        let by_day = tally(events, value, |e| (e["event"] == event).then(|| vec![day(e, 0)]));
        compare(import, event, &[("step", "1d")], &["time"], &by_day).await?;
    }
    let by_local_day = tally(events, air_time, |e| departed(e).then(|| vec![day(e, 5), text(e, "carrier")]));
    // A zone without daylight saving, so that the oracle needs no time zone table.
    let bogota = [("step", "1d"), ("tz", "America/Bogota"), ("group_by", "carrier")];
    compare(import, "departures", &bogota, &["time", "carrier"], &by_local_day).await?;
    for fields in [&["carrier"][..], &["origin"], &["carrier", "origin"], &["dest", "origin"]] {
        let want = tally(events, air_time, |e| departed(e).then(|| own(e, fields)));
        compare(import, "departures", &[("group_by", &fields.join(","))], fields, &want).await?;
    }
    let delays = tally(events, value, |e| departed(e).then(|| own(e, &["origin", "carrier"])));
    compare(import, "departure_delay", &[("group_by", "origin,carrier")], &["origin", "carrier"], &delays).await?;
    let flights = tally(events, value, |e| (text(e, "origin").as_deref() != Some("JFK")).then(|| own(e, &["event", "carrier"])));
    compare(import, "flights", &[("group_by", "event,carrier"), ("filter", "!origin:JFK")], &["event", "carrier"], &flights).await?;
    let long = tally(events, distance, |e| {
        let chosen = text(e, "origin").as_deref() == Some("JFK") && matches!(text(e, "carrier").as_deref(), Some("HA" | "UA" | "DL"));
        (departed(e) && chosen).then(|| own(e, &["dest"]))
    });
    compare(import, "long_haul", &[("group_by", "dest")], &["dest"], &long).await
}

/// What the publisher of the data says of the whole year.
async fn check_published_facts(import: &Import) -> Result<()> {
    let mut query = vec![("metric", "*"), ("agg", "count,sum,users")];
    query.extend(RANGE);
    let all = import.node.get(&import.client, "/v1/query", &query).await?;
    let values = &all["data"][0]["values"];
    ensure!(values["count"] == 336_776.0 && values["sum"] == 4_152_200.0, "{values}");
    let near = |got: &Value, want: f64, error: &Value| {
        (got.as_f64().unwrap_or(f64::NAN) - want).abs() <= want * error.as_f64().unwrap_or(f64::NAN)
    };
    ensure!(near(&values["users"], 4_043.0, &all["receipt"]["error"]["users"]), "{all}");
    for (event, count, users) in [("flight_departed", 328_521.0, Some(4_037.0)), ("flight_cancelled", 8_255.0, None)] {
        query[0].1 = event;
        let answer = import.node.get(&import.client, "/v1/query", &query).await?;
        let values = &answer["data"][0]["values"];
        ensure!(values["count"] == count, "{event}: {values}");
        ensure!(users.is_none_or(|want| near(&values["users"], want, &answer["receipt"]["error"]["users"])), "{event}: {values}");
    }
    Ok(())
}
