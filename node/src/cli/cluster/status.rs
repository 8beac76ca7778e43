//! `tallymesh cluster status [--watch]`: the fleet as one of its nodes sees it, and what happens to it.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

use serde_json::{Value, json};
use tallymesh_storage::clock::{Clock, SystemClock};
use tokio::time::MissedTickBehavior;

use super::super::client::{CliError, Client, ServerArgs};
use super::super::output::paint::Paint;
use super::super::output::{Format, OutputArgs, Table, print_json, print_text};
use super::picture::{picture, told};
use super::view::{Cluster, Health};
use crate::boot::interrupted;

const EXAMPLES: &str = "\
Examples:
  Who is there, who leads, what is missing:
    tallymesh cluster status

  Watch it, for instance while a node is killed:
    tallymesh cluster status --watch

  For a script; exit code 1 when a shard has no leader:
    tallymesh cluster status --check -o json";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    /// Keep it up to date until Ctrl-C
    #[arg(long, short = 'w')]
    watch: bool,
    /// How often, with --watch
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(100..=60_000), requires = "watch")]
    interval: u64,
    /// Fail when a shard has no leader or has stopped
    #[arg(long, conflicts_with = "watch")]
    check: bool,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What happened lately, at most.
const CHANGES_SHOWN: usize = 14;
/// Another node is asked when one has not answered by then. It asks the others itself, and waits some time for those that are silent.
const ASK_TIME_MAX: Duration = Duration::from_secs(5);
/// That an answer is waited for is shown from then on.
const SHOW_WAIT_AFTER: Duration = Duration::from_secs(1);

pub async fn run(args: StatusArgs) -> Result<(), CliError> {
    let client = Client::new(&args.server)?;
    if args.watch {
        return watch(&args, client).await;
    }
    let answer: Value = client.get_json("/v1/cluster", &[]).await?;
    let cluster = read(&answer, &client)?;
    show(&answer, &cluster, args.output.format)?;
    let bad = cluster.of_health(Health::NoLeader).len() + cluster.of_health(Health::Stopped).len();
    if args.check && bad > 0 {
        return Err(CliError::Failed(format!("{bad} of {} shards take no writes", cluster.shards.len())));
    }
    Ok(())
}

pub fn read(answer: &Value, client: &Client) -> Result<Cluster, CliError> {
    serde_json::from_value(answer.clone())
        .map(Cluster::in_order)
        .map_err(|e| CliError::Failed(format!("{} does not answer like a Tallymesh node of this version: {e}", client.base())))
}

fn show(answer: &Value, cluster: &Cluster, format: Format) -> Result<(), CliError> {
    match format {
        Format::Table => print_text(&picture(cluster, Paint::stdout())),
        Format::Json => print_json(answer),
        Format::Csv => as_table(cluster).print(format),
    }
}

fn as_table(cluster: &Cluster) -> Table {
    let mut table = Table::new(["node", "state", "since_s", "leads", "shards", "lag", "version", "http"]);
    for node in &cluster.nodes {
        table.row(vec![
            json!(node.name),
            json!(node.state().as_str()),
            json!(node.since().map(|since| since.as_secs())),
            json!(cluster.leads(node)),
            json!(cluster.held(node)),
            json!(cluster.lag(node)),
            json!(node.version),
            json!(node.http),
        ]);
    }
    table
}

/// Asks one node after the other: the one that was asked may be the one that goes away.
struct Source {
    named: Client,
    others: Vec<Client>,
}

impl Source {
    async fn ask(&mut self) -> Result<(Value, Cluster), CliError> {
        let mut error = None;
        for client in std::iter::once(&self.named).chain(&self.others) {
            let asked = tokio::time::timeout(ASK_TIME_MAX, client.get_json::<Value>("/v1/cluster", &[])).await;
            match asked {
                Ok(Ok(answer)) => {
                    let cluster = read(&answer, client)?;
                    let others = cluster.addresses().into_iter().filter_map(|url| Client::new(&ServerArgs { url }).ok());
                    let others: Vec<Client> = others.filter(|other| other.base() != self.named.base()).collect();
                    if !others.is_empty() {
                        self.others = others;
                    }
                    return Ok((answer, cluster));
                }
                Ok(Err(refused)) => error = error.or(Some(refused)),
                Err(_) => {
                    let detail = "it did not answer in time".to_owned();
                    error = error.or(Some(CliError::Unreachable { url: client.base().to_owned(), detail }));
                }
            }
        }
        Err(error.unwrap_or_else(|| CliError::Failed("nobody was asked".to_owned())))
    }
}

async fn watch(args: &StatusArgs, client: Client) -> Result<(), CliError> {
    let mut source = Source { named: client, others: Vec::new() };
    // The first answer decides whether there is anything to watch.
    let first = source.ask().await?;
    let frames = args.output.format == Format::Table && std::io::stdout().is_terminal();
    let _screen = frames.then(Screen::enter).transpose()?;
    tokio::select! {
        ended = keep_up(args, source, first, frames) => ended,
        stopped = interrupted() => stopped.map_err(|e| CliError::Failed(format!("cannot listen for signals: {e}"))),
    }
}

async fn keep_up(args: &StatusArgs, mut source: Source, first: (Value, Cluster), frames: bool) -> Result<(), CliError> {
    let (paint, clock) = (Paint::stdout(), SystemClock::new());
    let mut happened: VecDeque<String> = VecDeque::new();
    let (mut answer, mut cluster) = first;
    let mut away: Option<String> = None;
    let mut orphaned: Option<Duration> = None;
    let mut ticks = tokio::time::interval(Duration::from_millis(args.interval));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if frames {
            draw(&frame(&cluster, &happened, away.as_deref(), paint))?;
        } else {
            show(&answer, &cluster, args.output.format)?;
        }
        ticks.tick().await;
        let began = clock.monotonic();
        let asked = {
            let mut asking = pin!(source.ask());
            loop {
                tokio::select! {
                    asked = &mut asking => break asked,
                    () = tokio::time::sleep(SHOW_WAIT_AFTER), if frames => {
                        let waited = (clock.monotonic() - began).as_secs();
                        draw(&frame(&cluster, &happened, Some(&format!("this is {waited} s old: the answer is waited for")), paint))?;
                    }
                }
            }
        };
        match asked {
            Ok((next_answer, next)) => {
                away = None;
                let at = time_of_day(clock.wall_ms());
                for change in next.changes(&cluster) {
                    happened.push_back(format!("{}  {}", paint.dim(&at), told(&change, paint)));
                }
                let (before, now) = (cluster.of_health(Health::NoLeader).len(), next.of_health(Health::NoLeader).len());
                if before == 0 && now > 0 {
                    orphaned = Some(clock.monotonic());
                } else if now == 0
                    && let Some(since) = orphaned.take()
                {
                    let took = (clock.monotonic() - since).as_secs_f64();
                    let line = paint.green(&format!("every shard has a leader again, seen after {took:.1} s"));
                    happened.push_back(format!("{}  {line}", paint.dim(&at)));
                }
                while happened.len() > CHANGES_SHOWN {
                    happened.pop_front();
                }
                (answer, cluster) = (next_answer, next);
            }
            Err(error @ (CliError::Unreachable { .. } | CliError::Refused(_))) => away = Some(error.to_string()),
            Err(error) => return Err(error),
        }
    }
}

fn frame(cluster: &Cluster, happened: &VecDeque<String>, away: Option<&str>, paint: Paint) -> String {
    let mut text = picture(cluster, paint);
    if let Some(away) = away {
        text.push_str(&format!("\n  {}\n", paint.red(away)));
    }
    if !happened.is_empty() {
        text.push_str(&format!("\n    {}\n", paint.dim("LATELY")));
        happened.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
    }
    text.push_str(&format!("\n  {}", paint.dim("Ctrl-C ends this")));
    text
}

/// UTC, as everywhere.
fn time_of_day(wall_ms: i64) -> String {
    let second = wall_ms.div_euclid(1_000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

/// Over what was there, without a flicker: each line is cleared as it is written, and what is below at the end.
fn draw(text: &str) -> Result<(), CliError> {
    let mut frame = String::from("\x1b[H");
    for line in text.lines() {
        frame.push_str(line);
        frame.push_str("\x1b[K\r\n");
    }
    frame.push_str("\x1b[J");
    print_text(&frame)
}

/// The terminal's second screen, without a cursor; the first one is as it was afterwards.
struct Screen;

impl Screen {
    fn enter() -> Result<Self, CliError> {
        print_text("\x1b[?1049h\x1b[?25l\x1b[2J")?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = std::io::stdout();
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::fleet;
    use super::*;

    #[test]
    fn rows_for_programs_leave_unknown_empty() {
        let csv = as_table(&fleet(Some("n2"), None)).to_csv();
        assert_eq!(csv.lines().nth(2), Some("n2,silent,61,0,4,,0.1.0,127.0.0.1:7071"));
    }

    #[test]
    fn time_of_day_is_utc() {
        assert_eq!(time_of_day(1_773_187_200_123), "00:00:00Z");
        assert_eq!(time_of_day(1_773_187_200_123 + 3_723_000), "01:02:03Z");
    }
}
