//! `tallymesh bench ...`: what a node can do, and what it costs.

mod live;
mod steady;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tallymesh_protocol::time::{DAY_MS, Grain};
use tallymesh_storage::clock::{Clock, SystemClock};

use super::client::CliError;
use super::output::{OutputArgs, Table};
use crate::traffic::bench::gauges::Gauges;
use crate::traffic::bench::load::{Outcome, Plan, percentile, run as run_load};
use crate::traffic::bench::queries;
use crate::traffic::bench::server::{ServerUnderTest, Usage};
use crate::traffic::bench::stream::{Body, Shape, Stream};

/// How long sealing may take after the last write, beyond the lateness that the node is given.
const SEALED_WITHIN: Duration = Duration::from_secs(120);
/// Windows stay open for so long after their last write while `--settle` is on; the default would only make the bench wait.
const SETTLE_LATENESS: &str = "windows.lateness=2s";

/// Measure what a node can do.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --url, a node is started in a process of its own, on a new directory under the working directory, and removed afterwards.
Build with --release, and leave the machine alone meanwhile.

Examples:
  What an event costs, until every window is sealed and folded:
    tallymesh bench ingest --stream sparse --events 3000000 --settle

  Acks at half of what the node can take:
    tallymesh bench ingest --events 3000000 --offer 400000

  Four questions over a day of events:
    tallymesh bench query --events 3000000 --settle"
)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Events per second, latency of acks, CPU and memory of the server
    Ingest(IngestArgs),
    /// Latency of four usual questions over a day of events
    Query(QueryArgs),
    /// From an ack to the first answer that shows its event
    Freshness(steady::FreshnessArgs),
    /// Dashboards that ask at a steady rate beside events that come at a steady rate
    Dashboard(steady::DashboardArgs),
    /// Memory and CPU of many who watch, and how late the last of them hears
    Live(live::LiveArgs),
    /// Memory, minute by minute, while the same windows get new events
    Memory(steady::MemoryArgs),
    /// From a kill -9 to taking writes again
    Restart(steady::RestartArgs),
    /// The events themselves, as NDJSON on standard output
    Stream(StreamOutArgs),
}

/// For whoever wants to send the same events elsewhere.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tallymesh bench stream --stream dense --events 100000 > events.ndjson")]
struct StreamOutArgs {
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    events: u64,
    /// Spread over a day or over an hour
    #[arg(long, value_enum, default_value = "sparse")]
    stream: Shape,
    /// Another seed makes other events
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

#[derive(Debug, clap::Args)]
struct StreamArgs {
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    events: u64,
    /// Spread over a day or over an hour
    #[arg(long, value_enum, default_value = "sparse")]
    stream: Shape,
    /// Another seed makes other events
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Events per request
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// Requests at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    connections: u16,
    /// A node that runs already; its CPU and memory are not seen then
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    url: Option<String>,
    /// Directory of the node that is started; kept afterwards
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A setting of the node that is started; repeatable
    #[arg(long, value_name = "SECTION.KEY=VALUE", conflicts_with = "url")]
    set: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct IngestArgs {
    #[command(flatten)]
    stream: StreamArgs,
    /// Count the CPU until every window is sealed and folded
    #[arg(long, conflicts_with = "url")]
    settle: bool,
    /// Offer so many events per second instead of as many as are taken
    #[arg(long, value_name = "EVENTS_PER_S")]
    offer: Option<f64>,
    /// Afterwards offer so many times what was measured, and do not send refused events again
    #[arg(long, value_name = "TIMES", conflicts_with = "offer")]
    overload: Option<f64>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
struct QueryArgs {
    #[command(flatten)]
    stream: StreamArgs,
    /// Ask once every window is sealed and folded, rather than right after the last ack
    #[arg(long, conflicts_with = "url")]
    settle: bool,
    /// How often each question is asked
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: BenchArgs) -> Result<(), CliError> {
    match args.what {
        What::Ingest(args) => ingest(args).await,
        What::Query(args) => query(args).await,
        What::Freshness(args) => steady::freshness(args).await,
        What::Dashboard(args) => steady::dashboard(args).await,
        What::Live(args) => live::run(args).await,
        What::Memory(args) => steady::memory(args).await,
        What::Restart(args) => steady::restart(args).await,
        What::Stream(args) => stream_out(&args),
    }
}

/// Events that are made and written at a time.
const STREAM_OUT_EVENTS: u64 = 10_000;

fn stream_out(args: &StreamOutArgs) -> Result<(), CliError> {
    let mut stream = Stream::new(args.seed, args.stream, args.events, end_ms(args.stream));
    let mut out = std::io::stdout().lock();
    while let Some(body) = stream.body(STREAM_OUT_EVENTS) {
        out.write_all(&body.ndjson).map_err(|e| CliError::Failed(format!("writing events: {e}")))?;
    }
    Ok(())
}

/// The stream begins at the last but one midnight, UTC: all its windows, the day too, are over.
fn end_ms(shape: Shape) -> i64 {
    Grain::Day.floor(SystemClock::new().wall_ms()) - DAY_MS + shape.span_ms()
}

/// The node that is measured: a child, or one that runs somewhere.
struct Target {
    server: Option<ServerUnderTest>,
    address: String,
}

impl Target {
    async fn open(args: &StreamArgs, mut settings: Vec<String>) -> Result<Self, CliError> {
        if let Some(url) = &args.url {
            let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
            return Ok(Self { server: None, address });
        }
        settings.extend(args.set.iter().cloned());
        let server = ServerUnderTest::start(args.data_dir.clone(), &settings).await?;
        Ok(Self { address: server.address().to_owned(), server: Some(server) })
    }

    fn usage(&self) -> Option<Usage> {
        self.server.as_ref().map(ServerUnderTest::usage)
    }

    async fn close(self) -> Result<(), CliError> {
        match self.server {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }
}

impl StreamArgs {
    async fn bodies(&self, seed: u64, events: u64, end_ms: i64) -> Result<Arc<Vec<Body>>, CliError> {
        let (shape, batch) = (self.stream, self.batch);
        eprintln!("Making {events} events ...");
        let made = tokio::task::spawn_blocking(move || Stream::new(seed, shape, events, end_ms).bodies(batch)).await;
        made.map(Arc::new).map_err(|e| CliError::Failed(format!("making events: {e}")))
    }

    fn end_ms(&self) -> i64 {
        end_ms(self.stream)
    }

    fn plan(&self) -> Plan {
        Plan { connections: usize::from(self.connections), events_per_second: None, retry: true, rounds: 1 }
    }
}

async fn ingest(args: IngestArgs) -> Result<(), CliError> {
    let end_ms = args.stream.end_ms();
    let bodies = args.stream.bodies(args.stream.seed, args.stream.events, end_ms).await?;
    let settings = if args.settle { vec![SETTLE_LATENESS.to_owned()] } else { Vec::new() };
    let target = Target::open(&args.stream, settings).await?;
    let mut table = Table::new(["measure", "value", "unit"]);

    let before = target.usage();
    eprintln!("Sending to {} ...", target.address);
    let plan = Plan { events_per_second: args.offer, ..args.stream.plan() };
    let outcome = run_load(&target.address, bodies, plan).await?;
    let per_cpu_second = measured(&mut table, &target, before, &outcome, "");
    if args.settle
        && let Some(server) = &target.server
    {
        eprintln!("Waiting until every window is sealed ...");
        server.wait_until_sealed(SEALED_WITHIN).await?;
        measured_cost(&mut table, &target, before, &outcome, "sealed: ");
    }

    if let Some(times) = args.overload {
        let offered = outcome.events_per_second() * times;
        let bodies = args.stream.bodies(args.stream.seed + 1, (args.stream.events as f64 * times) as u64, end_ms).await?;
        eprintln!("Offering {times} times as much ...");
        let before = target.usage();
        // A node that is slow to answer must not slow down what is offered.
        let connections = (f64::from(args.stream.connections) * times).ceil() as usize;
        let plan = Plan { connections, events_per_second: Some(offered), retry: false, rounds: 1 };
        let overloaded = run_load(&target.address, bodies, plan).await?;
        row(&mut table, "overload: offered", offered, "events/s");
        let overloaded_per_cpu_second = measured(&mut table, &target, before, &overloaded, "overload: ");
        if let (Some(normal), Some(overloaded)) = (per_cpu_second, overloaded_per_cpu_second) {
            row(&mut table, "overload: goodput per CPU-second, of normal", overloaded / normal * 100.0, "%");
        }
    }
    if let Some(server) = &target.server {
        for (name, value, unit) in Gauges::read(&target.address).await?.costs() {
            row(&mut table, name, value, unit);
        }
        let (all, log) = server.disk_bytes();
        row(&mut table, "disk", all as f64 / f64::from(1 << 20), "MiB");
        row(&mut table, "disk, log", log as f64 / f64::from(1 << 20), "MiB");
    }
    table.print(args.output.format)?;
    target.close().await
}

/// Adds throughput, latency and cost; gives the events per CPU-second when the server can be seen.
fn measured(table: &mut Table, target: &Target, before: Option<Usage>, outcome: &Outcome, prefix: &str) -> Option<f64> {
    let mut add = |name: &str, value: f64, unit: &str| row(table, &format!("{prefix}{name}"), value, unit);
    add("accepted", outcome.accepted as f64, "events");
    add("duplicates", outcome.duplicates as f64, "events");
    add("refused", outcome.refused as f64, "requests");
    add("took", outcome.took.as_secs_f64(), "s");
    add("throughput", outcome.events_per_second(), "events/s");
    add("ack p50", percentile(&outcome.acks, 0.5).as_secs_f64() * 1e3, "ms");
    add("ack p99", percentile(&outcome.acks, 0.99).as_secs_f64() * 1e3, "ms");
    measured_cost(table, target, before, outcome, prefix)
}

fn measured_cost(table: &mut Table, target: &Target, before: Option<Usage>, outcome: &Outcome, prefix: &str) -> Option<f64> {
    let (before, after) = (before?, target.usage()?);
    let cpu = after.cpu_seconds - before.cpu_seconds;
    let per_cpu_second = outcome.accepted as f64 / cpu.max(0.01);
    let mut add = |name: &str, value: f64, unit: &str| row(table, &format!("{prefix}{name}"), value, unit);
    add("server CPU", cpu, "s");
    add("server CPU per million events", cpu * 1e6 / (outcome.accepted as f64).max(1.0), "s");
    add("events per server CPU-second", per_cpu_second, "events");
    add("server resident", after.resident_bytes as f64 / f64::from(1 << 20), "MiB");
    add("server resident, peak", after.resident_peak_bytes as f64 / f64::from(1 << 20), "MiB");
    Some(per_cpu_second)
}

async fn query(args: QueryArgs) -> Result<(), CliError> {
    let end_ms = args.stream.end_ms();
    let settings = if args.settle { vec![SETTLE_LATENESS.to_owned()] } else { Vec::new() };
    let target = Target::open(&args.stream, settings).await?;
    if target.server.is_some() {
        let bodies = args.stream.bodies(args.stream.seed, args.stream.events, end_ms).await?;
        eprintln!("Sending them ...");
        run_load(&target.address, bodies, args.stream.plan()).await?;
    }
    if let (true, Some(server)) = (args.settle, &target.server) {
        eprintln!("Waiting until every window is sealed ...");
        server.wait_until_sealed(SEALED_WITHIN).await?;
    }
    eprintln!("Asking ...");
    let from_ms = end_ms - args.stream.stream.span_ms();
    let timed = queries::run(&target.address, from_ms, end_ms, args.repeat as usize).await?;
    let mut table = Table::new(["query", "rows", "first_ms", "p50_ms", "p99_ms"]);
    for query in timed {
        let ms = |time: Duration| rounded(time.as_secs_f64() * 1e3);
        let [p50, p99] = [0.5, 0.99].map(|q| ms(percentile(&query.times, q)));
        table.row(vec![json!(query.name), json!(query.rows), ms(query.first), p50, p99]);
    }
    table.print(args.output.format)?;
    if let Some(usage) = target.usage() {
        eprintln!("The node is {} MiB large, {} at its peak.", usage.resident_bytes >> 20, usage.resident_peak_bytes >> 20);
    }
    target.close().await
}

fn row(table: &mut Table, name: &str, value: f64, unit: &str) {
    table.row(vec![json!(name), rounded(value), json!(unit)]);
}

/// Four significant digits at least, whole numbers whole.
fn rounded(value: f64) -> serde_json::Value {
    let digits = 3 - value.abs().max(1e-9).log10().floor().clamp(-9.0, 3.0) as i32;
    let scale = 10f64.powi(digits.max(0));
    let rounded = (value * scale).round() / scale;
    if rounded.fract() == 0.0 { json!(rounded as i64) } else { json!(rounded) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_the_digits_that_mean_something() {
        for (value, text) in [(0.0, "0"), (0.041_26, "0.04126"), (12.345_678, "12.35"), (987_654.3, "987654"), (3.0, "3")] {
            assert_eq!(rounded(value).to_string(), text);
        }
    }
}
