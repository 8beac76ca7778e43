//! `tallymesh tail`: events as the node accepts them.

mod lines;
mod stream;

use std::io::IsTerminal;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::ACCEPT;

use self::stream::Frames;
use super::client::{CliError, Client, ServerArgs};
use super::output::print_text;
use crate::boot::interrupted;

/// Pause before a lost connection is made again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// `-o` of a stream: there is no end at which a table could be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TailFormat {
    /// A line for people
    Table,
    /// The event as JSON, one a line
    Json,
    /// Fields with a header; properties as JSON
    Csv,
}

/// Watch events as they are accepted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tallymesh tail --filter event:purchase
  tallymesh tail --filter 'country_code:DE|AT|CH' --filter '!device_type:mobile'
  tallymesh tail -o json | jq .properties
  tallymesh tail -o csv --count 1000 > events.csv

What comes faster than it can be shown is left out, and it says how much.")]
pub struct TailArgs {
    /// `dimension:value`, `dimension:a|b`, `!dimension:value`, `dimension:` for null; repeatable, all must hold
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Stop after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How to print events
    #[arg(short = 'o', long = "output", value_enum, default_value = "table")]
    format: TailFormat,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: TailArgs) -> Result<(), CliError> {
    for text in &args.filter {
        tallymesh_protocol::question::filter::Filter::parse(text).map_err(|e| CliError::Usage(format!("--filter {text}: {e}")))?;
    }
    let client = Client::new(&args.server)?;
    tokio::select! {
        result = watch(&client, &args) => result,
        stopped = interrupted() => stopped.map_err(|e| CliError::Failed(format!("cannot listen for signals: {e}"))),
    }
}

async fn watch(client: &Client, args: &TailArgs) -> Result<(), CliError> {
    let query: Vec<_> = args.filter.iter().map(|f| ("filter", f)).collect();
    let is_terminal = std::io::stdout().is_terminal();
    let mut shown = 0;
    if args.format == TailFormat::Csv {
        print_text(&lines::csv_header())?;
    }
    let mut was_connected = false;
    loop {
        let request = client.request(Method::GET, "/v1/tail").header(ACCEPT, "text/event-stream").query(&query);
        let lost = match client.send(request).await {
            Ok(response) => {
                if is_terminal && !was_connected {
                    eprintln!("Watching {}; Ctrl-C stops.", client.base());
                }
                was_connected = true;
                match show(response, args, is_terminal, &mut shown).await? {
                    Ended::Enough => return Ok(()),
                    Ended::Lost => "the connection was lost".to_owned(),
                }
            }
            // A node that was there may come back; one that never was is an error, and so is a refusal.
            Err(CliError::Unreachable { detail, .. }) if was_connected => detail,
            Err(error) => return Err(error),
        };
        eprintln!("{lost}; trying again");
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

enum Ended {
    Enough,
    Lost,
}

async fn show(mut response: reqwest::Response, args: &TailArgs, is_terminal: bool, shown: &mut u64) -> Result<Ended, CliError> {
    let mut frames = Frames::default();
    while let Ok(Some(chunk)) = response.chunk().await {
        let mut text = String::new();
        for frame in frames.push(&chunk).map_err(CliError::Failed)? {
            if args.count.is_some_and(|count| *shown >= count) {
                break;
            }
            match frame.kind.as_str() {
                "lagged" | "dropped" => eprintln!("left out {} events that came too fast", lines::left_out(&frame.data)),
                "" | "message" | "event" => {
                    *shown += 1;
                    match args.format {
                        TailFormat::Json => text.extend([frame.data.as_str(), "\n"]),
                        TailFormat::Table => text.extend([lines::for_people(&frame.data, is_terminal).as_str(), "\n"]),
                        TailFormat::Csv => text.push_str(&lines::as_csv(&frame.data)),
                    }
                }
                _ => {}
            }
        }
        print_text(&text)?;
        if args.count.is_some_and(|count| *shown >= count) {
            return Ok(Ended::Enough);
        }
    }
    Ok(Ended::Lost)
}
