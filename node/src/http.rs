//! The node's HTTP face: what is shared by all handlers, and the router.

mod admin;
mod openapi;
mod pages;
mod problem;
mod read;
mod server;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::response::Response;
use tallymesh_actors::Mesh;
use tallymesh_actors::tail::TailHub;
use tallymesh_protocol::error::{ErrorCode, Problem, nearest};
use tallymesh_storage::dead_letters::DeadLetters;
use tallymesh_storage::space::SpaceThresholds;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;

use crate::boot::Machine;
use crate::boot::life::Life;
use crate::clients::Clients;
use crate::config::Config;
use crate::ingest::space::SpaceGate;
use crate::ingest::{Ingest, Outlets};
use crate::live::{LiveHub, LiveLimits};
use crate::metrics::Metrics;
use crate::unique::UniqueNumbers;

pub use openapi::document;
pub use problem::HttpProblem;
pub use read::live::keep_live;
pub use read::query::CURSOR;
pub use server::Server;
pub use server::body::{TooSlow, body_problem, discard, json_body, small_body};
pub use server::context::RequestId;
pub use server::waiting::{COME_BACK_TIME, refuse_while_waiting};

/// What handlers reach. Cheap to share; axum's state is `Arc<App>`.
pub struct App {
    pub config: Config,
    pub machine: Machine,
    pub mesh: Mesh,
    pub life: Life,
    pub metrics: Arc<Metrics>,
    pub space: Arc<SpaceGate>,
    pub dead_letters: DeadLetters,
    pub tail: TailHub,
    pub live: Arc<LiveHub>,
    pub numbers: Arc<UniqueNumbers>,
    pub ingest: Ingest,
    pub queries: read::query::Gate,
    pub cache: read::query::AnswerCache,
    pub clients: Arc<Clients>,
}

pub type AppState = Arc<App>;

impl App {
    /// # Errors
    /// The system has no randomness to give.
    pub fn new(config: Config, machine: Machine, mesh: Mesh, dead_letters: DeadLetters) -> Result<AppState, rand::rand_core::OsError> {
        let thresholds = SpaceThresholds {
            free_bytes_min: config.disk.readonly_below.0,
            free_permille_min: (config.disk.readonly_below_percent * 10.0) as u64,
        };
        let queries = read::query::Gate::new(config.query.concurrency, config.query.waiters_max);
        let numbers = Arc::new(UniqueNumbers::new()?);
        let cache = read::query::AnswerCache::new(&config.cache, machine.clock.clone(), numbers.clone());
        let outlets = Outlets {
            dead_letters,
            tail: TailHub::new(config.tail.buffer_events, config.tail.subscribers_max),
            metrics: Arc::new(Metrics::default()),
            space: Arc::new(SpaceGate::new(machine.disk.clone(), PathBuf::from(&config.node.data_dir), thresholds)),
            numbers,
        };
        let clients = Arc::new(Clients::new(&config.clients, machine.clock.clone()));
        let ingest = Ingest::new(&config, machine.clock.clone(), mesh.clone(), clients.clone(), outlets.clone());
        let Outlets { dead_letters, tail, metrics, space, numbers } = outlets;
        let live = LiveLimits {
            interval: config.live.interval.duration(),
            watchers_max: config.live.subscribers_max,
            topics_max: config.live.queries_max,
            memory_bytes_max: config.live.memory.as_usize(),
        };
        // The lower half begins at random too.
        let live = Arc::new(LiveHub::new(live, numbers.next() as u64));
        Ok(Arc::new(Self {
            config,
            machine,
            mesh,
            life: Life::default(),
            metrics,
            space,
            dead_letters,
            tail,
            live,
            numbers,
            ingest,
            queries,
            cache,
            clients,
        }))
    }

    /// UTC milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.machine.clock.wall_ms()
    }

    /// Time since some point of this process.
    pub fn monotonic(&self) -> Duration {
        self.machine.clock.monotonic()
    }
}

/// All routes, each with its description. A part brings its own with a `router()`; browsers may send events from the origins.
fn routes_with(origins: &[String]) -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .merge(write::ingest::router(origins))
        .merge(write::dead_letters::router())
        .merge(admin::definitions::router())
        .merge(read::tail::router())
        .merge(read::live::router())
        .merge(read::query::router())
        .merge(read::named::router())
        .merge(read::prometheus::router())
        .merge(read::seed::router())
        .merge(admin::ops::router())
        .merge(admin::cluster::router())
        .merge(openapi::router())
        .merge(pages::docs::router())
        .merge(pages::dashboard::router())
}

pub fn router(app: AppState) -> Router {
    let (routes, _) = routes_with(&app.config.http.cors_origins).split_for_parts();
    routes
        .fallback(no_such_page)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(CatchPanicLayer::custom(server::context::Panicked(app.metrics.clone())))
        .layer(axum::middleware::from_fn_with_state(app.clone(), server::context::frame))
        .with_state(app)
}

/// Answers a request. The one that comes most often goes past the router, whose layers (each a box of its own, copied for every request) cost more than all
/// that is done for a single event.
pub async fn answer(app: &AppState, router: &Router, request: Request) -> Response {
    if write::ingest::goes_directly(&request) {
        let id = server::context::RequestId::of(&request, &app.numbers);
        // In a box, so that it is moved once, and a connection without a request does not hold room for one.
        let run = |request| Box::pin(server::context::caught(&app.metrics, write::ingest::directly(app, id.clone(), request)));
        return server::context::framed(app, id.clone(), write::ingest::PATH, request, run).await;
    }
    let Ok(response) = router.clone().oneshot(request).await;
    response
}

/// Pages that a slip may have meant.
const PAGES: [&str; 21] = [
    "/v1/events",
    "/v1/query",
    "/v1/metrics",
    "/v1/named/active_users",
    "/v1/named/signup_funnel",
    "/v1/named/top_features",
    "/v1/named/error_rate",
    "/v1/dead-letters",
    "/v1/dead-letters/retry",
    "/v1/tail",
    "/v1/live",
    "/v1/ws",
    "/v1/cluster",
    "/health",
    "/ready",
    "/metrics",
    "/api/metrics/daily",
    "/prometheus/api/v1/query",
    "/prometheus/api/v1/query_range",
    "/docs",
    "/openapi.json",
];

async fn no_such_page(uri: Uri) -> HttpProblem {
    let shown: String = uri.path().chars().take(200).collect();
    Problem::new(ErrorCode::NotFound, format!("there is nothing at `{shown}`")).did_you_mean(nearest(&shown, PAGES)).into()
}
