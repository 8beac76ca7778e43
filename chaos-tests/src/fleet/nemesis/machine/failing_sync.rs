//! A node whose disk fails: from some sync on each one ends with an error (`strace -e inject`).

use std::path::Path;

use anyhow::Result;

use super::find;
use crate::fleet::node::Dressing;

/// The node's syncs fail from the `first` one on. The trace is written beside the logs.
///
/// # Errors
/// strace is not installed.
pub fn from_sync_on(first: u32, trace: &Path) -> Result<Dressing> {
    let strace = find(&["/usr/bin/strace", "/bin/strace"], "strace")?;
    let inject = format!("inject=fsync,fdatasync:error=EIO:when={first}+");
    // As a grandchild, so that the node itself is the child that signals go to.
    let mut wrapper: Vec<_> = [strace, "-D", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", &inject, "-o"].map(Into::into).to_vec();
    wrapper.push(trace.as_os_str().to_owned());
    Ok(Dressing { wrapper, ..Dressing::default() })
}
