//! One answer against what it should be. Differences come as text: few, and with the events they are about.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::ask::{Ask, Expected, Group, Leg, Width};
use super::calendar::{DAY, HOUR, MINUTE, date_text};
use super::model::Cell;

/// Differences shown of one answer.
const SHOWN_MAX: usize = 4;

pub fn rfc3339(at: i64) -> String {
    let clock = at.rem_euclid(DAY);
    let seconds = format!("{}T{:02}:{:02}:{:02}", date_text(at.div_euclid(DAY)), clock / HOUR, clock / MINUTE % 60, clock / 1_000 % 60);
    if at.rem_euclid(1_000) == 0 { format!("{seconds}Z") } else { format!("{seconds}.{:03}Z", at.rem_euclid(1_000)) }
}

pub struct Checker<'a, 'm> {
    pub ask: &'a Ask,
    pub expected: &'a Expected<'m>,
    now: String,
    /// Steps by their start; beyond the last, those that only the earlier range has.
    steps: HashMap<String, usize>,
    wrong: Vec<String>,
}

impl<'a, 'm> Checker<'a, 'm> {
    pub fn new(ask: &'a Ask, expected: &'a Expected<'m>, now: i64) -> Self {
        let starts = &expected.current.starts;
        let mut steps: HashMap<String, usize> = starts.iter().enumerate().map(|(i, s)| (rfc3339(*s), i)).collect();
        if let (Some(last), Some(earlier)) = (starts.last(), &expected.earlier) {
            let width = expected.current.width.map_or(0, Width::ms);
            for step in starts.len()..earlier.starts.len() {
                steps.insert(rfc3339(last + (step + 1 - starts.len()) as i64 * width), step);
            }
        }
        Self { ask, expected, now: rfc3339(now), steps, wrong: Vec::new() }
    }

    /// Rows of all pages, and the receipt of the first.
    pub fn check(mut self, rows: &[Value], receipt: &Value) -> Vec<String> {
        self.receipt(receipt);
        let mut left = self.places();
        for row in rows {
            let Some(place) = self.place(row) else { continue };
            match left.remove(&place) {
                None => self.wrong(format!("should not be there, or is there twice: {row}")),
                Some(()) => self.row(&place, row, &receipt["error"]),
            }
        }
        for place in left.into_keys() {
            let facts = self.facts(&place);
            self.wrong(format!("missing: step {} group {:?}{facts}", place.0, place.1));
        }
        self.order(rows);
        self.wrong
    }

    fn wrong(&mut self, what: String) {
        if self.wrong.len() < SHOWN_MAX {
            self.wrong.push(what);
        }
    }

    /// Every (step, group) that has a row. What lies before what is kept is left out.
    fn places(&self) -> BTreeMap<(usize, Group), ()> {
        let Expected { current, earlier } = self.expected;
        let mut places: Vec<(usize, Group)> = current.cells.keys().chain(earlier.iter().flat_map(|e| e.cells.keys())).cloned().collect();
        let has_steps = current.width.is_some();
        if has_steps && self.ask.fill != "none" {
            let groups: Vec<Group> =
                if self.ask.groups.is_empty() { vec![Vec::new()] } else { self.expected.groups().into_iter().cloned().collect() };
            places.extend((0..current.starts.len()).flat_map(|step| groups.iter().map(move |g| (step, g.clone()))));
        }
        if places.is_empty() && !has_steps && self.ask.groups.is_empty() && self.expected.complete() {
            places.push((0, Vec::new()));
        }
        places.into_iter().map(|place| (place, ())).collect()
    }

    fn place(&mut self, row: &Value) -> Option<(usize, Group)> {
        let group = self.ask.groups.iter().map(|(_, name, _)| row["group"][name].as_str().map(str::to_owned)).collect();
        let named = row["group"].as_object().map_or(0, |g| g.len());
        if named != self.ask.groups.len() {
            self.wrong(format!("groups {:?} asked: {row}", self.ask.groups));
        }
        if self.expected.current.width.is_none() {
            return Some((0, group));
        }
        let step = self.steps.get(row["time"].as_str().unwrap_or_default()).copied();
        if step.is_none() {
            self.wrong(format!("no step begins there: {row}"));
        }
        step.map(|step| (step, group))
    }

    fn facts(&self, place: &(usize, Group)) -> String {
        let cell = self.expected.current.cells.get(place);
        let facts = cell.iter().flat_map(|c| &c.facts).take(6);
        facts.map(|f| format!("\n      {} {f:?}", rfc3339(f.time))).collect()
    }

    fn row(&mut self, place: &(usize, Group), row: &Value, errors: &Value) {
        let leg = &self.expected.current;
        let in_future = row["time"].as_str().is_some_and(|time| time > self.now.as_str());
        self.values(leg, place, &row["values"], errors, in_future, "");
        let Some(earlier) = &self.expected.earlier else {
            if row.get("compare").is_some() {
                self.wrong(format!("a comparison that was not asked for: {row}"));
            }
            return;
        };
        let in_future = row["compare"]["time"].as_str().is_some_and(|time| time > self.now.as_str());
        self.values(earlier, place, &row["compare"]["values"], errors, in_future, "compare.");
        let start = earlier.starts.get(place.0).map(|s| rfc3339(*s));
        if start.is_some() && row["compare"]["time"].as_str() != start.as_deref() {
            self.wrong(format!("compare.time is {}, the step began at {start:?}: {row}", row["compare"]["time"]));
        }
    }

    fn values(&mut self, leg: &Leg<'m>, place: &(usize, Group), values: &Value, errors: &Value, in_future: bool, prefix: &str) {
        let named = values.as_object().map_or(0, |v| v.len());
        if named != self.ask.aggregates.len() {
            self.wrong(format!("{:?} asked, answered {values}", self.ask.aggregates));
        }
        let begins = leg.starts.get(place.0).copied().unwrap_or(leg.from).max(leg.from);
        if begins < leg.kept_from {
            return;
        }
        for aggregate in &self.ask.aggregates {
            let got = &values[aggregate];
            let wrong = match leg.cells.get(place) {
                Some(cell) => value(aggregate, cell, got, errors),
                None => self.blank(aggregate, got, in_future),
            };
            if let Some(wrong) = wrong {
                let facts = self.facts(place);
                self.wrong(format!("{prefix}{aggregate} of step {} group {:?}: {wrong}{facts}", place.0, place.1));
            }
        }
    }

    /// What stands where there were no events.
    fn blank(&self, aggregate: &str, got: &Value, in_future: bool) -> Option<String> {
        let unknown = self.ask.fill == "null" || !self.expected.complete() || in_future;
        let is_zero = match aggregate {
            "count" | "users" | "sessions" => !unknown,
            "sum" => !unknown && self.ask.fill == "zero",
            _ => false,
        };
        let right = if is_zero { got.as_f64() == Some(0.0) } else { got.is_null() };
        (!right).then(|| format!("{got} where there is no event (should be {})", if is_zero { "0" } else { "null" }))
    }

    fn receipt(&mut self, receipt: &Value) {
        let leg = &self.expected.current;
        let expected = [
            ("complete", Value::from(self.expected.complete())),
            ("from", rfc3339(leg.from).into()),
            ("to", rfc3339(leg.to).into()),
            ("grain", leg.grain.into()),
            ("sampled", 1.0.into()),
            ("cache_age_ms", Value::Null),
        ];
        for (name, right) in expected {
            if receipt[name] != right {
                self.wrong(format!("receipt: {name} is {}, should be {right}", receipt[name]));
            }
        }
        if receipt["shards"]["asked"] != receipt["shards"]["answered"] {
            self.wrong(format!("receipt: {}", receipt["shards"]));
        }
        let legs = || [Some(leg), self.expected.earlier.as_ref()].into_iter().flatten().flat_map(|l| l.cells.values());
        let most = |of: fn(&Cell<'_>) -> usize| legs().map(of).max().unwrap_or(0);
        let (users, sessions) = (most(|c| c.users.len()), most(|c| c.sessions.len()));
        let mut stated = 0;
        for aggregate in self.ask.aggregates.clone() {
            let error = receipt["error"].get(&aggregate).and_then(Value::as_f64);
            let right = match aggregate.as_str() {
                // What is in windows is exact up to 1 024, and what fits into none is exact.
                "users" => error.is_some_and(|e| if users <= 1_024 { e == 0.0 } else { (0.0..0.03).contains(&e) }),
                "sessions" => error.is_some_and(|e| if sessions <= 1_024 { e == 0.0 } else { (0.0..0.03).contains(&e) }),
                quantile if quantile.starts_with('p') => error == Some(0.01),
                _ => error.is_none(),
            };
            stated += usize::from(error.is_some());
            if !right {
                self.wrong(format!("receipt: error of {aggregate} is {error:?}"));
            }
        }
        if receipt["error"].as_object().map(|e| e.len()) != Some(stated) {
            self.wrong(format!("receipt: errors {}", receipt["error"]));
        }
    }

    /// By the answer's own values: ties by time, then group, null last.
    fn order(&mut self, rows: &[Value]) {
        let first = &self.ask.aggregates[0];
        let time = |row: &Value| row["time"].as_str().map(str::to_owned);
        let group = |row: &Value| -> Vec<(bool, String)> {
            let names = self.ask.groups.iter().map(|(_, name, _)| name);
            names.map(|n| (row["group"][n].is_null(), row["group"][n].as_str().unwrap_or_default().to_owned())).collect()
        };
        let compare = |a: &Value, b: &Value| {
            let place = || time(a).cmp(&time(b)).then_with(|| group(a).cmp(&group(b)));
            match self.ask.order {
                "time" => place(),
                "-time" => time(b).cmp(&time(a)).then_with(|| group(a).cmp(&group(b))),
                order => {
                    let values = (a["values"][first].as_f64(), b["values"][first].as_f64());
                    let by_value = match values {
                        (Some(a), Some(b)) => {
                            if order == "value" {
                                a.total_cmp(&b)
                            } else {
                                b.total_cmp(&a)
                            }
                        }
                        (a, b) => a.is_none().cmp(&b.is_none()),
                    };
                    by_value.then_with(place)
                }
            }
        };
        if let Some(pair) = rows.windows(2).find(|w| compare(&w[0], &w[1]) != Ordering::Less) {
            let what = format!("order={}: {} comes before {}", self.ask.order, pair[0], pair[1]);
            self.wrong(what);
        }
    }
}

/// `None` when it is right.
fn value(aggregate: &str, cell: &Cell<'_>, got: &Value, errors: &Value) -> Option<String> {
    let number = got.as_f64();
    let size: f64 = cell.values.iter().map(|v| v.abs()).sum();
    let sum: f64 = cell.values.iter().sum();
    let least = cell.values.iter().copied().reduce(f64::min);
    let most = cell.values.iter().copied().reduce(f64::max);
    let exactly = |want: Option<f64>| (number != want).then(|| format!("{got}, should be {want:?}"));
    let near = |want: f64, tolerance: f64| match number {
        // Beyond what a double holds there is no number to give.
        None if !size.is_finite() => None,
        Some(_) if !size.is_finite() => None,
        Some(number) if (number - want).abs() <= tolerance => None,
        _ => Some(format!("{got}, should be {want} within {tolerance:e}")),
    };
    let distinct = |true_count: usize| {
        let error = errors[aggregate].as_f64().unwrap_or(0.0);
        // Two standard errors hold for most; no answer may be far outside.
        let tolerance = 3.0 * error * true_count as f64;
        number.is_none_or(|n| (n - true_count as f64).abs() > tolerance).then(|| format!("{got}, should be {true_count}"))
    };
    let count = cell.values.len();
    match aggregate {
        "count" => exactly(Some(cell.count as f64)),
        "min" => exactly(least),
        "max" => exactly(most),
        "users" => distinct(cell.users.len()),
        "sessions" => distinct(cell.sessions.len()),
        _ if count == 0 => exactly(None),
        "sum" => near(sum, 1e-9 * size),
        "avg" => near(sum / count as f64, 1e-9 * size / count as f64),
        "last" => {
            let latest = cell.timed.iter().map(|(time, _)| *time).max();
            let tied: Vec<f64> = cell.timed.iter().filter(|(time, _)| Some(*time) == latest).map(|(_, value)| *value).collect();
            (!number.is_some_and(|n| tied.contains(&n))).then(|| format!("{got}, should be one of {tied:?}"))
        }
        quantile => {
            let q = quantile[1..].parse::<f64>().expect("pNN") / 100.0;
            let mut sorted = cell.values.clone();
            sorted.sort_by(f64::total_cmp);
            let want = sorted[(q * (count - 1) as f64).floor() as usize];
            // Nearer to zero than 1e-9 is zero.
            let tolerance = (0.01 * (1.0 + 1e-9) * want.abs()).max(1e-9);
            number.is_none_or(|n| (n - want).abs() > tolerance).then(|| format!("{got}, should be {want} within 1 %"))
        }
    }
}

/// Fields of a CSV text (RFC 4180), line by line.
pub fn read_csv(text: &str) -> Vec<Vec<String>> {
    let mut lines = vec![vec![String::new()]];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let line = lines.last_mut().expect("one");
        let field = line.last_mut().expect("one");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.push(chars.next().expect("peeked")),
            '"' => quoted = !quoted,
            ',' if !quoted => line.push(String::new()),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => lines.push(vec![String::new()]),
            c => field.push(c),
        }
    }
    lines.pop();
    lines
}

/// The differences of a page as CSV from the same page as JSON.
pub fn csv_differs(ask: &Ask, has_steps: bool, csv: &str, rows: &[Value]) -> Option<String> {
    let mut columns: Vec<String> = if has_steps { vec!["time".to_owned()] } else { Vec::new() };
    columns.extend(ask.groups.iter().map(|(_, name, _)| name.clone()));
    columns.extend(ask.aggregates.clone());
    if ask.compare.is_some() {
        columns.extend(has_steps.then(|| "compare.time".to_owned()));
        columns.extend(ask.aggregates.iter().map(|a| format!("compare.{a}")));
    }
    let lines = read_csv(csv);
    if lines.first() != Some(&columns) || lines.len() != rows.len() + 1 {
        return Some(format!("CSV has columns {:?} and {} lines; {columns:?} and {} rows", lines.first(), lines.len(), rows.len()));
    }
    for (line, row) in lines[1..].iter().zip(rows) {
        let group_end = usize::from(has_steps) + ask.groups.len();
        for (i, (column, field)) in columns.iter().zip(line).enumerate() {
            let json = match column.strip_prefix("compare.") {
                _ if has_steps && i == 0 => &row["time"],
                _ if i < group_end => &row["group"][column],
                Some("time") => &row["compare"]["time"],
                Some(aggregate) => &row["compare"]["values"][aggregate],
                None => &row["values"][column],
            };
            let same = match json {
                Value::Null => field.is_empty(),
                Value::String(text) => text == field,
                number => field.parse().ok() == number.as_f64(),
            };
            if !same || line.len() != columns.len() {
                return Some(format!("CSV has {column} = {field:?}, JSON {json}: {line:?} {row}"));
            }
        }
    }
    None
}
