//! The process `tallymesh`: see `tallymesh --help`.

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const _: () = assert!(!tallymesh_storage::planted::COMPILED_IN, "the product is never built with planted bugs");

/// Freed memory goes back to the system after so long. The allocator's own second keeps a tenth more resident while batches come and go and hours are sealed
/// (ops/bench).
const ALLOCATOR_PURGE_DELAY_MS: std::ffi::c_long = 100;
/// `mi_option_purge_delay`, to which the crate gives no name; the list of options is that of the version it was looked up in.
const ALLOCATOR_PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
const _: () = assert!(libmimalloc_sys::_mi_option_last == 47, "look the option up again");

#[expect(unsafe_code, reason = "a foreign function; it is not thread safe, and there is one thread yet")]
fn set_up_allocator() {
    unsafe { libmimalloc_sys::mi_option_set_default(ALLOCATOR_PURGE_DELAY, ALLOCATOR_PURGE_DELAY_MS) }
}

fn main() -> std::process::ExitCode {
    set_up_allocator();
    // Batches come and go by the megabyte. With huge pages the kernel clears 2 MiB for each that is touched, which took a third of all CPU of the ingest
    // path (ops/bench). Where this cannot be set, things are only slower.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    tallymesh_node::boot::open_files::raise_limit();
    tallymesh_node::cli::run(tallymesh_node::cli::Cli::parse())
}
