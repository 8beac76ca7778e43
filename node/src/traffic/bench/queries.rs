//! The four questions that a dashboard asks most, timed one after the other over one connection.

use std::time::Duration;

use tokio::time::Instant;

use super::load::Connection;
use crate::cli::CliError;

/// Asked first, and not counted.
const WARM_UP: usize = 10;

/// Name and query string without the range.
const QUERIES: [(&str, &str); 4] = [
    ("events per minute", "metric=*&agg=count&step=1m&limit=2000"),
    ("top 10 events by unique users", "metric=*&agg=users&group_by=event&order=-value&limit=10"),
    ("by country, device = mobile", "metric=*&agg=count&group_by=country_code&filter=device_type:mobile"),
    ("p95 of value by hour", "metric=*&agg=p95&step=1h"),
];

/// The questions as paths, about the range that `range` says.
pub fn paths(range: &str) -> Vec<(&'static str, String)> {
    QUERIES.iter().map(|&(name, query)| (name, format!("/v1/query?{query}&{range}"))).collect()
}

/// How long one question took, over and over.
#[derive(Clone, Debug)]
pub struct Timed {
    pub name: &'static str,
    /// Rows of the answer.
    pub rows: usize,
    /// The first time, when nothing that queries keep for each other was there.
    pub first: Duration,
    /// Sorted.
    pub times: Vec<Duration>,
}

/// Asks each question `repeat` times about the range `[from_ms, to_ms)`.
///
/// # Errors
/// The node is away, or an answer is an error or not complete.
pub async fn run(address: &str, from_ms: i64, to_ms: i64, repeat: usize) -> Result<Vec<Timed>, CliError> {
    let mut connection = Connection::open(address).await?;
    let mut results = Vec::with_capacity(QUERIES.len());
    for (name, path) in paths(&format!("from={from_ms}&to={to_ms}")) {
        let mut times = Vec::with_capacity(repeat);
        let (mut rows, mut first) = (0, Duration::ZERO);
        for round in 0..WARM_UP + repeat {
            let asked = Instant::now();
            let (status, body) = connection.get(&path).await?;
            let took = asked.elapsed();
            if round == 0 {
                (rows, first) = (check(name, status, &body)?, took);
            } else if status != 200 {
                check(name, status, &body)?;
            }
            if round >= WARM_UP {
                times.push(took);
            }
        }
        times.sort_unstable();
        results.push(Timed { name, rows, first, times });
    }
    Ok(results)
}

/// A fast answer to something else would be worth nothing.
pub fn check(name: &str, status: u16, body: &[u8]) -> Result<usize, CliError> {
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match (status, &answer["receipt"]["complete"], answer["data"].as_array()) {
        (200, serde_json::Value::Bool(true), Some(rows)) => Ok(rows.len()),
        _ => Err(CliError::Failed(format!("{name}: answered {status}: {}", String::from_utf8_lossy(&body[..body.len().min(400)])))),
    }
}
