//! `tallymesh demo`: a node on this machine and traffic that looks like a product's, backfilled for a day and then live.

use std::time::Duration;

use tallymesh_storage::clock::{Clock, SystemClock};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::client::{CliError, Client, ServerArgs};
use super::output::grouped;
use super::progress::{Progress, Unit};
use super::sender::{Batch, Sender, Totals};
use crate::boot::{Machine, RunningNode, interrupted};
use crate::config::{Config, Sources};
use crate::demo::definitions::definitions;
use crate::demo::feed::{BACKFILL_MS, Feed, backfill_rate};
use crate::demo::traffic::Traffic;
use crate::logs;

const DATA_DIR: &str = "./tallymesh-data/demo";
const SEED: u64 = 7;
/// The first election of a shard is worth no warning to somebody who only wants to look.
const LOG_LEVEL: &str = "logs.level=warn,openraft=error";
const BACKFILL_BATCH_EVENTS: usize = 10_000;
const LIVE_BATCH_EVENTS_MAX: usize = 5_000;
const LIVE_EVERY: Duration = Duration::from_millis(200);
/// Batches that wait between the generator and the node.
const BATCHES_WAITING_MAX: usize = 2;
const RETRY_FOR: Duration = Duration::from_secs(60);

/// Run a node with live sample traffic.
const EXAMPLES: &str = "\
Examples:
  The page and the numbers of a product, at http://127.0.0.1:7070:
    tallymesh demo

  Busier, elsewhere, from scratch:
    tallymesh demo --rate 200 --http 127.0.0.1:8080 --data-dir /tmp/demo";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// Nodes on this machine
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: u16,
    /// Events per second, as the mean of a day: there are more by day than by night
    #[arg(long, value_name = "EVENTS_PER_S", default_value_t = 10.0)]
    rate: f64,
    /// Address to listen on [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Where the data is kept
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: String,
}

pub async fn run(args: DemoArgs) -> Result<(), CliError> {
    if args.nodes != 1 {
        return Err(CliError::Usage(format!("--nodes {}: this version runs one node; a fleet is not built yet", args.nodes)));
    }
    if !(args.rate > 0.0 && args.rate <= 100_000.0) {
        return Err(CliError::Usage(format!("--rate {}: must be over 0 and at most 100000", args.rate)));
    }
    let config = config(&args)?;
    logs::start(&config.logs).map_err(CliError::Failed)?;
    let node = RunningNode::start(config, Machine::this_one()).await.map_err(|e| CliError::Failed(e.to_string()))?;
    let url = reachable(&node.url());
    let sent = tokio::select! {
        sent = send_traffic(&args, &url) => sent,
        stopped = interrupted() => stopped.map_err(|e| CliError::Failed(format!("cannot listen for signals: {e}"))),
    };
    eprintln!("\nStopping: finishing what was accepted ...");
    node.shutdown().await;
    sent?;
    eprintln!("Stopped. Nothing is lost; the next `tallymesh demo` goes on and fills the gap.");
    Ok(())
}

fn config(args: &DemoArgs) -> Result<Config, CliError> {
    let mut sources = Sources::from_environment();
    // The banner and the progress bar are for people; the log speaks up when something is wrong.
    if !sources.env.iter().any(|(name, _)| name == "TALLYMESH_LOGS__LEVEL") {
        sources.sets.push(LOG_LEVEL.to_owned());
    }
    sources.flags.push(("node.data_dir", args.data_dir.clone()));
    sources.flags.extend(args.http.clone().map(|addr| ("http.addr", addr)));
    let mut config = Config::load(&sources).map_err(|e| CliError::Usage(e.to_string()))?;
    config.metrics = definitions();
    Ok(config)
}

/// An address that listens everywhere is dialled on this machine.
fn reachable(url: &str) -> String {
    url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
}

async fn send_traffic(args: &DemoArgs, url: &str) -> Result<(), CliError> {
    let clock = SystemClock::new();
    let client = Client::new(&ServerArgs { url: url.to_owned() })?;
    let sender = Sender::new(client, RETRY_FOR);
    let now_ms = clock.wall_ms();
    let (totals, took) = backfill(&sender, args.rate, now_ms).await?;
    print_banner(args, url, &totals, took);
    live(&sender, Feed::new(Traffic::new(SEED, args.rate), now_ms), &clock).await
}

/// Sends the last day's events. They have the same ids each time, so what is there already is not counted again (I5).
async fn backfill(sender: &Sender, rate: f64, now_ms: i64) -> Result<(Totals, Duration), CliError> {
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

/// Sends events as their time comes, until stopped. A node that stays away is told about, and the events wait in the recipe.
async fn live(sender: &Sender, mut feed: Feed, clock: &SystemClock) -> Result<(), CliError> {
    let mut ticks = tokio::time::interval(LIVE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while let Some((ndjson, events)) = feed.take_until(clock.wall_ms(), LIVE_BATCH_EVENTS_MAX) {
            let batch = Batch::new(ndjson, events);
            while let Err(error) = sender.send(&batch).await {
                if !error.is_retryable() {
                    return Err(error);
                }
                eprintln!("still trying to send: {error}");
            }
        }
    }
}

fn print_banner(args: &DemoArgs, url: &str, totals: &Totals, took: Duration) {
    let number = |n: u64| grouped(&n.to_string());
    let took = format!("{:.1} s", took.as_secs_f64());
    let (sent, new, old) = (number(totals.sent), number(totals.accepted), number(totals.duplicates));
    let thinned = if backfill_rate(args.rate) < args.rate { ", thinned out" } else { "" };
    eprintln!(
        "
  Tallymesh demo

  Open     {url}/
  Data     {}: the last 24 h{thinned}, {sent} events in {took} ({new} new, {old} already there)
  Traffic  about {} events/s, following the time of day; another rate with --rate

  Ask      curl -s '{url}/v1/query?metric=*&agg=count,users&range=24h&group_by=event'
           tallymesh query --metric feature_usage --agg count,users --range 24h --group-by feature --order -value --url {url}
  Watch    tallymesh tail --url {url}

  Ctrl-C stops it.
",
        args.data_dir, args.rate
    );
}
