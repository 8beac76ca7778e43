//! Writers: batches of all sizes at all nodes, sent again after failures, and now and then though they were acked.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::readers::read_back;
use super::{Load, What};
use crate::fleet::load::ledger::Place;
use crate::fleet::load::stream::{Batch, Request, Shape, request};
use crate::fleet::node::http::Body;
use crate::fleet::now::wall_ms;

/// Retries at once; then a batch waits for the run's end.
const RETRIES_MAX: u32 = 4;
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Share of the acked batches that are read back at another node, with their token.
const READ_BACK: f64 = 0.05;
/// At the end everything is acked within this time, or the fleet did not heal.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
const SETTLING_AT_ONCE: usize = 16;

/// How one writer writes.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    pub batches_per_second: f64,
    pub events_max: u16,
    /// Share of the acked batches that are sent again, or to two nodes at once.
    pub duplicates: f64,
}

/// Writes until the run ends. Its home is one node; while that is not ready it goes to others, as behind a load balancer.
pub async fn run(load: Arc<Load>, writer: u16, options: WriterOptions) {
    let mut random = StdRng::seed_from_u64(load.ledger.seed ^ u64::from(writer) << 48);
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / options.batches_per_second));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let home = usize::from(writer) % load.fleet.nodes.len();
    for number in 0.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = load.stop.cancelled() => return,
        }
        let batch = Batch { writer, number, made_ms: wall_ms(), shape: Shape::Mixed { events_max: options.events_max } };
        let (place, request) = load.open(batch);
        let node = load.watch.ready_node(home, &mut random);
        let acked = if random.random_bool(options.duplicates) {
            // Both at once: exactly one of them counts each event.
            let other = load.watch.ready_node(node + 1, &mut random);
            let (one, two) =
                tokio::join!(load.attempt(place, &request, node, What::Write), load.attempt(place, &request, other, What::Write));
            one.or(two)
        } else {
            load.attempt(place, &request, node, What::Write).await
        };
        if let Some(token) = acked.as_ref().and_then(|ack| ack["token"].as_str())
            && random.random_bool(READ_BACK)
        {
            let other = load.watch.ready_node(node + 1, &mut random);
            read_back(&load, other, writer, token).await;
        }
        match acked {
            Some(_) if random.random_bool(options.duplicates) => {
                let other = load.watch.ready_node(node + 1, &mut random);
                load.attempt(place, &request, other, What::Write).await;
            }
            // Half of the clients come back at once, the others much later.
            None if random.random_bool(0.5) => retry(&load, place, &request, node, &mut random).await,
            _ => {}
        }
    }
}

async fn retry(load: &Load, place: Place, request: &Request, node: usize, random: &mut StdRng) {
    for attempt in 1..=RETRIES_MAX {
        if !load.pause(RETRY_AFTER * attempt).await {
            return;
        }
        let node = load.watch.ready_node(node + attempt as usize, random);
        if load.attempt(place, request, node, What::Write).await.is_some() {
            return;
        }
    }
}

/// Sends everything that no ack settled, until it is acked. Gives how many batches that were.
///
/// # Errors
/// They are not acked in time, though the fleet should be well.
pub async fn settle(load: &Arc<Load>) -> Result<usize> {
    let open = load.ledger.still_open();
    let deadline = Instant::now() + SETTLED_WITHIN;
    let mut tasks = JoinSet::new();
    for (count, &place) in open.iter().enumerate() {
        if tasks.len() == SETTLING_AT_ONCE {
            tasks.join_next().await.context("a task")???;
        }
        tasks.spawn(settle_one(load.clone(), place, count, deadline));
    }
    while let Some(settled) = tasks.join_next().await {
        settled??;
    }
    Ok(open.len())
}

async fn settle_one(load: Arc<Load>, place: Place, first_node: usize, deadline: Instant) -> Result<()> {
    let request = request(load.ledger.seed, &load.ledger.batch(place));
    for node in (0..load.fleet.nodes.len()).cycle().skip(first_node % load.fleet.nodes.len()) {
        if load.attempt(place, &request, node, What::Write).await.is_some() {
            break;
        }
        let left = load.ledger.still_open().len();
        ensure!(Instant::now() < deadline, "{left} batches are not acked within {SETTLED_WITHIN:?} after the faults: {:?}", load.reasons());
        tokio::time::sleep(RETRY_AFTER).await;
    }
    Ok(())
}

pub fn body(request: &Request) -> Body {
    let content_type = if request.is_lines { "application/x-ndjson" } else { "application/json" };
    let bytes = request.text.as_bytes();
    if !request.gzip {
        return Body { bytes: bytes.to_vec(), content_type, gzip: false };
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    match encoder.write_all(bytes).and_then(|()| encoder.finish()) {
        Ok(bytes) => Body { bytes, content_type, gzip: true },
        // Into memory it does not fail.
        Err(_) => Body { bytes: bytes.to_vec(), content_type, gzip: false },
    }
}
