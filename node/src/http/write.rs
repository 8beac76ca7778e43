//! Events as they come in, and those that were refused, to look at and to send again.

pub(super) mod dead_letters;
pub(super) mod ingest;
