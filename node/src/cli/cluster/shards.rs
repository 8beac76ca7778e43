//! `tallymesh cluster shards`: each shard with its leader, its replicas and how far they are.

use serde_json::{Value, json};

use super::super::client::{CliError, Client, ServerArgs};
use super::super::output::{Format, OutputArgs, Table, print_json};
use super::status::read;
use super::view::{Cluster, Replica, Shard};

const EXAMPLES: &str = "\
Examples:
  Each shard, its leader, its replicas:
    tallymesh cluster shards

  Those that are not as they should be, for a script:
    tallymesh cluster shards -o csv | grep -v ',ok,'";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ShardsArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: ShardsArgs) -> Result<(), CliError> {
    let client = Client::new(&args.server)?;
    let answer: Value = client.get_json("/v1/cluster", &[]).await?;
    let cluster = read(&answer, &client)?;
    if args.output.format == Format::Json {
        return print_json(&answer["shards"]);
    }
    as_table(&cluster).print(args.output.format)
}

fn as_table(cluster: &Cluster) -> Table {
    let mut table = Table::new(["shard", "state", "leader", "replicas", "term", "commit", "lag", "events", "checksums"]);
    for shard in &cluster.shards {
        table.row(vec![
            json!(shard.shard),
            json!(cluster.health(shard).as_str()),
            json!(shard.leader),
            json!(replicas(shard)),
            json!(shard.term),
            json!(shard.commit),
            json!(shard.lag),
            json!(shard.events),
            json!(checksums(shard)),
        ]);
    }
    table
}

/// Those that have no vote yet are marked.
fn replicas(shard: &Shard) -> String {
    let mark = |replica: &Replica| if replica.role.as_deref() == Some("learner") { "+" } else { "" };
    shard.replicas.iter().map(|replica| format!("{}{}", replica.node, mark(replica))).collect::<Vec<_>>().join(" ")
}

/// Replicas that have applied as much as each other have the same content.
fn checksums(shard: &Shard) -> Option<&'static str> {
    let known = shard.replicas.iter().filter_map(|replica| Some((replica.applied?, replica.checksum.as_ref()?)));
    let known: Vec<(u64, &String)> = known.collect();
    let differ = known.iter().any(|(applied, sum)| known.iter().any(|(other, its)| applied == other && sum != its));
    let compared = known.iter().enumerate().any(|(at, (applied, _))| known[..at].iter().any(|(other, _)| applied == other));
    match (differ, compared) {
        (true, _) => Some("differ"),
        (false, true) => Some("equal"),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::fleet;
    use super::*;

    #[test]
    fn figures_that_are_unknown_are_left_open() {
        let mut cluster = fleet(None, None);
        let unknown = json!({ "shard": 1, "leader": "n2", "term": null, "commit": null, "lag": null, "events": null });
        cluster.shards[1] = serde_json::from_value(unknown).expect("read");
        let table = as_table(&cluster);
        assert_eq!(table.to_csv().lines().nth(2), Some("1,ok,n2,,,,,,"));
        let text = table.to_text(true);
        let row = text.lines().find(|line| line.contains("n2") && !line.contains("n1")).expect("the shard");
        assert_eq!((row.matches('–').count(), row.contains('0')), (5, false), "{text}");
    }

    #[test]
    fn replicas_at_one_place_in_the_log_are_compared() {
        let mut cluster = fleet(None, None);
        let members = |entries: [(u64, &str); 3]| {
            let member = |(at, (applied, sum)): (usize, (u64, &str))| json!({ "node": format!("n{}", at + 1), "role": if at < 2 { "follower" } else { "learner" }, "applied": applied, "checksum": sum });
            serde_json::from_value(Value::Array(entries.into_iter().enumerate().map(member).collect())).expect("read")
        };
        for (entries, says) in [
            ([(7, "a"), (7, "a"), (6, "b")], Some("equal")),
            ([(7, "a"), (7, "b"), (6, "b")], Some("differ")),
            ([(7, "a"), (5, "a"), (6, "b")], None),
        ] {
            cluster.shards[0].replicas = members(entries);
            assert_eq!(checksums(&cluster.shards[0]), says, "{entries:?}");
        }
        assert_eq!(replicas(&cluster.shards[0]), "n1 n2 n3+", "the last one has no vote");
        assert_eq!(as_table(&cluster).to_csv().lines().count(), 5);
    }
}
