//! A random question, as parameters, and what the plain count says its answer should be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::calendar::{DAY, HOUR, MINUTE, Zone, date_text};
use super::events::NAMES;
use super::model::{Cell, Condition, Field, Model, Text};
use super::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    Minute,
    FiveMinutes,
    QuarterHour,
    Hour,
    Day,
}

impl Width {
    pub const ALL: [(Self, &'static str); 5] =
        [(Self::Minute, "1m"), (Self::FiveMinutes, "5m"), (Self::QuarterHour, "15m"), (Self::Hour, "1h"), (Self::Day, "1d")];

    pub fn ms(self) -> i64 {
        [MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, DAY][self as usize]
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    None,
    Auto,
    Every(Width),
}

#[derive(Clone, Debug)]
pub struct Ask {
    pub metric: String,
    pub aggregates: Vec<String>,
    pub from: i64,
    pub to: i64,
    pub step: Step,
    /// As asked, as answered, and where it looks.
    pub groups: Vec<(String, String, Field)>,
    pub conditions: Vec<Condition<Field>>,
    pub order: &'static str,
    pub fill: &'static str,
    pub compare: Option<&'static str>,
    pub zone: Zone,
    pub by_post: bool,
    params: Vec<(&'static str, String)>,
}

pub type Group = Vec<Text>;

/// One range of an answer.
#[derive(Debug)]
pub struct Leg<'m> {
    pub from: i64,
    pub to: i64,
    /// Empty without a step.
    pub starts: Vec<i64>,
    pub cells: BTreeMap<(usize, Group), Cell<'m>>,
    pub width: Option<Width>,
    /// Coarsest window that fits into a step.
    pub grain: &'static str,
    /// Before this nothing is promised.
    pub kept_from: i64,
}

#[derive(Debug)]
pub struct Expected<'m> {
    pub current: Leg<'m>,
    pub earlier: Option<Leg<'m>>,
}

impl Expected<'_> {
    pub fn complete(&self) -> bool {
        [Some(&self.current), self.earlier.as_ref()].into_iter().flatten().all(|leg| leg.from >= leg.kept_from)
    }

    pub fn groups(&self) -> BTreeSet<&Group> {
        let legs = [Some(&self.current), self.earlier.as_ref()];
        legs.into_iter().flatten().flat_map(|leg| leg.cells.keys().map(|(_, group)| group)).collect()
    }
}

impl Ask {
    pub fn random(random: &mut Random, model: &Model, now: i64) -> Self {
        let metric = match random.below(4) {
            0 => "*".to_owned(),
            1 => (*random.pick(&NAMES)).to_owned(),
            _ if model.metrics.is_empty() => "*".to_owned(),
            _ => random.pick(&model.metrics).name.clone(),
        };
        let zone = random.pick(&Zone::all()).clone();
        let mut params: Vec<(&'static str, String)> = vec![("metric", metric.clone())];
        if zone.name != "UTC" || random.one_in(2) {
            params.push(("tz", zone.name.to_owned()));
        }
        let (from, to) = range(random, &zone, now, &mut params);
        let step = step(random, to - from, &mut params);
        let aggregates = aggregates(random, &mut params);
        let dimensions = model.dimensions(&metric);
        let groups = groups(random, &dimensions, &mut params);
        let conditions = conditions(random, &dimensions, &mut params);
        let mut choose = |name: &'static str, choices: &[&'static str]| {
            let choice = *random.pick(choices);
            if choice != choices[0] {
                params.push((name, choice.to_owned()));
            }
            choice
        };
        let order = choose("order", &["time", "-time", "value", "-value"]);
        let fill = choose("fill", &["none", "none", "zero", "null"]);
        let compare = choose("compare", &["", "", "", "previous", "day", "week"]);
        let by_post = random.one_in(3);
        Self {
            metric,
            aggregates,
            from,
            to,
            step,
            groups,
            conditions,
            order,
            fill,
            compare: Some(compare).filter(|c| !c.is_empty()),
            zone,
            by_post,
            params,
        }
    }

    /// Path and query of a page.
    pub fn url(&self, more: &[(&str, String)]) -> String {
        let pairs = self.params.iter().map(|(n, v)| (*n, v)).chain(more.iter().map(|(n, v)| (*n, v)));
        let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", percent(value))).collect();
        format!("/v1/query?{}", pairs.join("&"))
    }

    /// The same as a JSON object: lists as arrays or as text, numbers as numbers.
    pub fn body(&self, more: &[(&str, String)]) -> Value {
        let mut body = Map::new();
        for (name, value) in self.params.iter().map(|(n, v)| (*n, v)).chain(more.iter().map(|(n, v)| (*n, v))) {
            match name {
                "filter" => {
                    let filters = body.entry(name).or_insert_with(|| json!([])).as_array_mut().expect("a list");
                    filters.push(json!(value));
                }
                "limit" => drop(body.insert(name.to_owned(), json!(value.parse::<u64>().expect("a number")))),
                _ => drop(body.insert(name.to_owned(), json!(value))),
            }
        }
        Value::Object(body)
    }

    /// # Errors
    /// The code of the problem that is the right answer.
    pub fn expect<'m>(&self, model: &'m Model, now: i64) -> Result<Expected<'m>, &'static str> {
        let current = self.leg(model, now, self.from, self.to, self.step)?;
        let back = |days| Some((self.zone.days_before(self.from, days), self.zone.days_before(self.to, days)));
        let range = match self.compare {
            Some("previous") => Some((self.from - (self.to - self.from), self.from)),
            Some("day") => back(1),
            Some("week") => back(7),
            _ => None,
        };
        let step = current.width.map_or(Step::None, Step::Every);
        let earlier = match range {
            Some((from, to)) if from >= to => return Err("bad_range"),
            Some((from, to)) => Some(self.leg(model, now, from, to, step)?),
            None => None,
        };
        if model.metric(&self.metric).is_none() && self.metric != "*" && !model.facts.iter().any(|f| f.name == self.metric) {
            return Err("unknown_metric");
        }
        Ok(Expected { current, earlier })
    }

    fn leg<'m>(&self, model: &'m Model, now: i64, from: i64, to: i64, step: Step) -> Result<Leg<'m>, &'static str> {
        let [minute_from, hour_from, day_from] = model.kept_from(now);
        let unit = |at: i64| match at {
            at if at >= minute_from => MINUTE,
            at if at >= hour_from => HOUR,
            _ => DAY,
        };
        let from = from.div_euclid(unit(from)) * unit(from);
        let to = -(-to).div_euclid(unit(to)) * unit(to);
        let steps = |width: Width| {
            if (to - from) / width.ms() >= 100_000 {
                return Err("too_many_points");
            }
            let starts = self.zone.steps(from, to, width);
            let is_cut = |start: &i64| *start > from && start.rem_euclid(unit(*start)) != 0;
            if starts.iter().any(is_cut) { Err("grain_unavailable") } else { Ok(starts) }
        };
        let (width, starts) = match step {
            Step::None => (None, Vec::new()),
            Step::Every(width) => (Some(width), steps(width)?),
            Step::Auto => {
                let fine = |width: &Width| *width == Width::Day || (to - from) / width.ms() <= 300;
                let widths = Width::ALL.iter().map(|(w, _)| *w).filter(fine);
                let found = widths.map(|w| (w, steps(w))).find(|(w, s)| s.is_ok() || *w == Width::Day);
                let (width, starts) = found.expect("a day is always tried");
                (Some(width), starts?)
            }
        };
        let place = |at: i64| starts.partition_point(|s| *s <= at).saturating_sub(1);
        let mut cells: BTreeMap<(usize, Group), Cell<'m>> = BTreeMap::new();
        for counted in model.counted(&self.metric) {
            let fact = counted.fact;
            let passes = self.conditions.iter().all(|c| c.passes(&c.dimension.of(fact)));
            if passes && (from..to).contains(&fact.time) {
                let group = self.groups.iter().map(|(_, _, field)| field.of(fact)).collect();
                cells.entry((place(fact.time), group)).or_default().add(&counted);
            }
        }
        let borders: Vec<i64> = starts.iter().copied().skip(1).filter(|s| *s > from).chain([to]).collect();
        let spans: Vec<(i64, i64)> = [from].iter().chain(&borders).copied().zip(borders.iter().copied()).collect();
        let fits = |unit: i64| spans.iter().any(|(a, b)| -(-a).div_euclid(unit) * unit + unit <= *b);
        let grain = if fits(DAY) {
            "1d"
        } else if fits(HOUR) {
            "1h"
        } else {
            "1m"
        };
        Ok(Leg { from, to, starts, cells, width, grain, kept_from: day_from })
    }
}

fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

fn range(random: &mut Random, zone: &Zone, now: i64, params: &mut Vec<(&'static str, String)>) -> (i64, i64) {
    if random.one_in(3) {
        let (text, ms) = *random.pick(&[
            ("90s", 90_000),
            ("15m", 15 * MINUTE),
            ("1h", HOUR),
            ("24h", DAY),
            ("3d", 3 * DAY),
            ("2w", 14 * DAY),
            ("80d", 80 * DAY),
        ]);
        params.push(("range", text.to_owned()));
        return (now - ms, now);
    }
    let span = *random.pick(&[MINUTE, HOUR, 5 * HOUR, DAY, 3 * DAY, 10 * DAY, 40 * DAY]);
    let align = *random.pick(&[1, 1, MINUTE, 15 * MINUTE, HOUR, DAY]);
    let to = now + random.between(-span - DAY, span.min(2 * HOUR));
    let to = if align > 1 { zone.instant((to + zone.offset(to)).div_euclid(align) * align) } else { to };
    let from = to - span + *random.pick(&[0, 0, 1, -1, 30_001, -7 * MINUTE]);
    let mut write = |random: &mut Random, name: &'static str, at: i64| {
        let local = at + zone.offset(at);
        let is_midnight = local.rem_euclid(DAY) == 0 && zone.instant(local) == at;
        let (day, clock) = (at.div_euclid(DAY), at.rem_euclid(DAY));
        let text = match random.below(3) {
            0 if is_midnight => date_text(local.div_euclid(DAY)),
            0 | 1 => at.to_string(),
            _ => {
                format!("{}T{:02}:{:02}:{:02}.{:03}Z", date_text(day), clock / HOUR, clock / MINUTE % 60, clock / 1_000 % 60, clock % 1_000)
            }
        };
        params.push((name, text));
    };
    write(random, "from", from);
    if to == now || !random.one_in(8) || from >= now {
        write(random, "to", to);
        (from, to)
    } else {
        (from, now)
    }
}

fn step(random: &mut Random, length: i64, params: &mut Vec<(&'static str, String)>) -> Step {
    match random.below(6) {
        0 | 1 => Step::None,
        2 => {
            params.push(("step", "auto".to_owned()));
            Step::Auto
        }
        _ => {
            // Not so many steps that an answer takes long to read.
            let fits: Vec<_> = Width::ALL.iter().filter(|(w, _)| length / w.ms() <= 3_000 || length / w.ms() > 100_010).collect();
            let (width, text) = **random.pick(&fits);
            params.push(("step", text.to_owned()));
            Step::Every(width)
        }
    }
}

fn aggregates(random: &mut Random, params: &mut Vec<(&'static str, String)>) -> Vec<String> {
    const ALL: [&str; 16] =
        ["count", "sum", "min", "max", "avg", "last", "users", "sessions", "p50", "p90", "p95", "p99", "p0", "p100", "p99.9", "p12.34"];
    let mut all = ALL;
    random.shuffle(&mut all);
    let chosen: Vec<String> = all[..1 + random.below(6)].iter().map(|a| (*a).to_owned()).collect();
    if chosen != ["count"] || random.one_in(2) {
        params.push(("agg", chosen.join(",")));
    }
    chosen
}

fn groups(random: &mut Random, dimensions: &[(String, Field)], params: &mut Vec<(&'static str, String)>) -> Vec<(String, String, Field)> {
    let mut dimensions = dimensions.to_vec();
    random.shuffle(&mut dimensions);
    let count = random.below(dimensions.len() + 1).min(random.below(5));
    let groups: Vec<(String, String, Field)> = dimensions[..count]
        .iter()
        .map(|(name, field)| {
            (if random.one_in(2) { name.clone() } else { random.pick(&field.spellings()).clone() }, name.clone(), field.clone())
        })
        .collect();
    if !groups.is_empty() {
        let asked: Vec<String> = groups.iter().map(|(asked, ..)| asked.replace('\\', r"\\").replace(',', r"\,")).collect();
        params.push(("group_by", asked.join(",")));
    }
    groups
}

fn conditions(random: &mut Random, dimensions: &[(String, Field)], params: &mut Vec<(&'static str, String)>) -> Vec<Condition<Field>> {
    let mut conditions = Vec::new();
    if dimensions.is_empty() {
        return conditions;
    }
    let mut texts = Vec::new();
    for _ in 0..[0, 0, 0, 1, 1, 2][random.below(6)] {
        let (_, field) = random.pick(dimensions).clone();
        let condition = Condition::random(random, field.clone(), &field.values());
        let name = random.pick(&field.spellings()).clone();
        texts.push(condition.text(&name));
        conditions.push(condition);
    }
    if texts.len() > 1 && random.one_in(2) {
        texts = vec![texts.join(",")];
    }
    params.extend(texts.into_iter().map(|text| ("filter", text)));
    conditions
}
