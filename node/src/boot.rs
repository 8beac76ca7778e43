//! Starts and stops a node: sinks first (disk, shards), sources last (the listener); the other way round to stop.

pub mod life;
pub mod logs;
pub mod open_files;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_actors::{Mesh, MeshOptions, StartError};
use tallymesh_storage::clock::{Clock, SystemClock};
use tallymesh_storage::dead_letters::{DeadLetterLimits, DeadLetters};
use tallymesh_storage::disk::{Disk, RealDisk};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Config, ConfigError};
use crate::http::{App, COME_BACK_TIME, Server, keep_live, refuse_while_waiting};

/// What the node stands on, as parameters: a test hands in others.
#[derive(Clone)]
pub struct Machine {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
}

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen on {addr}: {source}; is another node running? choose another address with --http")]
    Listen { addr: String, source: std::io::Error },
}

/// A node that serves.
pub struct RunningNode {
    app: Arc<App>,
    server: Server,
    watching: JoinHandle<()>,
    living: JoinHandle<()>,
}

impl RunningNode {
    /// Recovers the data directory and starts to listen; when it returns, the node takes writes.
    ///
    /// # Errors
    /// See [`BootError`].
    pub async fn start(config: Config, machine: Machine) -> Result<Self, BootError> {
        // The port first: it is the cheapest thing to find taken.
        let listener =
            Server::bind(&config.http.addr).await.map_err(|source| BootError::Listen { addr: config.http.addr.clone(), source })?;
        let address = config.http.addr.clone();
        let data_dir = PathBuf::from(&config.node.data_dir);
        // It also locks the directory, so the store beside it is opened after it.
        let options = mesh_options(&config, &machine);
        let mesh = match config.fleet()? {
            None => Mesh::start(options).await?,
            Some(fleet) => {
                let (waiting, why) = watch::channel(String::new());
                let comes_back = Mesh::is_member(&*options.disk, &options.data_dir);
                let patience = if comes_back { COME_BACK_TIME } else { Duration::ZERO };
                let starting = Mesh::start_fleet(options, fleet, &waiting);
                tokio::select! {
                    biased;
                    mesh = starting => mesh?,
                    never = refuse_while_waiting(&listener, patience, why) => match never {},
                }
            }
        };
        let dead_letters = open_dead_letters(&config, data_dir.join("dead-letters")).await?;
        let app = App::new(config, machine, mesh, dead_letters).map_err(|e| StartError::Invalid(format!("no randomness: {e}")))?;
        app.space.measure();
        let server = Server::start(listener, app.clone()).map_err(|source| BootError::Listen { addr: address, source })?;
        let watching = tokio::spawn(look_after(app.clone()));
        let living = tokio::spawn(keep_live(app.clone()));
        tracing::info!(url = %format!("http://{}", server.address()), node = app.config.node.name, data_dir = %data_dir.display(), "ready");
        for warning in app.config.warnings() {
            tracing::warn!("{}", warning.0);
        }
        Ok(Self { app, server, watching, living })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Drains and closes: when it returns, everything acked is on disk and the directory is free.
    pub async fn shutdown(self) {
        let app = self.app;
        tracing::info!("shutting down");
        app.life.drain();
        // Leads first, so that others take writes while this node still answers.
        app.mesh.leave().await;
        // Load balancers see `/ready` turn before the listener goes.
        tokio::time::sleep(app.config.shutdown_grace()).await;
        self.server.shutdown(app.config.node.drain_timeout.duration()).await;
        let _ = self.living.await;
        app.mesh.shutdown().await;
        let dead_letters = app.dead_letters.clone();
        // Panics of tasks have been printed; there is nothing left to do about them here.
        let _ = tokio::task::spawn_blocking(move || dead_letters.close()).await;
        let _ = self.watching.await;
        tracing::info!("stopped");
    }
}

async fn look_after(app: Arc<App>) {
    let every = app.config.disk.check_interval.duration();
    app.life
        .every(every, || {
            app.space.measure();
            app.clients.forget_idle();
        })
        .await;
}

async fn open_dead_letters(config: &Config, dir: PathBuf) -> Result<DeadLetters, BootError> {
    let limits = DeadLetterLimits { bytes_max: config.dead_letters.bytes_max.0, count_max: config.dead_letters.count_max };
    let opened = tokio::task::spawn_blocking(move || DeadLetters::open(&dir, limits)).await;
    match opened {
        Ok(opened) => Ok(opened.map_err(StartError::from)?),
        Err(e) => Err(StartError::Invalid(format!("opening the dead-letter store: {e}")).into()),
    }
}

pub(crate) fn mesh_options(config: &Config, machine: &Machine) -> MeshOptions {
    MeshOptions {
        disk: machine.disk.clone(),
        clock: machine.clock.clone(),
        data_dir: PathBuf::from(&config.node.data_dir),
        shards: config.cluster.shards,
        settings: config.shard_settings(),
        log_segment_bytes: config.log.segment.0,
        log_bytes_max: config.log.max.0,
        dedup_memory_bytes: config.dedup.memory.0,
        shard_queue_bytes_max: config.ingest.shard_queue_bytes_max.as_usize(),
        tick_interval: config.windows.tick.duration(),
    }
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// The signal handlers could not be installed.
pub async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

impl Machine {
    pub fn this_one() -> Self {
        Self { disk: Arc::new(RealDisk), clock: Arc::new(SystemClock::new()) }
    }
}
