//! Many people looking at dashboards: questions at a steady rate, whether the last ones were answered or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::load::Connection;
use super::queries;
use crate::cli::CliError;

/// What is asked, and how often.
#[derive(Clone, Debug)]
pub struct Dashboards {
    pub queries_per_second: f64,
    pub lasts: Duration,
    pub connections: usize,
    /// The last so many hours, as a dashboard asks.
    pub hours: i64,
}

/// Asks; each time runs from when the question was due, so that waiting for a connection counts. Sorted.
///
/// # Errors
/// The node is away, or an answer is an error or not complete.
pub async fn run(address: &str, plan: &Dashboards) -> Result<Vec<Duration>, CliError> {
    let paths: Vec<_> =
        queries::paths(&format!("range={}h", plan.hours)).into_iter().map(|(name, path)| (name, format!("{path}&cache=on"))).collect();
    let (paths, next) = (Arc::new(paths), Arc::new(AtomicUsize::new(0)));
    let all = (plan.queries_per_second * plan.lasts.as_secs_f64()) as usize;
    let started = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..plan.connections.max(1) {
        let mut connection = Connection::open(address).await?;
        let (paths, next, rate) = (paths.clone(), next.clone(), plan.queries_per_second);
        connections.spawn(async move {
            let mut times = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= all {
                    return Ok::<_, CliError>(times);
                }
                let due = started + Duration::from_secs_f64(index as f64 / rate);
                tokio::time::sleep_until(due).await;
                let (name, path) = &paths[index % paths.len()];
                let (status, body) = connection.get(path).await?;
                times.push(due.elapsed());
                if status != 200 || index < paths.len() {
                    queries::check(name, status, &body)?;
                }
            }
        });
    }
    let mut times = Vec::with_capacity(all);
    while let Some(part) = connections.join_next().await {
        times.extend(part.map_err(|e| CliError::Failed(format!("a dashboard stopped: {e}")))??);
    }
    times.sort_unstable();
    Ok(times)
}
