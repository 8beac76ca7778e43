//! `tallymesh cluster …`: the fleet, seen and looked after from any machine.

mod certs;

use super::CliError;

const EXAMPLES: &str = "\
Examples:
  A CA, certificates and a cookie for three nodes:
    tallymesh cluster certs --dir ./certs --nodes n1,n2,n3

Each has examples of its own: tallymesh cluster certs --help";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ClusterArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a private CA, a certificate for each node, and a cookie
    Certs(certs::CertsArgs),
}

pub async fn run(args: ClusterArgs) -> Result<(), CliError> {
    match args.action {
        Action::Certs(args) => certs::run(args),
    }
}
