//! What survives: the write-ahead log, the state of a shard (windows, deduplication, keys) and its snapshots, dead letters.
//! Below them the file layer and the clock, as parameters.

pub mod clock;
pub mod dead_letters;
pub mod dedup;
pub mod dir_lock;
pub mod disk;
mod error;
pub mod files;
pub mod planted;
pub mod shard;
pub mod space;
pub mod wal;
pub mod windows;

pub use error::StorageError;
