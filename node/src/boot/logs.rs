//! Structured logs on stderr. Payloads, keys and other secrets are never logged.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Logs};

/// Installs the process's subscriber; a second call leaves the first in place.
///
/// # Errors
/// A level that does not parse.
pub fn start(logs: &Logs) -> Result<(), String> {
    // The raft engine and the libraries under the peers say a great deal, some of it with payloads, and call ordinary what is an error to them: a peer
    // that is not there. What matters of it is said by their users; they are silent unless they are named.
    let mut filter = EnvFilter::try_new(&logs.level).map_err(|e| format!("logs.level: {e}"))?;
    for library in ["openraft", "ractor", "ractor_cluster", "chitchat"] {
        if !logs.level.contains(library) {
            filter = filter.add_directive(format!("{library}=off").parse().map_err(|e| format!("logs.level: {e}"))?);
        }
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
