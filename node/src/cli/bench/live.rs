//! What it costs that many watch (D2): those who hear nothing but heartbeats, and those who hear of every change.

use std::time::Duration;

use tallymesh_protocol::time::HOUR_MS;
use tallymesh_storage::clock::{Clock, SystemClock};
use tokio::time::Instant;

use super::{CliError, ServerUnderTest, Table, percentile, row};
use crate::boot::open_files;
use crate::cli::output::OutputArgs;
use crate::traffic::bench::gauges::Gauges;
use crate::traffic::bench::live::{Audience, Told, body_events, last_delays, send_steadily};
use crate::traffic::bench::server::Usage;
use crate::traffic::bench::stream::{Body, Shape, Stream};

/// Nothing of these events is ever sent: nobody is told anything but that the stream is alive.
const IDLE_QUERIES: usize = 16;
/// Counts every event of the bench: one number, the least that an evaluation can cost, which is the hardest case for those who watch it.
const WATCHED: &str = "metric=*&agg=count&range=24h";
/// Load comes for so long before anything is measured.
const WARM_UP: Duration = Duration::from_secs(3);
/// Connections beside those that watch.
const OTHER_CONNECTIONS: usize = 200;
const MIB: f64 = (1 << 20) as f64;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  Ten thousand who watch for a minute while nothing happens, then a thousand beside 1 000 events a second:
    tallymesh bench live --subscribers 10000 --idle-seconds 60 --watching 1000 --offer 1000 --seconds 30")]
pub struct LiveArgs {
    /// Streams that are open while nothing happens
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    subscribers: u32,
    /// How long nothing happens, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle_seconds: u64,
    /// Streams that watch one query while events come; compared with one stream
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    watching: u32,
    /// Events a second meanwhile, in ten requests a second
    #[arg(long, value_name = "EVENTS_PER_S", default_value_t = 1_000.0)]
    offer: f64,
    /// How long each of the four parts takes: nobody, one, all, one watching
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// A setting of the node that is started; repeatable
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: LiveArgs) -> Result<(), CliError> {
    open_files::raise_limit();
    let places = args.subscribers.max(args.watching) as usize + OTHER_CONNECTIONS;
    if open_files::connections_that_fit(places) < places {
        return Err(CliError::Failed(format!("{places} connections need as many open files; raise the limit: ulimit -n")));
    }
    let mut settings = vec![
        format!("http.connections_max={places}"),
        format!("live.subscribers_max={places}"),
        // All come from one address.
        "clients.connections_max=0".to_owned(),
        "clients.query_rate=0".to_owned(),
        "clients.queries_max=0".to_owned(),
        "clients.ingest_rate=0".to_owned(),
    ];
    settings.extend(args.set.iter().cloned());
    let mut table = Table::new(["measure", "value", "unit"]);
    // Each on a node of its own: memory that the one gave back would hide what the other takes.
    if args.subscribers > 0 {
        let server = warm(&args, &settings).await?.0;
        idle(&args, &server, &mut table).await?;
        server.stop().await?;
    }
    if args.watching > 0 {
        let (server, mut load) = warm(&args, &settings).await?;
        busy(&args, &server, &mut load, &mut table).await?;
        server.stop().await?;
    }
    table.print(args.output.format)
}

/// A node whose caches, buffers and log have taken the size that they have under load.
async fn warm(args: &LiveArgs, settings: &[String]) -> Result<(ServerUnderTest, Load), CliError> {
    let server = ServerUnderTest::start(None, settings).await?;
    let mut load = Load::new(args);
    send_steadily(server.address(), &mut load.bodies, WARM_UP, &mut load.counted).await?;
    Ok((server, load))
}

/// Events of the hour before the bench began, and how many of them were counted.
struct Load {
    bodies: Box<dyn Iterator<Item = Body> + Send>,
    counted: u64,
}

impl Load {
    fn new(args: &LiveArgs) -> Self {
        let batch = body_events(args.offer);
        // The four parts, and what is sent before each.
        let lasts = 4.0 * (args.seconds as f64 + WARM_UP.as_secs_f64()) + WARM_UP.as_secs_f64() + 60.0;
        let events = ((args.offer * lasts) as u64).max(batch * 1_000);
        let now_ms = SystemClock::new().wall_ms();
        let mut stream = Stream::new(now_ms as u64, Shape::Dense, events, now_ms.min(now_ms / HOUR_MS * HOUR_MS + HOUR_MS));
        Self { bodies: Box::new(std::iter::from_fn(move || stream.body(batch))), counted: 0 }
    }
}

async fn idle(args: &LiveArgs, server: &ServerUnderTest, table: &mut Table) -> Result<(), CliError> {
    let count = args.subscribers as usize;
    // Different questions over the metric of all events, none of which matches one.
    let queries: Vec<String> = (0..IDLE_QUERIES).map(|i| format!("metric=*&agg=count&range=24h&filter=country_code:idle-{i}")).collect();
    let before = server.usage();
    eprintln!("Opening {count} streams ...");
    let began = Instant::now();
    let audience = Audience::open(server.address(), &queries, count).await?;
    let opened = began.elapsed();
    // What opening took is given back, as far as it is.
    tokio::time::sleep(WARM_UP).await;
    eprintln!("Nothing happens for {} s ...", args.idle_seconds);
    let (start, told) = (server.usage(), audience.told());
    tokio::time::sleep(Duration::from_secs(args.idle_seconds)).await;
    let (end, told_then) = (server.usage(), audience.told());
    row(table, "idle: subscribers", count as f64, "streams");
    row(table, "idle: all opened after", opened.as_secs_f64(), "s");
    row(table, "idle: server resident, before", before.resident_bytes as f64 / MIB, "MiB");
    row(table, "idle: server resident, at the end", end.resident_bytes as f64 / MIB, "MiB");
    let each = end.resident_bytes.saturating_sub(before.resident_bytes) as f64 / count as f64;
    row(table, "idle: server resident, each subscriber", each / 1_024.0, "KiB");
    row(table, "idle: server CPU", cpu(start, end) / args.idle_seconds as f64 * 100.0, "% of a core");
    row(table, "idle: heartbeats", (told_then.heartbeats - told.heartbeats) as f64 / args.idle_seconds as f64, "per second");
    expect_sound(told_then)?;
    audience.close().await?;
    Ok(())
}

fn expect_sound(told: Told) -> Result<(), CliError> {
    if told.problems > 0 { Err(CliError::Failed(format!("{} streams were told of a problem", told.problems))) } else { Ok(()) }
}

fn cpu(before: Usage, after: Usage) -> f64 {
    after.cpu_seconds - before.cpu_seconds
}

/// One part: what the server spent a second, how many evaluations and deltas a second, and the delay of the last stream for each ack.
struct Part {
    cpu: f64,
    evaluations: f64,
    deltas: f64,
    delays: Vec<Duration>,
    unheard: usize,
}

async fn busy(args: &LiveArgs, server: &ServerUnderTest, load: &mut Load, table: &mut Table) -> Result<(), CliError> {
    let none = part(args, server, load, 0).await?;
    let one = part(args, server, load, 1).await?;
    let all = part(args, server, load, args.watching as usize).await?;
    // Data grows meanwhile: one before and one after.
    let again = part(args, server, load, 1).await?;
    let of_one = f64::midpoint(one.cpu, again.cpu);
    row(table, "watching: events", args.offer, "per second");
    row(table, "nobody watching: server CPU", none.cpu * 100.0, "% of a core");
    for (who, part) in [("one watching", &one), ("all watching", &all), ("one watching, again", &again)] {
        row(table, &format!("{who}: server CPU"), part.cpu * 100.0, "% of a core");
        row(table, &format!("{who}: evaluations"), part.evaluations, "per second");
        row(table, &format!("{who}: deltas"), part.deltas, "per second");
        for (name, q) in [("p50", 0.5), ("p99", 0.99), ("longest", 1.0)] {
            row(table, &format!("{who}: ack to last subscriber, {name}"), percentile(&part.delays, q).as_secs_f64() * 1e3, "ms");
        }
        row(table, &format!("{who}: acks not heard of by the end"), part.unheard as f64, "acks");
    }
    row(table, "subscribers, all watching", f64::from(args.watching), "streams");
    row(table, "server CPU, all to one", all.cpu / of_one.max(1e-4), "times");
    row(table, "server CPU of a delta, over one watching", (all.cpu - of_one) / all.deltas.max(1.0) * 1e6, "us");
    Ok(())
}

async fn part(args: &LiveArgs, server: &ServerUnderTest, load: &mut Load, watching: usize) -> Result<Part, CliError> {
    eprintln!("{watching} watching ...");
    let address = server.address();
    let audience = Audience::open(address, &[WATCHED.to_owned()], watching).await?;
    send_steadily(address, &mut load.bodies, WARM_UP, &mut load.counted).await?;
    let evaluations = async || Gauges::read(address).await.map(|gauges| gauges.sum("tallymesh_live_evaluations_total"));
    let (evaluated, told, before) = (evaluations().await?, audience.told(), server.usage());
    let began = Instant::now();
    let acks = send_steadily(address, &mut load.bodies, Duration::from_secs(args.seconds), &mut load.counted).await?;
    let (took, after, told_then) = (began.elapsed().as_secs_f64(), server.usage(), audience.told());
    let evaluated = evaluations().await? - evaluated;
    expect_sound(told_then)?;
    // The last acks are still on their way.
    tokio::time::sleep(WARM_UP).await;
    let streams = audience.close().await?;
    let (delays, unheard) = if watching > 0 { last_delays(&acks, &streams) } else { (Vec::new(), 0) };
    let deltas = (told_then.deltas - told.deltas) as f64 / took;
    Ok(Part { cpu: cpu(before, after) / took, evaluations: evaluated / took, deltas, delays, unheard })
}
