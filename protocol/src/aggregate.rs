//! Mergeable aggregates of one cell (group x step) of an answer. Stored windows have a denser form (`storage`); this is what they are read into.

mod distinct;
mod quantiles;
mod registers;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use distinct::{DISTINCT_TWO_STANDARD_ERRORS, Distinct, IdentitySet, sketch_of};
pub use quantiles::{QUANTILE_RELATIVE_ERROR, Quantiles, bin_of, value_of_bin};
pub(crate) use registers::Registers;

/// What a query needs, so that scans skip the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// sum, min, max, number of values.
    pub values: bool,
    pub last: bool,
    pub users: bool,
    pub sessions: bool,
    pub quantiles: bool,
}

/// The value of the latest event that had one, by (event time, id hash).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Last {
    pub time_ms: i64,
    pub id: u64,
    pub value: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Accumulator {
    /// Events.
    pub count: u64,
    /// Events that have a value.
    pub value_count: u64,
    pub sum: f64,
    /// Infinity when there is no value.
    pub min: f64,
    /// Minus infinity when there is no value.
    pub max: f64,
    pub last: Option<Last>,
    pub users: Distinct,
    pub sessions: Distinct,
    pub quantiles: Quantiles,
}

impl Default for Accumulator {
    fn default() -> Self {
        Self {
            count: 0,
            value_count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            last: None,
            users: Distinct::default(),
            sessions: Distinct::default(),
            quantiles: Quantiles::default(),
        }
    }
}

impl Accumulator {
    /// Adds one event. `value` is finite or absent; `user` and `session` are hashes, 0 for none.
    pub fn add(&mut self, wants: Wants, time_ms: i64, id: u64, user: u64, session: u64, value: Option<f64>) {
        self.count += 1;
        if let Some(value) = value {
            self.value_count += 1;
            self.sum += value;
            self.min = self.min.min(value);
            self.max = self.max.max(value);
            if wants.last {
                self.offer_last(Last { time_ms, id, value });
            }
            if wants.quantiles {
                self.quantiles.add(bin_of(value), 1);
            }
        }
        if wants.users && user != 0 {
            self.users.insert(user);
        }
        if wants.sessions && session != 0 {
            self.sessions.insert(session);
        }
    }

    pub fn offer_last(&mut self, candidate: Last) {
        let newer = self.last.is_none_or(|l| (candidate.time_ms, candidate.id) > (l.time_ms, l.id));
        if newer {
            self.last = Some(candidate);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.value_count += other.value_count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if let Some(last) = other.last {
            self.offer_last(last);
        }
        self.users.merge(&other.users);
        self.sessions.merge(&other.sessions);
        self.quantiles.merge(&other.quantiles);
    }

    /// Joins sets that others hold too, where there are several; see [`Distinct::join_shared`].
    pub fn join_shared(&mut self, join_lasting: impl Fn(&[Arc<IdentitySet>]) -> Arc<IdentitySet>) {
        self.users.join_shared(&join_lasting);
        self.sessions.join_shared(&join_lasting);
    }

    /// Makes reading it cheap once everything is merged. What it says does not change.
    pub fn settle(&mut self) {
        self.users.settle();
        self.sessions.settle();
    }

    pub fn avg(&self) -> Option<f64> {
        (self.value_count > 0).then(|| self.sum / self.value_count as f64)
    }
}
