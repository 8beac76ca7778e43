//! Many who watch (D2): streams of `/v1/live` over raw connections, and when each of them learned what.

mod reader;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::load::Connection;
use super::stream::Body;
use crate::cli::CliError;
use reader::{Said, SseReader};

/// Streams that are being opened at once: the queue of a listener is bounded.
const OPENING_MAX: usize = 200;
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 16 << 10;
/// Bodies a second: what an SDK fleet sends comes in pieces too.
const BODIES_PER_S: f64 = 10.0;

/// Streams that are open and read until dropped.
pub struct Audience {
    shared: Arc<Shared>,
    readers: JoinSet<Result<Vec<Heard>, CliError>>,
}

/// An answer counted so many events, and was there at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub count: u64,
    pub at: Instant,
}

#[derive(Default)]
struct Shared {
    snapshots: AtomicU64,
    deltas: AtomicU64,
    heartbeats: AtomicU64,
    problems: AtomicU64,
    lost: Mutex<Option<String>>,
    end: tokio_util::sync::CancellationToken,
}

/// What all streams were told together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub deltas: u64,
    pub heartbeats: u64,
    pub problems: u64,
}

impl Audience {
    /// Opens `count` streams, the i-th over the query `i % queries.len()`, and waits until each has its snapshot.
    ///
    /// # Errors
    /// The node is away, refuses one, or does not answer in time.
    pub async fn open(address: &str, queries: &[String], count: usize) -> Result<Self, CliError> {
        let shared = Arc::new(Shared::default());
        let (mut readers, opening) = (JoinSet::new(), Arc::new(Semaphore::new(OPENING_MAX)));
        for i in 0..count {
            let (address, shared) = (address.to_owned(), shared.clone());
            let query: String = form_urlencoded::byte_serialize(queries[i % queries.len()].as_bytes()).collect();
            // Never closed.
            let place = opening.clone().acquire_owned().await.ok();
            readers.spawn(async move { read(&address, &query, &shared, place).await });
        }
        let began = Instant::now();
        while shared.snapshots.load(Ordering::Relaxed) < count as u64 {
            if let Some(why) = shared.lost.lock().clone() {
                return Err(CliError::Failed(why));
            }
            if began.elapsed() > SNAPSHOT_WITHIN {
                return Err(CliError::Failed(format!("not every stream had its snapshot within {} s", SNAPSHOT_WITHIN.as_secs())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { shared, readers })
    }

    pub fn told(&self) -> Told {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Told { deltas: of(&self.shared.deltas), heartbeats: of(&self.shared.heartbeats), problems: of(&self.shared.problems) }
    }

    /// Closes the streams; what each of them heard, in order.
    ///
    /// # Errors
    /// A stream ended before.
    pub async fn close(mut self) -> Result<Vec<Vec<Heard>>, CliError> {
        self.shared.end.cancel();
        let mut heard = Vec::with_capacity(self.readers.len());
        while let Some(one) = self.readers.join_next().await {
            heard.push(one.map_err(|e| CliError::Failed(format!("a stream stopped: {e}")))??);
        }
        Ok(heard)
    }
}

async fn read<P>(address: &str, query: &str, shared: &Shared, opening: Option<P>) -> Result<Vec<Heard>, CliError> {
    let outcome = read_on(address, query, shared, opening).await;
    if let Err(error) = &outcome {
        shared.lost.lock().get_or_insert_with(|| error.to_string());
    }
    outcome
}

async fn read_on<P>(address: &str, query: &str, shared: &Shared, mut opening: Option<P>) -> Result<Vec<Heard>, CliError> {
    let away = |e: std::io::Error| CliError::Unreachable { url: format!("http://{address}"), detail: e.to_string() };
    let mut stream = TcpStream::connect(address).await.map_err(away)?;
    let request = format!("GET /v1/live?query={query} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(away)?;
    let (mut reader, mut heard) = (SseReader::default(), Vec::new());
    loop {
        tokio::select! {
            () = shared.end.cancelled() => return Ok(heard),
            ready = stream.readable() => ready.map_err(away)?,
        }
        // Not held while waiting: ten thousand of these would be larger than what is measured.
        let mut buffer = [0u8; READ_BYTES];
        let read = match stream.try_read(&mut buffer) {
            Ok(0) => return Err(CliError::Failed(format!("the node ended a stream: {}", reader.rest()))),
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(away(e)),
        };
        let at = Instant::now();
        for said in reader.read(buffer.get(..read).unwrap_or_default()) {
            let (counter, count) = match said {
                Said::Snapshot(count) => {
                    opening = None;
                    (&shared.snapshots, count)
                }
                Said::Delta(count) => (&shared.deltas, count),
                Said::Heartbeat => (&shared.heartbeats, None),
                Said::Problem => (&shared.problems, None),
            };
            counter.fetch_add(1, Ordering::Relaxed);
            heard.extend(count.map(|count| Heard { count, at }));
        }
        if opening.is_some() && reader.is_refused() {
            return Err(CliError::Failed(format!("the node refused a stream: {}", reader.rest())));
        }
    }
}

/// Acks of a steady stream: so many events were counted by then.
pub type Acks = Vec<Heard>;

/// Sends bodies at an even pace for `lasts`; `counted` is how many events the node had before.
///
/// # Errors
/// The node is away or refuses.
pub async fn send_steadily(
    address: &str,
    bodies: &mut impl Iterator<Item = Body>,
    lasts: Duration,
    counted: &mut u64,
) -> Result<Acks, CliError> {
    let mut connection = Connection::open(address).await?;
    let (began, mut acks) = (Instant::now(), Vec::new());
    for n in 0..(lasts.as_secs_f64() * BODIES_PER_S) as u32 {
        tokio::time::sleep_until(began + Duration::from_secs_f64(f64::from(n) / BODIES_PER_S)).await;
        let Some(body) = bodies.next() else { break };
        let (status, answer) = connection.post(body.ndjson).await?;
        if status != 200 {
            return Err(CliError::Failed(format!("the node answered {status}: {}", String::from_utf8_lossy(&answer))));
        }
        *counted += body.events;
        acks.push(Heard { count: *counted, at: Instant::now() });
    }
    tokio::time::sleep_until(began + lasts).await;
    Ok(acks)
}

/// Events of one body at that rate.
pub fn body_events(events_per_second: f64) -> u64 {
    (events_per_second / BODIES_PER_S).round().max(1.0) as u64
}

/// For each ack, how long until the last of the streams had an answer that counts its events; sorted. Acks that not every stream heard of are left out, and
/// are the second number.
pub fn last_delays(acks: &[Heard], streams: &[Vec<Heard>]) -> (Vec<Duration>, usize) {
    let reached = |stream: &Vec<Heard>, ack: &Heard| {
        let first = stream.partition_point(|heard| heard.count < ack.count);
        stream.get(first).map(|heard| heard.at.saturating_duration_since(ack.at))
    };
    let all: Vec<Option<Duration>> =
        acks.iter().map(|ack| streams.iter().map(|s| reached(s, ack)).try_fold(Duration::ZERO, |max, d| Some(max.max(d?)))).collect();
    let unheard = all.iter().filter(|delay| delay.is_none()).count();
    let mut delays: Vec<Duration> = all.into_iter().flatten().collect();
    delays.sort_unstable();
    (delays, unheard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stream_decides_and_what_one_never_heard_is_not_a_delay() {
        let began = Instant::now();
        let heard = |count, ms| Heard { count, at: began + Duration::from_millis(ms) };
        let acks = [heard(10, 100), heard(20, 200), heard(30, 300)];
        let streams = [vec![heard(10, 110), heard(20, 210), heard(30, 310)], vec![heard(5, 50), heard(20, 450)]];
        let (delays, unheard) = last_delays(&acks, &streams);
        assert_eq!(delays, [250, 350].map(Duration::from_millis));
        assert_eq!(unheard, 1);
    }
}
