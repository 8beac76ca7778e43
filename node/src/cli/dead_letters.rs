//! `tallymesh dead-letters ls | retry`: events that were refused, and a second chance for them.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{CliError, Client, ServerArgs};
use super::output::{Format, OutputArgs, Table, grouped, print_json, print_text};

/// Raw bytes shown in a table, in characters.
const RAW_CHARS_MAX: usize = 60;

/// List or retry refused events.
const EXAMPLES: &str = "\
Examples:
  What was refused, and why:
    tallymesh dead-letters ls --limit 20

  Try everything again, after the cause is mended:
    tallymesh dead-letters retry";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List refused events, with why
    Ls(LsArgs),
    /// Send them through the door again, for instance after a definition changed; those that pass are removed
    Retry(RetryArgs),
}

#[derive(Debug, clap::Args)]
struct LsArgs {
    /// How many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Go on where the last list ended
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
struct RetryArgs {
    /// Only these [default: all]
    ids: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: DeadLettersArgs) -> Result<(), CliError> {
    match args.action {
        Action::Ls(args) => list(args).await,
        Action::Retry(args) => retry(args).await,
    }
}

async fn list(args: LsArgs) -> Result<(), CliError> {
    let mut query = vec![("limit".to_owned(), args.limit.to_string())];
    query.extend(args.cursor.map(|cursor| ("cursor".to_owned(), cursor)));
    let page: Value = Client::new(&args.server)?.get_json("/v1/dead-letters", &query).await?;
    if args.output.format == Format::Json {
        return print_json(&page);
    }
    let (table, cursor) = as_table(&page)?;
    if table.is_empty() {
        eprintln!("No event was refused.");
        return Ok(());
    }
    table.print(args.output.format)?;
    if let Some(cursor) = cursor {
        eprintln!("There are more: --cursor {cursor}");
    }
    Ok(())
}

fn as_table(page: &Value) -> Result<(Table, Option<&str>), CliError> {
    let letters = page["data"].as_array().ok_or_else(|| CliError::Failed("the answer has no list of events".to_owned()))?;
    let mut table = Table::new(["id", "arrived", "code", "field", "detail", "event"]);
    for letter in letters {
        let raw = letter["raw"].as_str().unwrap_or_default();
        let short: String =
            if raw.chars().count() > RAW_CHARS_MAX { raw.chars().take(RAW_CHARS_MAX - 1).chain(['…']).collect() } else { raw.to_owned() };
        let field = |name: &str| letter.get(name).cloned().unwrap_or(Value::Null);
        table.row(vec![field("id"), field("arrived"), field("code"), field("field"), field("detail"), json!(short)]);
    }
    Ok((table, page["cursor"].as_str()))
}

async fn retry(args: RetryArgs) -> Result<(), CliError> {
    let client = Client::new(&args.server)?;
    let body = if args.ids.is_empty() { json!({}) } else { json!({ "ids": args.ids }) };
    let response = client.send(client.request(Method::POST, "/v1/dead-letters/retry").json(&body)).await?;
    let outcome: Value = client.json(response).await?;
    match (args.output.format, outcome.as_object()) {
        (Format::Table, Some(counts)) => {
            let parts: Vec<String> =
                counts.iter().filter_map(|(name, n)| Some(format!("{name} {}", grouped(&n.as_u64()?.to_string())))).collect();
            print_text(&format!("{}\n", parts.join(", ").replace('_', " ")))
        }
        (Format::Csv, Some(counts)) => {
            let mut table = Table::new(counts.keys().cloned());
            table.row(counts.values().cloned().collect());
            table.print(Format::Csv)
        }
        _ => print_json(&outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_refused_events_becomes_a_table() {
        let page = json!({ "cursor": "c2", "data": [
            { "id": "7", "arrived": "2026-01-01T00:00:00Z", "code": "wrong_type", "field": "value", "detail": "not a number", "raw": "{".repeat(500) },
            { "id": "8", "arrived": "2026-01-01T00:00:00Z", "code": "bad_json", "detail": "cut off", "raw": "{" }
        ]});
        let (table, cursor) = as_table(&page).expect("a page");
        assert_eq!(cursor, Some("c2"));
        let csv = table.to_csv();
        assert!(
            csv.contains(&format!("{}…", "{".repeat(RAW_CHARS_MAX - 1))) && csv.contains("8,2026-01-01T00:00:00Z,bad_json,,cut off,{"),
            "{csv}"
        );
        assert!(as_table(&json!({})).is_err());
    }
}
