//! `tallymesh demo`: nodes on this machine and traffic that looks like a product's, backfilled for a day and then live. One node runs in this process
//! ([`run_one`]), several are processes of their own ([`fleet`]).

mod fleet;
mod nodes;
mod plan;
mod screen;
mod traffic;

use std::path::PathBuf;
use std::time::Duration;

use tallymesh_storage::clock::{Clock, SystemClock};

use super::client::sender::{Sender, Totals};
use super::client::{CliError, Client, ServerArgs};
use super::output::grouped;
use crate::boot::{Machine, RunningNode, interrupted, logs};
use crate::config::{Config, Sources};
use crate::traffic::demo::definitions::definitions;
use crate::traffic::demo::feed::backfill_rate;

const DATA_DIR: &str = "./tallymesh-data/demo";
const HTTP: &str = "127.0.0.1:7070";
/// On one machine; each node has its threads, its log and its files.
const NODES_MAX: u16 = 15;
/// The first election of a shard is worth no warning to somebody who only wants to look.
const LOG_LEVEL: &str = "logs.level=warn,openraft=error";
const RETRY_FOR: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  The page and the numbers of a product, at http://127.0.0.1:7070:
    tallymesh demo

  Busier, elsewhere, from scratch:
    tallymesh demo --rate 200 --http 127.0.0.1:8080 --data-dir /tmp/demo

  Three nodes that are one cluster; kill one and watch the others go on:
    tallymesh demo --nodes 3
    tallymesh cluster status --watch     # in another terminal";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// Nodes on this machine; several are processes of their own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: u16,
    /// Events per second, as the mean of a day: there are more by day than by night
    #[arg(long, value_name = "EVENTS_PER_S", default_value_t = 10.0)]
    rate: f64,
    /// Address to listen on, of several nodes the first; the others have the next ports [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Where the data is kept [default: ./tallymesh-data/demo, of N nodes ./tallymesh-data/demo-N]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Start a node again that was killed; only with --nodes
    #[arg(long)]
    restart: bool,
}

impl DemoArgs {
    fn data_dir(&self) -> PathBuf {
        let default = || if self.nodes == 1 { DATA_DIR.into() } else { format!("{DATA_DIR}-{}", self.nodes).into() };
        self.data_dir.clone().unwrap_or_else(default)
    }
}

pub async fn run(args: DemoArgs) -> Result<(), CliError> {
    if !(args.rate > 0.0 && args.rate <= 100_000.0) {
        return Err(CliError::Usage(format!("--rate {}: must be over 0 and at most 100000", args.rate)));
    }
    if args.nodes == 1 { run_one(args).await } else { fleet::run(&args).await }
}

async fn run_one(args: DemoArgs) -> Result<(), CliError> {
    if args.restart {
        return Err(CliError::Usage("--restart is for several nodes: a single one is this process itself".to_owned()));
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
    sources.flags.push(("node.data_dir", args.data_dir().display().to_string()));
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
    let client = Client::new(&ServerArgs { url: url.to_owned() })?;
    let sender = Sender::new(client, RETRY_FOR);
    let now_ms = SystemClock::new().wall_ms();
    let (totals, took) = traffic::backfill(&sender, args.rate, now_ms).await?;
    print_banner(args, url, &totals, took);
    traffic::live(&sender, args.rate, now_ms, |_| {}, |warning| eprintln!("{warning}")).await
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
        args.data_dir().display(),
        args.rate
    );
}
