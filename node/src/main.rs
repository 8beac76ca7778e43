//! The process `tallymesh`: see `tallymesh --help`.

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const _: () = assert!(!tallymesh_storage::planted::COMPILED_IN, "the product is never built with planted bugs");

fn main() -> std::process::ExitCode {
    // Batches come and go by the megabyte. With huge pages the kernel clears 2 MiB for each that is touched, which took a third of all CPU of the ingest
    // path (ops/bench). Where this cannot be set, things are only slower.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    tallymesh_node::boot::open_files::raise_limit();
    tallymesh_node::cli::run(tallymesh_node::cli::Cli::parse())
}
