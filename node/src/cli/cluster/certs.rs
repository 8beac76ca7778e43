//! `tallymesh cluster certs`: what nodes need to know each other by, for a fleet that has no authority of its own.

use std::path::PathBuf;

use serde_json::json;
use tallymesh_storage::clock::SystemClock;

use super::super::client::CliError;
use super::super::output::{Format, OutputArgs, Table};
use crate::certs::{CA_KEY, CertsError, Fleet, FleetFiles, Made};

const EXAMPLES: &str = "\
Examples:
  For three nodes; each is given ca.pem, cookie, and its own two files:
    tallymesh cluster certs --dir ./certs --nodes n1,n2,n3

  A fourth node later, by the same CA:
    tallymesh cluster certs --dir ./certs --nodes n4

  New certificates before the old ones end; copied over those of a running node, they are used without a restart:
    tallymesh cluster certs --dir ./certs --nodes n1,n2,n3,n4 --renew

A fleet that has a CA of its own needs none of this: set peer.tls_ca, tls_cert and tls_key to its files.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CertsArgs {
    /// Where the files are, or are to be
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Names of nodes
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', required = true)]
    nodes: Vec<String>,
    /// How long a node's certificate is good
    #[arg(long, value_name = "DAYS", default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    days: u32,
    /// Replace certificates that are there; the CA and the cookie stay
    #[arg(long)]
    renew: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: CertsArgs) -> Result<(), CliError> {
    let mut nodes = args.nodes;
    nodes.sort();
    nodes.dedup();
    let fleet = Fleet { dir: args.dir, days: args.days, renew: args.renew };
    let files = fleet.make(&nodes, &SystemClock::new()).map_err(|error| match error {
        CertsError::Name(_) => CliError::Usage(error.to_string()),
        error => CliError::Failed(error.to_string()),
    })?;
    as_table(&files, args.days).print(args.output.format)?;
    if args.output.format == Format::Table {
        eprintln!("{}", what_next(&fleet, &files));
    }
    Ok(())
}

fn as_table(files: &FleetFiles, days: u32) -> Table {
    let mut table = Table::new(["node", "state", "good_for_days", "certificate", "key"]);
    for node in &files.nodes {
        let (state, days) = match node.made {
            Made::New => ("new", json!(days)),
            Made::Renewed => ("renewed", json!(days)),
            Made::Kept => ("was there", json!(null)),
        };
        table.row(vec![
            json!(node.node),
            json!(state),
            days,
            json!(node.cert.display().to_string()),
            json!(node.key.display().to_string()),
        ]);
    }
    table
}

fn what_next(fleet: &Fleet, files: &FleetFiles) -> String {
    let new = |made: Made| if made == Made::New { "new" } else { "was there" };
    let (dir, example) = (fleet.dir.display(), files.nodes.first().map_or("n1", |node| node.node.as_str()));
    let kept = if files.nodes.iter().any(|node| node.made == Made::Kept) { "\n--renew replaces those that were there.\n" } else { "" };
    format!(
        "{kept}
CA      {} ({}); its key {dir}/{CA_KEY} signs for the fleet: keep it off the nodes
Cookie  {} ({}), the same for every node

Each node gets ca.pem, cookie and its own two files, and is told of them, here {example}:

  [peer]
  addr = \"10.0.0.1:7071\"         # the node's own address
  cookie_file = \"{dir}/cookie\"
  tls_ca = \"{dir}/ca.pem\"
  tls_cert = \"{dir}/{example}.pem\"
  tls_key = \"{dir}/{example}-key.pem\"",
        files.ca.display(),
        new(files.ca_made),
        files.cookie.display(),
        new(files.cookie_made),
    )
}
