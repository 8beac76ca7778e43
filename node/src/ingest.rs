//! From a request body to counted events.
//!
//! Room first (bytes in flight are bounded), then bytes, then events, then one columnar batch for each shard, then their logs. The answer goes out
//! when every batch is durable and applied, and what was refused is kept. Nothing of a request is counted before all of it has been read.

mod ack;
mod again;
mod collect;
pub mod decode;
mod letters;
mod read;
pub mod retry;
pub mod space;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use rkyv::util::AlignedVec;
use tallymesh_actors::admission::{Admission, AdmissionLimits, AdmissionStats, Refused, Room};
use tallymesh_actors::tail::TailHub;
use tallymesh_actors::{AppendError, Mesh, PartOutcome};
use tallymesh_protocol::definition::DefinitionSet;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::event::body::{BodyFormat, BodyLimits};
use tallymesh_protocol::event::encode::{Door, Encoded, GeneratedIds};
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::limits::JSON_DEPTH_MAX;
use tallymesh_protocol::question::token::{WriteToken, cluster_mark};
use tallymesh_storage::clock::Clock;
use tallymesh_storage::dead_letters::DeadLetters;
use tokio::sync::Semaphore;

pub use ack::{Ack, AckStatus, Refusal};
use again::Again;
use collect::Arrived;
use decode::Encoding;
use read::{Batch, Reading};

use crate::clients::Clients;
use crate::config::Config;
use crate::ingest::space::SpaceGate;
use crate::limits::{INLINE_COMPRESSED_BYTES_MAX, RETRY_AFTER_MS};
use crate::metrics::Metrics;
use crate::unique::UniqueNumbers;

/// The ingest service of a node; cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

struct Shared {
    mesh: Mesh,
    clock: Arc<dyn Clock>,
    clients: Arc<Clients>,
    admission: Admission,
    /// Bodies that are unpacked at once: more would not be faster, only hold more memory.
    readers: Arc<Semaphore>,
    dead_letters: DeadLetters,
    tail: TailHub,
    metrics: Arc<Metrics>,
    space: Arc<SpaceGate>,
    numbers: Arc<UniqueNumbers>,
    limits: Limits,
}

struct Limits {
    body: BodyLimits,
    encoded_bytes_max: usize,
    busy_bytes_per_s_min: usize,
    letter_bytes_max: usize,
    future_tolerance_ms: i64,
    retention_day_ms: Option<i64>,
    append_timeout: Duration,
    shard_queue_bytes_max: usize,
}

/// What ingest shares with the rest of the node.
#[derive(Clone)]
pub struct Outlets {
    pub dead_letters: DeadLetters,
    pub tail: TailHub,
    pub metrics: Arc<Metrics>,
    pub space: Arc<SpaceGate>,
    pub numbers: Arc<UniqueNumbers>,
}

/// One request as the HTTP layer hands it over.
pub struct IngestRequest {
    pub format: BodyFormat,
    pub encoding: Encoding,
    pub content_length: Option<usize>,
    pub idempotency_key: Option<String>,
    /// Schema version of events that name none.
    pub schema_version: Option<String>,
    pub request_id: String,
}

/// What the shards made of a request's batches.
#[derive(Debug, Default)]
struct Appended {
    counted: u64,
    duplicates: u64,
    /// Where they are in the logs.
    positions: Vec<(ShardId, u64)>,
}

impl Ingest {
    pub fn new(config: &Config, clock: Arc<dyn Clock>, mesh: Mesh, clients: Arc<Clients>, outlets: Outlets) -> Self {
        let ingest = &config.ingest;
        let Outlets { dead_letters, tail, metrics, space, numbers } = outlets;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Shared {
            mesh,
            clock,
            clients,
            admission: Admission::new(AdmissionLimits {
                bytes_max: ingest.inflight_bytes_max.as_usize(),
                wait: ingest.admission_wait.duration(),
                waiters_max: ingest.admission_waiters_max,
            }),
            readers: Arc::new(Semaphore::new(cores)),
            dead_letters,
            tail,
            metrics,
            space,
            numbers,
            limits: Limits {
                body: BodyLimits {
                    events_max: ingest.events_per_request_max,
                    event_bytes_max: ingest.event_bytes_max.as_usize(),
                    decoded_bytes_max: ingest.decoded_bytes_max.0,
                    depth: JSON_DEPTH_MAX,
                },
                encoded_bytes_max: ingest.encoded_bytes_max.as_usize(),
                busy_bytes_per_s_min: config.http.body_rate_min_busy.as_usize(),
                letter_bytes_max: config.dead_letters.event_bytes_max.as_usize(),
                future_tolerance_ms: ingest.future_tolerance.as_ms() as i64,
                retention_day_ms: config.retention.day.as_ms().map(|ms| ms as i64),
                append_timeout: ingest.append_timeout.duration(),
                shard_queue_bytes_max: ingest.shard_queue_bytes_max.as_usize(),
            },
        };
        Self { shared: Arc::new(shared) }
    }

    pub fn admission(&self) -> AdmissionStats {
        self.shared.admission.stats()
    }

    /// Takes a request in: when this returns, what it counted is durable and can be queried.
    ///
    /// # Errors
    /// The request as a whole was refused, or is not known to be durable in full. All are safe to retry when the events have ids, or the request an
    /// idempotency key.
    pub async fn accept(&self, request: IngestRequest, body: &mut Body) -> Result<Ack, Problem> {
        let shared = &self.shared;
        shared.space.admit()?;
        let claimed = request.content_length.filter(|length| *length <= shared.limits.encoded_bytes_max).unwrap_or(0) as u64;
        shared.clients.admit_body(claimed)?;
        let ids = match request.idempotency_key {
            Some(ref key) => GeneratedIds::Idempotency(key.clone()),
            None => GeneratedIds::Random(shared.numbers.next()),
        };
        let (definitions, door) = (shared.mesh.definitions(), shared.door());
        let version = definitions.version();
        let reading = self.reading(&request, ids.clone(), definitions, door);
        let collected = collect::collect(&shared.admission, &shared.limits, request.content_length, reading, body).await?;
        let (mut room, encoded) = (collected.room, collected.bytes as u64);
        shared.clients.charge_body(encoded.saturating_sub(claimed));
        shared.metrics.encoded_bytes.add(encoded);
        let batch = match collected.body {
            Arrived::Read(reader) => reader.finish()?,
            Arrived::Kept(reading, pieces) => read_apart(&shared.readers, reading, pieces).await?,
        };
        shared.metrics.decoded_bytes.add(batch.decoded_bytes);
        shared.clients.charge_body(batch.decoded_bytes.saturating_sub(encoded));
        // From here on the batches and letters are what is held, and of the bodies the small ones.
        let kept = collected.kept;
        room.resize(batch.memory_bytes() + kept.as_ref().map_or(0, |kept| kept.bytes)).await.map_err(refused)?;

        let Batch { encoded, letters, refusals, watched, .. } = batch;
        let Encoded { parts, events, generated_ids } = encoded;
        let again =
            kept.map(|kept| Again { ingest: self, request: &request, ids, door, kept, letters: &letters, room: &mut room, version });
        let appended = shared.append(parts, again).await?;
        for (code, count) in &refusals.by_code {
            shared.metrics.rejected(*code, *count);
        }
        shared.metrics.generated_ids.add(u64::from(generated_ids));
        if appended.counted > 0 {
            shared.tail.publish(watched);
        }
        let kept = letters::keep(&shared.dead_letters, &shared.metrics, letters, &request.request_id).await;
        drop(room);
        let token = WriteToken::new(cluster_mark(shared.mesh.cluster_id()), appended.positions.clone());
        Ok(Ack::new(events, &appended, generated_ids, refusals, kept, &token))
    }

    fn reading(&self, request: &IngestRequest, ids: GeneratedIds, definitions: Arc<DefinitionSet>, door: Door) -> Reading {
        let shared = &self.shared;
        Reading {
            format: request.format,
            encoding: request.encoding,
            limits: shared.limits.body,
            letter_bytes_max: shared.limits.letter_bytes_max,
            shards: shared.mesh.shards(),
            definitions,
            door,
            ids,
            request_id: request.request_id.clone(),
            schema_version: request.schema_version.clone(),
            is_watched: shared.tail.is_watched(),
        }
    }
}

impl Shared {
    fn door(&self) -> Door {
        Door {
            now_ms: self.clock.wall_ms(),
            future_tolerance_ms: self.limits.future_tolerance_ms,
            retention_day_ms: self.limits.retention_day_ms,
        }
    }

    /// Parts that became stale on their way are made anew, if `again` can.
    async fn append(&self, parts: Vec<(ShardId, AlignedVec<16>)>, mut again: Option<Again<'_>>) -> Result<Appended, Problem> {
        if parts.is_empty() {
            return Ok(Appended::default());
        }
        fits_queues(&parts, self.mesh.shards(), self.limits.shard_queue_bytes_max)?;
        let mut shards: Vec<ShardId> = parts.iter().map(|(shard, _)| *shard).collect();
        let started = self.clock.monotonic();
        let number = self.mesh.request_number();
        let mut outcomes = self.mesh.append_as(number, as_bytes(parts), self.limits.append_timeout).await;
        while let (Some(again), Some(stale)) = (&mut again, again::stale_shards(&shards, &outcomes)) {
            let left = || self.limits.append_timeout.saturating_sub(self.clock.monotonic().saturating_sub(started));
            let Some(parts) = again.parts(&stale, left()).await else { break };
            // What is sent without any time left may count and not be known to; that it is stale is certain.
            if left().is_zero() || fits_queues(&parts, self.mesh.shards(), self.limits.shard_queue_bytes_max).is_err() {
                break;
            }
            let made: Vec<ShardId> = parts.iter().map(|(shard, _)| *shard).collect();
            let settled = shards.into_iter().zip(outcomes).filter(|(shard, _)| !stale.contains(shard));
            let (its_shards, its_outcomes): (Vec<_>, Vec<_>) = settled.unzip();
            let anew = self.mesh.append_as(number, as_bytes(parts), left()).await;
            shards = its_shards.into_iter().chain(made).collect();
            outcomes = its_outcomes.into_iter().chain(anew).collect();
        }
        let now = self.clock.monotonic();
        self.metrics.appended(now, now.saturating_sub(started));
        let appended = merge(&shards, outcomes);
        // What did get through is counted, whatever became of the rest.
        let (Ok(counted) | Err((counted, _))) = &appended;
        self.metrics.events.add(counted.counted);
        self.metrics.duplicates.add(counted.duplicates);
        appended.map_err(|(_, problem)| problem)
    }
}

fn as_bytes(parts: Vec<(ShardId, AlignedVec<16>)>) -> Vec<(ShardId, Bytes)> {
    parts.into_iter().map(|(shard, bytes)| (shard, Bytes::from_owner(bytes))).collect()
}

/// Unpacks and parses, where it does not hold up other requests.
async fn read_apart(readers: &Arc<Semaphore>, reading: Reading, pieces: Vec<Bytes>) -> Result<Batch, Problem> {
    let bytes: usize = pieces.iter().map(Bytes::len).sum();
    if bytes <= INLINE_COMPRESSED_BYTES_MAX {
        return reading.read(pieces);
    }
    let internal = |what: String| Problem::new(ErrorCode::Internal, what);
    // Waiters hold permits of the door, so their number is bounded.
    let turn = readers.clone().acquire_owned().await.map_err(|e| internal(e.to_string()))?;
    let read = tokio::task::spawn_blocking(move || {
        let batch = reading.read(pieces);
        drop(turn);
        batch
    });
    read.await.map_err(|e| internal(format!("reading the body: {e}")))?
}

fn refused(refused: Refused) -> Problem {
    let limit = match refused {
        Refused::Full { limit_bytes } | Refused::NeverFits { limit_bytes } => limit_bytes,
        Refused::LineFull { limit } => limit,
    };
    match refused {
        Refused::NeverFits { .. } => Problem::new(ErrorCode::BodyTooLarge, format!("{refused}; send it in parts")).limit(limit as u64),
        Refused::Full { .. } | Refused::LineFull { .. } => {
            Problem::new(ErrorCode::Overloaded, refused.to_string()).limit(limit as u64).retry_after_ms(RETRY_AFTER_MS)
        }
    }
}

/// A shard takes one part of any size, but several only up to its queue: a request beyond that would be refused as often as it is sent.
fn fits_queues<B: AsRef<[u8]>>(parts: &[(ShardId, B)], shards: u16, queue_bytes_max: usize) -> Result<(), Problem> {
    let mut queued = vec![(0, 0); usize::from(shards)];
    for (shard, bytes) in parts {
        if let Some((count, sum)) = queued.get_mut(usize::from(shard.0)) {
            *count += 1;
            *sum += bytes.as_ref().len();
        }
    }
    if queued.iter().any(|(count, sum)| *count > 1 && *sum > queue_bytes_max) {
        let detail = format!("the keys of this request are over {queue_bytes_max} bytes for one shard; send it in parts");
        return Err(Problem::new(ErrorCode::BodyTooLarge, detail).limit(queue_bytes_max as u64));
    }
    Ok(())
}

/// One answer for all parts; on failure, also what got through.
fn merge(shards: &[ShardId], outcomes: Vec<Result<PartOutcome, AppendError>>) -> Result<Appended, (Appended, Problem)> {
    let mut appended = Appended::default();
    let mut failed = None;
    let mut failures = 0;
    for (shard, outcome) in shards.iter().zip(outcomes) {
        match outcome {
            Ok(part) => {
                appended.counted += u64::from(part.counted);
                appended.duplicates += u64::from(part.duplicates);
                appended.positions.push((*shard, part.index));
            }
            Err(error) => {
                failures += 1;
                failed.get_or_insert(error);
            }
        }
    }
    let Some(error) = failed else { return Ok(appended) };
    let problem = if appended.positions.is_empty() {
        Problem::new(error.code(), error.to_string())
    } else {
        let detail = format!("{failures} of {} shards did not confirm ({error}); send the whole batch again", shards.len());
        Problem::new(ErrorCode::PartlyDurable, detail)
    };
    Err((appended, problem.retry_after_ms(RETRY_AFTER_MS)))
}

/// Takes room for a piece of work that is not a request body.
async fn room_for(admission: &Admission, bytes: usize) -> Result<Room, Problem> {
    admission.enter(bytes).await.map_err(refused)
}

#[cfg(test)]
mod tests;
