//! From a request body to counted events.

pub mod decode;
