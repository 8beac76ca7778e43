//! The independent count: every event that was sent, made again from its batch, in plain maps.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::load::ledger::Ledger;
use super::super::load::stream::{Event, request};

/// `users` and `sessions` are estimates: how many of the stated error (two standard errors) they may be off.
const ESTIMATE_ERRORS_MAX: f64 = 2.0;
const SUM_ERROR_MAX: f64 = 1e-9;

/// Everything an answer can say of one group.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub count: u64,
    values: Vec<f64>,
    users: HashSet<u32>,
    sessions: HashSet<u32>,
}

/// Values of the group's labels.
pub type Group = Vec<Option<String>>;
pub type Tallies = BTreeMap<Group, Tally>;

impl Tally {
    fn add(&mut self, event: &Event) {
        self.count += 1;
        self.values.extend(event.value);
        self.users.extend(event.user);
        self.sessions.insert(event.session);
    }

    fn settle(&mut self) {
        self.values.sort_by(f64::total_cmp);
    }

    /// What a label should say, and how far off it may be: relative.
    fn expected(&self, label: &str, stated: Option<f64>) -> Result<(Option<f64>, f64)> {
        let some = !self.values.is_empty();
        let sum = self.values.iter().sum::<f64>();
        let stated = || stated.context("the receipt states no error");
        Ok(match label {
            "count" => (Some(self.count as f64), 0.0),
            "sum" => (some.then_some(sum), SUM_ERROR_MAX),
            "avg" => (some.then(|| sum / self.values.len() as f64), SUM_ERROR_MAX),
            "min" => (self.values.first().copied(), 0.0),
            "max" => (self.values.last().copied(), 0.0),
            "users" => (Some(self.users.len() as f64), ESTIMATE_ERRORS_MAX * stated()?),
            "sessions" => (Some(self.sessions.len() as f64), ESTIMATE_ERRORS_MAX * stated()?),
            quantile => {
                let q: f64 = quantile.strip_prefix('p').context("a known label")?.parse()?;
                let stated = stated()?;
                ensure!(stated > 0.0 && stated < 0.05, "{label} cannot be {stated} exact");
                // Rank floor(q (n - 1)); a hair more for what the last bit of a float does to the bound itself.
                let last = self.values.len().saturating_sub(1) as f64;
                (self.values.get((q / 100.0 * last).floor() as usize).copied(), stated * (1.0 + 1e-9))
            }
        })
    }

    fn check(&self, values: &Value, errors: &Value) -> Result<usize> {
        let values = values.as_object().context("values")?;
        for (label, got) in values {
            let (want, relative) = self.expected(label, errors[label].as_f64())?;
            let good = match (want, got.as_f64()) {
                (None, None) => true,
                (Some(want), Some(got)) => (want - got).abs() <= relative * want.abs(),
                _ => false,
            };
            ensure!(good, "{label} is {got}, should be {want:?} (within {relative} relative)");
        }
        Ok(values.len())
    }
}

/// How an answer compares.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    pub values: usize,
    /// Events that are counted too few times and too many times, over all groups.
    pub lost: u64,
    pub twice: u64,
    pub differences: Vec<String>,
}

/// All events of a run.
pub struct Truth {
    events: Vec<Event>,
}

impl Truth {
    pub fn of(ledger: &Ledger) -> Self {
        let batches = ledger.batches();
        Self { events: batches.iter().flat_map(|batch| request(ledger.seed, batch).events).collect() }
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub fn earliest_ms(&self) -> Option<i64> {
        self.events.iter().map(|event| event.at_ms).min()
    }

    /// Counts the events that `select` gives a group.
    pub fn tally(&self, select: impl Fn(&Event) -> Option<Group>) -> Tallies {
        let mut tallies = Tallies::new();
        for event in &self.events {
            if let Some(group) = select(event) {
                tallies.entry(group).or_default().add(event);
            }
        }
        tallies.values_mut().for_each(Tally::settle);
        tallies
    }
}

/// Compares a whole answer: the same groups, and in each the same values. `labels` name the group's dimensions; `time` stands for the row's time.
///
/// # Errors
/// It is not an answer.
pub fn compare(answer: &Value, labels: &[&str], want: &Tallies) -> Result<Compared> {
    let mut compared = Compared::default();
    let mut seen: BTreeMap<Group, u64> = BTreeMap::new();
    for row in answer["data"].as_array().context("data")? {
        let of = |&label: &&str| if label == "time" { &row["time"] } else { &row["group"][label] };
        let group: Group = labels.iter().map(|label| of(label).as_str().map(str::to_owned)).collect();
        let count = row["values"]["count"].as_u64().context("every question asks for count")?;
        ensure!(seen.insert(group.clone(), count).is_none(), "{group:?} is there twice");
        match want.get(&group).map(|tally| tally.check(&row["values"], &answer["receipt"]["error"])) {
            Some(Ok(values)) => compared.values += values,
            Some(Err(error)) => compared.differences.push(format!("{group:?}: {error:#}")),
            None => compared.differences.push(format!("{group:?} should not be there: {row}")),
        }
    }
    for group in want.keys().chain(seen.keys().filter(|group| !want.contains_key(*group))) {
        let (want, got) = (want.get(group).map_or(0, |tally| tally.count), seen.get(group).copied().unwrap_or_default());
        compared.lost += want.saturating_sub(got);
        compared.twice += got.saturating_sub(want);
        if !seen.contains_key(group) {
            compared.differences.push(format!("{group:?} is not there: {want} events"));
        }
    }
    Ok(compared)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(user: u32, value: f64) -> Event {
        Event { name: 0, source: 0, device: None, country: None, plan: 0, at_ms: 0, user: Some(user), session: user, value: Some(value) }
    }

    fn answer(values: Value) -> Value {
        json!({"data": [{"values": values}], "receipt": {"error": {"users": 0.02, "p50": 0.01}}})
    }

    #[test]
    fn every_value_is_held_to_its_own_bound() {
        let truth = Truth { events: (0..100).map(|i| event(i, f64::from(i) + 1.0)).collect() };
        let want = truth.tally(|_| Some(Vec::new()));
        let good = json!({"count": 100, "sum": 5050.0, "min": 1, "max": 100, "users": 104, "p50": 50.4, "avg": 50.5});
        let compared = compare(&answer(good.clone()), &[], &want).expect("an answer");
        assert!(compared.differences.is_empty() && compared.values == 7, "{compared:?}");
        for (label, bad) in
            [("count", 99.0), ("sum", 5_050.000_1), ("min", 2.0), ("max", 99.0), ("users", 105.0), ("p50", 51.0), ("avg", 50.6)]
        {
            let mut values = good.clone();
            values[label] = if label == "count" { json!(bad as u64) } else { json!(bad) };
            let compared = compare(&answer(values), &[], &want).expect("an answer");
            assert_eq!(compared.differences.len(), 1, "{label}: {compared:?}");
            assert_eq!((compared.lost, compared.twice), (u64::from(label == "count"), 0));
        }
    }

    #[test]
    fn groups_that_are_missing_or_too_many_are_found() {
        let truth = Truth { events: vec![event(1, 1.0), event(1, 2.0)] };
        let want = truth.tally(|event| Some(vec![event.value.map(|value| value.to_string())]));
        let answer =
            json!({"data": [{"group": {"v": "1"}, "values": {"count": 2}}, {"group": {"v": "3"}, "values": {"count": 5}}], "receipt": {}});
        let compared = compare(&answer, &["v"], &want).expect("an answer");
        assert_eq!((compared.lost, compared.twice, compared.differences.len()), (1, 6, 3), "{compared:?}");
    }
}
