//! Estimates of a whole node against the truth: 1 000 questions over few, some and many users.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::calendar::{HOUR, MINUTE};
use super::clock::TestClock;
use super::random::Random;
use super::world::{settle, turned_node};
use crate::http::harness::TestNode;

const NOW: i64 = 1_779_998_400_000;
const COUNTRIES: usize = 24;
const USERS: usize = 45_000;
const EVENTS: usize = 60_000;
const QUESTIONS: usize = 1_000;

struct Event {
    minute: i64,
    country: usize,
    user: usize,
    value: f64,
}

/// The first countries have most events, so that some of their minutes have more users than are kept one by one.
fn events(random: &mut Random) -> Vec<Event> {
    let event = |_| {
        let share = random.below(1_000) as f64 / 1_000.0;
        let country = (COUNTRIES as f64 * share.powi(4)) as usize;
        Event {
            minute: random.between(0, 12),
            country,
            user: random.below(USERS),
            value: (random.between(1, 100_000_000) as f64 / 100.0) * if random.one_in(3) { -1.0 } else { 1.0 },
        }
    };
    (0..EVENTS).map(event).collect()
}

async fn send(node: &TestNode, events: &[Event]) {
    for (at, batch) in events.chunks(10_000).enumerate() {
        let line = |(i, e): (usize, &Event)| {
            let time = NOW - HOUR + e.minute * MINUTE;
            let Event { country, user, value, .. } = e;
            format!(
                r#"{{"event":"view","event_id":"{at}-{i}","timestamp":{time},"country":"C{country}","user_id":"u{user}","session_id":"s{user}","value":{value}}}"#
            )
        };
        let body: Vec<String> = batch.iter().enumerate().map(line).collect();
        assert_eq!(node.post_ndjson(body.join("\n")).await.counts(), (200, batch.len() as u64, 0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_truth_lies_within_the_stated_error() {
    let mut random = Random::new(7);
    let events = events(&mut random);
    let clock = TestClock::at(NOW);
    let node = turned_node(&clock, |_| {}).await;
    send(&node, &events).await;
    // Half of the questions go to sealed and folded windows.
    let (mut within, mut estimated, mut kinds) = (0, 0, HashMap::new());
    for question in 0..QUESTIONS {
        if question == QUESTIONS / 2 {
            settle(&node, &clock, 26 * HOUR).await;
        }
        let (from, length) = (random.between(0, 12), random.between(1, 13));
        let mut countries: BTreeSet<usize> = (0..1 + random.below(4)).map(|_| random.below(COUNTRIES)).collect();
        if random.one_in(2) {
            countries.extend(0..random.below(6));
        }
        let matches = |e: &&Event| (from..from + length).contains(&e.minute) && countries.contains(&e.country);
        let matching: Vec<&Event> = events.iter().filter(matches).collect();
        let names: Vec<String> = countries.iter().map(|c| format!("C{c}")).collect();
        let start = NOW - HOUR + from * MINUTE;
        let got = node
            .get(&format!(
                "/v1/query?metric=view&agg=count,users,sessions,p50,p99&from={start}&to={}&filter=country:{}",
                start + length * MINUTE,
                names.join("%7C")
            ))
            .await;
        let (values, receipt) = (&got.body["data"][0]["values"], &got.body["receipt"]);
        assert_eq!(values["count"], matching.len(), "{got:?}");
        let users: BTreeSet<usize> = matching.iter().map(|e| e.user).collect();
        for label in ["users", "sessions"] {
            let (estimate, error) = (values[label].as_f64().expect("a number"), receipt["error"][label].as_f64().expect("stated"));
            let off = (estimate - users.len() as f64).abs();
            if error == 0.0 {
                assert_eq!(off, 0.0, "{label} of {countries:?} is not exact: {estimate}, not {}", users.len());
            }
            within += usize::from(off <= error * users.len() as f64);
            estimated += usize::from(error > 0.0);
            let size = ["up to 1 000", "up to 16 000", "more"][usize::from(users.len() > 1_000) + usize::from(users.len() > 16_000)];
            *kinds.entry((size, error > 0.0)).or_insert(0) += 1;
        }
        quantiles(&matching, values, receipt);
    }
    let share = within as f64 / (2 * QUESTIONS) as f64;
    println!("{share:.4} of {} counts within the stated error, {estimated} estimated; sizes {kinds:?}", 2 * QUESTIONS);
    assert!(share >= 0.95 && estimated > QUESTIONS / 2, "{share} of which {estimated} were estimated");
}

fn quantiles(matching: &[&Event], values: &Value, receipt: &Value) {
    let mut sorted: Vec<f64> = matching.iter().map(|e| e.value).collect();
    sorted.sort_by(f64::total_cmp);
    for (label, q) in [("p50", 0.5), ("p99", 0.99)] {
        let Some(last) = sorted.len().checked_sub(1) else {
            assert!(values[label].is_null(), "{values}");
            continue;
        };
        let right = sorted[(q * last as f64).floor() as usize];
        let (got, error) = (values[label].as_f64().expect("a number"), receipt["error"][label].as_f64().expect("stated"));
        assert!((got - right).abs() <= error * right.abs() * (1.0 + 1e-9), "{label}: {got}, not {right}");
    }
}
