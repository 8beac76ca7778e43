//! The sections of `cluster.toml`. Every field has a default, said once here and once, with its comment, in the file; a test holds them equal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tallymesh_protocol::cardinality::CardinalityBudget;
use tallymesh_protocol::definition::MetricDefinition;

use super::peer::Peer;
use super::units::{ByteSize, Keep, OrAuto, Period};

/// Everything an operator may set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub cluster: Cluster,
    pub node: Node,
    pub http: Http,
    pub peer: Peer,
    pub clients: Clients,
    pub ingest: Ingest,
    pub windows: Windows,
    pub dedup: Dedup,
    pub retention: Retention,
    pub cardinality: Cardinality,
    pub log: Log,
    pub query: Query,
    pub cache: Cache,
    pub dead_letters: DeadLetters,
    pub disk: Disk,
    pub tail: Tail,
    pub live: Live,
    pub logs: Logs,
    pub metrics: Vec<MetricDefinition>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    pub name: String,
    /// Fixed when the data directory is made.
    pub shards: u16,
    pub replication: OrAuto<u8>,
    /// Peer addresses of the nodes that found the cluster, or of any members of one that is to be joined.
    pub founders: Vec<String>,
    /// A member that was silent for so long gives its shards to others.
    pub lost_after: Period,
    /// What is left of a replica that went elsewhere is kept for so long: one that comes back meanwhile needs only what is new.
    pub leftover_grace: Period,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: "tallymesh".to_owned(),
            shards: 16,
            replication: OrAuto::Auto,
            founders: Vec::new(),
            lost_after: Period::minutes(10),
            leftover_grace: Period::minutes(10),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    pub name: String,
    pub data_dir: String,
    /// How long the listener stays open after `/ready` has turned 503; `auto` is 0 s on a single node.
    pub shutdown_grace: OrAuto<Period>,
    /// Longest wait for requests in flight at shutdown.
    pub drain_timeout: Period,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: "node-1".to_owned(),
            data_dir: "./tallymesh-data".to_owned(),
            shutdown_grace: OrAuto::Auto,
            drain_timeout: Period::seconds(20),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    pub addr: String,
    pub connections_max: usize,
    /// Longest wait for a request's head, also for the next one on an open connection.
    pub header_timeout: Period,
    /// Longest a request body may take to arrive.
    pub body_timeout: Period,
    /// Bytes a second that a request body has to come at, over any five seconds; 0 is no limit.
    pub body_rate_min: ByteSize,
    /// The same over any second while other requests wait for room.
    pub body_rate_min_busy: ByteSize,
    /// `*`, or origins that browsers may send from.
    pub cors_origins: Vec<String>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:7070".to_owned(),
            connections_max: 12_000,
            header_timeout: Period::seconds(60),
            body_timeout: Period::seconds(30),
            body_rate_min: ByteSize::kib(1),
            body_rate_min_busy: ByteSize::kib(256),
            cors_origins: vec!["*".to_owned()],
        }
    }
}

/// Of each client address; 0 is no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clients {
    pub connections_max: usize,
    /// Queries that run or wait at once.
    pub queries_max: usize,
    /// Queries a second.
    pub query_rate: u32,
    /// Bytes of events a second, decompressed.
    pub ingest_rate: ByteSize,
    /// Addresses, or blocks of them, whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<String>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { connections_max: 8_000, queries_max: 192, query_rate: 0, ingest_rate: ByteSize(0), trusted_proxies: Vec::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    pub events_per_request_max: u32,
    pub encoded_bytes_max: ByteSize,
    pub decoded_bytes_max: ByteSize,
    pub event_bytes_max: ByteSize,
    /// Bodies and batches of all requests that have not been answered yet.
    pub inflight_bytes_max: ByteSize,
    /// Batches waiting for one shard's log.
    pub shard_queue_bytes_max: ByteSize,
    /// Longest wait for room before a request is answered 429.
    pub admission_wait: Period,
    /// Requests that may wait for room at once.
    pub admission_waiters_max: usize,
    /// Longest wait for a batch to become durable.
    pub append_timeout: Period,
    /// How far ahead of this node's clock an event's time may be.
    pub future_tolerance: Period,
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            events_per_request_max: 10_000,
            encoded_bytes_max: ByteSize::mib(8),
            decoded_bytes_max: ByteSize::mib(64),
            event_bytes_max: ByteSize::kib(256),
            inflight_bytes_max: ByteSize::mib(64),
            shard_queue_bytes_max: ByteSize::mib(8),
            admission_wait: Period::ms(200),
            admission_waiters_max: 256,
            append_timeout: Period::seconds(10),
            future_tolerance: Period::hours(1),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Windows {
    /// A window is closed this long after the later of its end and its last write.
    pub lateness: Period,
    /// How often an idle shard is told the time.
    pub tick: Period,
}

impl Default for Windows {
    fn default() -> Self {
        Self { lateness: Period::minutes(2), tick: Period::seconds(5) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dedup {
    /// How long after its arrival a resend of an event is known.
    pub horizon: Period,
    /// Entries kept in memory, over all shards; older ones are on disk.
    pub memory: ByteSize,
}

impl Default for Dedup {
    fn default() -> Self {
        Self { horizon: Period::hours(24), memory: ByteSize::mib(160) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    pub raw: Keep,
    pub minute: Keep,
    pub hour: Keep,
    pub day: Keep,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            raw: Keep::For(Period::ZERO),
            minute: Keep::For(Period::days(90)),
            hour: Keep::For(Period::days(2 * 365)),
            day: Keep::For(Period::days(7 * 365)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cardinality {
    /// Keys (combinations of dimension values) of one metric.
    pub keys_per_metric: u32,
    /// Keys of all metrics.
    pub keys: u32,
    /// Event names that one shard tells apart.
    pub event_names: u32,
    /// Keys of single metrics, by name, in place of `keys_per_metric`.
    pub metrics: BTreeMap<String, u32>,
}

impl Default for Cardinality {
    fn default() -> Self {
        Self { keys_per_metric: 100_000, keys: 1_000_000, event_names: 2_000, metrics: BTreeMap::new() }
    }
}

impl From<&Cardinality> for CardinalityBudget {
    fn from(settings: &Cardinality) -> Self {
        Self {
            keys_per_metric: u64::from(settings.keys_per_metric),
            keys: u64::from(settings.keys),
            event_names: u64::from(settings.event_names),
            metrics: settings.metrics.iter().map(|(name, &keys)| (name.clone(), u64::from(keys))).collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub segment: ByteSize,
    /// Log kept before the shards that hold it back write a snapshot.
    pub max: ByteSize,
}

impl Default for Log {
    fn default() -> Self {
        Self { segment: ByteSize::mib(16), max: ByteSize::mib(128) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Query {
    pub timeout: Period,
    /// Queries that run at once; more wait, up to their time-out.
    pub concurrency: usize,
    /// Queries that may wait.
    pub waiters_max: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self { timeout: Period::seconds(30), concurrency: 16, waiters_max: 256 }
    }
}

/// Answers to queries with `cache=on`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// How old an answer may become ...
    pub ttl: Period,
    /// ... give or take up to this, so that answers made together do not end together.
    pub jitter: Period,
    pub bytes_max: ByteSize,
}

impl Default for Cache {
    fn default() -> Self {
        Self { ttl: Period::seconds(60), jitter: Period::seconds(10), bytes_max: ByteSize::mib(64) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetters {
    /// Bytes of refused events kept; the oldest are dropped first.
    pub bytes_max: ByteSize,
    pub count_max: u64,
    /// Bytes kept of one refused event.
    pub event_bytes_max: ByteSize,
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self { bytes_max: ByteSize::mib(64), count_max: 100_000, event_bytes_max: ByteSize::kib(16) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// Writes are refused while less than this is free ...
    pub readonly_below: ByteSize,
    /// ... or less than this share of the disk, if that is the smaller of the two.
    pub readonly_below_percent: f64,
    pub check_interval: Period,
}

impl Default for Disk {
    fn default() -> Self {
        Self { readonly_below: ByteSize::mib(512), readonly_below_percent: 10.0, check_interval: Period::seconds(1) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tail {
    pub subscribers_max: usize,
    /// Events kept for a slow subscriber; it is told how many it missed.
    pub buffer_events: usize,
}

impl Default for Tail {
    fn default() -> Self {
        Self { subscribers_max: 64, buffer_events: 4_096 }
    }
}

/// `/v1/live` and `/v1/ws`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Live {
    /// Least time between two evaluations of a query that is watched.
    pub interval: Period,
    /// How long a stream may be silent before it says that it is alive.
    pub heartbeat: Period,
    /// Streams and sockets.
    pub subscribers_max: usize,
    /// Distinct queries that are watched.
    pub queries_max: usize,
    /// Memory of their answers; once more for what is on its way to watchers.
    pub memory: ByteSize,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            interval: Period::ms(250),
            heartbeat: Period::seconds(15),
            subscribers_max: 10_000,
            queries_max: 1_000,
            memory: ByteSize::mib(64),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,tallymesh_node=debug`.
    pub level: String,
}

impl Default for Logs {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}
