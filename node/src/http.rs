//! The node's HTTP face: what is shared by all handlers, and the router.

mod home;
mod ops;
mod problem;
mod query;
mod server;

use std::sync::Arc;

use axum::Router;
use tallymesh_actors::Mesh;

use crate::boot::Machine;
use crate::config::Config;

pub use problem::HttpProblem;
pub use server::Server;

/// What handlers reach. Cheap to share; axum's state is `Arc<App>`.
pub struct App {
    pub config: Config,
    pub machine: Machine,
    pub mesh: Mesh,
    pub queries: query::Gate,
}

pub type AppState = Arc<App>;

impl App {
    pub fn new(config: Config, machine: Machine, mesh: Mesh) -> AppState {
        let queries = query::Gate::new(config.query.concurrency, config.query.waiters_max);
        Arc::new(Self { config, machine, mesh, queries })
    }

    /// UTC milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.machine.clock.wall_ms()
    }
}

/// All routes. A part brings its own with a `router()`.
pub fn router(app: AppState) -> Router {
    Router::new().merge(ops::router()).merge(query::router()).merge(home::router()).with_state(app)
}
