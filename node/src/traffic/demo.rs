//! `tallymesh demo`: a node on this machine with traffic that looks like a product's.

pub mod catalogue;
pub mod definitions;
pub mod feed;
pub mod random;
pub mod sample;
pub mod session;
pub mod traffic;
