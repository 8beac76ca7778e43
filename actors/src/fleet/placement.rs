//! Where shards are: what to move ([`plan`]), bringing groups there ([`steward`]), opening and closing replicas here ([`settle`]), and what a replica that went leaves
//! behind ([`leftovers`]).

pub(super) mod leftovers;
pub mod plan;
pub(super) mod settle;
pub(super) mod steward;
