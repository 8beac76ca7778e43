//! The values of Tallymesh: events, keys, batches, aggregates, queries and their wire forms. Pure: no I/O, no clock, no randomness.
//!
//! The types follow the data: `&[u8] -> Event -> ShardBatch -> (log entry)` on the way in, `MetricQuery -> ShardQuery -> PartialAnswer -> Answer` on the way out.

pub mod aggregate;
pub mod answer;
pub mod batch;
pub mod body;
pub mod cardinality;
pub mod command;
pub mod definition;
pub mod encode;
pub mod error;
pub mod event;
pub mod filter;
pub mod hash;
pub mod key;
pub mod limits;
pub mod merge;
pub mod parse;
pub mod plan;
pub mod query;
pub mod time;
pub mod token;
pub mod wire;
