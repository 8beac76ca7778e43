//! `GET /v1/metrics`: what can be asked for, and what it uses of its cardinality budget.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use tallymesh_actors::{MetricUse, Offender};
use tallymesh_protocol::cardinality::{CardinalityBudget, OTHER};
use tallymesh_protocol::key::{DEFAULT_DIMENSIONS, MetricKind};
use utoipa::ToSchema;

use crate::http::AppState;
use crate::http::openapi::PageProblems;

#[derive(Serialize, ToSchema)]
pub(super) struct Catalogue {
    metrics: Vec<Metric>,
}

#[derive(Serialize, ToSchema)]
struct Metric {
    name: String,
    kind: Kind,
    description: String,
    dimensions: Vec<String>,
    /// Events that a defined metric counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    events: Vec<String>,
    /// Keys (combinations of dimension values) in use.
    cardinality: u64,
    /// Keys there may be; beyond it new ones count in the group `__other__`. Of `__other__` itself: event names of one shard.
    budget: u64,
    /// Events that were put there, since the data directory was made.
    other_events: u64,
    /// While some were: the dimensions with the most values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    offenders: Vec<Offending>,
}

#[derive(Serialize, ToSchema)]
struct Offending {
    dimension: String,
    /// Distinct values that were kept.
    values: u64,
    /// Some of the newest.
    samples: Vec<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MetricKind)]
enum Kind {
    Defined,
    Event,
}

/// What can be asked for
///
/// Defined metrics, then every event name seen, each by name.
#[utoipa::path(get, path = "/v1/metrics", operation_id = "list_metrics", tag = "query", responses((status = 200, description = "The catalogue.", body = Catalogue), PageProblems))]
pub(super) async fn get_metrics(State(app): State<AppState>) -> Response {
    let budget = CardinalityBudget::from(&app.config.cardinality);
    let uses = app.mesh.metric_uses().await;
    let (defined, events): (Vec<MetricUse>, Vec<MetricUse>) = uses.into_iter().partition(|m| m.kind == MetricKind::Defined);
    let mut defined: BTreeMap<String, MetricUse> = defined.into_iter().map(|m| (m.metric.clone(), m)).collect();
    let definitions = app.mesh.definitions();
    let mut metrics: Vec<Metric> = definitions
        .iter()
        .map(|d| {
            let d = &d.definition;
            let used = defined.remove(&d.name);
            Metric::new(Kind::Defined, d.name.clone(), d.description.clone(), &d.dimensions, used, budget.of(&d.name)).of(&d.event)
        })
        .collect();
    metrics.sort_by(|a, b| a.name.cmp(&b.name));
    let dimensions = DEFAULT_DIMENSIONS.map(str::to_owned);
    metrics.extend(events.into_iter().map(|event| {
        let name = event.metric.clone();
        let (description, keys) = if name == OTHER {
            ("events whose names came when the budget of event names was used up".to_owned(), budget.event_names)
        } else {
            (format!("every `{name}` event"), budget.of(&name))
        };
        Metric::new(Kind::Event, name, description, &dimensions, Some(event), keys)
    }));
    super::json(&Catalogue { metrics })
}

impl Metric {
    fn new(kind: Kind, name: String, description: String, dimensions: &[String], used: Option<MetricUse>, budget: u64) -> Self {
        let (keys, other_events, offenders) = used.map_or((0, 0, Vec::new()), |m| (m.keys, m.other_rows, m.offenders));
        let offending = |o: Offender| Offending {
            dimension: match o.dimension {
                None => "event".to_owned(),
                // A key made by another version of the definition may have more.
                Some(at) => dimensions.get(at).cloned().unwrap_or_else(|| format!("dimension {at}")),
            },
            values: o.values,
            samples: o.samples,
        };
        Self {
            name,
            kind,
            description,
            dimensions: dimensions.to_vec(),
            events: Vec::new(),
            cardinality: keys,
            budget,
            other_events,
            offenders: offenders.into_iter().map(offending).collect(),
        }
    }

    /// Names the events that it counts.
    fn of(self, events: &[String]) -> Self {
        Self { events: events.to_vec(), ..self }
    }
}
