//! Traffic that looks like a product's: visits that begin by country and hour of the day, and the events they scatter over the next half hour.
//!
//! Everything of a minute is a function of (seed, minute). A higher rate adds visits and changes none, so that the same stretch of time sent again, at
//! whatever rate, repeats event ids instead of inventing new events (I5).

use std::collections::VecDeque;

use tallymesh_protocol::time::{DAY_MS, Grain, HOUR_MS, MINUTE_MS};

use super::catalogue::COUNTRIES;
use super::random::{Cumulative, Random};
use super::sample::SampleEvent;
use super::session::{Opening, SESSION_MINUTES_MAX, visit};

#[cfg(test)]
mod tests;

/// Mean events of a visit; a test holds it to what visits do.
const EVENTS_PER_VISIT: f64 = 7.4;
/// Errors of all events outside of incidents.
const ERROR_RATE: f64 = 0.004;
/// What an incident multiplies the error rate by.
const INCIDENT_FACTOR: f64 = 15.0;
const INCIDENTS_PER_HOUR: f64 = 0.08;
/// Larger means are drawn as normal.
const POISSON_EXACT_MAX: f64 = 30.0;

/// The recipe; holds no state, so any minute can be made on its own.
#[derive(Clone, Debug)]
pub struct Traffic {
    seed: u64,
    /// Mean events per second over a week.
    rate: f64,
}

impl Traffic {
    pub fn new(seed: u64, rate: f64) -> Self {
        Self { seed, rate }
    }

    /// All events with a time in the minute that begins at `minute_start_ms`, in time order.
    pub fn minute(&self, minute_start_ms: i64) -> Vec<SampleEvent> {
        self.minutes_from(minute_start_ms).next().map(|(_, events)| events).unwrap_or_default()
    }

    /// Minute after minute, without end, beginning with the one that holds `from_ms`; each visit is made once.
    pub fn minutes_from(&self, from_ms: i64) -> Minutes {
        let first = Grain::Minute.floor(from_ms);
        let mut minutes = Minutes { traffic: self.clone(), next_ms: first, pending: VecDeque::new() };
        for back in (1..SESSION_MINUTES_MAX).rev() {
            minutes.open(first - back * MINUTE_MS);
        }
        minutes
    }

    /// Every event from a time on, in time order, without end.
    pub fn events_from(&self, from_ms: i64) -> impl Iterator<Item = SampleEvent> + Send + use<> {
        self.minutes_from(from_ms).flat_map(|(_, events)| events).skip_while(move |e| e.timestamp_ms < from_ms)
    }

    /// Visits that begin in a minute, in no order, each as the events it makes.
    fn visits(&self, minute_ms: i64, out: &mut impl FnMut(SampleEvent)) {
        let minute = minute_ms.div_euclid(MINUTE_MS);
        let by_country = Cumulative::of(COUNTRIES.iter().map(|(_, share, offset_h)| share * time_of_day(minute_ms, *offset_h)));
        let share_total: f64 = COUNTRIES.iter().map(|(_, share, _)| share).sum();
        let expected = self.rate * 60.0 / EVENTS_PER_VISIT * by_country.total() / share_total * day_of_week(minute_ms);
        let mut chance = Random::of(self.seed, minute as u64, u64::MAX);
        let visits = poisson(expected, &mut chance);
        let error_rate = self.error_rate(minute_ms);
        for visit_number in 0..visits {
            let mut random = Random::of(self.seed, minute as u64, visit_number);
            let start_ms = minute_ms + random.below(MINUTE_MS as u64) as i64;
            let opening = Opening { start_ms, country: by_country.pick(&mut random), error_rate };
            visit(random, opening, out);
        }
    }

    fn error_rate(&self, minute_ms: i64) -> f64 {
        let hour = minute_ms.div_euclid(HOUR_MS);
        let mut random = Random::of(self.seed, hour as u64, 0x1_4c1d);
        let incident = random.chance(INCIDENTS_PER_HOUR);
        let begins = random.below(50) as i64;
        let lasts = 4 + random.below(7) as i64;
        let minute = minute_ms.rem_euclid(HOUR_MS) / MINUTE_MS;
        if incident && (begins..begins + lasts).contains(&minute) { ERROR_RATE * INCIDENT_FACTOR } else { ERROR_RATE }
    }
}

/// A Poisson draw that grows with its mean for the same chance: a lower rate's visits are the first of a higher one's.
fn poisson(mean: f64, chance: &mut Random) -> u64 {
    let (at, normal) = (chance.unit(), chance.normal());
    if mean > POISSON_EXACT_MAX {
        return (mean + normal * mean.sqrt()).round().max(0.0) as u64;
    }
    let mut drawn = 0;
    let mut probability = (-mean).exp();
    let mut cumulative = probability;
    while at > cumulative && probability > 0.0 {
        drawn += 1;
        probability *= mean / drawn as f64;
        cumulative += probability;
    }
    drawn
}

/// Activity by local time, mean 1 over a day: a peak in the early afternoon, quiet at night, a dip for lunch.
fn time_of_day(time_ms: i64, offset_h: f64) -> f64 {
    let hour = time_ms.rem_euclid(DAY_MS) as f64 / HOUR_MS as f64 + offset_h;
    let turn = |hours: f64| hours / 24.0 * std::f64::consts::TAU;
    1.0 + 0.75 * turn(hour - 14.5).cos() + 0.12 * (2.0 * turn(hour - 10.5)).cos()
}

/// Activity by day, mean 1 over a week; weekends are quieter, and change over a few hours instead of at midnight.
fn day_of_week(time_ms: i64) -> f64 {
    let level = |ms: i64| {
        // 1970-01-01 was a Thursday.
        let weekday = (ms.div_euclid(DAY_MS) + 4).rem_euclid(7);
        if weekday == 0 || weekday == 6 { 0.72 } else { 1.112 }
    };
    (-3..=3).map(|h| level(time_ms + h * HOUR_MS)).sum::<f64>() / 7.0
}

/// Yields `(start of the minute, its events in time order)` for ever.
#[derive(Clone, Debug)]
pub struct Minutes {
    traffic: Traffic,
    next_ms: i64,
    /// Events of the minutes from `next_ms` on that earlier visits have already made; at most [`SESSION_MINUTES_MAX`] of them.
    pending: VecDeque<Vec<SampleEvent>>,
}

impl Minutes {
    fn open(&mut self, minute_ms: i64) {
        let Self { traffic, next_ms, pending } = self;
        traffic.visits(minute_ms, &mut |event| {
            let Ok(ahead) = usize::try_from((event.timestamp_ms - *next_ms).div_euclid(MINUTE_MS)) else {
                return;
            };
            while pending.len() <= ahead {
                pending.push_back(Vec::new());
            }
            pending[ahead].push(event);
        });
    }
}

impl Iterator for Minutes {
    type Item = (i64, Vec<SampleEvent>);

    fn next(&mut self) -> Option<Self::Item> {
        let minute_ms = self.next_ms;
        self.open(minute_ms);
        self.next_ms += MINUTE_MS;
        let mut events = self.pending.pop_front().unwrap_or_default();
        events.sort_unstable_by_key(|e| (e.timestamp_ms, e.session, e.step));
        Some((minute_ms, events))
    }
}
