//! Sends ready bodies over kept-alive connections and takes the time of each ack. Raw HTTP/1.1, so that the client takes little of a CPU that it shares
//! with the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::stream::Body;
use crate::cli::CliError;

/// Pause of a connection whose request was refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);
/// A run in which nothing is accepted for so long has failed.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// How bodies are offered.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub connections: usize,
    /// Offered load; without it, each connection sends its next body as soon as the last is acked.
    pub events_per_second: Option<f64>,
    /// Refused bodies are sent again until they are accepted; otherwise they are lost, as they are under overload.
    pub retry: bool,
    /// How often all bodies are sent, each time with other ids.
    pub rounds: u32,
}

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub accepted: u64,
    pub duplicates: u64,
    /// Requests answered with 429 or 503.
    pub refused: u64,
    pub took: Duration,
    /// Of each accepted request, sorted.
    pub acks: Vec<Duration>,
}

impl Outcome {
    pub fn events_per_second(&self) -> f64 {
        self.accepted as f64 / self.took.as_secs_f64().max(1e-6)
    }
}

/// The value below which a share `q` of the sorted times lie.
pub fn percentile(sorted: &[Duration], q: f64) -> Duration {
    let rank = ((sorted.len().max(1) - 1) as f64 * q).round() as usize;
    sorted.get(rank).copied().unwrap_or_default()
}

/// Offers all bodies; ends when each is acked, or lost where the plan says so.
///
/// # Errors
/// The server cannot be reached, answers something else than an ack or a refusal, or accepts nothing for a long time.
pub async fn run(address: &str, bodies: Arc<Vec<Body>>, plan: Plan) -> Result<Outcome, CliError> {
    let next = Arc::new(AtomicUsize::new(0));
    let total = bodies.iter().map(|b| b.events).sum::<u64>() * u64::from(plan.rounds);
    let started = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..plan.connections.max(1) {
        let connection = Connection::open(address).await?;
        let (bodies, next) = (bodies.clone(), next.clone());
        // Evenly spaced over the time that the whole should take.
        let requests = bodies.len().max(1) as f64 * f64::from(plan.rounds);
        let pace = plan.events_per_second.map(|rate| (started, total as f64 / rate / requests));
        connections.spawn(drive(connection, bodies, next, pace, plan));
    }
    let mut outcome = Outcome::default();
    while let Some(part) = connections.join_next().await {
        let part = part.map_err(|e| CliError::Failed(format!("a connection of the load generator stopped: {e}")))??;
        outcome.accepted += part.accepted;
        outcome.duplicates += part.duplicates;
        outcome.refused += part.refused;
        outcome.acks.extend(part.acks);
    }
    outcome.took = started.elapsed();
    outcome.acks.sort_unstable();
    Ok(outcome)
}

async fn drive(
    mut connection: Connection,
    bodies: Arc<Vec<Body>>,
    next: Arc<AtomicUsize>,
    pace: Option<(Instant, f64)>,
    plan: Plan,
) -> Result<Outcome, CliError> {
    let mut outcome = Outcome::default();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let round = index / bodies.len().max(1);
        let Some(body) = bodies.get(index % bodies.len().max(1)).filter(|_| round < plan.rounds as usize) else { return Ok(outcome) };
        let body = body.in_round(round as u32);
        if let Some((started, seconds_each)) = pace {
            tokio::time::sleep_until(started + Duration::from_secs_f64(seconds_each * index as f64)).await;
        }
        let begun = Instant::now();
        loop {
            let sent = Instant::now();
            let (status, answer) = connection.post(body.ndjson.clone()).await?;
            match status {
                200 => {
                    let (count, duplicates) = counts(&answer)?;
                    outcome.accepted += count;
                    outcome.duplicates += duplicates;
                    outcome.acks.push(sent.elapsed());
                }
                429 | 503 => {
                    outcome.refused += 1;
                    if begun.elapsed() > STALLED_AFTER {
                        return Err(CliError::Failed(format!("the node has accepted nothing for {} s", STALLED_AFTER.as_secs())));
                    }
                    if plan.retry {
                        tokio::time::sleep(REFUSED_PAUSE).await;
                        continue;
                    }
                }
                other => return Err(CliError::Failed(format!("the node answered {other}: {}", String::from_utf8_lossy(&answer)))),
            }
            break;
        }
    }
}

/// `count` and `duplicates` of an ack.
fn counts(answer: &[u8]) -> Result<(u64, u64), CliError> {
    #[derive(serde::Deserialize)]
    struct Ack {
        count: u64,
        duplicates: u64,
    }
    let ack: Ack = serde_json::from_slice(answer).map_err(|e| CliError::Failed(format!("the node's ack is not understood: {e}")))?;
    Ok((ack.count, ack.duplicates))
}

/// One kept-alive connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// # Errors
    /// Nothing listens at `address` (`host:port`).
    pub async fn open(address: &str) -> Result<Self, CliError> {
        let unreachable = |detail: String| CliError::Unreachable { url: format!("http://{address}"), detail };
        let stream = TcpStream::connect(address).await.map_err(|e| unreachable(e.to_string()))?;
        stream.set_nodelay(true).map_err(|e| unreachable(e.to_string()))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(e.to_string()))?;
        // Ends with its sender.
        tokio::spawn(connection);
        Ok(Self { sender, host: address.to_owned() })
    }

    /// Sends NDJSON; the status and the body of the answer.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn post(&mut self, ndjson: Bytes) -> Result<(u16, Bytes), CliError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/events")
            .header("host", &self.host)
            .header("content-type", "application/x-ndjson")
            .body(Full::new(ndjson));
        self.send(request).await
    }

    /// # Errors
    /// As [`Self::post`].
    pub async fn get(&mut self, path: &str) -> Result<(u16, Bytes), CliError> {
        let request = Request::builder().uri(path).header("host", &self.host).body(Full::default());
        self.send(request).await
    }

    async fn send(&mut self, request: Result<Request<Full<Bytes>>, hyper::http::Error>) -> Result<(u16, Bytes), CliError> {
        let lost = |e: hyper::Error| CliError::Unreachable { url: format!("http://{}", self.host), detail: e.to_string() };
        let request = request.map_err(|e| CliError::Usage(e.to_string()))?;
        self.sender.ready().await.map_err(lost)?;
        let response = self.sender.send_request(request).await.map_err(lost)?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await.map_err(lost)?.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;

    use super::*;

    /// Refuses every `nth` request, if any, and counts lines.
    async fn node(refuse_nth: usize) -> String {
        let requests = Arc::new(AtomicUsize::new(0));
        let handler = move |body: String| {
            let n = requests.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                let ack = format!("{{\"count\":{},\"duplicates\":0,\"rejected\":[]}}", body.lines().count());
                if refuse_nth > 0 && n.is_multiple_of(refuse_nth) {
                    (StatusCode::TOO_MANY_REQUESTS, String::new())
                } else {
                    (StatusCode::OK, ack)
                }
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/events", post(handler))).await });
        address
    }

    fn bodies(n: usize) -> Arc<Vec<Body>> {
        Arc::new((0..n).map(|_| Body { ndjson: Bytes::from_static(b"{}\n{}\n"), events: 2 }).collect())
    }

    #[tokio::test]
    async fn refused_bodies_are_sent_until_accepted_or_lost_as_planned() {
        let address = node(3).await;
        let plan = Plan { connections: 4, events_per_second: None, retry: true, rounds: 1 };
        let outcome = run(&address, bodies(50), plan).await.expect("a run");
        assert_eq!((outcome.accepted, outcome.acks.len()), (100, 50));
        assert!(outcome.refused >= 16, "{}", outcome.refused);
        let outcome = run(&node(2).await, bodies(50), Plan { retry: false, ..plan }).await.expect("a run");
        assert_eq!((outcome.accepted, outcome.refused), (50, 25));
    }

    #[tokio::test]
    async fn offered_load_is_spread_over_time() {
        let plan = Plan { connections: 2, events_per_second: Some(200.0), retry: true, rounds: 2 };
        let outcome = run(&node(0).await, bodies(10), plan).await.expect("a run");
        assert!(outcome.took >= Duration::from_millis(190), "{:?}", outcome.took);
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 0.5), Duration::from_millis(51));
        assert_eq!(percentile(&times, 0.99), Duration::from_millis(99));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }
}
