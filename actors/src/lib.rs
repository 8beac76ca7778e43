//! Who owns what: shard actors on their replicated logs, scatter-gather over them, back-pressure. Engines are pure and live below; actors move messages.

pub mod admission;
pub mod fleet;
pub mod founding;
pub mod membership;
mod mesh;
pub mod peer;
pub mod raft;
pub mod replicator;
pub mod shard;
pub mod tail;

pub use mesh::{
    AppendError, Gathered, LogDoor, LogShare, Mesh, MeshOptions, MetricUse, Offender, PartOutcome, Patience, RequestNumber, ShardAnswer,
    ShardStatus, StartError,
};
