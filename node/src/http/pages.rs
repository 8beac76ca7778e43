//! Pages for people.

pub(super) mod dashboard;
pub(super) mod docs;
