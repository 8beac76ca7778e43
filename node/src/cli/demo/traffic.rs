//! The demo's events on their way: the day before at once, then each as its time comes.

use std::time::Duration;

use tallymesh_storage::clock::{Clock, SystemClock};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::super::client::CliError;
use super::super::client::sender::{Batch, Sender, Totals};
use super::super::output::progress::{Progress, Unit};
use crate::traffic::demo::feed::{BACKFILL_MS, Feed, backfill_rate};
use crate::traffic::demo::traffic::Traffic;

const SEED: u64 = 7;
const BACKFILL_BATCH_EVENTS: usize = 10_000;
const LIVE_BATCH_EVENTS_MAX: usize = 5_000;
const LIVE_EVERY: Duration = Duration::from_millis(200);
/// Batches that wait between the generator and the node.
const BATCHES_WAITING_MAX: usize = 2;

/// What live traffic tells about itself.
#[derive(Clone, Copy, Debug)]
pub enum Sent {
    /// A batch is on its way from now on.
    Begun(Instant),
    /// It is durable and counted.
    Acked { events: u64, took: Duration },
}

/// Sends the last day's events. They have the same ids each time, so what is there already is not counted again (I5).
pub async fn backfill(sender: &Sender, rate: f64, now_ms: i64) -> Result<(Totals, Duration), CliError> {
    let from_ms = now_ms - BACKFILL_MS;
    let mut feed = Feed::new(Traffic::new(SEED, backfill_rate(rate)), from_ms);
    let (batches, mut receiver) = mpsc::channel(BATCHES_WAITING_MAX);
    // It ends by itself when the receiver is gone.
    let generator = tokio::task::spawn_blocking(move || {
        while let Some((ndjson, events)) = feed.take_until(now_ms, BACKFILL_BATCH_EVENTS) {
            if batches.blocking_send((Batch::new(ndjson, events), feed.position_ms())).is_err() {
                break;
            }
        }
    });
    let minutes = |ms: i64| u64::try_from(ms / 60_000).unwrap_or(0);
    let mut progress = Progress::new("Backfilling the last 24 h", Some(minutes(BACKFILL_MS)), Unit::Minutes);
    let mut totals = Totals::default();
    while let Some((batch, position_ms)) = receiver.recv().await {
        totals.add(sender.send(&batch).await?);
        progress.update(minutes(position_ms - from_ms), totals.sent);
    }
    generator.await.map_err(|e| CliError::Failed(format!("the traffic generator stopped: {e}")))?;
    Ok((totals, progress.finish()))
}

/// Sends events from `from_ms` on as their time comes, until stopped. Nodes that stay away are told about, and the events wait in the recipe.
pub async fn live(
    sender: &Sender,
    rate: f64,
    from_ms: i64,
    mut tell: impl FnMut(Sent),
    mut warn: impl FnMut(&str),
) -> Result<(), CliError> {
    let clock = SystemClock::new();
    let mut feed = Feed::new(Traffic::new(SEED, rate), from_ms);
    let mut ticks = tokio::time::interval(LIVE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while let Some((ndjson, events)) = feed.take_until(clock.wall_ms(), LIVE_BATCH_EVENTS_MAX) {
            let batch = Batch::new(ndjson, events);
            let began = Instant::now();
            tell(Sent::Begun(began));
            while let Err(error) = sender.send(&batch).await {
                if !error.is_retryable() {
                    return Err(error);
                }
                warn(&format!("still trying to send: {error}"));
            }
            tell(Sent::Acked { events, took: began.elapsed() });
        }
    }
}
