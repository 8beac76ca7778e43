//! A small seeded generator whose output never changes between versions: event ids are derived from it, and the same traffic must get the same ids
//! for a second `demo` on one directory to count nothing twice (I5).

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each `(seed, a, b)`.
    pub fn of(seed: u64, a: u64, b: u64) -> Self {
        let mut mixed = Self(seed);
        for part in [a, b] {
            mixed = Self(mixed.bits() ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93));
        }
        mixed
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn wide_bits(&mut self) -> u128 {
        (u128::from(self.bits()) << 64) | u128::from(self.bits())
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Uniform in `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// Uniform in `[from, to)`.
    pub fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    /// Exponential with the given mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -(1.0 - self.unit()).ln() * mean
    }

    /// Close to a standard normal (Irwin-Hall of 12).
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// One of `(item, weight)`.
    pub fn weighted<T: Copy>(&mut self, items: &[(T, f64)]) -> Option<T> {
        let total: f64 = items.iter().map(|(_, w)| w).sum();
        let mut left = self.unit() * total;
        for (item, weight) in items {
            if left < *weight {
                return Some(*item);
            }
            left -= weight;
        }
        items.last().map(|(item, _)| *item)
    }
}

/// Cumulative weights, for picks that are made often.
#[derive(Clone, Debug)]
pub struct Cumulative(Vec<f64>);

impl Cumulative {
    pub fn of(weights: impl Iterator<Item = f64>) -> Self {
        let mut total = 0.0;
        Self(
            weights
                .map(|w| {
                    total += w;
                    total
                })
                .collect(),
        )
    }

    pub fn zipf(n: usize, exponent: f64) -> Self {
        Self::of((1..=n).map(|i| (i as f64).powf(-exponent)))
    }

    pub fn total(&self) -> f64 {
        self.0.last().copied().unwrap_or(0.0)
    }

    /// An index; 0 when there are no weights.
    pub fn pick(&self, random: &mut Random) -> usize {
        let at = random.unit() * self.total();
        self.0.partition_point(|&c| c <= at).min(self.0.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_pinned() {
        // The published test vector of SplitMix64 for seed 1234567.
        let mut random = Random(1_234_567);
        assert_eq!([random.bits(), random.bits()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn picks_follow_their_weights() {
        let mut random = Random::of(1, 2, 3);
        let cumulative = Cumulative::of([1.0, 0.0, 3.0].into_iter());
        let mut hits = [0u32; 3];
        for _ in 0..40_000 {
            hits[cumulative.pick(&mut random)] += 1;
        }
        assert_eq!(hits[1], 0);
        let ratio = f64::from(hits[2]) / f64::from(hits[0]);
        assert!((2.8..3.2).contains(&ratio), "{hits:?}");
    }
}
