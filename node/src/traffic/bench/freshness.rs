//! From an ack to the first answer that shows its event.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::load::Connection;
use crate::cli::CliError;

/// Name of the events; a run on a node that has some begins with theirs.
const EVENT: &str = "bench_freshness";
/// An event that is not there after this never will be.
const VISIBLE_WITHIN: Duration = Duration::from_secs(10);

/// How long events took to show, and of how many the first answer after the ack did not have them.
#[derive(Clone, Debug, Default)]
pub struct Freshness {
    /// Sorted.
    pub times: Vec<Duration>,
    pub asked_again: u64,
}

/// Sends `repeat` events of `now_ms`, one after the other, and asks over another connection.
///
/// # Errors
/// The node is away, refuses, or does not show an event.
pub async fn run(address: &str, repeat: usize, now_ms: i64, run: u64) -> Result<Freshness, CliError> {
    let (mut sender, mut reader) = (Connection::open(address).await?, Connection::open(address).await?);
    let path = format!("/v1/query?metric={EVENT}&agg=count&from={}&to={}", now_ms - 60_000, now_ms + 60_000);
    let mut freshness = Freshness::default();
    let mut before = None;
    for n in 0..repeat as u64 {
        let event = format!("{{\"event_id\":\"{run:x}-{n}\",\"event\":\"{EVENT}\",\"timestamp\":{now_ms},\"source\":\"s{}\"}}\n", n % 64);
        let (status, answer) = sender.post(Bytes::from(event)).await?;
        if status != 200 {
            return Err(CliError::Failed(format!("the node answered {status}: {}", String::from_utf8_lossy(&answer))));
        }
        let acked = Instant::now();
        loop {
            let (_, body) = reader.get(&path).await?;
            let count = count_of(&body).unwrap_or(0);
            let wanted = *before.get_or_insert_with(|| count.saturating_sub(1)) + n + 1;
            if count >= wanted {
                break;
            }
            freshness.asked_again += 1;
            if acked.elapsed() > VISIBLE_WITHIN {
                return Err(CliError::Failed(format!("event {n} was acked and is not in the answer: {}", String::from_utf8_lossy(&body))));
            }
        }
        freshness.times.push(acked.elapsed());
    }
    freshness.times.sort_unstable();
    Ok(freshness)
}

fn count_of(body: &[u8]) -> Option<u64> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    answer["data"][0]["values"]["count"].as_u64()
}
