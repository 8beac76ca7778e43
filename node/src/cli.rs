//! The command line: one file for each command, exit codes that scripts can rely on.

mod bench;
mod chaos;
pub mod client;
mod cluster;
mod dead_letters;
mod demo;
pub mod output;
mod query;
mod seed;
mod serve;
mod tail;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use client::CliError;

const EXAMPLES: &str = "\
Examples:
  See it move, with sample traffic of a product:
    tallymesh demo

  Run a node, send it something, ask:
    tallymesh serve &
    tallymesh seed --count 10000
    tallymesh query --metric page_view --agg count,users --group-by country_code --order=-value

Each command has examples of its own: tallymesh query --help";

/// Counts events as they happen, with numbers that can be trusted.
#[derive(Debug, Parser)]
#[command(name = "tallymesh", version, propagate_version = true, max_term_width = 120, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node.
    Serve(serve::ServeArgs),
    /// Run a node with live sample traffic.
    Demo(demo::DemoArgs),
    /// Send events, made up or from a file.
    Seed(seed::SeedArgs),
    /// Ask for numbers.
    Query(Box<query::QueryArgs>),
    /// Watch events as they are accepted.
    Tail(tail::TailArgs),
    /// Look after a fleet.
    Cluster(cluster::ClusterArgs),
    /// List or retry refused events.
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Measure what a node can do.
    Bench(bench::BenchArgs),
    /// Do harm to a fleet on this machine, and hold every answer against an independent count.
    Chaos(chaos::ChaosArgs),
    /// Print completions for a shell.
    Completions { shell: clap_complete::Shell },
}

/// Runs one command to its end on a runtime with a worker for each core.
pub fn run(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("tallymesh").build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start threads: {e}");
            return ExitCode::from(1);
        }
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Seed(args) => seed::run(args).await,
            Command::Query(args) => query::run(*args).await,
            Command::Tail(args) => tail::run(args).await,
            Command::Cluster(args) => cluster::run(args).await,
            Command::DeadLetters(args) => dead_letters::run(args).await,
            Command::Bench(args) => bench::run(args).await,
            Command::Chaos(args) => chaos::run(args).await,
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Cli::command(), "tallymesh", &mut std::io::stdout());
                Ok(())
            }
        }
    });
    client::finish(result)
}
