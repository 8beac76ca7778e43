//! Sends batches of events to a node, or to the nodes of a fleet in turn, and sees each through: what may be retried is, with growing pauses, for a bounded time.
//!
//! Retrying is safe because every event has an id, or the batch an idempotency key that gives it one (I5).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nodes::Turns;
use parking_lot::Mutex;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;

use super::{CliError, Client};

mod nodes;
#[cfg(test)]
mod tests;

/// Smaller bodies are sent as they are.
const COMPRESS_FROM_BYTES: usize = 16 << 10;
const ZSTD_LEVEL: i32 = 1;
/// First pause before a retry; each next one doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long one attempt may take: on one node as long as it needs, of several another one may be quicker.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);
const ATTEMPT_TIMEOUT_OF_SEVERAL: Duration = Duration::from_secs(10);
/// Reasons of rejection kept for the report.
const REASONS_MAX: usize = 5;

/// Events as NDJSON, ready for the wire.
#[derive(Clone, Debug)]
pub struct Batch {
    body: Bytes,
    is_zstd: bool,
    pub events: u64,
    /// Gives ids to events that have none; the same for the same batch.
    pub idempotency_key: Option<String>,
}

impl Batch {
    pub fn new(ndjson: Vec<u8>, events: u64) -> Self {
        if ndjson.len() >= COMPRESS_FROM_BYTES
            && let Ok(packed) = zstd::bulk::compress(&ndjson, ZSTD_LEVEL)
        {
            return Self { body: packed.into(), is_zstd: true, events, idempotency_key: None };
        }
        Self { body: ndjson.into(), is_zstd: false, events, idempotency_key: None }
    }

    #[must_use]
    pub fn with_idempotency_key(mut self, key: String) -> Self {
        self.idempotency_key = Some(key);
        self
    }
}

/// The node's answer to a batch, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
struct IngestAnswer {
    count: u64,
    duplicates: u64,
    #[serde(default)]
    generated_ids: u64,
    #[serde(default)]
    rejected: Vec<Rejected>,
    /// There may be more than are listed.
    #[serde(default)]
    rejected_total: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Rejected {
    index: u64,
    code: String,
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    detail: String,
}

/// What became of everything sent so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub sent: u64,
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: u64,
    pub generated_ids: u64,
    pub retries: u64,
    /// The first few reasons of rejection.
    pub reasons: Vec<String>,
}

impl Totals {
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.generated_ids += other.generated_ids;
        self.retries += other.retries;
        let room = REASONS_MAX.saturating_sub(self.reasons.len());
        self.reasons.extend(other.reasons.into_iter().take(room));
    }
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sender {
    clients: Arc<[Client]>,
    turns: Arc<Mutex<Turns>>,
    started: Instant,
    retry_for: Duration,
}

enum Attempt {
    Done(IngestAnswer),
    Retry { error: CliError, at_least: Duration },
}

impl Sender {
    /// A batch that still fails after `retry_for` fails for good.
    pub fn new(client: Client, retry_for: Duration) -> Self {
        Self::over([client].into(), retry_for)
    }

    /// The same to any of these nodes, of which there is at least one: what one does not answer the next is given.
    pub fn over(clients: Arc<[Client]>, retry_for: Duration) -> Self {
        let turns = Arc::new(Mutex::new(Turns::new(clients.len())));
        Self { clients, turns, started: Instant::now(), retry_for }
    }

    /// Sends one batch; answers when its events are durable and counted.
    ///
    /// # Errors
    /// The node refused the batch as a whole, or could not be reached or was too busy for all of `retry_for`.
    pub async fn send(&self, batch: &Batch) -> Result<Totals, CliError> {
        let started = Instant::now();
        let mut retries = 0;
        let mut pause = PAUSE_MIN;
        loop {
            let node = self.turns.lock().take(self.started.elapsed());
            let (error, at_least) = match self.attempt(&self.clients[node], batch).await? {
                Attempt::Done(answer) => return Ok(totals(batch, answer, retries)),
                Attempt::Retry { error, at_least } => (error, at_least),
            };
            let is_away = matches!(error, CliError::Unreachable { .. });
            if is_away && self.turns.lock().failed(node, self.started.elapsed()) && started.elapsed() < self.retry_for {
                retries += 1;
                continue;
            }
            // Senders that were refused together should not come back together.
            let jitter = 0.75 + 0.5 * rand::Rng::random::<f64>(&mut <rand::rngs::SmallRng as rand::SeedableRng>::from_os_rng());
            let wait = pause.mul_f64(jitter).max(at_least);
            if started.elapsed() + wait > self.retry_for {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
            retries += 1;
        }
    }

    async fn attempt(&self, client: &Client, batch: &Batch) -> Result<Attempt, CliError> {
        let timeout = if self.clients.len() > 1 { ATTEMPT_TIMEOUT_OF_SEVERAL } else { ATTEMPT_TIMEOUT };
        let mut request = client
            .request(Method::POST, "/v1/events")
            .timeout(timeout)
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(batch.body.clone());
        if batch.is_zstd {
            request = request.header(CONTENT_ENCODING, "zstd");
        }
        if let Some(key) = &batch.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(e) => return Ok(Attempt::Retry { error: client.transport_error(&e), at_least: Duration::ZERO }),
        };
        let status = response.status();
        // 422 is the same answer when no event of the batch was good.
        if status == StatusCode::OK || status == StatusCode::UNPROCESSABLE_ENTITY {
            return match response.bytes().await {
                Ok(body) => serde_json::from_slice(&body)
                    .map(Attempt::Done)
                    .map_err(|e| CliError::Failed(format!("{} does not answer like a Tallymesh node of this version: {e}", client.base()))),
                Err(e) => Ok(Attempt::Retry { error: client.transport_error(&e), at_least: Duration::ZERO }),
            };
        }
        let is_retryable = matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504 | 507);
        let after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let error = client.refusal(response).await;
        if !is_retryable {
            return Err(error);
        }
        let exact = match &error {
            CliError::Refused(problem) => problem.retry_after_ms.map(Duration::from_millis),
            _ => None,
        };
        Ok(Attempt::Retry { at_least: exact.or(after).unwrap_or_default().min(PAUSE_MAX), error })
    }
}

fn totals(batch: &Batch, answer: IngestAnswer, retries: u64) -> Totals {
    let reason = |r: &Rejected| {
        let field = r.field.as_ref().map(|f| format!(" `{f}`")).unwrap_or_default();
        format!("event {} of its batch: {}{field}: {}", r.index, r.code, r.detail)
    };
    Totals {
        sent: batch.events,
        accepted: answer.count,
        duplicates: answer.duplicates,
        rejected: answer.rejected_total.unwrap_or(answer.rejected.len() as u64),
        generated_ids: answer.generated_ids,
        retries,
        reasons: answer.rejected.iter().take(REASONS_MAX).map(reason).collect(),
    }
}
