//! Probes: for each node and shard one client that sends a single event again and again, so that it is seen when a shard takes no writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::MissedTickBehavior;

use super::{Load, What};
use crate::fleet::load::stream::{Batch, Shape};
use crate::fleet::load::token;
use crate::fleet::now::wall_ms;

/// Writers of probes have numbers from here on.
const FIRST_PROBE: u16 = 10_000;
/// Home keys that are tried until every shard has one.
const KEYS_MAX: u16 = 2_000;

/// For each shard the number of a home key that lies in it: found by sending, as a client would.
///
/// # Errors
/// An ack did not come, or some shard got nothing.
pub async fn find_keys(load: &Load, shards: u16) -> Result<Vec<u16>> {
    let mut keys: BTreeMap<u64, u16> = BTreeMap::new();
    for key in 0..KEYS_MAX {
        if keys.len() == usize::from(shards) {
            break;
        }
        let batch = Batch { writer: FIRST_PROBE - 1, number: key.into(), made_ms: wall_ms(), shape: Shape::Probe { key } };
        let (place, request) = load.open(batch);
        let node = usize::from(key) % load.fleet.nodes.len();
        let ack = load.attempt(place, &request, node, What::Write).await;
        let ack = ack.with_context(|| format!("a first event was not acked: {:?}", load.reasons()))?;
        let positions = token::positions(ack["token"].as_str().context("token")?)?;
        ensure!(positions.len() == 1, "one event lies in one shard: {positions:?}");
        keys.entry(positions[0].0).or_insert(key);
    }
    ensure!(keys.keys().copied().eq(0..u64::from(shards)), "of {shards} shards only {:?} got any of {KEYS_MAX} keys", keys.keys());
    Ok(keys.into_values().collect())
}

/// Probes one shard through one node until the run ends. While that node is known not to be ready, nothing is sent.
pub async fn run(load: Arc<Load>, node: usize, shard: u16, key: u16, every: Duration) {
    let (nodes, shards) = (load.fleet.nodes.len() as u32, load.watch.shards);
    let writer = FIRST_PROBE + (node as u16) * shards + shard;
    // Spread evenly, so that a gap is seen as soon as it can be.
    let offset = every.mul_f64(f64::from(node as u32 * u32::from(shards) + u32::from(shard)) / f64::from(nodes * u32::from(shards)));
    if !load.pause(offset).await {
        return;
    }
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = load.stop.cancelled() => return,
        }
        if !load.watch.takes_requests(node) {
            continue;
        }
        let (place, request) = load.open(Batch { writer, number, made_ms: wall_ms(), shape: Shape::Probe { key } });
        load.attempt(place, &request, node, What::Probe { shard }).await;
    }
}
