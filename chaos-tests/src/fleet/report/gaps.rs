//! How long nothing was acked or answered, from records of requests. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::load::{Outcome, Record, What};

/// Percentiles of times in milliseconds, by nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    pub count: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Times {
    pub fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at =
            |q: f64| times.get(((q * times.len() as f64).ceil() as usize).clamp(1, times.len().max(1)) - 1).copied().unwrap_or_default();
        Self { count: times.len(), p50: rounded(at(0.5)), p99: rounded(at(0.99)), max: rounded(at(1.0)) }
    }
}

pub fn rounded(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}

/// When each shard's probes were acked, in order.
#[derive(Clone, Debug, Default)]
pub struct Acks(BTreeMap<u16, Vec<f64>>);

impl Acks {
    pub fn of(records: &[Record]) -> Self {
        let mut acks: BTreeMap<u16, Vec<f64>> = BTreeMap::new();
        for record in records {
            if let (What::Probe { shard }, Outcome::Ok) = (record.what, record.outcome) {
                acks.entry(shard).or_default().push(record.ended_ms);
            }
        }
        acks.values_mut().for_each(|times| times.sort_by(f64::total_cmp));
        Self(acks)
    }

    /// See [`longest`].
    pub fn gap(&self, shard: u16, from: f64, to: f64) -> f64 {
        longest(self.0.get(&shard).map_or(&[], Vec::as_slice), from, to)
    }
}

/// The longest interval between neighbours that touches `[from, to]`. What of it lies behind `to` does not count: by then the next fault has begun.
pub fn longest(sorted: &[f64], from: f64, to: f64) -> f64 {
    let first = sorted.partition_point(|&at| at <= from);
    let mut before = first.checked_sub(1).map_or(from, |at| sorted[at]);
    let mut longest = 0.0f64;
    for &at in &sorted[first..] {
        longest = longest.max(at.min(to) - before);
        before = at;
        if at >= to {
            return longest;
        }
    }
    longest.max(to - before)
}

/// Requests of a kind that ended within `[from, to]`.
pub fn within<'a>(records: &'a [Record], from: f64, to: f64, is: impl Fn(What) -> bool + 'a) -> impl Iterator<Item = &'a Record> {
    records.iter().filter(move |record| record.ended_ms >= from && record.began_ms <= to && is(record.what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_of_a_fault_reaches_from_the_last_ack_before_it_to_the_first_after() {
        let acks = [0.0, 10.0, 20.0, 320.0, 330.0, 900.0];
        assert_eq!(longest(&acks, 25.0, 400.0), 300.0, "a gap that runs on counts up to the end");
        assert_eq!(longest(&acks, 25.0, 325.0), 300.0);
        assert_eq!(longest(&acks, 11.0, 19.0), 9.0);
        assert_eq!(longest(&acks, 905.0, 1_500.0), 600.0, "nothing came any more");
        assert_eq!(longest(&[], 100.0, 150.0), 50.0);
    }

    #[test]
    fn only_acked_probes_of_the_shard_end_a_gap() {
        let record = |ended_ms: f64, shard, outcome| Record {
            began_ms: ended_ms,
            ended_ms,
            node: 0,
            what: What::Probe { shard },
            outcome,
            at_victim: false,
        };
        let records =
            [record(0.0, 1, Outcome::Ok), record(50.0, 1, Outcome::Unknown), record(60.0, 2, Outcome::Ok), record(100.0, 1, Outcome::Ok)];
        assert_eq!(Acks::of(&records).gap(1, 10.0, 100.0), 100.0);
    }

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let times = Times::of((1..=200).map(f64::from).collect());
        assert_eq!((times.count, times.p50, times.p99, times.max), (200, 100.0, 198.0, 200.0));
        assert_eq!(Times::of(Vec::new()), Times::default());
    }
}
