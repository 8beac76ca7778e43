//! Structured logs on stderr. Payloads, keys and other secrets are never logged.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Logs};

/// Installs the process's subscriber; a second call leaves the first in place.
///
/// # Errors
/// A level that does not parse.
pub fn start(logs: &Logs) -> Result<(), String> {
    // The raft engine says a great deal at debug, with payloads in it, and warns of every ordinary election: errors only, unless it is named.
    let mut filter = EnvFilter::try_new(&logs.level).map_err(|e| format!("logs.level: {e}"))?;
    if !logs.level.contains("openraft") {
        filter = filter.add_directive("openraft=error".parse().map_err(|e| format!("logs.level: {e}"))?);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // Losing the race against a subscriber of tests is no failure.
    let _ = match logs.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
