//! `/v1/cluster`: nodes, shards and where they are, and what an operator may have moved.

mod moves;
mod view;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(view::get_cluster))
        .routes(routes!(moves::drain))
        .routes(routes!(moves::move_shard))
        .routes(routes!(moves::rebalance))
}
