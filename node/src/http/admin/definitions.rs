//! `/v1/definitions`: the metrics defined beside those that each event name has by itself (A3). What is defined here holds for what arrives from then on.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use tallymesh_protocol::definition::MetricDefinition;
use tallymesh_protocol::error::{ErrorCode, Problem};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::openapi::{ChangeProblems, PageProblems, RemoveProblems};
use super::super::{App, AppState, HttpProblem, json_body};

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, replace, add)).routes(routes!(remove))
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DefinitionSet)]
struct Definitions {
    /// One more with every change. A change names the version that it was made on, and is refused if there has been another.
    version: u64,
    #[schema(value_type = Vec<Object>)]
    definitions: Vec<MetricDefinition>,
}

fn current(app: &App) -> Definitions {
    let set = app.mesh.definitions();
    Definitions { version: set.version(), definitions: set.iter().map(|compiled| compiled.definition.clone()).collect() }
}

async fn change(app: &App, wanted: Definitions) -> Result<Json<Definitions>, HttpProblem> {
    app.mesh.define(wanted.version, wanted.definitions).await.map_err(|why| Problem::new(ErrorCode::BadParameter, why))?;
    Ok(Json(current(app)))
}

/// Defined metrics
#[utoipa::path(get, path = "/v1/definitions", operation_id = "get_definitions", tag = "catalogue",
    responses((status = 200, description = "All of them.", body = Definitions), PageProblems))]
async fn list(State(app): State<AppState>) -> Json<Definitions> {
    Json(current(&app))
}

/// Replace all defined metrics
#[utoipa::path(put, path = "/v1/definitions", operation_id = "replace_definitions", tag = "catalogue", request_body = Definitions,
    responses((status = 200, description = "As they are now.", body = Definitions), ChangeProblems))]
async fn replace(State(app): State<AppState>, body: Body) -> Result<Json<Definitions>, HttpProblem> {
    change(&app, json_body(body).await?).await
}

/// Define a metric
///
/// One of the same name is replaced.
#[utoipa::path(post, path = "/v1/definitions", operation_id = "add_definition", tag = "catalogue", request_body = Object,
    responses((status = 200, description = "All of them.", body = Definitions), ChangeProblems))]
async fn add(State(app): State<AppState>, body: Body) -> Result<Json<Definitions>, HttpProblem> {
    let new: MetricDefinition = json_body(body).await?;
    let mut wanted = current(&app);
    match wanted.definitions.iter_mut().find(|definition| definition.name == new.name) {
        Some(definition) => *definition = new,
        None => wanted.definitions.push(new),
    }
    change(&app, wanted).await
}

/// Remove a defined metric
#[utoipa::path(delete, path = "/v1/definitions/{name}", operation_id = "remove_definition", tag = "catalogue", params(("name" = String, Path, description = "Name of a defined metric.")),
    responses((status = 200, description = "Those that are left.", body = Definitions), RemoveProblems))]
async fn remove(State(app): State<AppState>, Path(name): Path<String>) -> Result<Json<Definitions>, HttpProblem> {
    let mut wanted = current(&app);
    let before = wanted.definitions.len();
    wanted.definitions.retain(|definition| definition.name != name);
    if wanted.definitions.len() == before {
        return Err(Problem::new(ErrorCode::NotFound, format!("there is no metric defined as `{name}`")).field("name").into());
    }
    change(&app, wanted).await
}
