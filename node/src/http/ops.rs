//! `/health`, `/ready`.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use super::AppState;

pub fn router() -> Router<AppState> {
    Router::new().route("/ready", get(ready))
}

async fn ready(State(app): State<AppState>) -> StatusCode {
    if app.mesh.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
