//! The dashboard is built by npm into `dashboard/dist` and embedded. When it appears, changes or goes, the node is compiled again.

use std::path::Path;

fn main() {
    // Set by `make`: cargo cannot watch for a folder that is not there yet without running this at every build.
    println!("cargo:rerun-if-env-changed=TALLYMESH_DASHBOARD");
    let dist = Path::new("../dashboard/dist");
    println!("cargo:rerun-if-changed={}", if dist.exists() { dist.display() } else { Path::new("build.rs").display() });
}
