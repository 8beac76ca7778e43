//! The process `tallymesh`: see `tallymesh --help`.

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tallymesh_node::cli::run(tallymesh_node::cli::Cli::parse())
}
