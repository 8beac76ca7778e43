//! `tallymesh query`: one metric query, its rows on stdout and its receipt on stderr.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use reqwest::Method;
use serde_json::Value;
use tallymesh_protocol::question::answer::{Answer, Receipt, Row};

use super::client::{CliError, Client, ServerArgs};
use super::output::{Format, OutputArgs, Table, print_text};
use crate::http::CURSOR;

const EXAMPLES: &str = "\
Examples:
  Page views of the last 24 hours:
    tallymesh query --metric page_view

  The ten countries with most users this week:
    tallymesh query --metric page_view --agg users,count --range 7d --group-by country_code --order=-value --limit 10

  Mobile sign-ups by day in Berlin, beside the week before:
    tallymesh query --metric signup_completed --range 7d --step 1d --tz Europe/Berlin --filter device_type:mobile --compare week

  Every event by name, for a script:
    tallymesh query --metric '*' --group-by event --from 2026-01-01 --to 2026-02-01 -o csv

Exit codes: 0 answered, 1 failed, 2 a parameter is wrong, 3 no node reached.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct QueryArgs {
    /// Event name, defined metric, or * for every event
    #[arg(long, short = 'm', value_name = "NAME")]
    metric: String,
    /// count, sum, min, max, avg, last, users, sessions, p50, p95, p99.9 ...; several by comma [default: count]
    #[arg(long, value_name = "LIST")]
    agg: Option<String>,
    /// Time up to now: 15m, 24h, 7d, 4w [default: 24h]
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["from", "to"])]
    range: Option<String>,
    /// First moment: RFC 3339, epoch milliseconds or a date
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// First moment after the range [default: now]
    #[arg(long, value_name = "TIME", requires = "from", allow_hyphen_values = true)]
    to: Option<String>,
    /// One row for each 1m, 5m, 15m, 1h or 1d, or auto [default: none, one row for the range]
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// Dimensions by comma: source, device_type, country_code, event, or those of a defined metric
    #[arg(long, value_name = "LIST")]
    group_by: Option<String>,
    /// dimension:value, dimension:a|b, !dimension:value, dimension: (null); repeatable, all must hold
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// time, -time, value or -value (the first aggregate) [default: time]
    #[arg(long, value_name = "ORDER", allow_hyphen_values = true)]
    order: Option<String>,
    /// Rows at most [default: 1000]
    #[arg(long, value_name = "ROWS")]
    limit: Option<String>,
    /// Time zone of steps and dates, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// previous, day or week: the same question, earlier
    #[arg(long, value_name = "WHAT")]
    compare: Option<String>,
    /// none, zero or null: rows for steps without events
    #[arg(long, value_name = "HOW")]
    fill: Option<String>,
    /// fail or allow, when a shard does not answer
    #[arg(long, value_name = "HOW")]
    partial: Option<String>,
    /// Go on after a page that said there is more
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Give up after this many milliseconds
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: QueryArgs) -> Result<(), CliError> {
    let client = Client::new(&args.server)?;
    let request = client.request(Method::GET, "/v1/query").query(&params(&args));
    let response = client.send(request).await?;
    match args.output.format {
        // As the node wrote it: numbers and order are not ours to change.
        Format::Csv => {
            let cursor = response.headers().get(&CURSOR).and_then(|c| c.to_str().ok()).map(str::to_owned);
            print_text(&response.text().await.map_err(|e| client.transport_error(&e))?)?;
            // A table that ends without a word would be taken for the whole.
            cursor.iter().for_each(|cursor| say_more(cursor));
            Ok(())
        }
        Format::Json => {
            let text = response.text().await.map_err(|e| client.transport_error(&e))?;
            print_text(&format!("{text}\n"))
        }
        Format::Table => {
            let answer: Answer = client.json(response).await?;
            if answer.data.is_empty() {
                eprintln!("no events match");
            } else {
                table(&answer.data, &args).print(Format::Table)?;
            }
            eprintln!("{}", footer(&answer.receipt));
            answer.cursor.iter().for_each(|cursor| say_more(cursor));
            Ok(())
        }
    }
}

fn say_more(cursor: &str) {
    eprintln!("more rows: raise --limit, or repeat with --cursor {cursor}");
}

fn params(args: &QueryArgs) -> Vec<(&'static str, String)> {
    let default_range = || args.from.is_none().then(|| "24h".to_owned());
    let single = [
        ("metric", Some(args.metric.clone())),
        ("agg", args.agg.clone()),
        ("range", args.range.clone().or_else(default_range)),
        ("from", args.from.clone()),
        ("to", args.to.clone()),
        ("step", args.step.clone()),
        ("group_by", args.group_by.clone()),
        ("order", args.order.clone()),
        ("limit", args.limit.clone()),
        ("tz", args.tz.clone()),
        ("compare", args.compare.clone()),
        ("fill", args.fill.clone()),
        ("partial", args.partial.clone()),
        ("cursor", args.cursor.clone()),
        ("timeout_ms", args.timeout_ms.clone()),
        ("format", (args.output.format == Format::Csv).then(|| "csv".to_owned())),
    ];
    let filters = args.filter.iter().map(|f| ("filter", f.clone()));
    single.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(filters).collect()
}

/// Names that rows have, those that were asked for first and in the order asked.
fn ordered<'a, V>(asked: Option<&str>, present: impl Iterator<Item = &'a BTreeMap<String, V>>) -> Vec<String>
where
    V: 'a,
{
    let names: std::collections::BTreeSet<&String> = present.flat_map(BTreeMap::keys).collect();
    let asked: Vec<&str> = asked.unwrap_or_default().split(',').map(str::trim).collect();
    let mut names: Vec<String> = names.into_iter().cloned().collect();
    names.sort_by_key(|n| asked.iter().position(|a| a == n).unwrap_or(asked.len()));
    names
}

fn table(rows: &[Row], args: &QueryArgs) -> Table {
    let groups = ordered(args.group_by.as_deref(), rows.iter().filter_map(|r| r.group.as_ref()));
    let labels = ordered(args.agg.as_deref(), rows.iter().map(|r| &r.values));
    let stepped = rows.iter().any(|r| r.time.is_some());
    let compared = rows.iter().any(|r| r.compare.is_some());
    let earlier = labels.iter().filter(|_| compared).map(|l| format!("{l} (earlier)"));
    let columns = stepped.then(|| "time".to_owned()).into_iter().chain(groups.iter().cloned()).chain(labels.iter().cloned()).chain(earlier);
    let mut table = Table::new(columns);
    for row in rows {
        let mut cells: Vec<Value> = row.time.iter().filter(|_| stepped).map(|t| Value::from(t.as_str())).collect();
        cells.extend(groups.iter().map(|g| Value::from(row.group.as_ref().and_then(|group| group.get(g).cloned().flatten()))));
        cells.extend(labels.iter().map(|l| number(row.values.get(l))));
        if compared {
            cells.extend(labels.iter().map(|l| number(row.compare.as_ref().and_then(|c| c.values.get(l)))));
        }
        table.row(cells);
    }
    table
}

/// Whole numbers without a fraction, others with the digits that mean something.
fn number(value: Option<&Option<f64>>) -> Value {
    match value.copied().flatten() {
        None => Value::Null,
        Some(v) if v.fract() == 0.0 && v.abs() < 1e15 => Value::from(v as i64),
        Some(v) if std::io::stdout().is_terminal() && v.abs() < 1e12 => Value::from((v * 1e4).round() / 1e4),
        Some(v) => Value::from(v),
    }
}

/// The receipt in one line.
fn footer(receipt: &Receipt) -> String {
    let mut parts = vec![format!("{} to {}", receipt.from, receipt.to)];
    let shards = receipt.shards;
    parts.push(match (receipt.complete, shards.asked == shards.answered) {
        (true, _) => "complete".to_owned(),
        (false, true) => "INCOMPLETE: the range begins before what is kept".to_owned(),
        (false, false) => format!("INCOMPLETE: {} of {} shards answered", shards.answered, shards.asked),
    });
    parts.push(format!("grain {}", receipt.grain));
    for (label, error) in receipt.error.iter().filter(|(_, e)| **e > 0.0) {
        parts.push(format!("{label} ±{:.1} %", error * 100.0));
    }
    if receipt.other_share > 0.0 {
        parts.push(format!("{:.1} % in __other__", receipt.other_share * 100.0));
    }
    if let Some(watermark) = &receipt.watermark {
        parts.push(format!("closed up to {watermark}"));
    }
    parts.push(format!("{} ms", receipt.took_ms));
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tallymesh_protocol::question::answer::{Compared, ShardsAnswered};

    use super::*;

    #[derive(Parser)]
    struct Harness {
        #[command(flatten)]
        query: QueryArgs,
    }

    fn args(line: &[&str]) -> QueryArgs {
        Harness::try_parse_from(["query"].iter().chain(line)).map(|h| h.query).expect("valid")
    }

    #[test]
    fn flags_become_parameters_and_a_day_is_the_default() {
        let got = params(&args(&["--metric", "a", "--order", "-value", "--filter", "x:1", "--filter", "!y:2"]));
        let expected =
            [("metric", "a"), ("range", "24h"), ("order", "-value"), ("filter", "x:1"), ("filter", "!y:2")].map(|(n, v)| (n, v.to_owned()));
        assert_eq!(got, expected);
        assert!(params(&args(&["-m", "a", "--from", "-5"])).iter().all(|(n, _)| *n != "range"));
        assert!(Harness::try_parse_from(["query", "-m", "a", "--range", "1h", "--from", "0"]).is_err());
    }

    #[test]
    fn columns_stand_in_the_order_asked() {
        let values = |n| BTreeMap::from([("count".to_owned(), Some(n)), ("users".to_owned(), None)]);
        let row = Row {
            time: Some("t".to_owned()),
            group: Some(BTreeMap::from([("country_code".to_owned(), None), ("source".to_owned(), Some("web".to_owned()))])),
            values: values(5.0),
            compare: Some(Compared { time: None, values: values(2.5) }),
        };
        let args = args(&["-m", "a", "--agg", "users,count", "--group-by", "source,country"]);
        let expected = "time,source,country_code,users,count,users (earlier),count (earlier)\r\nt,web,,,5,,2.5\r\n";
        assert_eq!(table(&[row], &args).to_csv(), expected);
    }

    #[test]
    fn the_footer_shouts_when_something_is_missing() {
        let mut receipt = Receipt {
            complete: true,
            from: "a".to_owned(),
            to: "b".to_owned(),
            shards: ShardsAnswered { asked: 16, answered: 16 },
            watermark: None,
            freshness_ms: 0,
            error: BTreeMap::from([("p95".to_owned(), 0.01), ("users".to_owned(), 0.0)]),
            sampled: 1.0,
            other_share: 0.0,
            sources: vec!["hot".to_owned()],
            grain: "1h".to_owned(),
            cache_age_ms: None,
            took_ms: 2,
        };
        assert_eq!(footer(&receipt), "a to b · complete · grain 1h · p95 ±1.0 % · 2 ms");
        receipt.complete = false;
        receipt.shards.answered = 15;
        assert!(footer(&receipt).contains("INCOMPLETE: 15 of 16 shards"));
    }
}
