//! What operators look at and change: how the node does, the fleet, definitions.

pub(super) mod cluster;
pub(super) mod definitions;
pub(super) mod ops;
