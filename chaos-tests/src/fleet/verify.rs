//! Every answer against the truth, from every node, once all is settled.

pub mod truth;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::Fleet;
use super::load::stream::{Event, NAMES, PROBE, REVENUE};
use super::now::{step_time, wall_ms};
use truth::{Group, Tallies, Truth, compare};

/// More than any run sends.
pub const ALL_TIME: [(&str, &str); 2] = [("from", "2020-01-01T00:00:00Z"), ("to", "2100-01-01T00:00:00Z")];
const ROWS_MAX: &str = "100000";
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
const EVERYTHING: &str = "count,sum,min,max,avg,users,sessions,p50,p90,p99";
/// Differences that are told of one question.
const SHOWN_MAX: usize = 5;

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    pub questions: usize,
    pub values: usize,
    pub lost: u64,
    pub twice: u64,
    #[serde(skip)]
    pub differences: Vec<String>,
}

/// A question and what it should be answered.
struct Question {
    query: Vec<(&'static str, String)>,
    labels: Vec<&'static str>,
    want: Tallies,
    /// Its groups are every event's own, so that what is lost and what is counted twice is counted here.
    is_finest: bool,
}

/// Asks every node everything.
///
/// # Errors
/// A node does not answer; differences are in the verdict.
pub async fn verify(fleet: &Fleet, truth: &Truth) -> Result<Verdict> {
    let questions = questions(truth);
    let mut verdict = Verdict::default();
    for node in 0..fleet.nodes.len() {
        let (mut lost, mut twice) = (0, 0);
        for question in &questions {
            let query: Vec<(&str, &str)> = question.query.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let place = || format!("{}: {query:?}", fleet.nodes[node].name);
            let answer = fleet.http.get_ok(&fleet.nodes[node], "/v1/query", &query).await?;
            check_receipt(&answer, fleet.options.shards).with_context(place)?;
            let compared = compare(&answer, &question.labels, &question.want).with_context(place)?;
            if question.is_finest {
                (lost, twice) = (lost + compared.lost, twice + compared.twice);
            }
            verdict.questions += 1;
            verdict.values += compared.values;
            verdict.differences.extend(compared.differences.iter().take(SHOWN_MAX).map(|difference| format!("{}: {difference}", place())));
        }
        // Of nodes that say different things the worst counts.
        (verdict.lost, verdict.twice) = (verdict.lost.max(lost), verdict.twice.max(twice));
    }
    Ok(verdict)
}

fn check_receipt(answer: &Value, shards: u16) -> Result<()> {
    let receipt = &answer["receipt"];
    ensure!(receipt["complete"] == true, "not complete: {receipt}");
    let answered = [&receipt["shards"]["asked"], &receipt["shards"]["answered"]];
    ensure!(answered.iter().all(|n| n.as_u64() == Some(shards.into())), "not all {shards} shards: {receipt}");
    ensure!(answer["cursor"].is_null(), "more rows than {ROWS_MAX}: this run is too long to be compared");
    Ok(())
}

fn questions(truth: &Truth) -> Vec<Question> {
    let mut questions = vec![
        question("*", EVERYTHING, &[], &[], truth.tally(|_| Some(Vec::new()))),
        question("*", EVERYTHING, &["event"], &[], truth.tally(|event| Some(vec![name_of(event)]))),
    ];
    let range = range(truth);
    for (number, (name, _)) in NAMES.iter().enumerate() {
        let is_it = |event: &Event| usize::from(event.name) == number;
        let by_key = truth.tally(|event| is_it(event).then(|| dimensions(event)));
        let mut finest = question(name, EVERYTHING, &["source", "device_type", "country_code"], &[], by_key);
        finest.is_finest = true;
        questions.push(finest);
        let grains = [("1d", DAY_MS, EVERYTHING), ("1h", 60 * MINUTE_MS, EVERYTHING), ("1m", MINUTE_MS, "count,sum,users")];
        for (step, step_ms, agg) in grains {
            let want = truth.tally(|event| is_it(event).then(|| vec![Some(start_of(event, step_ms))]));
            let mut stepped = question(name, agg, &[], &range, want);
            stepped.query.push(("step", step.to_owned()));
            stepped.labels.push("time");
            questions.push(stepped);
        }
        if number != PROBE {
            let want =
                truth.tally(|event| is_it(event).then(|| vec![Some(start_of(event, DAY_MS)), event.country_name().map(str::to_owned)]));
            let mut both = question(name, "count,max,p90,sessions", &["country_code"], &range, want);
            both.query.push(("step", "1d".to_owned()));
            both.labels.insert(0, "time");
            questions.push(both);
        }
    }
    let purchase = |event: &Event| NAMES[usize::from(event.name)].0 == "purchase";
    let by_plan =
        truth.tally(|event| purchase(event).then(|| vec![Some(event.plan_name().to_owned()), event.country_name().map(str::to_owned)]));
    questions.push(question(REVENUE, EVERYTHING, &["plan", "country_code"], &[], by_plan));
    questions.retain(|question| !question.want.is_empty());
    questions
}

fn question(metric: &str, agg: &str, group_by: &[&'static str], range: &[(&'static str, String)], want: Tallies) -> Question {
    let mut query = vec![("metric", metric.to_owned()), ("agg", agg.to_owned()), ("limit", ROWS_MAX.to_owned())];
    if !group_by.is_empty() {
        query.push(("group_by", group_by.join(",")));
    }
    match range {
        [] => query.extend(ALL_TIME.map(|(name, value)| (name, value.to_owned()))),
        range => query.extend_from_slice(range),
    }
    Question { query, labels: group_by.to_vec(), want, is_finest: false }
}

/// Whole days that hold everything.
fn range(truth: &Truth) -> [(&'static str, String); 2] {
    let (now, first) = (wall_ms(), truth.earliest_ms().unwrap_or_default());
    [("from", step_time(first - first.rem_euclid(DAY_MS))), ("to", step_time(now - now.rem_euclid(DAY_MS) + DAY_MS))]
}

fn name_of(event: &Event) -> Option<String> {
    Some(NAMES[usize::from(event.name)].0.to_owned())
}

fn dimensions(event: &Event) -> Group {
    vec![Some(event.source_name()), event.device_name().map(str::to_owned), event.country_name().map(str::to_owned)]
}

/// Start of the step an event is in, as answers write it.
fn start_of(event: &Event, step_ms: i64) -> String {
    step_time(event.at_ms - event.at_ms.rem_euclid(step_ms))
}
