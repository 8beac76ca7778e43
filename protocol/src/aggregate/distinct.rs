//! Distinct counts: exact while small, HyperLogLog (Apache DataSketches HLL4, lgK 13) beyond.

use std::borrow::Cow;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use datasketches::hll::{HllSketch, HllType, HllUnion};
use hashbrown::HashSet;

use super::registers::Registers;
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

type HashedSet = HashSet<u64, BuildHasherDefault<IdentityHasher>>;

/// A set of identity hashes.
#[derive(Clone, Default)]
pub enum Distinct {
    #[default]
    Empty,
    Exact(Box<HashedSet>),
    Sketch(Registers),
    /// Sets that others hold too; their union.
    Shared(Vec<Arc<IdentitySet>>),
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

impl Distinct {
    /// A set that is held elsewhere too, such as in a cache.
    pub fn shared(set: Arc<IdentitySet>) -> Self {
        Self::Shared(vec![set])
    }

    #[inline]
    pub fn insert(&mut self, hash: u64) {
        match self {
            Self::Exact(set) => {
                set.insert(hash);
                if set.len() > ANSWER_EXACT_ENTRIES_MAX {
                    self.promote();
                }
            }
            Self::Sketch(registers) => registers.insert(hash),
            Self::Empty => *self = Self::Exact(Box::new(HashSet::from_iter([hash]))),
            Self::Shared(_) => {
                self.settle();
                self.insert(hash);
            }
        }
    }

    /// Merges the bytes of a window's HLL sketch (see [`sketch_of`]).
    pub fn merge_sketch(&mut self, bytes: &[u8]) {
        self.promote().merge_sketch(bytes);
    }

    pub fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Empty) => {}
            (Self::Shared(mine), Self::Shared(theirs)) => mine.extend(theirs.iter().cloned()),
            (Self::Empty, _) => *self = other.clone(),
            (_, Self::Exact(set)) => set.iter().for_each(|&h| self.insert(h)),
            (_, Self::Sketch(registers)) => self.promote().merge(registers),
            (_, Self::Shared(sets)) => {
                let mut theirs = Self::Shared(sets.clone());
                theirs.settle();
                self.merge(&theirs);
            }
        }
    }

    fn promote(&mut self) -> &mut Registers {
        self.settle();
        if !matches!(self, Self::Sketch(_)) {
            let mut registers = Registers::default();
            if let Self::Exact(set) = self {
                set.iter().for_each(|&h| registers.insert(h));
            }
            *self = Self::Sketch(registers);
        }
        match self {
            Self::Sketch(registers) => registers,
            _ => unreachable!("it was just made a sketch"),
        }
    }

    /// Makes shared sets into one of its own, so that reading it is cheap. What it says does not change.
    pub fn settle(&mut self) {
        if let Self::Shared(sets) = self {
            *self = union_of(sets);
        }
    }

    /// No less than what it says once it is [settled](Self::settle). Settles it where that is no more work.
    pub fn bound(&mut self) -> f64 {
        let Self::Shared(sets) = self else { return self.estimate() };
        let listed: Option<usize> = sets.iter().map(|set| set.hashes.as_ref().map(|hashes| hashes.len())).sum();
        if let Some(listed) = listed.filter(|listed| *listed <= ANSWER_EXACT_ENTRIES_MAX) {
            return listed as f64;
        }
        let registers = registers_of(sets);
        let estimate = registers.estimate();
        if listed.is_some() && estimate <= SURELY_INEXACT {
            // It is exact, and then it has no more than that, or it says this.
            return estimate.round().max(ANSWER_EXACT_ENTRIES_MAX as f64);
        }
        *self = Self::Sketch(registers);
        estimate.round()
    }

    /// Whether reading it takes no work.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Shared(_))
    }

    /// Joins shared sets into one where there are several, so that whoever merges this with others has less to do. Lasting ones are joined by
    /// `join_lasting`, which may know their union already.
    pub fn join_shared(&mut self, join_lasting: impl FnOnce(&[Arc<IdentitySet>]) -> Arc<IdentitySet>) {
        let Self::Shared(sets) = self else { return };
        let (lasting, mut others): (Vec<_>, Vec<_>) = std::mem::take(sets).into_iter().partition(|set| set.is_lasting);
        others.extend(if lasting.len() > 1 { vec![join_lasting(&lasting)] } else { lasting });
        *self = match others.as_slice() {
            [_] => Self::Shared(others),
            several => join(several),
        };
    }

    /// A set of at most [`ANSWER_EXACT_ENTRIES_MAX`] hashes, some of which may be there twice.
    pub(crate) fn of_hashes(hashes: impl ExactSizeIterator<Item = u64>) -> Self {
        debug_assert!(hashes.len() <= ANSWER_EXACT_ENTRIES_MAX);
        match hashes.len() {
            0 => Self::Empty,
            REGISTERS_BESIDE_MIN.. => Self::shared(Arc::new(IdentitySet::listed(hashes.collect()))),
            n => {
                let mut set = HashSet::with_capacity_and_hasher(n, Default::default());
                set.extend(hashes);
                Self::Exact(Box::new(set))
            }
        }
    }

    /// Appends what it holds to one of the two, or nothing when it is empty: to `hashes` when it is exact, some maybe twice, else a sketch's registers
    /// (see [`Registers::encode`]).
    pub(crate) fn put(&self, hashes: &mut Vec<u64>, registers: &mut Vec<u8>) {
        match self {
            Self::Empty => {}
            Self::Exact(set) => hashes.extend(set.iter()),
            Self::Sketch(sketch) => sketch.encode(registers),
            Self::Shared(sets) => match sets.as_slice() {
                [] => {}
                // Usual, and quicker than making a set of it only to list that.
                [one] if one.hashes.as_ref().is_some_and(|h| h.len() <= ANSWER_EXACT_ENTRIES_MAX) => {
                    hashes.extend_from_slice(one.hashes.as_deref().unwrap_or_default());
                }
                several => union_of(several).put(hashes, registers),
            },
        }
    }

    fn settled(&self) -> Cow<'_, Self> {
        match self {
            Self::Shared(sets) => Cow::Owned(union_of(sets)),
            _ => Cow::Borrowed(self),
        }
    }

    pub fn is_exact(&self) -> bool {
        !matches!(*self.settled(), Self::Sketch(_))
    }

    pub fn estimate(&self) -> f64 {
        match &*self.settled() {
            Self::Empty | Self::Shared(_) => 0.0,
            Self::Exact(set) => set.len() as f64,
            Self::Sketch(registers) => registers.estimate().round(),
        }
    }

    /// The stated relative error: 0 when exact, else two standard errors.
    pub fn relative_error(&self) -> f64 {
        if self.is_exact() { 0.0 } else { DISTINCT_TWO_STANDARD_ERRORS }
    }
}

/// Registers are kept beside lists from this length on, where merging them takes less time than the list, in entries.
const REGISTERS_BESIDE_MIN: usize = 1_024;
/// Above this estimate a union has more than [`ANSWER_EXACT_ENTRIES_MAX`] entries beyond doubt: the difference is over 20 standard errors.
const SURELY_INEXACT: f64 = 1.25 * ANSWER_EXACT_ENTRIES_MAX as f64;

/// A set of identity hashes that does not change any more, made to be merged quickly.
pub struct IdentitySet {
    /// Unless there are too many: in no order that means anything, and some may be there twice.
    hashes: Option<Box<[u64]>>,
    /// Unless there are few.
    registers: Option<Registers>,
    /// It belongs to time that seldom changes: unions with it are worth keeping.
    is_lasting: bool,
}

impl IdentitySet {
    pub fn of(set: Distinct) -> Self {
        match &*set.settled() {
            Distinct::Empty | Distinct::Shared(_) => Self { hashes: Some(Box::default()), registers: None, is_lasting: false },
            Distinct::Sketch(registers) => Self { hashes: None, registers: Some(registers.clone()), is_lasting: false },
            Distinct::Exact(set) => Self::listed(set.iter().copied().collect()),
        }
    }

    fn listed(hashes: Box<[u64]>) -> Self {
        let registers = (hashes.len() >= REGISTERS_BESIDE_MIN).then(|| {
            let mut registers = Registers::default();
            hashes.iter().for_each(|&h| registers.insert(h));
            registers
        });
        Self { hashes: Some(hashes), registers, is_lasting: false }
    }

    pub fn lasting(self) -> Self {
        Self { is_lasting: true, ..self }
    }

    /// All that is in any of them, each once.
    pub fn union(sets: &[Arc<Self>]) -> Self {
        Self::of(union_of(sets)).lasting()
    }

    /// Memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let hashes = self.hashes.as_ref().map_or(0, |h| h.len() * size_of::<u64>());
        size_of::<Self>() + hashes + self.registers.as_ref().map_or(0, |_| size_of::<[u8; 1 << HLL_LG_K]>())
    }
}

/// Lists of more entries than this are not put together: much in them is there many times.
const JOINED_ENTRIES_MAX: usize = 4 * ANSWER_EXACT_ENTRIES_MAX;

fn registers_of(sets: &[Arc<IdentitySet>]) -> Registers {
    let mut registers = Registers::default();
    for set in sets {
        match (&set.registers, &set.hashes) {
            (Some(theirs), _) => registers.merge(theirs),
            (None, Some(hashes)) => hashes.iter().for_each(|&h| registers.insert(h)),
            (None, None) => {}
        }
    }
    registers
}

/// The union of several sets with as little work as possible: what it holds is looked at only when all is merged.
fn join(sets: &[Arc<IdentitySet>]) -> Distinct {
    let lists: Option<Vec<&[u64]>> = sets.iter().map(|s| s.hashes.as_deref()).collect();
    match lists {
        None => Distinct::Sketch(registers_of(sets)),
        Some(lists) => {
            let listed = lists.iter().map(|l| l.len()).sum::<usize>();
            if listed > JOINED_ENTRIES_MAX {
                return union_of(sets);
            }
            let registers = (listed >= REGISTERS_BESIDE_MIN).then(|| registers_of(sets));
            Distinct::shared(Arc::new(IdentitySet { hashes: Some(lists.concat().into()), registers, is_lasting: false }))
        }
    }
}

/// As inserting everything would make it: exact up to [`ANSWER_EXACT_ENTRIES_MAX`] when every part is.
fn union_of(sets: &[Arc<IdentitySet>]) -> Distinct {
    let lists = || sets.iter().filter_map(|s| s.hashes.as_deref());
    let listed: usize = lists().map(<[u64]>::len).sum();
    let all_listed = lists().count() == sets.len();
    if !all_listed || listed > ANSWER_EXACT_ENTRIES_MAX {
        let registers = registers_of(sets);
        if !all_listed || registers.estimate() > SURELY_INEXACT {
            return Distinct::Sketch(registers);
        }
    }
    if listed == 0 {
        return Distinct::Empty;
    }
    let mut union = HashedSet::with_capacity_and_hasher(listed.min(ANSWER_EXACT_ENTRIES_MAX + 1), Default::default());
    for list in lists() {
        for &hash in list.iter() {
            union.insert(hash);
        }
        if union.len() > ANSWER_EXACT_ENTRIES_MAX {
            return Distinct::Sketch(registers_of(sets));
        }
    }
    Distinct::Exact(Box::new(union))
}

/// The sketch that a window keeps in place of a long list of hashes. Same hashes, same bytes whatever their order is not promised; equal registers are.
pub fn sketch_of(hashes: impl IntoIterator<Item = u64>) -> HllSketch {
    let mut union = HllUnion::new(HLL_LG_K).unwrap_or_else(|e| unreachable!("lgK {HLL_LG_K} is in range: {e}"));
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
        parts.merge_sketch(&sketch_of(hashes(200..5_000)).serialize());
        let mut exact_tail = Distinct::default();
        hashes(4_900..6_000).for_each(|h| exact_tail.insert(h));
        parts.merge(&exact_tail);
        assert!((parts.estimate() / 6_000.0 - 1.0).abs() < parts.relative_error(), "{parts:?}");
    }

    fn set_of(range: std::ops::Range<u32>) -> Distinct {
        let mut set = Distinct::default();
        hashes(range).for_each(|h| set.insert(h));
        set
    }

    #[test]
    fn shared_sets_say_what_one_set_would() {
        let cases: [&[std::ops::Range<u32>]; 8] = [
            &[0..10, 5..20],
            &[0..2_000, 1_000..3_000, 0..10],
            &[0..9_000, 4_000..16_384],
            &[0..9_000, 4_000..16_385],
            &[0..12_000, 6_000..18_000, 12_000..24_000],
            &[0..40_000, 39_000..39_010],
            &[0..15_000, 1..15_001, 2..15_002, 3..15_003, 4..15_004, 5..15_005],
            &[0..15_000, 1..15_001, 2..15_002, 3..15_003, 1_500..16_500],
        ];
        for ranges in cases {
            let (mut shared, mut own) = (Distinct::default(), Distinct::default());
            for range in ranges {
                shared.merge(&Distinct::shared(Arc::new(IdentitySet::of(set_of(range.clone())))));
                hashes(range.clone()).for_each(|h| own.insert(h));
            }
            assert_eq!((shared.estimate(), shared.is_exact()), (own.estimate(), own.is_exact()), "{ranges:?}");
            let mut joined = shared.clone();
            joined.join_shared(|_| unreachable!("none is lasting"));
            assert_eq!((joined.estimate(), joined.is_exact()), (own.estimate(), own.is_exact()), "joined {ranges:?}");
            // Lasting sets are joined by somebody else, together with those that are not.
            for lasting in [1, 2, ranges.len()] {
                let set = |(i, range): (usize, &std::ops::Range<u32>)| {
                    let set = IdentitySet::of(set_of(range.clone()));
                    Arc::new(if i < lasting { set.lasting() } else { set })
                };
                let mut mixed = Distinct::Shared(ranges.iter().enumerate().map(set).collect());
                let mut asked = 0;
                mixed.join_shared(|sets| {
                    asked += sets.len();
                    Arc::new(IdentitySet::union(sets))
                });
                assert_eq!(asked, if lasting > 1 { lasting.min(ranges.len()) } else { 0 });
                assert_eq!((mixed.estimate(), mixed.is_exact()), (own.estimate(), own.is_exact()), "{lasting} lasting of {ranges:?}");
            }
            joined.merge(&shared);
            assert_eq!((joined.estimate(), joined.is_exact()), (own.estimate(), own.is_exact()), "joined and merged {ranges:?}");
            // Also where they meet sets of other kinds, in either order.
            for other in [Distinct::default(), set_of(0..100), set_of(0..30_000)] {
                let (mut left, mut right, mut want) = (shared.clone(), other.clone(), own.clone());
                left.merge(&other);
                right.merge(&shared);
                want.merge(&other);
                assert_eq!((left.estimate(), right.estimate()), (want.estimate(), want.estimate()), "{ranges:?} and {other:?}");
            }
        }
    }
}
