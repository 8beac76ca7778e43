//! Durations of the last one to two minutes as a DDSketch (1 % relative error), with sum and count since the start.

use std::time::Duration;

use sketches_ddsketch::{Config, DDSketch};

use super::Exposition;

const GENERATION: Duration = Duration::from_secs(60);

pub struct Latency {
    current: DDSketch,
    previous: DDSketch,
    /// Monotonic start of `current`.
    since: Duration,
    sum: Duration,
    count: u64,
}

impl Default for Latency {
    fn default() -> Self {
        let empty = || DDSketch::new(Config::defaults());
        Self { current: empty(), previous: empty(), since: Duration::ZERO, sum: Duration::ZERO, count: 0 }
    }
}

impl Latency {
    /// `now` is monotonic.
    pub fn add(&mut self, now: Duration, took: Duration) {
        self.turn(now);
        self.current.add(took.as_secs_f64());
        self.sum += took;
        self.count += 1;
    }

    /// `None` when nothing was added lately.
    pub fn quantile(&mut self, now: Duration, q: f64) -> Option<f64> {
        self.turn(now);
        let mut both = self.previous.clone();
        both.merge(&self.current).ok()?;
        both.quantile(q).ok().flatten()
    }

    pub fn expose(&mut self, now: Duration, name: &str, labels: &[(&str, &str)], out: &mut Exposition) {
        for (q, text) in [(0.5, "0.5"), (0.95, "0.95"), (0.99, "0.99")] {
            let labels: Vec<_> = labels.iter().copied().chain([("quantile", text)]).collect();
            out.sample(name, &labels, self.quantile(now, q).unwrap_or(f64::NAN));
        }
        out.sample(&format!("{name}_sum"), labels, self.sum.as_secs_f64());
        out.sample(&format!("{name}_count"), labels, self.count as f64);
    }

    fn turn(&mut self, now: Duration) {
        let age = now.saturating_sub(self.since);
        if age < GENERATION {
            return;
        }
        let full = std::mem::replace(&mut self.current, DDSketch::new(Config::defaults()));
        self.previous = if age < 2 * GENERATION { full } else { DDSketch::new(Config::defaults()) };
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_last_two_minutes_and_sums_of_all_time() {
        let mut latency = Latency::default();
        let at = Duration::from_secs;
        for _ in 0..100 {
            latency.add(at(1), at(5));
        }
        assert!((latency.quantile(at(30), 0.5).expect("there") - 5.0).abs() < 0.06);
        latency.add(at(70), Duration::from_millis(1));
        assert!((latency.quantile(at(100), 0.5).expect("the previous minute counts") - 5.0).abs() < 0.06);
        latency.add(at(140), Duration::from_millis(1));
        assert!(latency.quantile(at(141), 0.99).expect("there") < 0.002);
        assert_eq!(latency.quantile(at(1_000), 0.5), None);
        assert_eq!((latency.count, latency.sum.as_secs()), (102, 500));
    }
}
