//! Questions in every form, answered once or for as long as somebody watches.

pub(super) mod live;
pub(super) mod named;
pub(super) mod prometheus;
pub(super) mod query;
pub(super) mod seed;
pub(super) mod tail;
