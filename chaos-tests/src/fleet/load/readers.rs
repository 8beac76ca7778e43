//! Readers: an answer says that it is complete and is, says that it is not, or is an error. Never less without a word.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::{Load, Outcome, What};
use crate::fleet::load::stream::NAMES;
use crate::fleet::node::http::{Asked, single};
use crate::fleet::verify::ALL_TIME;

/// A reader waits this long; it asks for less.
const READ_TIME_MAX: Duration = Duration::from_secs(8);
const TIMEOUT_MS: &str = "5000";

/// Which events a question counts.
enum Of {
    Name(Option<usize>),
    Writer(u16),
}

/// Asks any node that runs, until the run ends.
pub async fn run(load: Arc<Load>, reader: u64, writers: u16, every: Duration) {
    let mut random = StdRng::seed_from_u64(load.ledger.seed ^ (reader + 1).wrapping_mul(0xa076_1d64_78bd_642f));
    while load.pause(every.mul_f64(random.random_range(0.5..1.5))).await {
        let node = random.random_range(0..load.fleet.nodes.len());
        if load.watch.is_down(node) {
            continue;
        }
        let of = match random.random_range(0..10) {
            0..3 => Of::Name(None),
            3..7 => Of::Name(Some(random.random_range(0..NAMES.len()))),
            _ => Of::Writer(random.random_range(0..writers)),
        };
        let heavy = random.random_bool(0.1);
        let allow_partial = random.random_bool(0.3);
        ask(&load, node, &of, heavy, allow_partial).await;
    }
}

/// A read of one's own write, from another node than the one that acked it.
pub async fn read_back(load: &Load, node: usize, writer: u16, token: &str) {
    let [least, _] = load.ledger.of_source(writer);
    let filter = format!("source:w{writer}");
    let query = [("metric", "*"), ("filter", filter.as_str()), ("token", token), ("timeout_ms", TIMEOUT_MS)];
    question(load, node, &query, false, false, least, || load.ledger.of_source(writer)[1]).await;
}

async fn ask(load: &Load, node: usize, of: &Of, heavy: bool, allow_partial: bool) {
    let mut query = vec![("timeout_ms", TIMEOUT_MS), ("partial", if allow_partial { "allow" } else { "fail" })];
    let filter;
    match of {
        Of::Name(name) => query.push(("metric", name.map_or("*", |name| NAMES[name].0))),
        Of::Writer(writer) => {
            filter = format!("source:w{writer}");
            query.extend([("metric", "*"), ("filter", filter.as_str())]);
        }
    }
    if heavy {
        query.extend([("agg", "count,users,p95"), ("group_by", "country_code")]);
    }
    let (least, most): (u64, Box<dyn Fn() -> u64 + Send + Sync>) = match *of {
        Of::Name(name) => (load.ledger.bounds.least(name), Box::new(move || load.ledger.bounds.most(name))),
        Of::Writer(writer) => (load.ledger.of_source(writer)[0], Box::new(move || load.ledger.of_source(writer)[1])),
    };
    question(load, node, &query, heavy, allow_partial, least, most).await;
}

/// `least` must be in the answer; no more than `most` says when it has come may.
async fn question(
    load: &Load,
    node: usize,
    query: &[(&str, &str)],
    grouped: bool,
    allow_partial: bool,
    least: u64,
    most: impl Fn() -> u64 + Send + Sync,
) {
    let (began_ms, was_victim) = (load.now_ms(), load.is_victim(node));
    let mut query = query.to_vec();
    query.extend(ALL_TIME);
    let asked = load.fleet.http.ask(&load.fleet.nodes[node], "/v1/query", &query, READ_TIME_MAX).await;
    let outcome = match asked {
        Asked::Answered(answer) => {
            let most = most();
            let checked = check(&answer, load.watch.shards, grouped, allow_partial, least, most);
            let complete = answer["receipt"]["complete"] == true;
            let place = || format!("{}: {query:?}: {}", load.fleet.nodes[node].name, answer["receipt"]);
            load.findings.check(checked.with_context(place));
            if complete { Outcome::Ok } else { Outcome::Flagged }
        }
        // A metric that nobody sent yet.
        Asked::Problem(404, _) if least == 0 => Outcome::Ok,
        Asked::Problem(status, detail) => {
            load.reason("read failed", &format!("{status}: {detail}"));
            if ![429, 503, 504].contains(&status) {
                load.findings.add(format!("{}: {query:?} was answered {status}: {detail}", load.fleet.nodes[node].name));
            }
            Outcome::Refused
        }
        Asked::Refused(detail) => {
            load.reason("read refused", &detail);
            Outcome::Refused
        }
        Asked::Silent(detail) => {
            load.reason("read failed", &detail);
            Outcome::Unknown
        }
    };
    load.record(if allow_partial { What::PartialRead } else { What::Read }, node, began_ms, was_victim, outcome);
}

fn check(answer: &Value, shards: u16, grouped: bool, allow_partial: bool, least: u64, most: u64) -> Result<()> {
    let receipt = &answer["receipt"];
    let number = |name: &str| receipt["shards"][name].as_u64().context("shards of a receipt");
    let (asked, answered) = (number("asked")?, number("answered")?);
    let complete = receipt["complete"].as_bool().context("complete")?;
    ensure!(asked == u64::from(shards), "{asked} shards asked, of {shards}");
    ensure!(complete == (asked == answered), "complete: {complete} with {answered} of {asked} shards");
    ensure!(complete || allow_partial, "a partial answer that nobody allowed");
    let count: f64 = if grouped {
        let rows = answer["data"].as_array().context("data")?;
        rows.iter().filter_map(|row| row["values"]["count"].as_f64()).sum()
    } else {
        single(answer, "count")?
    };
    ensure!(count <= most as f64, "{count} counted, only {most} were ever sent");
    ensure!(!complete || count >= least as f64, "{count} counted and said to be complete, but {least} had been acked before it was asked");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(count: u64, complete: bool, answered: u64) -> Value {
        json!({"data": [{"values": {"count": count}}], "receipt": {"complete": complete, "shards": {"asked": 16, "answered": answered}}})
    }

    #[test]
    fn silence_about_what_is_missing_is_found() {
        for (answer, allowed, good) in [
            (answer(10, true, 16), false, true),
            (answer(9, true, 16), false, false),
            (answer(13, true, 16), false, false),
            (answer(10, true, 15), true, false),
            (answer(3, false, 15), true, true),
            (answer(3, false, 15), false, false),
            (answer(13, false, 15), true, false),
        ] {
            assert_eq!(check(&answer, 16, false, allowed, 10, 12).is_ok(), good, "{answer} {allowed}");
        }
    }
}
