//! `tallymesh cluster drain | move | rebalance`: what is asked of the fleet, the steps that follow, and how far they are.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
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
    from: Vec<String>,
    to: Vec<String>,
    reason: Option<String>,
}

const LOOK_EVERY: Duration = Duration::from_millis(250);

pub async fn drain(args: DrainArgs) -> Result<(), CliError> {
    let client = Client::new(&args.how.server)?;
    let before = cluster(&client).await?;
    let body = json!({ "node": args.node, "dry_run": args.dry_run, "undo": args.undo });
    let answer = ask(&client, "/v1/cluster/drain", &body).await?;
    show(&answer, args.how.output.format)?;
    if args.dry_run || args.undo || args.how.no_wait {
        return Ok(());
    }
    let plan: Plan = serde_json::from_value(answer).unwrap_or_default();
    let stay = staying(&before, &plan, &args.node);
    let left = |cluster: &Cluster| {
        let node = cluster.nodes.iter().find(|node| node.name == args.node);
        node.map_or(0, |node| cluster.leads(node) + cluster.held(node).saturating_sub(stay))
    };
    let all = left(&before);
    wait(&client, &args.how, all, &format!("Draining {}", args.node), |cluster| all.saturating_sub(left(cluster))).await?;
    if stay == 0 {
        eprintln!("{} holds no shard any more: it can be stopped for good.", args.node);
    } else {
        eprintln!(
            "{} leads no shard any more and can be stopped for a while. It keeps its replicas of {stay}: there is no other node for them. Start one, and they move.",
            args.node
        );
    }
    Ok(())
}

pub async fn move_shard(args: MoveArgs) -> Result<(), CliError> {
    let client = Client::new(&args.how.server)?;
    let body = json!({ "shard": args.shard, "node": args.node, "dry_run": args.dry_run });
    let answer = ask(&client, "/v1/cluster/move", &body).await?;
    show(&answer, args.how.output.format)?;
    if args.dry_run || args.how.no_wait {
        return Ok(());
    }
    let what = format!("Moving shard {}", args.shard);
    let began = Instant::now();
    let over = |cluster: &Cluster| match moved(cluster, args.shard, &args.node) {
        Some(Moved::On(_)) => u64::from(began.elapsed() >= KNOWN_WITHIN),
        here => u64::from(here.is_some()),
    };
    wait(&client, &args.how, 1, &what, over).await?;
    match moved(&cluster(&client).await?, args.shard, &args.node) {
        Some(Moved::On(leader)) => eprintln!("The fleet has shard {} led by {leader} by now, to be in balance.", args.shard),
        _ => eprintln!("{} leads shard {}.", args.node, args.shard),
    }
    Ok(())
}

/// Every node that is connected knows within this time what was decided.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// What became of a move.
#[derive(Debug, PartialEq, Eq)]
enum Moved {
    Here,
    /// The fleet, which balances itself, has had another node lead it since.
    On(String),
}

/// None while it goes on.
fn moved(cluster: &Cluster, shard: u16, node: &str) -> Option<Moved> {
    let shard = cluster.shards.iter().find(|of| of.shard == shard)?;
    if shard.leader.as_deref() == Some(node) {
        return Some(Moved::Here);
    }
    shard.placed.first().filter(|first| *first != node).map(|first| Moved::On(first.clone()))
}

pub async fn rebalance(args: RebalanceArgs) -> Result<(), CliError> {
    let client = Client::new(&args.server)?;
    let answer = ask(&client, "/v1/cluster/rebalance", &json!({ "dry_run": args.dry_run })).await?;
    show(&answer, args.output.format)
}

async fn cluster(client: &Client) -> Result<Cluster, CliError> {
    let answer: Value = client.get_json("/v1/cluster", &[]).await?;
    read(&answer, client)
}

async fn ask(client: &Client, path: &str, body: &Value) -> Result<Value, CliError> {
    let response = client.send(client.request(Method::POST, path).json(body)).await?;
    client.json(response).await
}

fn show(answer: &Value, format: Format) -> Result<(), CliError> {
    if format == Format::Json {
        return print_json(answer);
    }
    let plan: Plan = serde_json::from_value(answer.clone()).unwrap_or_default();
    if plan.steps.is_empty() && format == Format::Table {
        eprintln!("Nothing has to be moved.");
        return Ok(());
    }
    as_table(&plan).print(format)
}

fn as_table(plan: &Plan) -> Table {
    let mut table = Table::new(["shard", "from", "to", "why"]);
    for step in &plan.steps {
        table.row(vec![json!(step.shard), json!(step.from.join(" ")), json!(step.to.join(" ")), json!(step.reason)]);
    }
    table
}

/// Replicas that a node keeps when all steps are done: there is nobody to take them.
fn staying(cluster: &Cluster, plan: &Plan, name: &str) -> u64 {
    let held = cluster.nodes.iter().find(|node| node.name == name).map_or(0, |node| cluster.held(node));
    // The last step of a shard says where it is to be.
    let last: BTreeMap<u16, bool> = plan.steps.iter().map(|step| (step.shard, step.to.iter().any(|node| node == name))).collect();
    held.saturating_sub(last.values().filter(|stays| !**stays).count() as u64)
}

/// Looks until `done` says that all of it is; a node that does not answer for a moment is asked again.
async fn wait(client: &Client, how: &How, all: u64, what: &str, done: impl Fn(&Cluster) -> u64) -> Result<(), CliError> {
    let bar = ProgressBar::new(all);
    bar.set_draw_target(if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    });
    if let Ok(style) = ProgressStyle::with_template("{prefix}  {bar:32.cyan/blue}  {pos}/{len}  {elapsed}") {
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
        "{what}: {position} of {all} done after {} s; the fleet goes on with it: tallymesh cluster status --watch",
        how.wait
    )))
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::fleet;
    use super::*;

    #[test]
    fn a_move_is_over_when_the_node_leads_or_is_to_lead_no_more() {
        let mut cluster = fleet(None, None);
        let leader = cluster.shards[2].leader.clone().expect("a leader");
        assert_eq!(moved(&cluster, 2, &leader), Some(Moved::Here));
        cluster.shards[2].placed = vec!["n9".to_owned(), leader.clone()];
        assert_eq!(moved(&cluster, 2, "n9"), None, "it is on its way");
        assert_eq!(moved(&cluster, 2, "n8"), Some(Moved::On("n9".to_owned())), "the fleet gave it to another one");
        assert_eq!(moved(&cluster, 99, "n9"), None);
    }

    #[test]
    fn replicas_that_nobody_else_can_take_stay() {
        let cluster = fleet(None, None);
        let plan = |steps: Value| serde_json::from_value::<Plan>(json!({ "steps": steps, "dry_run": true })).expect("read");
        let leads_only = plan(json!([{ "shard": 0, "from": ["n1", "n2", "n3"], "to": ["n2", "n1", "n3"], "reason": "drain" }]));
        assert_eq!(staying(&cluster, &leads_only, "n1"), 4);
        assert_eq!(as_table(&leads_only).to_csv().lines().nth(1), Some("0,n1 n2 n3,n2 n1 n3,drain"));
        let two = json!([
            { "shard": 0, "from": ["n1", "n2", "n3"], "to": ["n2", "n1", "n3"] },
            { "shard": 0, "from": ["n2", "n1", "n3"], "to": ["n2", "n4", "n3"] },
            { "shard": 1, "from": ["n2", "n1", "n3"], "to": ["n2", "n4", "n3"] },
        ]);
        assert_eq!(staying(&cluster, &plan(two), "n1"), 2);
    }
}
