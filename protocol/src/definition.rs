//! Metric definitions: own metrics that stand beside the default one of each event name (A3).

use serde::{Deserialize, Serialize};

use crate::key::DEFAULT_DIMENSIONS;
use crate::limits::{DEFINITIONS_MAX, DIMENSIONS_MAX, EVENT_NAME_BYTES_MAX};
use crate::question::filter::Filter;

/// `[[metrics]]` as written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricDefinition {
    pub name: String,
    /// Event names that the metric counts.
    pub event: Vec<String>,
    /// Event fields or property names; a field beats a property of that name. `properties.x` names a property outright.
    #[serde(default)]
    pub dimensions: Vec<String>,
    /// Where the value comes from: `value` or `properties.<name>`.
    #[serde(default = "default_value")]
    pub value: String,
    #[serde(default)]
    pub filter: Vec<String>,
    #[serde(default)]
    pub description: String,
}

fn default_value() -> String {
    "value".to_owned()
}

/// Where a definition reads a text or number of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FieldRef {
    Event,
    Source,
    DeviceType,
    CountryCode,
    SessionId,
    UserId,
    Value,
    SchemaVersion,
    /// A key of `properties`, or an unknown top-level field.
    Property(String),
}

impl FieldRef {
    pub fn parse(text: &str) -> Self {
        match text {
            "event" | "event_name" => Self::Event,
            "source" => Self::Source,
            "device_type" | "device" => Self::DeviceType,
            "country_code" | "country" => Self::CountryCode,
            "session_id" => Self::SessionId,
            "user_id" => Self::UserId,
            "value" => Self::Value,
            "schema_version" => Self::SchemaVersion,
            other => Self::Property(other.strip_prefix("properties.").unwrap_or(other).to_owned()),
        }
    }
}

/// A definition checked and ready for the ingest path.
#[derive(Clone, Debug)]
pub struct CompiledDefinition {
    pub definition: MetricDefinition,
    pub dimensions: Vec<FieldRef>,
    pub value: FieldRef,
    pub filters: Vec<(FieldRef, Filter)>,
}

impl CompiledDefinition {
    /// Whether any part of it needs the event's properties.
    pub fn needs_properties(&self) -> bool {
        self.properties().next().is_some()
    }

    /// Names of the properties that it reads, maybe more than once.
    fn properties(&self) -> impl Iterator<Item = &str> {
        let fields = self.dimensions.iter().chain(self.filters.iter().map(|(f, _)| f)).chain([&self.value]);
        fields.filter_map(|f| match f {
            FieldRef::Property(name) => Some(name.as_str()),
            _ => None,
        })
    }
}

/// All definitions of a cluster at one version.
#[derive(Clone, Debug, Default)]
pub struct DefinitionSet {
    version: u64,
    definitions: Vec<CompiledDefinition>,
    by_event: hashbrown::HashMap<String, EventPlan>,
}

/// What is computed from the events of one name.
#[derive(Clone, Debug, Default)]
pub struct EventPlan {
    definitions: Vec<u32>,
    /// Distinct names of the properties that those definitions read, sorted.
    properties: Vec<String>,
}

impl EventPlan {
    pub fn properties(&self) -> &[String] {
        &self.properties
    }
}

/// Why a definition was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metric `{metric}`: {detail}")]
pub struct DefinitionError {
    pub metric: String,
    pub detail: String,
}

impl DefinitionSet {
    /// Checks and compiles.
    ///
    /// # Errors
    /// The first definition that has a bad name, no events, too many dimensions, one twice, an unusable value or a filter that does not parse.
    pub fn compile(version: u64, definitions: Vec<MetricDefinition>) -> Result<Self, DefinitionError> {
        let mut set = Self { version, ..Self::default() };
        for definition in definitions {
            let fail = |detail: String| DefinitionError { metric: definition.name.clone(), detail };
            let name_is_bad = |n: &str| n.is_empty() || n == "*" || n.len() > EVENT_NAME_BYTES_MAX || n.chars().any(char::is_control);
            if name_is_bad(&definition.name) {
                return Err(fail(format!("the name must be 1-{EVENT_NAME_BYTES_MAX} bytes without control characters, and not `*`")));
            }
            if set.definitions.len() >= DEFINITIONS_MAX {
                return Err(fail(format!("more than {DEFINITIONS_MAX} definitions")));
            }
            if set.get(&definition.name).is_some() {
                return Err(fail("defined twice".to_owned()));
            }
            if definition.event.is_empty() || definition.event.iter().any(|e| name_is_bad(e)) {
                return Err(fail("`event` must list at least one event name".to_owned()));
            }
            if definition.dimensions.len() > DIMENSIONS_MAX {
                return Err(fail(format!("{} dimensions, at most {DIMENSIONS_MAX}", definition.dimensions.len())));
            }
            if let Some((i, twice)) = definition.dimensions.iter().enumerate().find(|(i, d)| definition.dimensions[..*i].contains(d)) {
                return Err(fail(format!("dimension {i} `{twice}` is there twice")));
            }
            let value = FieldRef::parse(&definition.value);
            if !matches!(value, FieldRef::Value) && !definition.value.starts_with("properties.") {
                return Err(fail(format!("`value = \"{}\"` must be \"value\" or \"properties.<name>\"", definition.value)));
            }
            let mut filters = Vec::with_capacity(definition.filter.len());
            for text in &definition.filter {
                let filter = Filter::parse(text).map_err(|e| fail(format!("filter `{text}`: {e}")))?;
                filters.push((FieldRef::parse(&filter.dimension), filter));
            }
            let dimensions = definition.dimensions.iter().map(|d| FieldRef::parse(d)).collect();
            let index = set.definitions.len() as u32;
            let mut events = definition.event.clone();
            events.sort();
            events.dedup();
            for event in events {
                set.by_event.entry(event).or_default().definitions.push(index);
            }
            set.definitions.push(CompiledDefinition { definition, dimensions, value, filters });
        }
        for plan in set.by_event.values_mut() {
            let used = plan.definitions.iter().flat_map(|&i| set.definitions[i as usize].properties());
            plan.properties = used.map(str::to_owned).collect();
            plan.properties.sort();
            plan.properties.dedup();
        }
        Ok(set)
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn is_empty(&self) -> bool {
        self.definitions.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &CompiledDefinition> {
        self.definitions.iter()
    }

    pub fn get(&self, name: &str) -> Option<&CompiledDefinition> {
        self.definitions.iter().find(|d| d.definition.name == name)
    }

    /// The definitions that count events of this name.
    pub fn of_event(&self, event: &str) -> impl Iterator<Item = &CompiledDefinition> {
        self.plan_of(event).into_iter().flat_map(|plan| self.of_plan(plan))
    }

    /// What is computed from events of this name, if any definition counts them.
    pub fn plan_of(&self, event: &str) -> Option<&EventPlan> {
        self.by_event.get(event)
    }

    /// The definitions of a plan of this set.
    pub fn of_plan<'s>(&'s self, plan: &'s EventPlan) -> impl Iterator<Item = &'s CompiledDefinition> + 's {
        plan.definitions.iter().map(|&i| &self.definitions[i as usize])
    }

    /// Names of a metric's dimensions in key order: of the definition by that name, else of a default metric.
    pub fn dimensions_of(&self, metric: &str) -> Vec<String> {
        match self.get(metric) {
            Some(d) => d.definition.dimensions.clone(),
            None => DEFAULT_DIMENSIONS.iter().map(|d| (*d).to_owned()).collect(),
        }
    }
}
