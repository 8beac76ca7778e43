//! Measurements over a stretch of time: freshness, dashboards beside ingest, memory, and how long a restart takes.

use std::time::Duration;

use serde_json::json;
use tallymesh_protocol::time::{Grain, HOUR_MS};
use tallymesh_storage::clock::{Clock, SystemClock};
use tokio::time::Instant;

use super::{CliError, Plan, SETTLE_LATENESS, ServerUnderTest, StreamArgs, Table, Target, percentile, rounded, row, run_load};
use crate::cli::output::OutputArgs;
use crate::traffic::bench::dashboard::{self, Dashboards};
use crate::traffic::bench::freshness;
use crate::traffic::bench::load::Connection;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tallymesh bench freshness --events 1000000 --repeat 1000")]
pub struct FreshnessArgs {
    /// What is in the node before
    #[command(flatten)]
    stream: StreamArgs,
    /// How many events are sent and looked for
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn freshness(args: FreshnessArgs) -> Result<(), CliError> {
    let target = Target::open(&args.stream, Vec::new()).await?;
    if target.server.is_some() {
        let bodies = args.stream.bodies(args.stream.seed, args.stream.events, args.stream.end_ms()).await?;
        run_load(&target.address, bodies, args.stream.plan()).await?;
    }
    eprintln!("Sending events one by one, and looking for them ...");
    let now_ms = SystemClock::new().wall_ms();
    let found = freshness::run(&target.address, args.repeat as usize, now_ms, now_ms as u64).await?;
    let mut table = Table::new(["measure", "value", "unit"]);
    for (name, q) in [("ack to visible p50", 0.5), ("ack to visible p99", 0.99), ("ack to visible, longest", 1.0)] {
        row(&mut table, name, percentile(&found.times, q).as_secs_f64() * 1e3, "ms");
    }
    row(&mut table, "not in the first answer", found.asked_again as f64, "times");
    table.print(args.output.format)?;
    target.close().await
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  A minute of 1 600 questions a second while 300 000 events a second come in:
    tallymesh bench dashboard --stream dense --events 1000000 --offer 300000 --queries 1600 --seconds 60")]
pub struct DashboardArgs {
    /// What is in the node before, of the time that ends now, and what goes on coming, with other ids
    #[command(flatten)]
    stream: StreamArgs,
    /// Events that come meanwhile, a second
    #[arg(long, value_name = "EVENTS_PER_S")]
    offer: f64,
    /// Questions a second, with cache=on
    #[arg(long, value_name = "PER_S", default_value_t = 1_600.0)]
    queries: f64,
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Connections that ask
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    viewers: u16,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn dashboard(args: DashboardArgs) -> Result<(), CliError> {
    let target = Target::open(&args.stream, Vec::new()).await?;
    // Dashboards look at the present: the events are of the time that ends now.
    let end_ms = Grain::Minute.floor(SystemClock::new().wall_ms());
    let bodies = args.stream.bodies(args.stream.seed, args.stream.events, end_ms).await?;
    run_load(&target.address, bodies.clone(), args.stream.plan()).await?;
    eprintln!("Asking and sending ...");
    let lasts = Duration::from_secs(args.seconds);
    let again = args.stream.bodies(args.stream.seed + 1, args.stream.events, end_ms).await?;
    let rounds = (args.offer * lasts.as_secs_f64() / args.stream.events as f64).ceil().max(1.0) as u32;
    let plan = Plan { events_per_second: Some(args.offer), rounds, ..args.stream.plan() };
    let hours = args.stream.stream.span_ms() / HOUR_MS;
    let viewers = Dashboards { queries_per_second: args.queries, lasts, connections: usize::from(args.viewers), hours };
    let before = target.usage();
    let began = Instant::now();
    // The events go on a little longer than the questions.
    let (asked, sent) = tokio::try_join!(
        async {
            let times = dashboard::run(&target.address, &viewers).await?;
            Ok::<_, CliError>((times, began.elapsed(), target.usage()))
        },
        run_load(&target.address, again, plan)
    )?;
    let (times, took, after) = asked;
    let mut table = Table::new(["measure", "value", "unit"]);
    row(&mut table, "questions", times.len() as f64 / took.as_secs_f64(), "per second");
    for (name, q) in [("answer p50", 0.5), ("answer p99", 0.99), ("answer, slowest", 1.0)] {
        row(&mut table, name, percentile(&times, q).as_secs_f64() * 1e3, "ms");
    }
    row(&mut table, "events", sent.events_per_second(), "per second");
    row(&mut table, "ack p99", percentile(&sent.acks, 0.99).as_secs_f64() * 1e3, "ms");
    row(&mut table, "refused", sent.refused as f64, "requests");
    if let (Some(before), Some(after)) = (before, after) {
        row(&mut table, "server CPU", (after.cpu_seconds - before.cpu_seconds) / took.as_secs_f64(), "of a core");
    }
    table.print(args.output.format)?;
    target.close().await
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  Half an hour, 30 million events of the same half a million windows:
    tallymesh bench memory --stream dense --events 3000000 --rounds 10 --offer 16667")]
pub struct MemoryArgs {
    /// The events of one round
    #[command(flatten)]
    stream: StreamArgs,
    /// How often they are sent, each time with other ids
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// Events a second
    #[arg(long, value_name = "EVENTS_PER_S", default_value_t = 16_667.0)]
    offer: f64,
    /// Between two looks, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// What a node has taken by the fifth look is what later ones are compared with.
const SETTLED_LOOKS: usize = 5;

pub async fn memory(args: MemoryArgs) -> Result<(), CliError> {
    let target = Target::open(&args.stream, Vec::new()).await?;
    let bodies = args.stream.bodies(args.stream.seed, args.stream.events, args.stream.end_ms()).await?;
    let plan = Plan { events_per_second: Some(args.offer), rounds: args.rounds, ..args.stream.plan() };
    let every = Duration::from_secs(args.every);
    let mut table = Table::new(["seconds", "resident_mib", "of_the_fifth"]);
    let mut looks: Vec<f64> = Vec::new();
    let began = Instant::now();
    let mut looking = tokio::time::interval_at(began + every, every);
    let address = target.address.clone();
    let sending = run_load(&address, bodies, plan);
    tokio::pin!(sending);
    let outcome = loop {
        tokio::select! {
            outcome = &mut sending => break outcome?,
            _ = looking.tick() => {
                let resident = target.usage().map_or(0.0, |u| u.resident_bytes as f64 / f64::from(1 << 20));
                looks.push(resident);
                let share = looks.get(SETTLED_LOOKS - 1).map_or(json!(null), |fifth| rounded(resident / fifth));
                eprintln!("{} s: {resident:.0} MiB", began.elapsed().as_secs());
                table.row(vec![json!(began.elapsed().as_secs()), rounded(resident), share]);
            }
        }
    };
    eprintln!("{} events accepted, {} duplicates.", outcome.accepted, outcome.duplicates);
    table.print(args.output.format)?;
    target.close().await
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tallymesh bench restart --events 10000000")]
pub struct RestartArgs {
    /// What is in the node when it is killed
    #[command(flatten)]
    stream: StreamArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn restart(args: RestartArgs) -> Result<(), CliError> {
    let mut settings = vec![SETTLE_LATENESS.to_owned()];
    settings.extend(args.stream.set.iter().cloned());
    let server = ServerUnderTest::start(args.stream.data_dir.clone(), &settings).await?;
    let bodies = args.stream.bodies(args.stream.seed, args.stream.events, args.stream.end_ms()).await?;
    let outcome = run_load(server.address(), bodies, args.stream.plan()).await?;
    let (all, log) = server.disk_bytes();
    eprintln!("Killing and starting it ...");
    let data_dir = server.kill();
    let began = Instant::now();
    let server = ServerUnderTest::start(Some(data_dir.clone()), &settings).await?;
    let took = began.elapsed();
    let end_ms = args.stream.end_ms();
    let path = format!("/v1/query?metric=*&agg=count&from={}&to={end_ms}", end_ms - args.stream.stream.span_ms());
    let (_, body) = Connection::open(server.address()).await?.get(&path).await?;
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let counted = answer["data"][0]["values"]["count"].as_u64().unwrap_or(0);
    let mut table = Table::new(["measure", "value", "unit"]);
    row(&mut table, "accepted", outcome.accepted as f64, "events");
    row(&mut table, "counted after the restart", counted as f64, "events");
    row(&mut table, "ready after", took.as_secs_f64() * 1e3, "ms");
    row(&mut table, "disk", all as f64 / f64::from(1 << 20), "MiB");
    row(&mut table, "disk, log", log as f64 / f64::from(1 << 20), "MiB");
    table.print(args.output.format)?;
    server.stop().await?;
    if args.stream.data_dir.is_none() {
        std::fs::remove_dir_all(&data_dir).map_err(|e| CliError::Failed(format!("cannot remove {}: {e}", data_dir.display())))?;
    }
    if counted == outcome.accepted { Ok(()) } else { Err(CliError::Failed("events were lost, or counted twice".to_owned())) }
}
