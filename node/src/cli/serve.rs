//! `tallymesh serve`: a node in the foreground until SIGTERM or Ctrl-C.

use std::path::PathBuf;

use rustix::process::Signal;

use super::CliError;
use crate::boot::{Machine, RunningNode, interrupted, logs};
use crate::config::{Config, Sources};

const EXAMPLES: &str = "\
Examples:
  One node with every default, data in ./tallymesh-data, http://127.0.0.1:7070:
    tallymesh serve

  A configuration file, and one setting changed:
    tallymesh serve --config cluster.toml --set retention.minute=30d

  The same from the environment:
    TALLYMESH_HTTP__ADDR=0.0.0.0:7070 tallymesh serve

  One of three nodes that found a fleet (the same --join at all three; each with its own --node, --data-dir, --http, --peer):
    tallymesh serve --node n1 --data-dir ./n1 --http 127.0.0.1:7070 --peer 127.0.0.1:7071 \\
      --join 127.0.0.1:7071,127.0.0.1:7072,127.0.0.1:7073 --set peer.cookie_file=./cookie

SIGTERM or Ctrl-C: what was accepted is finished, then the node ends with exit code 0.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// Configuration file; without one, every setting has its default.
    #[arg(long, value_name = "FILE", env = "TALLYMESH_CONFIG")]
    config: Option<PathBuf>,
    /// Name of this node [node.name].
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Where the data is kept [node.data_dir].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address to listen on [http.addr].
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Address for other nodes: TCP, and UDP for gossip [peer.addr].
    #[arg(long, value_name = "ADDR")]
    peer: Option<String>,
    /// What other nodes dial, if it is not --peer [peer.advertise].
    #[arg(long, value_name = "ADDR")]
    advertise: Option<String>,
    /// Peer addresses of all founders, this node's too; or of any members of a fleet to join [cluster.founders].
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',')]
    join: Vec<String>,
    /// Override one setting; repeatable. What is not TOML is a string.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// End, as on SIGTERM, when this process does, which started this one.
    #[arg(long, value_name = "PID", hide = true)]
    ends_with: Option<u32>,
}

impl ServeArgs {
    fn sources(self) -> Sources {
        let mut sets = self.set;
        if !self.join.is_empty() {
            sets.push(format!("cluster.founders={:?}", self.join));
        }
        let flags = [
            ("node.name", self.node),
            ("node.data_dir", self.data_dir),
            ("http.addr", self.http),
            ("peer.addr", self.peer),
            ("peer.advertise", self.advertise),
        ];
        Sources {
            file: self.config,
            sets,
            flags: flags.into_iter().filter_map(|(path, value)| Some((path, value?))).collect(),
            ..Sources::from_environment()
        }
    }
}

pub async fn run(args: ServeArgs) -> Result<(), CliError> {
    if let Some(parent) = args.ends_with {
        end_with(parent)?;
    }
    let config = Config::load(&args.sources()).map_err(|e| CliError::Usage(e.to_string()))?;
    logs::start(&config.logs).map_err(CliError::Failed)?;
    let node = RunningNode::start(config, Machine::this_one()).await.map_err(|e| CliError::Failed(e.to_string()))?;
    interrupted().await.map_err(|e| CliError::Failed(format!("cannot listen for signals: {e}")))?;
    node.shutdown().await;
    Ok(())
}

fn end_with(parent: u32) -> Result<(), CliError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|e| CliError::Failed(format!("cannot follow process {parent}: {e}")))?;
    // It may have ended before that.
    match rustix::process::getppid() {
        Some(pid) if u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent) => Ok(()),
        _ => Err(CliError::Failed(format!("process {parent}, which this one was to end with, has ended"))),
    }
}
