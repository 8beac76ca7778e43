//! The process: configuration, boot and shutdown, HTTP, command line. A library so that tests and the demo start a node in their own process.

pub mod bench;
pub mod boot;
pub mod certs;
pub mod cli;
pub mod clients;
pub mod config;
pub mod demo;
pub mod http;
pub mod ingest;
pub mod life;
pub mod limits;
pub mod live;
pub mod logs;
pub mod metrics;
pub mod open_files;
pub mod space;
pub mod unique;
