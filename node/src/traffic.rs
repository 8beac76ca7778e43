//! Events that are made up: to measure with ([`bench`]), and as people who use a product would cause them ([`demo`]).

pub mod bench;
pub mod demo;
