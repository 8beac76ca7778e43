//! `tallymesh chaos`: a fleet on this machine, harm by a schedule that follows from a seed, and every answer against an independent count.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tallymesh_chaos_tests::fleet::campaign::{CampaignOptions, Progress as RunProgress, run as run_campaign};
use tallymesh_chaos_tests::fleet::nemesis::plan::Kind;
use tallymesh_chaos_tests::fleet::report::Report;
use tallymesh_chaos_tests::fleet::report::gaps::Times;
use tokio::sync::watch;

use super::client::CliError;
use super::output::progress::{Progress, Unit};
use super::output::{Format, OutputArgs, Table, print_json, print_text};
use crate::boot::interrupted;

const EXAMPLES: &str = "\
Examples:
  Five minutes of everything on three nodes:
    tallymesh chaos --minutes 5

  The same again, harm for harm; another run:
    tallymesh chaos --minutes 5 --seed 7

  What would be done, without doing it:
    tallymesh chaos --minutes 5 --seed 7 --plan

  Leaders killed all the time, the report as JSON:
    tallymesh chaos --minutes 10 --faults kill-leader -o json

  As much as the machine takes, to see that nobody is taken for dead:
    tallymesh chaos --minutes 30 --no-faults --writers 12 --rate 200 --batch 100

  The nodes under mutual TLS, with a CA made for the run:
    tallymesh chaos --minutes 5 --tls

Exit code 0: nothing was lost, nothing counted twice, every answer was right or said that it was not. 1: see the report; the nodes' logs and data are kept.";

/// Do harm to a fleet on this machine and hold every answer against an independent count.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ChaosArgs {
    /// Faults begin until this is over
    #[arg(long, value_name = "M", default_value_t = 5.0)]
    minutes: f64,
    /// The same seed gives the same schedule and the same events [default: made up, and printed]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Nodes of the fleet
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Kinds of faults, by comma: kill-leader, kill, kill-all, kill-majority, pause, isolate, one-way, non-transitive, slow, restart, rolling, wipe, drain,
    /// kill-minority and isolate-minority (of five nodes and more), move (of more nodes than copies) [default: all that the fleet is large enough for]
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    faults: Vec<Kind>,
    /// No harm at all: what happens then, happens by itself
    #[arg(long, conflicts_with = "faults")]
    no_faults: bool,
    /// Copies of each shard
    #[arg(long, value_name = "N", default_value = "auto")]
    replication: String,
    /// Mutual TLS between the nodes, with a CA and certificates made for the run
    #[arg(long)]
    tls: bool,
    /// Batches a second of each of the writers
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    rate: f64,
    /// Who writes [default: two for each node]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    writers: Option<u16>,
    /// Events of the largest batches
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// No fault lasts longer, in seconds
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    longest: f64,
    /// Each shard is probed through each node this often, in milliseconds; a gap is seen no finer
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    probe: u64,
    /// Print the schedule and end
    #[arg(long)]
    plan: bool,
    /// Where logs and data are kept [default: a temporary directory, kept only after a failure]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A setting of every node; repeatable
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: ChaosArgs) -> Result<(), CliError> {
    let options = options(&args)?;
    if args.plan {
        let steps: Vec<String> = options.schedule().iter().map(|step| format!("{step}\n")).collect();
        return print_text(&steps.concat());
    }
    eprintln!("Seed {}: {} nodes, {} minutes", options.seed, args.nodes, args.minutes);
    let (sender, receiver) = watch::channel(RunProgress::default());
    let shown = tokio::spawn(show(receiver, options.time));
    let report = tokio::select! {
        report = run_campaign(&options, &sender) => report?,
        stopped = interrupted() => {
            stopped.map_err(|e| CliError::Failed(format!("cannot listen for signals: {e}")))?;
            return Err(CliError::Failed("interrupted; all nodes were ended".to_owned()));
        }
    };
    drop(sender);
    // It ends with the sender.
    let _ = shown.await;
    print(&report, args.output.format)?;
    if report.passed() { Ok(()) } else { Err(CliError::Failed(format!("seed {}: promises were broken, see the report", report.seed))) }
}

fn options(args: &ChaosArgs) -> Result<CampaignOptions, CliError> {
    if !(args.minutes > 0.0 && args.minutes <= 24.0 * 60.0) {
        return Err(CliError::Usage(format!("--minutes {}: must be over 0 and at most {}", args.minutes, 24 * 60)));
    }
    if !(args.rate > 0.0 && args.rate <= 1_000.0) {
        return Err(CliError::Usage(format!("--rate {}: must be over 0 and at most 1000", args.rate)));
    }
    if !(args.longest >= 0.0 && args.longest <= 3_600.0) {
        return Err(CliError::Usage(format!("--longest {}: must be 0 to 3600", args.longest)));
    }
    if args.tls && args.nodes == 1 {
        return Err(CliError::Usage("--tls: one node has nobody to talk to; choose --nodes 3".to_owned()));
    }
    // The program that is asked is the one that is tried.
    let binary = std::env::current_exe().map_err(|e| CliError::Failed(format!("cannot find this program: {e}")))?;
    let seed = args.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let mut options = CampaignOptions::new(args.nodes.into(), seed, binary);
    options.fleet.dir.clone_from(&args.dir);
    options.fleet.replication.clone_from(&args.replication);
    options.fleet.settings.clone_from(&args.set);
    options.fleet.tls = args.tls;
    options.time = Duration::from_secs_f64(args.minutes * 60.0);
    options.lasts_max = Duration::from_secs_f64(args.longest);
    options.writing.batches_per_second = args.rate;
    options.writing.events_max = args.batch;
    options.writers = args.writers.unwrap_or(options.writers);
    options.probe_every = Duration::from_millis(args.probe);
    if let Some(kind) = args.faults.iter().find(|kind| !options.is_large_enough_for(**kind)) {
        let (least, copies) = (kind.nodes_min(options.fleet.copies()), options.fleet.copies());
        return Err(CliError::Usage(format!(
            "--faults {kind}: needs {least} nodes with {copies} copies of each shard; choose --nodes {least}"
        )));
    }
    if args.no_faults {
        options.kinds.clear();
    } else if !args.faults.is_empty() {
        options.kinds.clone_from(&args.faults);
    } else if args.nodes < 3 {
        // Without a majority left there is nothing to heal by.
        options.kinds.retain(|kind| matches!(kind, Kind::KillLeader | Kind::Kill | Kind::KillAll | Kind::Pause));
    }
    Ok(options)
}

/// A bar on a terminal, lines elsewhere; every fault is a line.
async fn show(mut progress: watch::Receiver<RunProgress>, time: Duration) {
    let mut bar = Progress::new("Chaos", Some(time.as_secs()), Unit::Minutes);
    let mut last = String::new();
    while progress.changed().await.is_ok() {
        let now = progress.borrow_and_update().clone();
        if now.doing != last {
            bar.say(&format!("{:>7.1} s  {}", now.elapsed.as_secs_f64(), now.doing));
            last = now.doing;
        }
        bar.update(now.elapsed.as_secs().min(time.as_secs()), now.acked);
    }
    bar.finish();
}

fn print(report: &Report, format: Format) -> Result<(), CliError> {
    match format {
        Format::Table => print_text(&report.to_string()),
        Format::Json => print_json(report),
        Format::Csv => by_kind(report).print(format),
    }
}

fn by_kind(report: &Report) -> Table {
    let names = ["write_gap", "write_gap_others", "read_gap", "heal"];
    let columns = names.iter().flat_map(|name| ["p50", "p99", "max"].map(|of| format!("{name}_{of}_ms")));
    let mut table = Table::new(["fault", "times"].map(str::to_owned).into_iter().chain(columns));
    for (kind, of) in &report.faults {
        let times = [of.write_gap, of.write_gap_others, of.read_gap, of.heal];
        let cells = times.into_iter().flat_map(|Times { p50, p99, max, .. }| [json!(p50), json!(p99), json!(max)]);
        table.row([json!(kind.as_str()), json!(of.times)].into_iter().chain(cells).collect());
    }
    table
}
