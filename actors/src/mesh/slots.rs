//! The shards of the cluster as this node has them.

use std::sync::Arc;

use parking_lot::RwLock;
use tallymesh_protocol::hash::ShardId;

use crate::shard::Shard;

/// One shard of the cluster.
#[derive(Clone)]
pub enum Slot {
    Running(Arc<Shard>),
    /// It could not be opened; the others go on.
    Stopped {
        shard: ShardId,
        detail: String,
    },
    /// Its replicas are on other nodes.
    Elsewhere {
        shard: ShardId,
    },
}

impl Slot {
    pub fn running(&self) -> Option<&Arc<Shard>> {
        match self {
            Self::Running(shard) => Some(shard),
            Self::Stopped { .. } | Self::Elsewhere { .. } => None,
        }
    }
}

/// Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Slots(Arc<[RwLock<Slot>]>);

impl Slots {
    pub fn new(slots: impl IntoIterator<Item = Slot>) -> Self {
        Self(slots.into_iter().map(RwLock::new).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn get(&self, shard: ShardId) -> Option<Slot> {
        self.0.get(usize::from(shard.0)).map(|slot| slot.read().clone())
    }

    pub fn set(&self, shard: ShardId, slot: Slot) {
        if let Some(there) = self.0.get(usize::from(shard.0)) {
            *there.write() = slot;
        }
    }

    pub fn all(&self) -> Vec<Slot> {
        self.0.iter().map(|slot| slot.read().clone()).collect()
    }

    pub fn running(&self) -> Vec<Arc<Shard>> {
        self.0.iter().filter_map(|slot| slot.read().running().cloned()).collect()
    }
}
