//! The load generator: seeded streams, a client that costs little, and what the server spent.

pub mod dashboard;
pub mod freshness;
pub mod gauges;
pub mod live;
pub mod load;
pub mod queries;
pub mod server;
pub mod stream;
