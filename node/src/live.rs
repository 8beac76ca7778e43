//! Answers that move by themselves (D2): who watches a query is told its answer, then what changes in it.
//!
//! A *topic* is one distinct query. The hub evaluates it once however many watch, when something was written or the clock moved on, and remembers with each
//! row the *version* in which it last changed. What a watcher is told is always "everything since the version that you have", so there is nothing to queue
//! for one that reads slowly or was away for a while: it holds one number for each query.

mod event_id;
mod hub;
mod known;
mod topic;
mod watcher;

pub use event_id::EventId;
pub use hub::{HubFigures, LiveHub, LiveLimits, Source};
pub use watcher::{Kind, Message, Watcher};
