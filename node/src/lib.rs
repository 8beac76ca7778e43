//! The process: configuration, boot and shutdown, HTTP, command line. A library so that tests and the demo start a node in their own process.

pub mod boot;
pub mod certs;
pub mod cli;
pub mod clients;
pub mod config;
pub mod http;
pub mod ingest;
pub mod limits;
pub mod live;
pub mod metrics;
pub mod traffic;
pub mod unique;
