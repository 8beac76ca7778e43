//! What was sent and what became of it. Every ack is held against what was sent; what is open at the end is sent again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use serde_json::Value;

use super::super::Findings;
use super::stream::{Batch, NAMES, Request};

/// Number of a batch in its ledger.
pub type Place = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Some attempt was acked.
    Acked,
    /// None was; it may count, wholly, in part or not at all.
    Open,
}

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub batch: Batch,
    pub standing: Standing,
    /// Attempts that ended in another way than an ack, or have not ended.
    pub unsettled: u32,
    /// What acks said was newly counted, over all attempts.
    pub counted: u64,
    pub events: u32,
}

/// Events that may count and events that must, by event name; read by whoever asks while writers write.
#[derive(Debug, Default)]
pub struct Bounds {
    acked: [AtomicU64; NAMES.len()],
    tried: [AtomicU64; NAMES.len()],
}

impl Bounds {
    fn add(counters: &[AtomicU64; NAMES.len()], request: &Request) {
        let mut by_name = [0; NAMES.len()];
        request.events.iter().for_each(|event| by_name[usize::from(event.name)] += 1);
        for (counter, events) in counters.iter().zip(by_name) {
            counter.fetch_add(events, Ordering::SeqCst);
        }
    }

    /// At least this is counted in an answer to a question that is asked from now on. `None` is all names.
    pub fn least(&self, name: Option<usize>) -> u64 {
        sum(&self.acked, name)
    }

    /// No more than this is counted in an answer that has come.
    pub fn most(&self, name: Option<usize>) -> u64 {
        sum(&self.tried, name)
    }
}

fn sum(counters: &[AtomicU64], name: Option<usize>) -> u64 {
    let all = counters.iter().enumerate().filter(|(number, _)| name.is_none_or(|name| name == *number));
    all.map(|(_, counter)| counter.load(Ordering::SeqCst)).sum()
}

pub struct Ledger {
    pub seed: u64,
    pub bounds: Bounds,
    /// The same for each source.
    sources: Mutex<BTreeMap<u16, [u64; 2]>>,
    entries: Mutex<Vec<Entry>>,
    findings: Findings,
}

impl Ledger {
    pub fn new(seed: u64, findings: Findings) -> Self {
        Self { seed, bounds: Bounds::default(), sources: Mutex::default(), entries: Mutex::default(), findings }
    }

    /// A batch is about to be sent for the first time.
    pub fn open(&self, batch: Batch, request: &Request) -> Place {
        Bounds::add(&self.bounds.tried, request);
        self.sources.lock().entry(batch.writer).or_default()[1] += request.events.len() as u64;
        let events = request.events.len() as u32;
        let mut entries = self.entries.lock();
        entries.push(Entry { batch, standing: Standing::Open, unsettled: 0, counted: 0, events });
        entries.len() - 1
    }

    /// Before every attempt.
    pub fn attempt(&self, place: Place) {
        self.entries.lock()[place].unsettled += 1;
    }

    /// After an attempt that was acked.
    pub fn acked(&self, place: Place, request: &Request, ack: &Value, node: &str) {
        let mut entries = self.entries.lock();
        let entry = &mut entries[place];
        let before = *entry;
        entry.unsettled -= 1;
        entry.standing = Standing::Acked;
        entry.counted += ack["count"].as_u64().unwrap_or_default();
        let after = *entry;
        drop(entries);
        if before.standing == Standing::Open {
            Bounds::add(&self.bounds.acked, request);
            self.sources.lock().entry(before.batch.writer).or_default()[0] += request.events.len() as u64;
        }
        let place = || format!("{node}: ack of batch {}-{}: {ack}", before.batch.writer, before.batch.number);
        self.findings.check(check_ack(&after, request, ack).with_context(place));
        self.findings.check(self.check_all_counted(&after, request).with_context(place));
    }

    /// Acks of all attempts add up to what was sent, also when the node itself tried again, across an election.
    fn check_all_counted(&self, entry: &Entry, request: &Request) -> Result<()> {
        let (counted, events) = (entry.counted, request.events.len() as u64);
        let is_open = entry.unsettled > 0;
        ensure!(is_open || counted >= events, "{counted} counted over all attempts, of {events} events, and every attempt was acked");
        Ok(())
    }

    /// Events of a writer that must count, and that may.
    pub fn of_source(&self, writer: u16) -> [u64; 2] {
        self.sources.lock().get(&writer).copied().unwrap_or_default()
    }

    /// Batches that no ack settled.
    pub fn still_open(&self) -> Vec<Place> {
        let entries = self.entries.lock();
        entries.iter().enumerate().filter(|(_, entry)| entry.standing == Standing::Open).map(|(place, _)| place).collect()
    }

    pub fn batch(&self, place: Place) -> Batch {
        self.entries.lock()[place].batch
    }

    /// All batches, in the order of their first attempt.
    pub fn batches(&self) -> Vec<Batch> {
        self.entries.lock().iter().map(|entry| entry.batch).collect()
    }

    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What an ack must say, whatever happened before.
fn check_ack(entry: &Entry, request: &Request, ack: &Value) -> Result<()> {
    let number = |name: &str| ack[name].as_u64().with_context(|| format!("no {name}"));
    let (count, duplicates) = (number("count")?, number("duplicates")?);
    ensure!(count + duplicates == request.items, "count and duplicates are of {} items", request.items);
    ensure!(number("generated_ids")? == 0, "every event has an id");
    let rejected = ack["rejected"].as_array().context("no rejected")?;
    let rejected: Vec<(u64, &str)> = rejected.iter().filter_map(|r| Some((r["index"].as_u64()?, r["code"].as_str()?))).collect();
    ensure!(rejected == request.rejected, "rejected should be {:?}", request.rejected);
    let events = request.events.len() as u64;
    ensure!(entry.counted <= events, "{} counted over all attempts, of {events} events: some twice", entry.counted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::stream::{Shape, request};
    use super::*;

    fn ack(count: u64, duplicates: u64) -> Value {
        json!({"status": "accepted", "count": count, "duplicates": duplicates, "generated_ids": 0, "rejected": [], "token": ""})
    }

    fn probe() -> (Ledger, Findings, Place, Request) {
        let findings = Findings::default();
        let ledger = Ledger::new(1, findings.clone());
        let batch = Batch { writer: 0, number: 0, made_ms: 0, shape: Shape::Probe { key: 1 } };
        let request = request(1, &batch);
        let place = ledger.open(batch, &request);
        (ledger, findings, place, request)
    }

    #[test]
    fn lost_and_double_counts_and_wrong_sums_are_found_in_acks() {
        let acked_twice = vec![ack(1, 0), ack(0, 1)];
        for (acks, good) in [(acked_twice, true), (vec![ack(0, 1)], false), (vec![ack(1, 0), ack(1, 0)], false), (vec![ack(1, 1)], false)] {
            let (ledger, findings, place, request) = probe();
            for ack in &acks {
                ledger.attempt(place);
                ledger.acked(place, &request, ack, "n1");
            }
            assert_eq!(findings.list().is_empty(), good, "{acks:?}: {:?}", findings.list());
        }
    }

    #[test]
    fn after_an_attempt_whose_fate_is_unknown_a_duplicate_is_fine() {
        let (ledger, findings, place, request) = probe();
        ledger.attempt(place);
        assert_eq!((ledger.bounds.least(None), ledger.bounds.most(None), ledger.still_open()), (0, 1, vec![place]));
        ledger.attempt(place);
        ledger.acked(place, &request, &ack(0, 1), "n1");
        assert!(findings.list().is_empty(), "{:?}", findings.list());
        assert_eq!((ledger.bounds.least(Some(super::super::stream::PROBE)), ledger.still_open()), (1, vec![]));
    }
}
