//! Quantiles by DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019), alpha 0.01: logarithmic bins, so that any quantile is within 1 % of the true value.
//!
//! The mapping from value to bin is that of the crate `sketches-ddsketch` with its default configuration; windows store bins, not sketch objects.
//! Unlike the crate's store no bins are ever collapsed: the whole range of `f64` has some 73 000 bins, which bounds a cell.

use std::sync::LazyLock;

use sketches_ddsketch::Config;

/// Hard bound of the relative error of a quantile.
pub const QUANTILE_RELATIVE_ERROR: f64 = 0.01;

static CONFIG: LazyLock<Config> = LazyLock::new(Config::defaults);
/// Key of the smallest value that does not count as zero.
static KEY_MIN: LazyLock<i32> = LazyLock::new(|| CONFIG.key(CONFIG.min_possible()));

/// Bin of a finite value: 0 for (nearly) zero, positive for positive, negative for negative; ordered as the values are.
pub fn bin_of(value: f64) -> i32 {
    let magnitude = value.abs();
    if magnitude <= CONFIG.min_possible() {
        return 0;
    }
    let bin = (CONFIG.key(magnitude) - *KEY_MIN + 1).max(1);
    if value < 0.0 { -bin } else { bin }
}

/// The value that stands for a bin, within [`QUANTILE_RELATIVE_ERROR`] of every value in it.
pub fn value_of_bin(bin: i32) -> f64 {
    if bin == 0 {
        return 0.0;
    }
    let value = CONFIG.value(bin.abs() - 1 + *KEY_MIN).min(f64::MAX);
    if bin < 0 { -value } else { value }
}

/// Counts by bin, sorted by bin once read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantiles {
    bins: std::collections::BTreeMap<i32, u64>,
    count: u64,
}

impl Quantiles {
    pub fn add(&mut self, bin: i32, count: u64) {
        *self.bins.entry(bin).or_default() += count;
        self.count += count;
    }

    pub fn merge(&mut self, other: &Self) {
        for (&bin, &count) in &other.bins {
            self.add(bin, count);
        }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn bins(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        self.bins.iter().map(|(&b, &c)| (b, c))
    }

    /// The value of rank floor(q (n - 1)); `None` without values. `q` is in 0..=1.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (q * self.count.checked_sub(1)? as f64).floor() as u64;
        let mut seen = 0;
        for (&bin, &count) in &self.bins {
            seen += count;
            if seen > rank {
                return Some(value_of_bin(bin));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_ordered_as_their_values_and_within_one_percent() {
        let mut values: Vec<f64> =
            (-300..=300).flat_map(|e| [10f64.powi(e), -(10f64.powi(e)) * 1.7]).chain([0.0, 1e-9, 5e-324, f64::MAX, f64::MIN]).collect();
        values.sort_by(f64::total_cmp);
        assert!(values.windows(2).all(|w| bin_of(w[0]) <= bin_of(w[1])));
        for v in values.into_iter().filter(|v| v.abs() > 1e-8) {
            let stands_for = value_of_bin(bin_of(v));
            assert!((stands_for - v).abs() <= v.abs() * (QUANTILE_RELATIVE_ERROR + 1e-9), "{v} is read as {stands_for}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_rank() {
        let mut sketch = Quantiles::default();
        for v in 1..=1000 {
            sketch.add(bin_of(f64::from(v)), 1);
        }
        for (q, rank) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = sketch.quantile(q).expect("has values");
            assert!((got - rank).abs() <= rank * 0.0101, "q {q}: {got}, not {rank}");
        }
        assert_eq!(Quantiles::default().quantile(0.5), None);
    }
}
