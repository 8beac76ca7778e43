//! Events with known content: everything about a batch follows from the seed, its place and when it was made, so that a run keeps a few bytes of a batch and the
//! oracle makes the events again.

use std::fmt::Write;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::super::now::rfc3339;

/// Event names, and how many different users each has.
pub const NAMES: [(&str, u32); 6] =
    [("page_view", 40_000), ("purchase", 3_000), ("search", 900), ("click", 9_000), ("signup", 60_000), ("probe", 1)];
/// The last of [`NAMES`]: single events that look whether a shard takes writes.
pub const PROBE: usize = NAMES.len() - 1;
const DEVICES: [&str; 3] = ["mobile", "desktop", "tablet"];
const COUNTRIES: [&str; 8] = ["DE", "US", "IN", "BR", "JP", "NG", "FR", "NP"];
const PLANS: [&str; 3] = ["free", "team", "large"];
const MINUTE_MS: i64 = 60_000;
/// Late events are up to this late.
pub const LATE_MS_MAX: i64 = 40 * 60 * MINUTE_MS;
/// A metric beside the default ones, see [`DEFINITIONS`].
pub const REVENUE: &str = "revenue";
/// For the configuration of a fleet that gets these events.
pub const DEFINITIONS: &str = r#"
[[metrics]]
name = "revenue"
event = ["purchase"]
dimensions = ["plan", "country_code"]
value = "properties.amount"
"#;

/// What kind of batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Up to so many events.
    Mixed { events_max: u16 },
    /// One event whose home key has this number.
    Probe { key: u16 },
}

/// Names a batch; its events follow from this and the run's seed.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub writer: u16,
    pub number: u32,
    pub made_ms: i64,
    pub shape: Shape,
}

/// One event as the oracle counts it. Indices are into the tables above.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub name: u8,
    pub source: u16,
    pub device: Option<u8>,
    pub country: Option<u8>,
    pub plan: u8,
    pub at_ms: i64,
    pub user: Option<u32>,
    pub session: u32,
    pub value: Option<f64>,
}

impl Event {
    pub fn source_name(&self) -> String {
        source_name(self.name.into(), self.source)
    }

    pub fn device_name(&self) -> Option<&'static str> {
        self.device.map(|device| DEVICES[usize::from(device)])
    }

    pub fn country_name(&self) -> Option<&'static str> {
        self.country.map(|country| COUNTRIES[usize::from(country)])
    }

    pub fn plan_name(&self) -> &'static str {
        PLANS[usize::from(self.plan)]
    }
}

/// Sources tell writers apart, and probes their keys.
pub fn source_name(name: usize, source: u16) -> String {
    if name == PROBE { format!("p{source}") } else { format!("w{source}") }
}

/// A batch as it is sent, and what has to come of it.
#[derive(Clone, Debug)]
pub struct Request {
    pub text: String,
    pub is_lines: bool,
    pub gzip: bool,
    /// Good ones, each once.
    pub events: Vec<Event>,
    /// Good items: those that are there twice too.
    pub items: u64,
    /// Index and code of each bad one.
    pub rejected: Vec<(u64, &'static str)>,
}

fn random_of(seed: u64, batch: &Batch) -> StdRng {
    let place = u64::from(batch.writer) << 32 | u64::from(batch.number);
    StdRng::seed_from_u64(seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Makes a batch, the same each time.
pub fn request(seed: u64, batch: &Batch) -> Request {
    let mut random = random_of(seed, batch);
    if let Shape::Probe { key } = batch.shape {
        let event = probe(batch, key);
        let text = json_of(&event, batch, 0).to_string();
        return Request { text, is_lines: false, gzip: false, events: vec![event], items: 1, rejected: Vec::new() };
    }
    let Shape::Mixed { events_max } = batch.shape else { unreachable!("the other shape was dealt with") };
    let count = size(&mut random, events_max);
    let events: Vec<Event> = (0..count).map(|_| mixed(&mut random, batch)).collect();
    let mut items: Vec<Value> = events.iter().enumerate().map(|(i, event)| json_of(event, batch, i)).collect();
    while random.random_bool(0.1) {
        let again = items[random.random_range(0..count)].clone();
        items.insert(random.random_range(0..=items.len()), again);
    }
    let good = items.len() as u64;
    let mut rejected = Vec::new();
    if random.random_bool(0.06) {
        let at = random.random_range(0..=items.len());
        let (bad, code) = bad_event(&mut random, batch);
        items.insert(at, bad);
        rejected.push((at as u64, code));
    }
    let (is_lines, gzip) = (random.random_bool(0.5), random.random_bool(0.1));
    let text = if is_lines {
        items.iter().fold(String::new(), |mut text, item| {
            let _ = writeln!(text, "{item}");
            text
        })
    } else {
        Value::Array(items).to_string()
    };
    Request { text, is_lines, gzip, events, items: good, rejected }
}

/// Mostly small, some large.
fn size(random: &mut StdRng, events_max: u16) -> usize {
    let most = match random.random_range(0..10) {
        0..3 => 1,
        3..7 => 20,
        7..9 => 100,
        _ => events_max,
    };
    usize::from(random.random_range(1..=most.min(events_max)))
}

fn probe(batch: &Batch, key: u16) -> Event {
    let name = PROBE as u8;
    Event { name, source: key, device: None, country: None, plan: 0, at_ms: batch.made_ms, user: None, session: 0, value: None }
}

fn mixed(random: &mut StdRng, batch: &Batch) -> Event {
    let name = random.random_range(0..PROBE);
    let late = if random.random_bool(0.1) { random.random_range(0..LATE_MS_MAX) } else { random.random_range(0..5_000) };
    let user = random.random_range(0..NAMES[name].1);
    Event {
        name: name as u8,
        source: batch.writer,
        device: random.random_bool(0.9).then(|| random.random_range(0..DEVICES.len() as u8)),
        country: random.random_bool(0.9).then(|| random.random_range(0..COUNTRIES.len() as u8)),
        plan: random.random_range(0..PLANS.len() as u8),
        at_ms: batch.made_ms - late,
        user: random.random_bool(0.95).then_some(user),
        session: user / 2,
        // Two decimals, over four orders of magnitude.
        value: random.random_bool(0.7).then(|| (10f64.powf(random.random_range(0.0..4.0)) * 100.0).round() / 100.0),
    }
}

fn event_id(batch: &Batch, index: usize) -> String {
    format!("{}-{}-{index}", batch.writer, batch.number)
}

fn json_of(event: &Event, batch: &Batch, index: usize) -> Value {
    let mut json = json!({
        "event_id": event_id(batch, index), "event": NAMES[usize::from(event.name)].0, "timestamp": rfc3339(event.at_ms),
        "source": event.source_name(), "device_type": event.device_name(), "country_code": event.country_name(),
        "session_id": format!("s{}", event.session), "user_id": event.user.map(|user| format!("u{user}")),
        "properties": {"plan": event.plan_name()},
    });
    if let Some(value) = event.value {
        json["value"] = json!(value);
        json["properties"]["amount"] = json!(value);
    }
    json
}

fn bad_event(random: &mut StdRng, batch: &Batch) -> (Value, &'static str) {
    let id = format!("{}-{}-bad", batch.writer, batch.number);
    match random.random_range(0..5) {
        0 => (json!({"event_id": id, "value": 1}), "missing_field"),
        1 => (json!({"event_id": id, "event": "click", "value": "1"}), "wrong_type"),
        2 => (json!({"event_id": id, "event": "click", "timestamp": "yesterday"}), "bad_timestamp"),
        3 => (json!({"event_id": id, "event": "click", "timestamp": rfc3339(batch.made_ms + 48 * 60 * MINUTE_MS)}), "future"),
        _ => (json!(17), "not_an_object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_the_same_each_time_and_another_one_is_not() {
        let batch = Batch { writer: 3, number: 9, made_ms: 1_700_000_000_000, shape: Shape::Mixed { events_max: 500 } };
        let (one, again) = (request(7, &batch), request(7, &batch));
        assert_eq!(one.text, again.text);
        assert_ne!(one.text, request(8, &batch).text);
        assert_ne!(one.text, request(7, &Batch { number: 10, ..batch }).text);
    }

    #[test]
    fn what_is_sent_is_what_is_counted() {
        let mut seen = [0; 3];
        for number in 0..400 {
            let batch = Batch { writer: 1, number, made_ms: 1_700_000_000_000, shape: Shape::Mixed { events_max: 300 } };
            let request = request(1, &batch);
            let items: Vec<Value> = if request.is_lines {
                request.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
            } else {
                serde_json::from_str(&request.text).expect("JSON")
            };
            assert_eq!(items.len() as u64, request.items + request.rejected.len() as u64);
            let ids: std::collections::BTreeSet<&str> =
                items.iter().filter_map(|item| item["event_id"].as_str()).filter(|id| !id.ends_with("bad")).collect();
            assert_eq!(ids.len(), request.events.len());
            seen[0] += usize::from(request.items > request.events.len() as u64);
            seen[1] += request.rejected.len();
            seen[2] += usize::from(request.gzip);
        }
        assert!(seen.iter().all(|&times| times > 5), "repeats, bad ones, gzip: {seen:?}");
    }
}
