//! The way of a question: what a client asks ([`query`], [`filter`], [`token`]), as windows of shards ([`plan`]), to other nodes and back ([`wire`]), and what the
//! shards answered, put together ([`merge`], [`answer`]).

pub mod answer;
pub mod filter;
pub mod merge;
pub mod plan;
pub mod query;
pub mod token;
pub mod wire;
