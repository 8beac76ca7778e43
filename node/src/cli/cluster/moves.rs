//! `tallymesh cluster drain | move | rebalance`: what is asked of the fleet, the steps that follow, and how far they are.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::IsTerminal;
use tokio::time::Instant;

use super::super::client::{CliError, Client, ServerArgs};
use super::super::output::{Format, OutputArgs, Table, print_json};
use super::status::read;
use super::view::Cluster;

const DRAIN: &str = "\
Examples:
  What it would move:
    tallymesh cluster drain n3 --dry-run

  Have a node give its shards away, before it is stopped for good; waits until it has none:
    tallymesh cluster drain n3

  It stays after all:
    tallymesh cluster drain n3 --undo";

const MOVE: &str = "\
Examples:
  Have shard 4 led by n2, which gets a replica if it has none:
    tallymesh cluster move 4 n2";

const REBALANCE: &str = "\
Examples:
  What the fleet would move to be in balance; it does so by itself, a step at a time:
    tallymesh cluster rebalance --dry-run";

#[derive(Debug, clap::Args)]
#[command(after_help = DRAIN)]
pub struct DrainArgs {
    /// Name of the node
    node: String,
    /// Show the steps, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Have a node that was drained take part again
    #[arg(long, conflicts_with = "dry_run")]
    undo: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[command(after_help = MOVE)]
pub struct MoveArgs {
    /// Number of the shard
    shard: u16,
    /// Name of the node that is to lead it
    node: String,
    /// Show the step, change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[command(after_help = REBALANCE)]
pub struct RebalanceArgs {
    /// Show the steps, change nothing
    #[arg(long, required = true)]
    dry_run: bool,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
    /// Longest wait; the fleet goes on by itself afterwards
    #[arg(long, value_name = "S", default_value_t = 600)]
    wait: u64,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What the fleet does, or would do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Plan {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    shard: u16,
    from: Vec<Value>,
    to: Vec<Value>,
    reason: Option<String>,
}

const LOOK_EVERY: Duration = Duration::from_millis(250);

pub async fn drain(args: DrainArgs) -> Result<(), CliError> {
    let client = Client::new(&args.how.server)?;
    let before = cluster(&client).await?;
    let body = json!({ "node": args.node, "dry_run": args.dry_run, "undo": args.undo });
    let answer = ask(&client, "/v1/cluster/drain", &body).await?;
    show(&answer, &before, args.how.output.format)?;
    if args.dry_run || args.undo || args.how.no_wait {
        return Ok(());
    }
    let held = |cluster: &Cluster| cluster.nodes.iter().find(|node| node.name == args.node).map_or(0, |node| on(cluster, &node.name));
    let all = held(&before);
    wait(&client, &args.how, all, &format!("Draining {}", args.node), |cluster| all.saturating_sub(held(cluster))).await?;
    eprintln!("{} holds no shard any more: it can be stopped.", args.node);
    Ok(())
}

pub async fn move_shard(args: MoveArgs) -> Result<(), CliError> {
    let client = Client::new(&args.how.server)?;
    let before = cluster(&client).await?;
    let body = json!({ "shard": args.shard, "node": args.node, "dry_run": args.dry_run });
    let answer = ask(&client, "/v1/cluster/move", &body).await?;
    show(&answer, &before, args.how.output.format)?;
    if args.dry_run || args.how.no_wait {
        return Ok(());
    }
    let what = format!("Moving shard {}", args.shard);
    let is_led = |cluster: &Cluster| {
        let shard = cluster.shards.iter().find(|shard| shard.shard == args.shard);
        u64::from(shard.is_some_and(|shard| cluster.leader(shard).as_ref() == Some(&args.node)))
    };
    wait(&client, &args.how, 1, &what, is_led).await?;
    eprintln!("{} leads shard {}.", args.node, args.shard);
    Ok(())
}

pub async fn rebalance(args: RebalanceArgs) -> Result<(), CliError> {
    let client = Client::new(&args.server)?;
    let before = cluster(&client).await?;
    let answer = ask(&client, "/v1/cluster/rebalance", &json!({ "dry_run": args.dry_run })).await?;
    show(&answer, &before, args.output.format)
}

async fn cluster(client: &Client) -> Result<Cluster, CliError> {
    let answer: Value = client.get_json("/v1/cluster", &[]).await?;
    read(&answer, client)
}

async fn ask(client: &Client, path: &str, body: &Value) -> Result<Value, CliError> {
    let response = client.send(client.request(Method::POST, path).json(body)).await?;
    client.json(response).await
}

fn show(answer: &Value, cluster: &Cluster, format: Format) -> Result<(), CliError> {
    if format == Format::Json {
        return print_json(answer);
    }
    let plan: Plan = serde_json::from_value(answer.clone()).unwrap_or_default();
    if plan.steps.is_empty() && format == Format::Table {
        eprintln!("Nothing has to be moved.");
        return Ok(());
    }
    as_table(&plan, cluster).print(format)
}

fn as_table(plan: &Plan, cluster: &Cluster) -> Table {
    let names = |members: &[Value]| members.iter().filter_map(|member| cluster.who(member)).collect::<Vec<_>>().join(" ");
    let mut table = Table::new(["shard", "from", "to", "why"]);
    for step in &plan.steps {
        table.row(vec![json!(step.shard), json!(names(&step.from)), json!(names(&step.to)), json!(step.reason)]);
    }
    table
}

/// Replicas that are on a node, also those that are about to leave it.
fn on(cluster: &Cluster, name: &str) -> u64 {
    let is_there = |shard: &&super::view::Shard| {
        cluster.replicas(shard).iter().any(|replica| replica == name)
            || shard.going.iter().any(|going| cluster.who(going).as_deref() == Some(name))
    };
    cluster.shards.iter().filter(is_there).count() as u64
}

/// Looks until `done` says that all of it is; a node that does not answer for a moment is asked again.
async fn wait(client: &Client, how: &How, all: u64, what: &str, done: impl Fn(&Cluster) -> u64) -> Result<(), CliError> {
    let bar = ProgressBar::new(all);
    bar.set_draw_target(if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    });
    if let Ok(style) = ProgressStyle::with_template("{prefix}  {bar:32.cyan/blue}  {pos}/{len} shards  {elapsed}") {
        bar.set_style(style.progress_chars("━━╌"));
    }
    bar.set_prefix(what.to_owned());
    let began = Instant::now();
    let mut last = None;
    while began.elapsed() < Duration::from_secs(how.wait) {
        match cluster(client).await {
            Ok(cluster) => {
                let position = done(&cluster);
                bar.set_position(position);
                if position >= all {
                    bar.finish_and_clear();
                    return Ok(());
                }
                last = Some(position);
            }
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bar.finish_and_clear();
    let position = last.map_or("unknown".to_owned(), |position| position.to_string());
    Err(CliError::Failed(format!(
        "{what}: {position} of {all} shards after {} s; the fleet goes on with it: tallymesh cluster status --watch",
        how.wait
    )))
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::fleet;
    use super::*;

    #[test]
    fn steps_name_nodes_and_a_node_has_what_is_about_to_leave_it() {
        let mut cluster = fleet(None, None);
        let answer = json!({ "steps": [{ "shard": 2, "from": [1_000, "n2"], "to": [1_002, "n2"], "reason": "drain" }], "dry_run": true });
        let plan: Plan = serde_json::from_value(answer).expect("read");
        assert_eq!(as_table(&plan, &cluster).to_csv().lines().nth(1), Some("2,n1 n2,n3 n2,drain"));
        assert_eq!(on(&cluster, "n1"), 4);
        cluster.shards[0].members.remove(0);
        assert_eq!(on(&cluster, "n1"), 3);
        cluster.shards[0].going = vec![json!(1_000)];
        assert_eq!(on(&cluster, "n1"), 4);
    }
}
