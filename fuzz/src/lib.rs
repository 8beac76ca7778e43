//! Fuzz targets: what comes from outside or from the disk, against a naive reading of the same bytes.
//!
//! A target is a function of bytes that panics when the product breaks a promise. Two drivers run the same functions: `cargo test` replays `corpus/`
//! and tries some random mutations of it, and `make fuzz` runs libFuzzer, which is guided by coverage and adds to the corpus.
//!
//! | target | bytes are read as | held against |
//! |---|---|---|
//! | [`events`] | a request body, where it is cut, limits | serde_json item by item, exact decimals, the calendar of `jiff` |
//! | [`queries`] | a query string, a JSON query or a forged cursor | plans that tile their range; pages that add up to the whole |
//! | [`batches`] | an encoded batch or a command | plain columns, counted with a set; replicas, snapshots |
//! | [`wire`] | a query or answers between nodes | memory by the byte; sent on and read again |
//! | [`segments`] | requests to a log and harm to its files, or segment files | plain maps: every state that a group ever had |

pub mod batches;
pub mod events;
mod input;
mod memory;
pub mod mutate;
pub mod queries;
pub mod segments;
pub mod wire;

pub type Target = fn(&[u8]);

/// Every target by its name, which is also the name of its folder in `corpus/`.
pub const TARGETS: [(&str, Target); 5] =
    [("events", events::run), ("queries", queries::run), ("batches", batches::run), ("segments", segments::run), ("wire", wire::run)];

/// Longest input, in bytes.
pub const INPUT_BYTES_MAX: usize = 16 << 10;
