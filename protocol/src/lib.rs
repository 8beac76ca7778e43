//! The values of Tallymesh: events, keys, batches, aggregates, queries and their wire forms. Pure: no I/O, no clock, no randomness.
//!
//! The types follow the data: `&[u8] -> Event -> ShardBatch -> (log entry)` on the way in ([`event`]), `MetricQuery -> ShardQuery -> PartialAnswer -> Answer` on the way out ([`question`]).

pub mod aggregate;
pub mod cardinality;
pub mod definition;
pub mod error;
pub mod event;
pub mod hash;
pub mod key;
pub mod limits;
pub mod question;
pub mod time;
