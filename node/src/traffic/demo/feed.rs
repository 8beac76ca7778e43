//! Traffic cut into bodies by time: what was due until now, no event twice and none left out.

use std::iter::Peekable;

use tallymesh_protocol::time::{DAY_MS, MINUTE_MS};

use super::sample::SampleEvent;
use super::traffic::Traffic;

/// How far back the demo goes: a little less than the deduplication horizon, so that what an earlier run sent live is still known.
pub const BACKFILL_MS: i64 = DAY_MS - 2 * MINUTE_MS;
/// The day is thinned out to about this many events when the rate asks for more.
const BACKFILL_EVENTS_MAX: f64 = 1_000_000.0;

/// The rate at which the day before is filled for a live `rate`, in events per second.
pub fn backfill_rate(rate: f64) -> f64 {
    rate.min(BACKFILL_EVENTS_MAX / (DAY_MS / 1_000) as f64)
}

/// A place in the traffic.
pub struct Feed {
    events: Peekable<Box<dyn Iterator<Item = SampleEvent> + Send>>,
    position_ms: i64,
}

impl Feed {
    pub fn new(traffic: Traffic, from_ms: i64) -> Self {
        let events: Box<dyn Iterator<Item = SampleEvent> + Send> = Box::new(traffic.events_from(from_ms));
        Self { events: events.peekable(), position_ms: from_ms }
    }

    /// Events before `until_ms` that were not taken yet, as NDJSON, and how many; `None` when there are none.
    pub fn take_until(&mut self, until_ms: i64, events_max: usize) -> Option<(Vec<u8>, u64)> {
        let mut ndjson = Vec::new();
        let mut count = 0;
        while (count as usize) < events_max
            && let Some(event) = self.events.next_if(|e| e.timestamp_ms < until_ms)
        {
            event.write_ndjson(&mut ndjson);
            self.position_ms = event.timestamp_ms;
            count += 1;
        }
        (count > 0).then_some((ndjson, count))
    }

    /// Time of the last event taken.
    pub fn position_ms(&self) -> i64 {
        self.position_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_773_187_200_123;

    fn lines(taken: impl Iterator<Item = (Vec<u8>, u64)>) -> Vec<String> {
        taken
            .flat_map(|(ndjson, count)| {
                let lines: Vec<_> = String::from_utf8(ndjson).expect("text").lines().map(str::to_owned).collect();
                assert_eq!(lines.len() as u64, count);
                lines
            })
            .collect()
    }

    #[test]
    fn small_steps_give_the_same_events_as_one_large_one() {
        let traffic = Traffic::new(7, 20.0);
        let end = START + 5 * MINUTE_MS;
        let whole = lines(Feed::new(traffic.clone(), START).take_until(end, usize::MAX).into_iter());
        let mut feed = Feed::new(traffic.clone(), START);
        let mut steps = Vec::new();
        let mut now = START;
        while now < end {
            now = (now + 217).min(end);
            while let Some(taken) = feed.take_until(now, 3) {
                steps.push(taken);
            }
        }
        assert_eq!(lines(steps.into_iter()), whole);
        assert!(whole.len() > 500);
        let due = (0..6)
            .flat_map(|m| traffic.minute(START - START % MINUTE_MS + m * MINUTE_MS))
            .filter(|e| (START..end).contains(&e.timestamp_ms));
        assert_eq!(due.count(), whole.len(), "all that is due, and nothing else");
        let mut halves = Feed::new(traffic.clone(), START);
        let first = halves.take_until(START + MINUTE_MS, usize::MAX);
        let second = Feed::new(traffic, START + MINUTE_MS).take_until(end, usize::MAX);
        assert_eq!(lines(first.into_iter().chain(second)), whole, "live begins where the backfill ended");
    }

    #[test]
    fn a_high_rate_thins_out_the_day_before() {
        assert_eq!(backfill_rate(5.0), 5.0);
        assert!(backfill_rate(1e5) * 86_400.0 <= BACKFILL_EVENTS_MAX * 1.001);
    }
}
