//! Faults that the machine's own means make: they need root, and say so.

pub mod clock;
pub mod failing_sync;
pub mod full_disk;
pub mod network;

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

/// # Errors
/// This process is not root's.
pub fn need_root(what: &str) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "{what} needs root: run this as root, or leave it out");
    Ok(())
}

/// Runs a program to its end.
///
/// # Errors
/// It is not installed, or fails.
pub fn run(words: &[&str]) -> Result<String> {
    let [program, args @ ..] = words else { bail!("no program") };
    let Output { status, stdout, stderr } = Command::new(program).args(args).output().with_context(|| format!("running {program}"))?;
    ensure!(status.success(), "{}: {}", words.join(" "), String::from_utf8_lossy(&stderr).trim());
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// The first of these files that is there.
///
/// # Errors
/// None is; `package` has it.
pub fn find<'a>(paths: &[&'a str], package: &str) -> Result<&'a str> {
    paths.iter().copied().find(|path| Path::new(path).exists()).with_context(|| format!("none of {paths:?} is there: install {package}"))
}
