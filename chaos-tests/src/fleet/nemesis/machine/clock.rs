//! A node whose wall clock is off, and jumps (libfaketime). Its monotonic clock is right.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::find;
use crate::fleet::node::Dressing;

const LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

/// The clock of one node.
pub struct FakeClock {
    file: PathBuf,
}

impl FakeClock {
    /// # Errors
    /// The file cannot be written.
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        let clock = Self { file: dir.join(format!("{name}.clock")) };
        clock.set("+0")?;
        Ok(clock)
    }

    /// From now on the clock is off by so much: `+30s`, `-2m`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, offset: &str) -> Result<()> {
        std::fs::write(&self.file, offset).with_context(|| self.file.display().to_string())
    }

    /// For the node.
    ///
    /// # Errors
    /// The library is not installed.
    pub fn dressing(&self) -> Result<Dressing> {
        let library = find(&LIBRARIES, "libfaketime")?;
        let file = self.file.as_os_str().to_owned();
        let env = vec![
            ("LD_PRELOAD".into(), library.into()),
            ("FAKETIME_TIMESTAMP_FILE".into(), file),
            ("FAKETIME_NO_CACHE".into(), "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
            ("DONT_FAKE_MONOTONIC".into(), "1".into()),
        ];
        Ok(Dressing { env, ..Dressing::default() })
    }
}
