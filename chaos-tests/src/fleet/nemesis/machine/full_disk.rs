//! A node on a disk of its own that can be filled up (tmpfs).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{need_root, run};

const FILL_BYTES: usize = 64 << 10;

/// A mounted disk. Dropped, it is unmounted.
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts it at a directory that is there or is made.
    ///
    /// # Errors
    /// Not root, or the mount's.
    pub fn mount(dir: &Path, mib: u32) -> Result<Self> {
        need_root("a small disk")?;
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        run(&["mount", "-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", &dir.display().to_string()])?;
        Ok(Self { dir: dir.to_owned() })
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    /// Writes until nothing goes in any more. Gives the bytes.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn fill(&self) -> Result<usize> {
        let mut file = File::options().create(true).append(true).open(self.ballast())?;
        let mut size = FILL_BYTES;
        let mut written = 0;
        // Down to the last byte.
        while size > 0 {
            match file.write(&vec![7; size]) {
                Ok(length @ 1..) => written += length,
                _ => size /= 2,
            }
        }
        Ok(written)
    }

    /// Makes room again.
    ///
    /// # Errors
    /// It was not full.
    pub fn free(&self) -> Result<()> {
        std::fs::remove_file(self.ballast()).context("the ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node on it may be about to end.
        let _ = run(&["umount", "-l", &self.dir.display().to_string()]);
    }
}
