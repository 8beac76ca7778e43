//! Clients of a fleet while harm is done to it: [`writers`], [`probes`] that look whether each shard takes writes, [`readers`]. Each request leaves a [`Record`].

pub mod ledger;
pub mod probes;
pub mod readers;
pub mod stream;
pub mod token;
pub mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::node::http::Sent;
use super::watch::Watch;
use super::{Findings, Fleet};
use ledger::{Ledger, Place};
use stream::{Batch, Request, request};

/// How long a writer waits for an ack: longer than a node tries (`ingest.append_timeout`).
pub const SEND_TIME_MAX: Duration = Duration::from_secs(12);
/// Different reasons of failures that are counted apart.
const REASONS_MAX: usize = 60;
/// Reasons kept with their time.
const REASONS_TOLD_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Write,
    /// A single event for this shard.
    Probe {
        shard: u16,
    },
    /// A query that wants all or nothing.
    Read,
    /// One that takes what there is, if it is flagged (`partial=allow`).
    PartialRead,
}

impl What {
    pub fn is_read(self) -> bool {
        matches!(self, Self::Read | Self::PartialRead)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// An answer that says that it lacks something.
    Flagged,
    /// Certainly not done.
    Refused,
    /// No answer, or none that tells.
    Unknown,
}

/// One request. Times are milliseconds of the run.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub began_ms: f64,
    pub ended_ms: f64,
    pub node: u8,
    pub what: What,
    pub outcome: Outcome,
    /// The node itself was down, paused or cut off when the request began or ended.
    pub at_victim: bool,
}

/// What clients share.
pub struct Load {
    pub fleet: Arc<Fleet>,
    pub ledger: Ledger,
    pub findings: Findings,
    pub watch: Arc<Watch>,
    pub stop: CancellationToken,
    /// Nodes that are being harmed.
    pub victims: Mutex<BTreeSet<usize>>,
    records: Mutex<Vec<Record>>,
    reasons: Mutex<BTreeMap<String, u64>>,
    told: Mutex<Vec<(f64, String)>>,
    began: Instant,
}

impl Load {
    pub fn new(fleet: Arc<Fleet>, watch: Arc<Watch>, ledger: Ledger, findings: Findings, began: Instant) -> Self {
        Self {
            fleet,
            ledger,
            findings,
            watch,
            stop: CancellationToken::new(),
            victims: Mutex::default(),
            records: Mutex::default(),
            reasons: Mutex::default(),
            told: Mutex::default(),
            began,
        }
    }

    /// Milliseconds of the run.
    pub fn now_ms(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * 1e3
    }

    pub fn is_victim(&self, node: usize) -> bool {
        self.victims.lock().contains(&node)
    }

    pub fn record(&self, what: What, node: usize, began_ms: f64, was_victim: bool, outcome: Outcome) {
        let at_victim = was_victim || self.is_victim(node);
        let record = Record { began_ms, ended_ms: self.now_ms(), node: node as u8, what, outcome, at_victim };
        self.records.lock().push(record);
    }

    pub fn records(&self) -> Vec<Record> {
        self.records.lock().clone()
    }

    /// Counts a failure by its reason, numbers in it left out.
    pub fn reason(&self, what: &str, detail: &str) {
        let without_numbers: String = detail.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(160).collect();
        let reason = format!("{what}: {without_numbers}");
        let mut told = self.told.lock();
        if told.len() < REASONS_TOLD_MAX {
            told.push((self.now_ms(), reason.clone()));
        }
        drop(told);
        let mut reasons = self.reasons.lock();
        if reasons.len() < REASONS_MAX || reasons.contains_key(&reason) {
            *reasons.entry(reason).or_default() += 1;
        }
    }

    /// Reasons, with when they were met in milliseconds of the run.
    pub fn told(&self) -> Vec<(f64, String)> {
        self.told.lock().clone()
    }

    pub fn reasons(&self) -> BTreeMap<String, u64> {
        self.reasons.lock().clone()
    }

    /// Enters a new batch.
    pub fn open(&self, batch: Batch) -> (Place, Request) {
        let request = request(self.ledger.seed, &batch);
        (self.ledger.open(batch, &request), request)
    }

    /// One attempt at a batch. Gives the ack.
    pub async fn attempt(&self, place: Place, request: &Request, node: usize, what: What) -> Option<serde_json::Value> {
        let (began_ms, was_victim) = (self.now_ms(), self.is_victim(node));
        self.ledger.attempt(place);
        let sent = self.fleet.http.send(&self.fleet.nodes[node], writers::body(request), SEND_TIME_MAX).await;
        let (outcome, ack) = match sent {
            Sent::Acked(ack) => {
                self.ledger.acked(place, request, &ack, &self.fleet.nodes[node].name);
                (Outcome::Ok, Some(ack))
            }
            Sent::Refused(detail) => {
                self.reason("write refused", &detail);
                (Outcome::Refused, None)
            }
            Sent::Unknown(detail) => {
                self.reason("write unknown", &detail);
                (Outcome::Unknown, None)
            }
        };
        self.record(what, node, began_ms, was_victim, outcome);
        ack
    }

    /// Waits, or until the run's end: then false.
    pub async fn pause(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.stop.cancelled()).await.is_err()
    }
}
