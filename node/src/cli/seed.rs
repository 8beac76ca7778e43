//! `tallymesh seed`: sends events, made up or from a file, and says what became of them.

mod file;
mod made_up;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use serde_json::json;
use tallymesh_storage::clock::{Clock, SystemClock};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use self::file::Batches;
use self::made_up::MadeUp;
use super::client::sender::{Batch, Sender, Totals};
use super::client::{CliError, Client, ServerArgs};
use super::output::progress::{Progress, Unit};
use super::output::{Format, OutputArgs, grouped, print_json, print_text, printable};

const COUNT_DEFAULT: u64 = 50_000;
/// Batches that wait between the reader and the senders.
const BATCHES_WAITING_MAX: usize = 4;
/// With a rate, batches are cut so small that so many are sent in a second.
const BATCHES_PER_SECOND: f64 = 5.0;

/// Send events, made up or from a file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tallymesh seed --count 50000 --source web
  tallymesh seed --file events.ndjson.gz --url http://10.0.0.7:7070
  zstdcat day.ndjson.zst | tallymesh seed --file -

Sending a file twice counts nothing twice: events without an event_id get one from the file's content and their place in it,
as long as --batch and --rate stay the same.")]
pub struct SeedArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// How many events [default: 50000, or all of the file]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Send NDJSON from here instead of made-up events; gzip and zstd are recognised, `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The `source` of all made-up events
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    source: Option<String>,
    /// Make up the same events each time
    #[arg(long, value_name = "N", conflicts_with = "file")]
    seed: Option<u64>,
    /// Events per second at most [default: as fast as the node takes them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Events per request
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// Requests at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// How long to keep trying when the node is away or busy, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    retry_for: u64,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: SeedArgs) -> Result<(), CliError> {
    let client = Client::new(&args.server)?;
    let sender = Sender::new(client.clone(), Duration::from_secs(args.retry_for));
    let mut source = Source::open(&args)?;
    // A node that was never there is not worth a minute of retries; the answer does not matter, only that there is one.
    client.request(reqwest::Method::GET, "/ready").send().await.map_err(|e| client.transport_error(&e))?;

    let mut progress = Progress::new("Sending", source.total, source.unit);
    let mut totals = Totals::default();
    let position = source.position.clone();
    let unit = source.unit;
    let rate = args.rate;
    let started = tokio::time::Instant::now();
    let (batches, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
    let reader = tokio::task::spawn_blocking(move || -> Result<u64, CliError> {
        while let Some(batch) = (source.next)()? {
            if batches.blocking_send(batch).is_err() {
                break;
            }
        }
        Ok(source.left_out.load(Ordering::Relaxed))
    });
    let paced = ReceiverStream::new(receiver).scan(0u64, move |given, batch: Batch| {
        let due = started + Duration::from_secs_f64(rate.map_or(0.0, |r| *given as f64 / r as f64));
        *given += batch.events;
        async move {
            tokio::time::sleep_until(due).await;
            Some(batch)
        }
    });
    let mut answers = paced
        .map(|batch| {
            let sender = sender.clone();
            async move { sender.send(&batch).await }
        })
        .buffer_unordered(usize::from(args.concurrency))
        .boxed();
    let mut failed = None;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(part) => totals.add(part),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
        let at = if unit == Unit::Events { totals.sent } else { position.load(Ordering::Relaxed) };
        progress.update(at, totals.sent);
    }
    // Closes the channel, so that the reader stops too.
    drop(answers);
    let left_out = match reader.await {
        Ok(result) => result,
        Err(e) => Err(CliError::Failed(format!("the reader stopped: {e}"))),
    };
    let took = progress.finish();
    report(&totals, took, left_out.as_ref().copied().unwrap_or(0), args.output.format)?;
    match (failed, left_out) {
        (Some(error), _) | (None, Err(error)) => Err(error),
        (None, Ok(0)) if totals.rejected == 0 => Ok(()),
        (None, Ok(left_out)) => {
            Err(CliError::Failed(format!("{} events were not counted", grouped(&(totals.rejected + left_out).to_string()))))
        }
    }
}

/// Where batches come from, and how far along it is.
struct Source {
    next: Box<dyn FnMut() -> Result<Option<Batch>, CliError> + Send>,
    total: Option<u64>,
    unit: Unit,
    position: Arc<AtomicU64>,
    /// Lines that were not sent.
    left_out: Arc<AtomicU64>,
}

impl Source {
    fn open(args: &SeedArgs) -> Result<Self, CliError> {
        let events_max = args.rate.map_or(args.batch, |r| args.batch.min((r as f64 / BATCHES_PER_SECOND).ceil() as u64));
        let Some(path) = &args.file else {
            let count = args.count.unwrap_or(COUNT_DEFAULT);
            let seed = args.seed.unwrap_or_else(|| SmallRng::from_os_rng().next_u64());
            let mut made_up = MadeUp::new(seed, SystemClock::new().wall_ms(), count, args.source.clone(), events_max);
            return Ok(Self {
                next: Box::new(move || Ok(made_up.next())),
                total: Some(count),
                unit: Unit::Events,
                position: Arc::default(),
                left_out: Arc::default(),
            });
        };
        let file = file::open(path)?;
        let mut batches = Batches::new(file.text, events_max, args.count);
        let left_out = batches.too_long.clone();
        let (total, unit) = match args.count {
            Some(count) => (Some(count), Unit::Events),
            None => (file.size_bytes, Unit::Bytes),
        };
        Ok(Self { next: Box::new(move || batches.next_batch()), total, unit, position: file.read, left_out })
    }
}

fn report(totals: &Totals, took: Duration, left_out: u64, format: Format) -> Result<(), CliError> {
    let seconds = took.as_secs_f64();
    let per_second = totals.sent as f64 / seconds.max(0.001);
    if format == Format::Table {
        let number = |n: u64| grouped(&n.to_string());
        let mut text = format!(
            "{} events in {seconds:.1} s ({}/s): {} accepted, {} duplicates, {} rejected",
            number(totals.sent),
            grouped(&format!("{per_second:.0}")),
            number(totals.accepted),
            number(totals.duplicates),
            number(totals.rejected)
        );
        let more = [
            (left_out, "lines too long to send"),
            (totals.generated_ids, "ids made by the node"),
            (totals.retries, "requests tried again"),
        ];
        for (n, what) in more.into_iter().filter(|(n, _)| *n > 0) {
            text.push_str(&format!(", {} {what}", number(n)));
        }
        text.push('\n');
        for reason in &totals.reasons {
            text.push_str(&format!("  rejected {}\n", printable(reason)));
        }
        return print_text(&text);
    }
    let fields = [
        ("sent", json!(totals.sent)),
        ("accepted", json!(totals.accepted)),
        ("duplicates", json!(totals.duplicates)),
        ("rejected", json!(totals.rejected)),
        ("left_out", json!(left_out)),
        ("generated_ids", json!(totals.generated_ids)),
        ("retries", json!(totals.retries)),
        ("seconds", json!(seconds)),
        ("events_per_second", json!(per_second.round())),
    ];
    if format == Format::Csv {
        let mut table = super::output::Table::new(fields.iter().map(|(name, _)| *name));
        table.row(fields.into_iter().map(|(_, value)| value).collect());
        return table.print(format);
    }
    let mut object: serde_json::Map<_, _> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    object.insert("reasons".to_owned(), json!(totals.reasons));
    print_json(&object)
}
