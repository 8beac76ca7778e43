//! Distinct counts: exact while small, HyperLogLog (Apache DataSketches HLL4, lgK 13) beyond.

use std::hash::{BuildHasherDefault, Hasher};

use datasketches::hll::{HllSketch, HllType, HllUnion};
use hashbrown::HashSet;

use crate::limits::{ANSWER_EXACT_ENTRIES_MAX, HLL_LG_K};

/// Two standard errors of a merged HLL estimate: 2 x 1.04 / sqrt(2^lgK).
pub const DISTINCT_TWO_STANDARD_ERRORS: f64 = 2.0 * 1.04 / 90.509_667_991_878_08;
const _: () = assert!(HLL_LG_K == 13, "90.5 above is sqrt(2^13)");

/// Identity hashes are XXH3 already: hashing them again costs time, and a seeded hasher's state would be most of a small cell.
#[derive(Clone, Default)]
pub struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A set of identity hashes.
#[derive(Clone, Default)]
pub enum Distinct {
    #[default]
    Empty,
    Exact(HashSet<u64, BuildHasherDefault<IdentityHasher>>),
    Sketch(Box<HllUnion>),
}

impl std::fmt::Debug for Distinct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Distinct({}{})", if self.is_exact() { "" } else { "~" }, self.estimate())
    }
}

impl PartialEq for Distinct {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            _ => self.estimate() == other.estimate(),
        }
    }
}

fn new_union() -> HllUnion {
    HllUnion::new(HLL_LG_K).unwrap_or_else(|e| unreachable!("lgK {HLL_LG_K} is in range: {e}"))
}

impl Distinct {
    pub fn insert(&mut self, hash: u64) {
        match self {
            Self::Empty => *self = Self::Exact(HashSet::from_iter([hash])),
            Self::Exact(set) => {
                set.insert(hash);
                if set.len() > ANSWER_EXACT_ENTRIES_MAX {
                    self.promote();
                }
            }
            Self::Sketch(union) => union.update_value(hash),
        }
    }

    /// Merges a window's HLL sketch (see [`sketch_of`]).
    pub fn merge_sketch(&mut self, sketch: &HllSketch) {
        self.promote();
        if let Self::Sketch(union) = self {
            union.update(sketch);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        match other {
            Self::Empty => {}
            Self::Exact(set) => set.iter().for_each(|&h| self.insert(h)),
            Self::Sketch(union) => self.merge_sketch(&union.to_sketch(HllType::Hll4)),
        }
    }

    fn promote(&mut self) {
        match self {
            Self::Sketch(_) => {}
            Self::Empty => *self = Self::Sketch(Box::new(new_union())),
            Self::Exact(set) => {
                let mut union = new_union();
                set.iter().for_each(|&h| union.update_value(h));
                *self = Self::Sketch(Box::new(union));
            }
        }
    }

    pub fn is_exact(&self) -> bool {
        !matches!(self, Self::Sketch(_))
    }

    pub fn estimate(&self) -> f64 {
        match self {
            Self::Empty => 0.0,
            Self::Exact(set) => set.len() as f64,
            Self::Sketch(union) => union.estimate().round(),
        }
    }

    /// The stated relative error: 0 when exact, else two standard errors.
    pub fn relative_error(&self) -> f64 {
        if self.is_exact() { 0.0 } else { DISTINCT_TWO_STANDARD_ERRORS }
    }
}

/// The sketch that a window keeps in place of a long list of hashes. Same hashes, same bytes whatever their order is not promised; equal registers are.
pub fn sketch_of(hashes: impl IntoIterator<Item = u64>) -> HllSketch {
    let mut union = new_union();
    hashes.into_iter().for_each(|h| union.update_value(h));
    union.to_sketch(HllType::Hll4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::identity_hash;

    fn hashes(range: std::ops::Range<u32>) -> impl Iterator<Item = u64> {
        range.map(|i| identity_hash(format!("u_{i}").as_bytes()))
    }

    #[test]
    fn small_sets_are_exact_and_large_ones_within_their_stated_error() {
        let mut set = Distinct::default();
        hashes(0..10_000).for_each(|h| set.insert(h));
        hashes(0..10_000).for_each(|h| set.insert(h));
        assert_eq!((set.estimate(), set.relative_error()), (10_000.0, 0.0));
        hashes(10_000..200_000).for_each(|h| set.insert(h));
        assert!(!set.is_exact());
        assert!((set.estimate() / 200_000.0 - 1.0).abs() < set.relative_error(), "{set:?}");
    }

    #[test]
    fn merging_parts_equals_inserting_all() {
        let mut parts = Distinct::default();
        let mut left = Distinct::default();
        hashes(0..300).for_each(|h| left.insert(h));
        parts.merge(&left);
        parts.merge_sketch(&sketch_of(hashes(200..5_000)));
        let mut exact_tail = Distinct::default();
        hashes(4_900..6_000).for_each(|h| exact_tail.insert(h));
        parts.merge(&exact_tail);
        assert!((parts.estimate() / 6_000.0 - 1.0).abs() < parts.relative_error(), "{parts:?}");
    }
}
