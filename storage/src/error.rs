//! What can go wrong on disk. Damage names the file and the offset: an operator has to find it.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("damaged: {path} at byte {offset}: {detail}")]
    Damaged { path: PathBuf, offset: u64, detail: String },
    #[error("{path}: format version {found} is not known here (this build reads {known})")]
    Version { path: PathBuf, found: u32, known: u32 },
    /// An earlier write or sync failed: nothing is accepted any more until a restart has read back what is really there.
    #[error("stopped after a failed write: {0}")]
    Poisoned(String),
    /// Nothing was written; the same request may be made again later.
    #[error("the log has {queued_bytes} bytes waiting to be written, at most {limit_bytes}: try again later")]
    Overloaded { queued_bytes: usize, limit_bytes: usize },
    #[error("{0}")]
    Invalid(String),
}

impl StorageError {
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    pub fn damaged(path: impl Into<PathBuf>, offset: u64, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), offset, detail: detail.into() }
    }
}
