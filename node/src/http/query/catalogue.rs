//! `GET /v1/metrics`: what can be asked for.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use tallymesh_protocol::key::DEFAULT_DIMENSIONS;

use crate::http::AppState;

#[derive(Serialize)]
struct Catalogue {
    metrics: Vec<Metric>,
}

#[derive(Serialize)]
struct Metric {
    name: String,
    kind: Kind,
    description: String,
    dimensions: Vec<String>,
    /// Events that a defined metric counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<String>,
    /// Metric keys in use; null while it is not known.
    cardinality: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Defined,
    Event,
}

/// Defined metrics, then every event name seen, each by name.
pub(super) async fn get_metrics(State(app): State<AppState>) -> Response {
    let definitions = app.mesh.definitions();
    let mut metrics: Vec<Metric> = definitions
        .iter()
        .map(|d| Metric {
            name: d.definition.name.clone(),
            kind: Kind::Defined,
            description: d.definition.description.clone(),
            dimensions: d.definition.dimensions.clone(),
            events: d.definition.event.clone(),
            cardinality: None,
        })
        .collect();
    metrics.sort_by(|a, b| a.name.cmp(&b.name));
    let mut events = app.mesh.event_names().await;
    events.sort();
    events.dedup();
    metrics.extend(events.into_iter().map(|name| Metric {
        description: format!("every `{name}` event"),
        name,
        kind: Kind::Event,
        dimensions: DEFAULT_DIMENSIONS.iter().map(|d| (*d).to_owned()).collect(),
        events: Vec::new(),
        cardinality: None,
    }));
    super::json(&Catalogue { metrics })
}
