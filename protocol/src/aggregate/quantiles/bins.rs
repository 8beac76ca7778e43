//! Counts by bin, in the form that suits how many there are.

use std::collections::BTreeMap;

use super::value_of_bin;

/// Distinct bins up to which a sorted list takes in others.
const LISTED_BINS_MAX: usize = 32;
/// Stretch of bins that is kept as an array, a factor of 8 x 10^8 between the smallest and the largest value.
const ARRAY_BINS_MAX: i64 = 1_024;
/// Bins that come as a list become an array where one of so many places is used, and stay a list else, so that what they take is bounded by what they came as.
const ARRAY_FILL_MIN: i64 = 4;
/// Arrays grow in steps of so many bins.
const ARRAY_STEP_BINS: i64 = 64;

#[derive(Clone, Debug)]
enum Bins {
    /// Ascending; more of them than [`LISTED_BINS_MAX`] only as they came, and nothing is inserted into those.
    List(Vec<(i32, u64)>),
    /// Count of bin `base + i`.
    Array {
        base: i32,
        counts: Vec<u64>,
    },
    Tree(BTreeMap<i32, u64>),
}

/// Counts by bin.
#[derive(Clone, Debug)]
pub struct Quantiles {
    /// All but bin 0.
    bins: Bins,
    /// Count of bin 0. Zeros are common, and a thousand bins away from the smallest amount that is: with them in it, hardly any array would do.
    zeros: u64,
    /// Of all.
    count: u64,
}

impl Default for Quantiles {
    fn default() -> Self {
        Self { bins: Bins::List(Vec::new()), zeros: 0, count: 0 }
    }
}

impl PartialEq for Quantiles {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.bins().eq(other.bins())
    }
}

impl Quantiles {
    /// From bins in strictly ascending order whose counts are not 0 and sum up to less than 2^64.
    pub(crate) fn of_ascending(mut list: Vec<(i32, u64)>) -> Self {
        let count = list.iter().map(|b| b.1).sum();
        let zeros = list.binary_search_by_key(&0, |b| b.0).map_or(0, |at| list.remove(at).1);
        let (first, last) = (list.first().map_or(0, |b| i64::from(b.0)), list.last().map_or(0, |b| i64::from(b.0)));
        let span = last - first + 1;
        let bins = if list.len() > LISTED_BINS_MAX && span <= ARRAY_BINS_MAX && span <= ARRAY_FILL_MIN * list.len() as i64 {
            let mut counts = vec![0; span as usize];
            list.iter().for_each(|&(bin, count)| counts[(i64::from(bin) - first) as usize] = count);
            Bins::Array { base: first as i32, counts }
        } else {
            // It is most often added to something else; what is added to it finds another form when it needs one.
            Bins::List(list)
        };
        Self { bins, zeros, count }
    }

    #[inline]
    pub fn add(&mut self, bin: i32, count: u64) {
        self.count += count;
        if bin == 0 {
            self.zeros += count;
        } else {
            self.put(bin, count);
        }
    }

    #[inline]
    fn put(&mut self, bin: i32, count: u64) {
        if let Bins::Array { base, counts } = &mut self.bins
            && let Some(held) = counts.get_mut(i64::from(bin).wrapping_sub(i64::from(*base)) as usize)
        {
            *held += count;
            return;
        }
        self.put_elsewhere(bin, count);
    }

    fn put_elsewhere(&mut self, bin: i32, count: u64) {
        match &mut self.bins {
            Bins::List(list) => match list.binary_search_by_key(&bin, |b| b.0) {
                Ok(at) => list[at].1 += count,
                Err(at) if list.len() < LISTED_BINS_MAX => list.insert(at, (bin, count)),
                Err(_) => self.make_room(bin, count),
            },
            Bins::Array { .. } => self.make_room(bin, count),
            Bins::Tree(tree) => *tree.entry(bin).or_default() += count,
        }
    }

    /// Takes a bin that the present form has no place for.
    #[cold]
    fn make_room(&mut self, bin: i32, count: u64) {
        let (first, last) = iter(&self.bins).fold((bin, bin), |(first, last), (b, _)| (first.min(b), last.max(b)));
        let base = i64::from(first).div_euclid(ARRAY_STEP_BINS) * ARRAY_STEP_BINS;
        let span = ((i64::from(last) - base) / ARRAY_STEP_BINS + 1) * ARRAY_STEP_BINS;
        let old = std::mem::replace(&mut self.bins, Bins::List(Vec::new()));
        let all = iter(&old).chain([(bin, count)]);
        self.bins = match i32::try_from(base) {
            Ok(base) if span <= ARRAY_BINS_MAX => {
                let mut counts = vec![0; span as usize];
                all.for_each(|(bin, count)| counts[(i64::from(bin) - i64::from(base)) as usize] += count);
                Bins::Array { base, counts }
            }
            _ => {
                let mut tree = BTreeMap::new();
                all.for_each(|(bin, count)| *tree.entry(bin).or_default() += count);
                Bins::Tree(tree)
            }
        };
    }

    pub fn merge(&mut self, other: &Self) {
        if matches!(&self.bins, Bins::List(list) if list.is_empty()) {
            self.bins = other.bins.clone();
        } else if !self.add_array(&other.bins) {
            iter(&other.bins).for_each(|(bin, count)| self.put(bin, count));
        }
        self.zeros += other.zeros;
        self.count += other.count;
    }

    /// Adds what is an array to an array, if one array can hold both: bin for bin, without asking of each where it belongs.
    fn add_array(&mut self, other: &Bins) -> bool {
        let (Bins::Array { base, counts }, Bins::Array { base: from, counts: theirs }) = (&mut self.bins, other) else {
            return false;
        };
        let first = i64::from(*base).min(i64::from(*from));
        let end = (i64::from(*base) + counts.len() as i64).max(i64::from(*from) + theirs.len() as i64);
        if end - first > ARRAY_BINS_MAX {
            return false;
        }
        let before = (i64::from(*base) - first) as usize;
        if before > 0 {
            counts.splice(..0, std::iter::repeat_n(0, before));
            *base = first as i32;
        }
        counts.resize((end - first) as usize, 0);
        let at = (i64::from(*from) - first) as usize;
        counts[at..].iter_mut().zip(theirs).for_each(|(held, count)| *held += count);
        true
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Bins that are not empty, ascending.
    pub fn bins(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        let below = iter(&self.bins).take_while(|b| b.0 < 0);
        let zero = (self.zeros > 0).then_some((0, self.zeros));
        below.chain(zero).chain(iter(&self.bins).skip_while(|b| b.0 < 0))
    }

    /// Memory behind it, in bytes.
    pub fn heap_bytes(&self) -> usize {
        match &self.bins {
            Bins::List(list) => list.capacity() * size_of::<(i32, u64)>(),
            Bins::Array { counts, .. } => counts.capacity() * size_of::<u64>(),
            Bins::Tree(tree) => tree.len() * 2 * size_of::<(i32, u64)>(),
        }
    }

    /// The value of rank floor(q (n - 1)); `None` without values. `q` is in 0..=1.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (q * self.count.checked_sub(1)? as f64).floor() as u64;
        let mut seen = 0;
        self.bins()
            .find(|(_, count)| {
                seen += count;
                seen > rank
            })
            .map(|(bin, _)| value_of_bin(bin))
    }
}

fn iter(bins: &Bins) -> impl Iterator<Item = (i32, u64)> + '_ {
    let (list, array, tree): (&[_], (i32, &[u64]), _) = match bins {
        Bins::List(list) => (list, (0, &[]), None),
        Bins::Array { base, counts } => (&[], (*base, counts), None),
        Bins::Tree(tree) => (&[], (0, &[]), Some(tree)),
    };
    let (base, counts) = array;
    let array = counts.iter().enumerate().filter(|(_, count)| **count > 0).map(move |(i, &count)| (base + i as i32, count));
    list.iter().copied().chain(array).chain(tree.into_iter().flatten().map(|(&bin, &count)| (bin, count)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::bin_of;

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

    #[test]
    fn amounts_with_zeros_among_them_are_an_array() {
        let mut sketch = Quantiles::default();
        let amounts = (0..2_000).map(|i| bin_of(f64::from(i) / 100.0));
        amounts.for_each(|bin| sketch.add(bin, 1));
        let read = Quantiles::of_ascending(sketch.bins().collect());
        assert!(matches!((&sketch.bins, &read.bins), (Bins::Array { .. }, Bins::Array { .. })), "{sketch:?} {read:?}");
        let doubled = |mut sketch: Quantiles, other: &Quantiles| {
            sketch.merge(other);
            sketch.bins().collect::<Vec<_>>()
        };
        let both = doubled(sketch.clone(), &read);
        assert_eq!(both[0], (0, 2));
        assert!(both.iter().map(|b| b.1).eq(read.bins().map(|b| 2 * b.1)));
        assert_eq!((sketch.quantile(0.0), sketch.count()), (Some(0.0), 2_000));
    }

    #[test]
    fn every_form_counts_like_a_tree_in_any_order() {
        let ends = [i32::MIN, i32::MAX, -1, 0, 1];
        let narrow = |i: i32| (i * 37) % 90;
        let wide = |i: i32| (i * 7_919) % 73_000 - 30_000;
        let stretching = |i: i32| if i % 2 == 0 { i } else { -3 * i };
        // As an array beside the narrow one, and too far from it for one array.
        let (beside, far) = (|i: i32| narrow(i) + 700, |i: i32| narrow(i) - 2_000);
        // Both signs in one array, and zeros.
        let around = |i: i32| narrow(i) - 45;
        let cases: [Vec<i32>; 7] = [
            (0..500).map(narrow).collect(),
            (0..500).map(around).collect(),
            (0..500).map(beside).collect(),
            (0..500).map(far).collect(),
            (0..500).map(wide).collect(),
            (0..900).map(stretching).collect(),
            ends.to_vec(),
        ];
        for left in &cases {
            for right in &cases {
                let mut tree = BTreeMap::new();
                let (mut merged, mut other) = (Quantiles::default(), Quantiles::default());
                for (bins, sketch) in [(left, &mut merged), (right, &mut other)] {
                    for (n, &bin) in bins.iter().enumerate() {
                        sketch.add(bin, n as u64 % 3 + 1);
                        *tree.entry(bin).or_insert(0) += n as u64 % 3 + 1;
                    }
                }
                let read = Quantiles::of_ascending(other.bins().collect());
                assert_eq!((&read, read.count()), (&other, other.count()));
                let mut merged_read = Quantiles::of_ascending(merged.bins().collect());
                merged_read.merge(&read);
                merged.merge(&other);
                assert_eq!(merged_read, merged);
                assert!(merged.bins().eq(tree.iter().map(|(&b, &c)| (b, c))));
                assert_eq!(merged.count(), tree.values().sum::<u64>());
            }
        }
    }
}
