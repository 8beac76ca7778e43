//! The node's configuration: one value, read in layers, checked once at boot and trusted afterwards.
//!
//! Layers, later ones win: defaults, the file, `TALLYMESH_SECTION__KEY` in the environment, `--set section.key=value`, then flags of their own.

mod check;
mod layers;
mod peer;
mod sections;
pub mod units;

use std::path::PathBuf;

pub use check::Warning;
pub use layers::{ENV_PREFIX, Sources};
pub use peer::{Peer, PeerAccess, Secret};
pub use sections::{
    Cache, Cardinality, Clients, Cluster, Config, DeadLetters, Dedup, Disk, Http, Ingest, Live, Log, LogFormat, Logs, Node, Query,
    Retention, Tail, Windows,
};

use std::net::ToSocketAddrs;

use tallymesh_actors::fleet::FleetOptions;
use tallymesh_protocol::cardinality::CardinalityBudget;
use tallymesh_protocol::event::command::ShardSettings;

/// Why the configuration was refused. Messages name the key and say what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{origin} is not valid TOML: {detail}")]
    Syntax { origin: String, detail: String },
    #[error("unknown setting `{key}` in {origin}{}", .guess.as_ref().map(|g| format!("; did you mean `{g}`?")).unwrap_or_default())]
    Unknown { origin: String, key: String, guess: Option<String> },
    #[error("`{text}` is not `section.key=value`")]
    NotAnAssignment { text: String },
    #[error("{0}")]
    Value(String),
    #[error("`{key}` {problem}")]
    Invalid { key: &'static str, problem: String },
}

impl Config {
    /// Reads all layers and checks the result.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let config = layers::merge(sources)?;
        config.check()?;
        Ok(config)
    }

    /// Replicas of each shard: what `auto` stands for is decided here.
    pub fn replication(&self) -> u8 {
        match self.cluster.replication {
            units::OrAuto::Set(n) => n,
            units::OrAuto::Auto if self.cluster.founders.len() >= 3 => 3,
            units::OrAuto::Auto => 1,
        }
    }

    pub fn shutdown_grace(&self) -> std::time::Duration {
        match self.node.shutdown_grace {
            units::OrAuto::Set(period) => period.duration(),
            units::OrAuto::Auto if self.peer.addr.is_empty() => std::time::Duration::ZERO,
            units::OrAuto::Auto => std::time::Duration::from_secs(2),
        }
    }

    /// How this node takes part in a fleet; none is a node of its own.
    ///
    /// # Errors
    /// Secrets that cannot be read, an address that is none.
    pub fn fleet(&self) -> Result<Option<FleetOptions>, ConfigError> {
        let Some(access) = self.peer.access()? else { return Ok(None) };
        let invalid = |problem: String| ConfigError::Invalid { key: "peer.addr", problem };
        let mut listen = self.peer.addr.to_socket_addrs().map_err(|e| invalid(e.to_string()))?;
        let listen = listen.next().ok_or_else(|| invalid("is no address".to_owned()))?;
        let advertise = self.peer.advertised().to_owned();
        // A node with a peer port that is told of nobody is the only founder.
        let founders = if self.cluster.founders.is_empty() { vec![advertise.clone()] } else { self.cluster.founders.clone() };
        Ok(Some(FleetOptions {
            name: self.node.name.clone(),
            cluster_name: self.cluster.name.clone(),
            listen,
            advertise,
            founders,
            http: self.http.addr.clone(),
            cookie: access.cookie.0,
            tls: access.tls,
            replication: match self.cluster.replication {
                units::OrAuto::Set(copies) => Some(copies),
                units::OrAuto::Auto => None,
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lost_after: self.cluster.lost_after.duration(),
            leftover_grace: self.cluster.leftover_grace.duration(),
            bulk_bytes_per_second: self.peer.bulk_rate.0,
        }))
    }

    /// What the shards' state depends on; it goes through their logs.
    pub fn shard_settings(&self) -> ShardSettings {
        ShardSettings {
            lateness_ms: self.windows.lateness.as_ms(),
            dedup_horizon_ms: self.dedup.horizon.as_ms(),
            retention_minute_ms: self.retention.minute.as_ms(),
            retention_hour_ms: self.retention.hour.as_ms(),
            retention_day_ms: self.retention.day.as_ms(),
            definitions_version: 1,
            definitions: self.metrics.clone(),
            cardinality: Some(CardinalityBudget::from(&self.cardinality).part(self.cluster.shards)),
        }
    }
}

#[cfg(test)]
mod tests;
