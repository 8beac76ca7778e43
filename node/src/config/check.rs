//! Ranges and relations of settings, checked once. A message says what to do.

use std::net::ToSocketAddrs;

use tallymesh_actors::founding::FOUNDERS_MAX;
use tallymesh_protocol::definition::DefinitionSet;
use tallymesh_protocol::limits::{ENTRY_BYTES_MAX, SHARDS_MAX};

use super::units::{ByteSize, Keep, OrAuto, Period};
use super::{Config, ConfigError};
use crate::clients::Network;

/// A setting that is accepted but does less than it says in this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

const EVENTS_PER_REQUEST_MAX: u32 = 1_000_000;
const PERIOD_MAX: Period = Period::days(366);
/// More copies cost more than they save.
const REPLICATION_MAX: u8 = 7;

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_cluster()?;
        self.check_http()?;
        self.peer.check()?;
        self.check_clients()?;
        self.check_ingest()?;
        self.check_storage()?;
        self.check_retention()?;
        self.check_cardinality()?;
        DefinitionSet::compile(1, self.metrics.clone())
            .map(drop)
            .map_err(|e| ConfigError::Invalid { key: "metrics", problem: e.to_string() })
    }

    /// What the operator should know at boot.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if self.retention.raw != Keep::For(Period::ZERO) {
            warnings.push(Warning("retention.raw is set, but this version keeps no raw events; rollups are kept as configured".to_owned()));
        }
        warnings.extend(self.peer.warnings());
        warnings
    }

    fn check_cluster(&self) -> Result<(), ConfigError> {
        if self.cluster.name.is_empty() {
            return invalid("cluster.name", "is empty; give the cluster a name");
        }
        if self.node.name.is_empty() {
            return invalid("node.name", "is empty; give the node a name");
        }
        if self.node.data_dir.is_empty() {
            return invalid("node.data_dir", "is empty; name a directory");
        }
        if self.cluster.shards == 0 || usize::from(self.cluster.shards) > SHARDS_MAX {
            return invalid("cluster.shards", format!("is {}; choose 1 to {SHARDS_MAX}", self.cluster.shards));
        }
        let founders = &self.cluster.founders;
        if !founders.is_empty() && self.peer.addr.is_empty() {
            return invalid("peer.addr", "is empty, but there are nodes to join: give this node a peer port with --peer");
        }
        if founders.len() > FOUNDERS_MAX {
            return invalid("cluster.founders", format!("names {} nodes; choose at most {FOUNDERS_MAX}", founders.len()));
        }
        let is_address = |text: &String| text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if let Some(founder) = founders.iter().find(|founder| !is_address(founder)) {
            return invalid("cluster.founders", format!("`{founder}` is no address; write for example \"10.0.0.1:7071\""));
        }
        if let OrAuto::Set(copies) = self.cluster.replication {
            // A node that joins takes what its cluster has.
            let founds = founders.is_empty() || founders.iter().any(|founder| founder == self.peer.advertised());
            let nodes = founders.len().max(1);
            if copies == 0 || copies > REPLICATION_MAX || (founds && usize::from(copies) > nodes) {
                let most = nodes.min(usize::from(REPLICATION_MAX));
                return invalid("cluster.replication", format!("is {copies}, but {nodes} founders can keep at most {most} copies"));
            }
        }
        between("cluster.lost_after", self.cluster.lost_after, Period::seconds(10), PERIOD_MAX)?;
        between("cluster.leftover_grace", self.cluster.leftover_grace, Period::ms(0), PERIOD_MAX)?;
        between("node.drain_timeout", self.node.drain_timeout, Period::ms(100), Period::hours(1))?;
        if self.shutdown_grace() > Period::hours(1).duration() {
            return invalid("node.shutdown_grace", "is over 1h; choose less");
        }
        Ok(())
    }

    fn check_http(&self) -> Result<(), ConfigError> {
        match self.http.addr.to_socket_addrs() {
            Ok(_) => {}
            Err(e) => return invalid("http.addr", format!("`{}`: {e}; write for example \"127.0.0.1:7070\"", self.http.addr)),
        }
        at_least("http.connections_max", self.http.connections_max as u64, 1)?;
        between("http.header_timeout", self.http.header_timeout, Period::ms(100), Period::hours(1))?;
        between("http.body_timeout", self.http.body_timeout, Period::ms(100), Period::hours(1))?;
        for origin in &self.http.cors_origins {
            if origin != "*" && axum::http::HeaderValue::from_str(origin).is_err() {
                return invalid("http.cors_origins", format!("`{origin}` is not an origin; write \"*\" or \"https://example.com\""));
            }
        }
        Ok(())
    }

    fn check_clients(&self) -> Result<(), ConfigError> {
        for text in &self.clients.trusted_proxies {
            if let Err(e) = text.parse::<Network>() {
                return invalid("clients.trusted_proxies", e.to_string());
            }
        }
        Ok(())
    }

    fn check_ingest(&self) -> Result<(), ConfigError> {
        let ingest = &self.ingest;
        if ingest.events_per_request_max == 0 || ingest.events_per_request_max > EVENTS_PER_REQUEST_MAX {
            return invalid("ingest.events_per_request_max", format!("must be 1 to {EVENTS_PER_REQUEST_MAX}"));
        }
        let size = |key, value: ByteSize, min: ByteSize| {
            if value < min { invalid(key, format!("is {value}; choose at least {min}")) } else { Ok(()) }
        };
        size("ingest.event_bytes_max", ingest.event_bytes_max, ByteSize::kib(1))?;
        size("ingest.encoded_bytes_max", ingest.encoded_bytes_max, ingest.event_bytes_max)?;
        size("ingest.decoded_bytes_max", ingest.decoded_bytes_max, ingest.encoded_bytes_max)?;
        if ingest.decoded_bytes_max > ByteSize(u64::from(u32::MAX)) {
            return invalid("ingest.decoded_bytes_max", format!("is {}; choose less than 4GiB", ingest.decoded_bytes_max));
        }
        // One body and the batch made of it have to fit, or a request of the allowed size could never be let in.
        size("ingest.inflight_bytes_max", ingest.inflight_bytes_max, ByteSize(2 * ingest.encoded_bytes_max.0))?;
        size("ingest.shard_queue_bytes_max", ingest.shard_queue_bytes_max, ByteSize::mib(1))?;
        between("ingest.admission_wait", ingest.admission_wait, Period::ZERO, Period::minutes(1))?;
        between("ingest.append_timeout", ingest.append_timeout, Period::ms(100), Period::minutes(10))?;
        between("ingest.future_tolerance", ingest.future_tolerance, Period::ZERO, PERIOD_MAX)?;
        size("dead_letters.bytes_max", self.dead_letters.bytes_max, ByteSize::mib(1))?;
        size("dead_letters.event_bytes_max", self.dead_letters.event_bytes_max, ByteSize(256))?;
        if self.dead_letters.event_bytes_max > ByteSize::mib(1) {
            return invalid("dead_letters.event_bytes_max", "is over 1MiB; choose less");
        }
        at_least("dead_letters.count_max", self.dead_letters.count_max, 1)?;
        at_least("tail.subscribers_max", self.tail.subscribers_max as u64, 1)?;
        if !(16..=1_000_000).contains(&self.tail.buffer_events) {
            return invalid("tail.buffer_events", "must be 16 to 1000000");
        }
        Ok(())
    }

    fn check_storage(&self) -> Result<(), ConfigError> {
        let log = &self.log;
        if log.segment < ByteSize::mib(1) || log.segment > ByteSize::mib(1_024) {
            return invalid("log.segment", format!("is {}; choose 1MiB to 1GiB", log.segment));
        }
        if log.max.0 < 2 * log.segment.0 {
            return invalid("log.max", format!("is {}; choose at least twice log.segment ({})", log.max, log.segment));
        }
        if log.max.0 < ENTRY_BYTES_MAX as u64 {
            return invalid("log.max", format!("is {}; choose at least {}", log.max, ByteSize(ENTRY_BYTES_MAX as u64)));
        }
        if self.dedup.memory < ByteSize::mib(1) {
            return invalid("dedup.memory", format!("is {}; choose at least 1MiB", self.dedup.memory));
        }
        between("dedup.horizon", self.dedup.horizon, Period::minutes(1), PERIOD_MAX)?;
        between("windows.lateness", self.windows.lateness, Period::ZERO, Period::days(7))?;
        between("windows.tick", self.windows.tick, Period::ms(50), Period::minutes(10))?;
        between("query.timeout", self.query.timeout, Period::ms(10), Period::hours(1))?;
        at_least("query.concurrency", self.query.concurrency as u64, 1)?;
        between("cache.ttl", self.cache.ttl, Period::ms(10), Period::hours(1))?;
        between("cache.jitter", self.cache.jitter, Period::ZERO, self.cache.ttl)?;
        between("disk.check_interval", self.disk.check_interval, Period::ms(10), Period::minutes(1))?;
        if !(0.0..=50.0).contains(&self.disk.readonly_below_percent) {
            return invalid("disk.readonly_below_percent", "must be 0 to 50");
        }
        between("live.interval", self.live.interval, Period::ms(10), Period::minutes(1))?;
        between("live.heartbeat", self.live.heartbeat, Period::ms(100), Period::minutes(10))?;
        if tracing_subscriber::EnvFilter::try_new(&self.logs.level).is_err() {
            return invalid("logs.level", format!("`{}` is not a level; write error, warn, info, debug or trace", self.logs.level));
        }
        Ok(())
    }

    fn check_retention(&self) -> Result<(), ConfigError> {
        let r = &self.retention;
        if r.minute > r.hour {
            return invalid("retention.minute", format!("({}) must not be longer than retention.hour ({})", r.minute, r.hour));
        }
        if r.hour > r.day {
            return invalid("retention.hour", format!("({}) must not be longer than retention.day ({})", r.hour, r.day));
        }
        if r.minute < Keep::For(Period::hours(1)) {
            return invalid("retention.minute", format!("is {}; choose at least 1h", r.minute));
        }
        Ok(())
    }

    fn check_cardinality(&self) -> Result<(), ConfigError> {
        let c = &self.cardinality;
        for (key, value) in
            [("cardinality.keys_per_metric", c.keys_per_metric), ("cardinality.keys", c.keys), ("cardinality.event_names", c.event_names)]
        {
            at_least(key, u64::from(value), 1)?;
        }
        let largest = c.metrics.values().copied().max().unwrap_or(0).max(c.keys_per_metric);
        if c.keys < largest {
            return invalid("cardinality.keys", format!("is {}, less than one metric may have; choose at least {largest}", c.keys));
        }
        if let Some((metric, _)) = c.metrics.iter().find(|(_, keys)| **keys == 0) {
            return invalid("cardinality.metrics", format!("gives `{metric}` no key at all; choose at least 1"));
        }
        if c.metrics.len() > OWN_BUDGETS_MAX {
            return invalid("cardinality.metrics", format!("names {} metrics; choose at most {OWN_BUDGETS_MAX}", c.metrics.len()));
        }
        Ok(())
    }
}

/// Metrics that may have a budget of their own: each is in every shard's settings.
const OWN_BUDGETS_MAX: usize = 1_000;

pub(super) fn invalid<T>(key: &'static str, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { key, problem: problem.into() })
}

fn at_least(key: &'static str, value: u64, min: u64) -> Result<(), ConfigError> {
    if value < min { invalid(key, format!("is {value}; choose at least {min}")) } else { Ok(()) }
}

fn between(key: &'static str, value: Period, min: Period, max: Period) -> Result<(), ConfigError> {
    if value < min || value > max { invalid(key, format!("is {value}; choose {min} to {max}")) } else { Ok(()) }
}
