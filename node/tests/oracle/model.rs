//! What a node should know: a list of facts, a map of what was seen, and metrics as closures over them would be.

use std::collections::{BTreeMap, HashMap};

use tallymesh_protocol::definition::MetricDefinition;

use super::calendar::{DAY, HOUR};
use super::events::{COUNTRIES, DEVICES, Fact, NAMES, PROPERTIES, SOURCES, Sent};
use super::random::Random;

pub type Text = Option<String>;

/// Where a metric looks.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    Event,
    Source,
    Device,
    Country,
    Session,
    User,
    Value,
    Property(&'static str),
}

impl Field {
    pub fn of(&self, fact: &Fact) -> Text {
        match self {
            Self::Event => Some(fact.name.clone()),
            Self::Source => fact.source.clone(),
            Self::Device => fact.device.clone(),
            Self::Country => fact.country.clone(),
            Self::Session => fact.session.clone(),
            Self::User => fact.user.clone(),
            Self::Value => fact.value.text.clone(),
            Self::Property(name) => fact.properties.get(*name).and_then(|p| p.text.clone()),
        }
    }

    /// Every way to write it.
    pub fn spellings(&self) -> Vec<String> {
        match self {
            Self::Event => vec!["event".into(), "event_name".into()],
            Self::Source => vec!["source".into()],
            Self::Device => vec!["device_type".into(), "device".into()],
            Self::Country => vec!["country_code".into(), "country".into()],
            Self::Session => vec!["session_id".into()],
            Self::User => vec!["user_id".into()],
            Self::Value => vec!["value".into()],
            // A property by the name of a field has to be named outright.
            Self::Property("country") => vec!["properties.country".into()],
            Self::Property(name) => vec![(*name).to_owned(), format!("properties.{name}")],
        }
    }

    pub fn values(&self) -> Vec<Text> {
        let all = |texts: &[Option<&str>]| texts.iter().map(|t| t.map(str::to_owned)).collect();
        match self {
            Self::Event => NAMES.iter().map(|n| Some((*n).to_owned())).collect(),
            Self::Source => all(&SOURCES),
            Self::Device => all(&DEVICES),
            Self::Country => all(&COUNTRIES),
            Self::Session | Self::User => all(&[None, Some("1"), Some("ué2"), Some("sé3")]),
            Self::Value => all(&[None, Some("1"), Some("1.0"), Some("0.1")]),
            Self::Property(_) => {
                all(&[None, Some("free"), Some("pro"), Some("true"), Some("5"), Some("1.0"), Some(r"a|b\c:d"), Some("ü, \"x\"")])
            }
        }
    }
}

/// `dim:a|b`, structured.
#[derive(Clone, Debug)]
pub struct Condition<D> {
    pub dimension: D,
    pub negated: bool,
    pub values: Vec<Text>,
}

impl<D> Condition<D> {
    pub fn random(random: &mut Random, dimension: D, values: &[Text]) -> Self {
        let count = 1 + random.below(3);
        // An empty text cannot be written: it stands for null.
        let mut pick = || random.pick(values).clone().filter(|v| !v.is_empty());
        let values = (0..count).map(|_| pick()).collect();
        Self { dimension, negated: random.one_in(3), values }
    }

    pub fn passes(&self, value: &Text) -> bool {
        self.values.contains(value) != self.negated
    }

    pub fn text(&self, name: &str) -> String {
        let escape = |text: &str| text.replace('\\', r"\\").replace('|', r"\|").replace(':', r"\:").replace(',', r"\,");
        let values: Vec<String> = self.values.iter().map(|v| v.as_deref().map(escape).unwrap_or_default()).collect();
        format!("{}{}:{}", if self.negated { "!" } else { "" }, escape(name), values.join("|"))
    }
}

#[derive(Clone, Debug)]
pub struct Metric {
    pub name: String,
    pub events: Vec<&'static str>,
    /// As the definition spells them.
    pub dimensions: Vec<(String, Field)>,
    pub value: Field,
    pub conditions: Vec<Condition<Field>>,
    pub definition: MetricDefinition,
}

impl Metric {
    pub fn random(random: &mut Random, number: usize) -> Self {
        // One bears the name of an event, which it hides.
        let name = if number == 0 { "page_view".to_owned() } else { format!("metric {number} – ü") };
        let events: Vec<&str> = (0..1 + random.below(3)).map(|_| *random.pick(&NAMES)).collect();
        let mut fields = vec![Field::Event, Field::Source, Field::Device, Field::Country, Field::Session, Field::User, Field::Value];
        fields.extend(PROPERTIES.iter().map(|p| Field::Property(p)));
        random.shuffle(&mut fields);
        let spell = |random: &mut Random, field: &Field| random.pick(&field.spellings()).clone();
        let count = random.below(5);
        let dimensions: Vec<(String, Field)> = fields[..count].iter().map(|f| (spell(random, f), f.clone())).collect();
        let mut conditions = Vec::new();
        let mut filter = Vec::new();
        for _ in 0..[0, 0, 1, 2][random.below(4)] {
            let field = random.pick(&fields).clone();
            let condition = Condition::random(random, field.clone(), &field.values());
            filter.push(condition.text(&spell(random, &field)));
            conditions.push(condition);
        }
        let names = ["n", "amount", "plan"];
        let value = if random.one_in(2) { Field::Value } else { Field::Property(names[random.below(names.len())]) };
        let definition = MetricDefinition {
            name: name.clone(),
            event: events.iter().map(|e| (*e).to_owned()).collect(),
            dimensions: dimensions.iter().map(|d| d.0.clone()).collect(),
            value: if value == Field::Value { "value".to_owned() } else { format!("properties.{}", property_name(&value)) },
            filter,
            description: String::new(),
        };
        Self { name, events, dimensions, value, conditions, definition }
    }

    fn counts(&self, fact: &Fact) -> bool {
        self.events.contains(&fact.name.as_str()) && self.conditions.iter().all(|c| c.passes(&c.dimension.of(fact)))
    }
}

fn property_name(field: &Field) -> &'static str {
    match field {
        Field::Property(name) => name,
        _ => "value",
    }
}

/// What an ack should say of one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Counted,
    Duplicate,
    Refused(&'static str),
}

/// How long each grain is kept, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    pub minute: Option<i64>,
    pub hour: Option<i64>,
    pub day: Option<i64>,
}

type Identity = (String, String, Text, Text, Text);

pub struct Model {
    pub kept: Kept,
    pub horizon: i64,
    pub metrics: Vec<Metric>,
    pub facts: Vec<Fact>,
    seen: HashMap<Identity, i64>,
}

/// One event as one metric counts it.
pub struct Counted<'m> {
    pub fact: &'m Fact,
    pub value: Option<f64>,
}

impl Model {
    pub fn new(kept: Kept, horizon: i64, metrics: Vec<Metric>) -> Self {
        Self { kept, horizon, metrics, facts: Vec::new(), seen: HashMap::new() }
    }

    fn identity(fact: &Fact) -> Option<Identity> {
        let id = fact.id.clone()?;
        Some((id, fact.name.clone(), fact.source.clone(), fact.device.clone(), fact.country.clone()))
    }

    /// Whether it is a matter of the second whether the event is still known: nothing is promised then.
    pub fn is_undecided(&self, sent: &Sent, now: i64) -> bool {
        let first = Self::identity(&sent.fact).and_then(|i| self.seen.get(&i));
        first.is_some_and(|first| (now - first - self.horizon).abs() <= 2_000)
    }

    pub fn offer(&mut self, sent: &Sent, now: i64) -> Outcome {
        if let Some(code) = sent.refused {
            return Outcome::Refused(code);
        }
        let mut fact = sent.fact.clone();
        if !sent.has_time {
            fact.time = now;
        }
        if fact.time > now + HOUR {
            return Outcome::Refused("future");
        }
        if self.kept.day.is_some_and(|kept| fact.time < now - kept) {
            return Outcome::Refused("expired");
        }
        if let Some(identity) = Self::identity(&fact) {
            match self.seen.get(&identity) {
                Some(first) if now - first <= self.horizon => return Outcome::Duplicate,
                _ => self.seen.insert(identity, now),
            };
        }
        self.facts.push(fact);
        Outcome::Counted
    }

    pub fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|m| m.name == name)
    }

    /// Dimensions of a metric as answers spell them.
    pub fn dimensions(&self, metric: &str) -> Vec<(String, Field)> {
        let default =
            [("source", Field::Source), ("device_type", Field::Device), ("country_code", Field::Country), ("event", Field::Event)];
        match self.metric(metric) {
            Some(own) => own.dimensions.clone(),
            None => default.into_iter().map(|(name, field)| (name.to_owned(), field)).collect(),
        }
    }

    pub fn counted(&self, metric: &str) -> Vec<Counted<'_>> {
        let facts = self.facts.iter();
        let plain = |fact| Counted { fact, value: fact.value.number };
        match self.metric(metric) {
            None if metric == "*" => facts.map(plain).collect(),
            None => facts.filter(|f| f.name == metric).map(plain).collect(),
            Some(own) => {
                let value = |fact: &Fact| match &own.value {
                    Field::Property(name) => fact.properties.get(*name).and_then(|p| p.number),
                    _ => fact.value.number,
                };
                facts.filter(|f| own.counts(f)).map(|fact| Counted { fact, value: value(fact) }).collect()
            }
        }
    }

    /// First moments at which minutes, hours and days are kept: minutes go by whole hours, the others by whole days.
    pub fn kept_from(&self, now: i64) -> [i64; 3] {
        let from = |kept: Option<i64>, by: i64| kept.map_or(i64::MIN, |kept| (now - kept).div_euclid(by) * by);
        let day = from(self.kept.day, DAY);
        let hour = from(self.kept.hour, DAY).max(day);
        [from(self.kept.minute, HOUR).max(hour), hour, day]
    }
}

/// Everything that can be said of one cell.
#[derive(Debug, Default)]
pub struct Cell<'m> {
    pub count: u64,
    pub values: Vec<f64>,
    /// Time and value of the events that have one.
    pub timed: Vec<(i64, f64)>,
    pub users: BTreeMap<&'m str, u32>,
    pub sessions: BTreeMap<&'m str, u32>,
    pub facts: Vec<&'m Fact>,
}

impl<'m> Cell<'m> {
    pub fn add(&mut self, counted: &Counted<'m>) {
        self.count += 1;
        if let Some(value) = counted.value {
            self.values.push(value);
            self.timed.push((counted.fact.time, value));
        }
        if let Some(user) = &counted.fact.user {
            *self.users.entry(user).or_default() += 1;
        }
        if let Some(session) = &counted.fact.session {
            *self.sessions.entry(session).or_default() += 1;
        }
        self.facts.push(counted.fact);
    }
}
