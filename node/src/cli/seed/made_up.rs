//! Batches of made-up events, spread over the last day, exactly as many as asked for.

use tallymesh_protocol::time::DAY_MS;

use crate::cli::client::sender::Batch;
use crate::traffic::demo::sample::SampleEvent;
use crate::traffic::demo::traffic::Traffic;

/// Each pass aims a little below what is missing, so that it ends at `to_ms` and not before; the next fills the rest.
const AIM: f64 = 0.8;
/// So few are taken from the start of a pass.
const LAST_PASS_MAX: u64 = 200;

pub struct MadeUp {
    seed: u64,
    from_ms: i64,
    to_ms: i64,
    left: u64,
    pass: Box<dyn Iterator<Item = SampleEvent> + Send>,
    source: Option<String>,
    events_max: u64,
}

impl MadeUp {
    /// `count` events of the day before `to_ms`, in batches of `events_max`, all from `source` if one is given.
    pub fn new(seed: u64, to_ms: i64, count: u64, source: Option<String>, events_max: u64) -> Self {
        let from_ms = to_ms - DAY_MS;
        let pass = Box::new(std::iter::empty());
        Self { seed, from_ms, to_ms, left: count, pass, source, events_max: events_max.max(1) }
    }

    fn next_event(&mut self) -> Option<SampleEvent> {
        while self.left > 0 {
            if let Some(event) = self.pass.next() {
                self.left -= 1;
                return Some(event);
            }
            let to_ms = self.to_ms;
            let aim = if self.left <= LAST_PASS_MAX { (3 * self.left).max(30) as f64 } else { self.left as f64 * AIM };
            let traffic = Traffic::new(self.seed, aim / (DAY_MS / 1_000) as f64);
            // Another pass needs other event ids.
            self.seed = self.seed.wrapping_add(1);
            self.pass = Box::new(traffic.events_from(self.from_ms).take_while(move |e| e.timestamp_ms < to_ms));
        }
        None
    }
}

impl Iterator for MadeUp {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let mut body = Vec::new();
        let mut events = 0;
        while events < self.events_max {
            let Some(event) = self.next_event() else { break };
            match &self.source {
                Some(source) => event.write_ndjson_from(source, &mut body),
                None => event.write_ndjson(&mut body),
            }
            events += 1;
        }
        (events > 0).then(|| Batch::new(body, events))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn exactly_as_many_distinct_events_as_asked_for_up_to_the_end() {
        const NOW: i64 = 1_773_187_200_000;
        for count in [1, 50, 4_000, 20_000] {
            let mut made_up = MadeUp::new(9, NOW, count, None, 100);
            let events: Vec<_> = std::iter::from_fn(|| made_up.next_event()).collect();
            assert_eq!(events.len() as u64, count);
            assert_eq!(events.iter().map(SampleEvent::event_id).collect::<HashSet<_>>().len(), events.len());
            assert!(events.iter().all(|e| (NOW - DAY_MS..NOW).contains(&e.timestamp_ms)));
            let newest = events.iter().map(|e| e.timestamp_ms).max().expect("events");
            assert!(count < 4_000 || newest > NOW - 10 * 60_000, "the newest is {} s old", (NOW - newest) / 1_000);
        }
    }

    #[test]
    fn batches_hold_what_they_say() {
        let sizes: Vec<_> = MadeUp::new(9, 1_773_187_200_000, 250, Some("kiosk \"7\"".to_owned()), 100).map(|b| b.events).collect();
        assert_eq!(sizes, [100, 100, 50]);
    }
}
