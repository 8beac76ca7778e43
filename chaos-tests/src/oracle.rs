//! The independent count: plain maps over plain JSON.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Everything an answer can say of one group, counted the slow and obvious way.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub count: u64,
    pub values: Vec<f64>,
    pub users: BTreeSet<String>,
    pub sessions: BTreeSet<String>,
}

/// Where a tally takes its value from.
pub type ValueOf = fn(&Value) -> Option<f64>;

impl Tally {
    pub fn add(&mut self, event: &Value, value_of: ValueOf) {
        self.count += 1;
        self.values.extend(value_of(event));
        let text = |v: &Value| v.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        self.users.extend(text(&event["user_id"]));
        self.sessions.extend(text(&event["session_id"]));
    }

    /// Rank floor(q (n - 1)) of the sorted values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        Some(sorted[(q * last as f64).floor() as usize])
    }

    /// Compares one answer row's `values` with this tally.
    ///
    /// # Errors
    /// The first value that is not what it should be, exactly or within what the receipt states.
    pub fn check(&self, values: &Value, errors: &Value, place: &str) -> Result<()> {
        let sum: f64 = self.values.iter().sum();
        let by = |f: fn(f64, f64) -> f64| self.values.iter().copied().reduce(f);
        for (label, got) in values.as_object().context("values")? {
            let within = |want: Option<f64>, relative: f64, absolute: f64| -> Result<()> {
                match (want, got.as_f64()) {
                    (None, None) => Ok(()),
                    (Some(want), Some(got)) if (want - got).abs() <= absolute + relative * want.abs() => Ok(()),
                    (want, got) => anyhow::bail!("{place}: {label} is {got:?}, should be {want:?} (within {relative} relative)"),
                }
            };
            let stated = || errors[label].as_f64().with_context(|| format!("{place}: the receipt states no error of {label}"));
            match label.as_str() {
                "count" => within(Some(self.count as f64), 0.0, 0.0)?,
                "sum" => within((!self.values.is_empty()).then_some(sum), 1e-9, 1e-9)?,
                "avg" => within((!self.values.is_empty()).then(|| sum / self.values.len() as f64), 1e-9, 1e-9)?,
                "min" => within(by(f64::min), 0.0, 0.0)?,
                "max" => within(by(f64::max), 0.0, 0.0)?,
                "users" => within(Some(self.users.len() as f64), stated()?, 0.0)?,
                "sessions" => within(Some(self.sessions.len() as f64), stated()?, 0.0)?,
                quantile => {
                    let q: f64 = quantile.strip_prefix('p').context("a known label")?.parse()?;
                    let relative = stated()?;
                    ensure!(relative > 0.0, "{place}: {label} cannot be exact");
                    within(self.quantile(q / 100.0), relative, 1e-9)?;
                }
            }
        }
        Ok(())
    }
}

/// Tallies by group.
pub type Tallies = BTreeMap<Vec<Option<String>>, Tally>;

/// Counts the events that `select` gives a group.
pub fn tally(events: &[Value], value_of: ValueOf, mut select: impl FnMut(&Value) -> Option<Vec<Option<String>>>) -> Tallies {
    let mut tallies = Tallies::new();
    for event in events {
        if let Some(group) = select(event) {
            tallies.entry(group).or_default().add(event, value_of);
        }
    }
    tallies
}

/// Compares a whole answer: the same groups, and in each the same values. `labels` name the group's dimensions; `time` stands for the row's time.
///
/// # Errors
/// The first difference.
pub fn check_answer(answer: &Value, labels: &[&str], want: &Tallies, place: &str) -> Result<()> {
    let rows = answer["data"].as_array().context("data")?;
    let mut seen = BTreeSet::new();
    for row in rows {
        let group: Vec<Option<String>> = labels
            .iter()
            .map(|&label| if label == "time" { &row["time"] } else { &row["group"][label] })
            .map(|v| v.as_str().map(str::to_owned))
            .collect();
        let tally = want.get(&group).with_context(|| format!("{place}: {group:?} should not be there"))?;
        tally.check(&row["values"], &answer["receipt"]["error"], &format!("{place} {group:?}"))?;
        ensure!(seen.insert(group.clone()), "{place}: {group:?} is there twice");
    }
    ensure!(seen.len() == want.len(), "{place}: {} rows, should be {}", seen.len(), want.len());
    Ok(())
}
