//! One process per data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use crate::StorageError;

const LOCK_NAME: &str = "LOCK";
/// More than a process id in decimal.
const HOLDER_BYTES_MAX: u64 = 32;

/// Holds the directory as long as it lives; the kernel lets go when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the directory, which is made if it is missing.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] naming the directory and the process that holds it; otherwise the disk's.
    pub fn acquire(dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(LOCK_NAME);
        std::fs::create_dir_all(dir).map_err(|e| StorageError::io("make", dir, e))?;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|e| StorageError::io("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StorageError::Invalid(held_by(&mut file, dir))),
            Err(TryLockError::Error(e)) => return Err(StorageError::io("lock", &path, e)),
        }
        let written = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        written.map_err(|e| StorageError::io("write", &path, e))?;
        Ok(Self { _file: file })
    }
}

fn held_by(file: &mut File, dir: &Path) -> String {
    let mut holder = String::new();
    let known = file.take(HOLDER_BYTES_MAX).read_to_string(&mut holder).is_ok() && !holder.is_empty();
    let holder = if known { format!("process {holder}") } else { "another process".to_owned() };
    format!("{} is in use by {holder}: stop it first, or choose another data directory", dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_is_refused_with_pid_and_path_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = DirLock::acquire(&data).unwrap();
        let refusal = DirLock::acquire(&data).unwrap_err().to_string();
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        assert!(refusal.contains(&data.display().to_string()), "{refusal}");
        drop(first);
        DirLock::acquire(&data).unwrap();
    }
}
