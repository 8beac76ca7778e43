//! Quantiles by DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019), alpha 0.01: logarithmic bins, so that any quantile is within 1 % of the true value.
//!
//! The mapping from value to bin is that of the crate `sketches-ddsketch` with its default configuration; windows store bins, not sketch objects.
//! Unlike the crate's store no bins are ever collapsed: the whole range of `f64` has some 73 000 bins, which bounds a cell.

mod bins;

use std::sync::LazyLock;

use sketches_ddsketch::Config;

pub use bins::Quantiles;

/// Hard bound of the relative error of a quantile.
pub const QUANTILE_RELATIVE_ERROR: f64 = 0.01;

/// Leading bits of a mantissa that choose an entry of the table of logarithms.
const TABLE_BITS: u32 = 7;
/// Bits of the mantissa of a double.
const MANTISSA_BITS: u32 = f64::MANTISSA_DIGITS - 1;
/// The quick logarithm is off by less than 1e-9 bins; closer to a bin's edge than this the exact one decides.
const EDGE: f64 = 1e-6;

static MAPPING: LazyLock<Mapping> = LazyLock::new(Mapping::new);

struct Mapping {
    config: Config,
    /// Key of the smallest value that does not count as zero.
    key_min: i32,
    bins_per_octave: f64,
    bins_per_e: f64,
    /// For each stretch of mantissas: 1 / its middle, and bins up to its middle.
    table: [(f64, f64); 1 << TABLE_BITS],
}

impl Mapping {
    fn new() -> Self {
        let config = Config::defaults();
        let bins_per_e = 1.0 / config.gamma.ln();
        let table = std::array::from_fn(|i| {
            let middle = 1.0 + (i as f64 + 0.5) / f64::from(1 << TABLE_BITS);
            (1.0 / middle, middle.ln() * bins_per_e)
        });
        Self { key_min: config.key(config.min_possible()), bins_per_octave: 2f64.ln() * bins_per_e, bins_per_e, table, config }
    }

    /// `config.key(magnitude)` without a logarithm, but next to the edge of a bin. `magnitude` is a normal number.
    #[inline]
    fn key(&self, magnitude: f64) -> i32 {
        let bits = magnitude.to_bits();
        let exponent = (bits >> MANTISSA_BITS) as i32 - 1_023;
        let mantissa = f64::from_bits(bits & ((1 << MANTISSA_BITS) - 1) | 1.0f64.to_bits());
        let (inverse, middle) = self.table[(bits >> (MANTISSA_BITS - TABLE_BITS)) as usize & ((1 << TABLE_BITS) - 1)];
        // |r| < 2^-7: the series of ln(1 + r) to the fifth power is exact to 1e-13.
        let r = mantissa * inverse - 1.0;
        let series = r * (1.0 + r * (-1.0 / 2.0 + r * (1.0 / 3.0 + r * (-1.0 / 4.0 + r * (1.0 / 5.0)))));
        let position = f64::from(exponent) * self.bins_per_octave + middle + series * self.bins_per_e;
        let key = position.floor();
        let above = position - key;
        if !(EDGE..=1.0 - EDGE).contains(&above) { self.config.key(magnitude) } else { key as i32 }
    }
}

/// Bin of a finite value: 0 for (nearly) zero, positive for positive, negative for negative; ordered as the values are.
#[inline]
pub fn bin_of(value: f64) -> i32 {
    let mapping = &*MAPPING;
    let magnitude = value.abs();
    if magnitude <= mapping.config.min_possible() {
        return 0;
    }
    let bin = (mapping.key(magnitude) - mapping.key_min + 1).max(1);
    if value < 0.0 { -bin } else { bin }
}

/// The value that stands for a bin, within [`QUANTILE_RELATIVE_ERROR`] of every value in it.
pub fn value_of_bin(bin: i32) -> f64 {
    if bin == 0 {
        return 0.0;
    }
    let value = MAPPING.config.value(bin.abs() - 1 + MAPPING.key_min).min(f64::MAX);
    if bin < 0 { -value } else { value }
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
    fn the_quick_mapping_is_that_of_the_library() {
        let exact = |v: f64| MAPPING.config.key(v);
        let same = |v: f64| assert_eq!(MAPPING.key(v), exact(v), "{v:e}");
        let mut bits = 1u64;
        for _ in 0..300_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = f64::from_bits(bits >> 1);
            if value.is_finite() && value > MAPPING.config.min_possible() {
                same(value);
            }
            same(((bits >> 40) + 1) as f64 / 100.0);
        }
        // The edges of bins, and their neighbours to the last bit.
        for key in MAPPING.key_min..MAPPING.config.key(f64::MAX) {
            let edge = MAPPING.config.pow_gamma(key).to_bits();
            for value in (edge - 20..edge + 20).map(f64::from_bits).filter(|v| *v > MAPPING.config.min_possible()) {
                same(value);
            }
        }
        [f64::MAX, 1.0, 2.0, 1.0 + f64::EPSILON, 1.0 - f64::EPSILON].into_iter().for_each(same);
    }
}
