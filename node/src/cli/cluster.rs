//! `tallymesh cluster …`: the fleet, seen and looked after from any machine.

mod certs;
mod moves;
mod picture;
mod shards;
mod status;
mod view;

use super::CliError;

const EXAMPLES: &str = "\
Examples:
  Who is there, who leads, what is missing; and the same while it changes:
    tallymesh cluster status
    tallymesh cluster status --watch

  Take a node out of service without a failed request:
    tallymesh cluster drain n3

  A CA, certificates and a cookie for three nodes:
    tallymesh cluster certs --dir ./certs --nodes n1,n2,n3

Each has examples of its own: tallymesh cluster drain --help";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ClusterArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show nodes and shards, once or as they change
    Status(status::StatusArgs),
    /// List shards with their replicas
    Shards(shards::ShardsArgs),
    /// Have a node give its shards away
    Drain(moves::DrainArgs),
    /// Have a shard led by another node
    Move(moves::MoveArgs),
    /// Show what would bring the fleet into balance
    Rebalance(moves::RebalanceArgs),
    /// Make a private CA, a certificate for each node, and a cookie
    Certs(certs::CertsArgs),
}

pub async fn run(args: ClusterArgs) -> Result<(), CliError> {
    match args.action {
        Action::Status(args) => status::run(args).await,
        Action::Shards(args) => shards::run(args).await,
        Action::Drain(args) => moves::drain(args).await,
        Action::Move(args) => moves::move_shard(args).await,
        Action::Rebalance(args) => moves::rebalance(args).await,
        Action::Certs(args) => certs::run(args),
    }
}
