//! The registers of a HyperLogLog sketch, one byte each: merged by their maximum, which the processor does 16 at a time or more.
//!
//! Registers, hash and estimate are those of Apache DataSketches (lgK [`HLL_LG_K`]), whose sketches windows store. The estimate is the composite one, which
//! depends on the registers alone: the same identities give the same figure however they were merged.

use datasketches::hll::HllSketch;

use crate::limits::HLL_LG_K;

const REGISTERS: usize = 1 << HLL_LG_K;
/// Seed of every DataSketches sketch.
const SEED: u64 = 9_001;
/// Bits of a coupon that are its slot; the rest is the register's value.
const COUPON_SLOT_BITS: u32 = 26;
/// What the HLL4 form stores for a register too large for its 4 bits; the value is in a list behind.
const NIBBLE_ELSEWHERE: u8 = 15;
/// Bytes before the registers of a stored sketch.
const PREAMBLE_BYTES: usize = 40;
/// Largest value of a register: leading zeroes of 64 bits, of which one is set, and one.
const REGISTER_MAX: u8 = 63;
/// First byte of encoded registers: which are not zero, a bit each, then their values.
const FORM_BITMAP: u8 = 0;
/// Or: the least value, 4 bits each above it, then the values of those for which that is not enough.
const FORM_NIBBLES: u8 = 1;

#[derive(Clone, PartialEq)]
pub struct Registers(Box<[u8; REGISTERS]>);

impl Default for Registers {
    fn default() -> Self {
        Self(Box::new([0; REGISTERS]))
    }
}

/// The finaliser of MurmurHash3.
#[inline]
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// Slot and value of an identity: MurmurHash3 x64 128 of its eight bytes.
#[inline]
fn coupon_of(hash: u64) -> (usize, u8) {
    let key = hash.wrapping_mul(0x87c3_7b91_1142_53d5).rotate_left(31).wrapping_mul(0x4cf5_ad43_2745_937f);
    let (mut low, mut high) = (SEED ^ key ^ 8, SEED ^ 8);
    low = low.wrapping_add(high);
    high = high.wrapping_add(low);
    let (low, high) = (mix(low), mix(high));
    let low = low.wrapping_add(high);
    let high = high.wrapping_add(low);
    (low as usize % REGISTERS, high.leading_zeros().min(62) as u8 + 1)
}

impl Registers {
    #[inline]
    pub fn insert(&mut self, hash: u64) {
        let (slot, value) = coupon_of(hash);
        let register = &mut self.0[slot];
        *register = (*register).max(value);
    }

    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(mine, theirs)| *mine = (*mine).max(*theirs));
    }

    /// Merges a stored sketch (see [`super::sketch_of`]). Bytes that are no such sketch add nothing or nonsense, but do no harm: blocks are checked before.
    pub fn merge_sketch(&mut self, bytes: &[u8]) {
        let [.., cur_min, mode] = *bytes.first_chunk::<8>().unwrap_or(&[0; 8]);
        match mode & 3 {
            // A list or a set of coupons.
            0 => self.merge_coupons(bytes.get(8..).unwrap_or_default()),
            1 => self.merge_coupons(bytes.get(12..).unwrap_or_default()),
            // Nibbles.
            _ if mode >> 2 & 3 == 0 => {
                let Some((nibbles, elsewhere)) = bytes.get(PREAMBLE_BYTES..).and_then(|b| b.split_first_chunk::<{ REGISTERS / 2 }>())
                else {
                    return;
                };
                // What is elsewhere is larger than any nibble says, so it may come after.
                let value = |nibble: u8| if nibble == NIBBLE_ELSEWHERE { 0 } else { nibble.saturating_add(cur_min) };
                for (pair, nibbles) in self.0.as_chunks_mut::<2>().0.iter_mut().zip(nibbles) {
                    pair[0] = pair[0].max(value(nibbles & 15));
                    pair[1] = pair[1].max(value(nibbles >> 4));
                }
                self.merge_coupons(elsewhere);
            }
            // This program writes no other form.
            _ => {}
        }
    }

    fn merge_coupons(&mut self, bytes: &[u8]) {
        for coupon in bytes.as_chunks::<4>().0 {
            let coupon = u32::from_le_bytes(*coupon);
            let register = &mut self.0[coupon as usize % REGISTERS];
            *register = (*register).max((coupon >> COUPON_SLOT_BITS) as u8);
        }
    }

    /// Appends them in the shorter of two forms: a bitmap and a byte for each that is not zero, or half a byte for each and a byte more for the few that are
    /// far above the least. Neither is shorter than an eighth of the registers, so that few bytes never become many.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let base = self.0.iter().copied().min().unwrap_or_default();
        let set = self.0.iter().filter(|r| **r > 0).count();
        let elsewhere = self.0.iter().filter(|r| **r - base >= NIBBLE_ELSEWHERE).count();
        if REGISTERS / 8 + set <= REGISTERS / 2 + 1 + elsewhere {
            out.push(FORM_BITMAP);
            out.extend(self.0.as_chunks::<8>().0.iter().map(|eight| (0..8).fold(0, |bits, i| bits | u8::from(eight[i] > 0) << i)));
            out.extend(self.0.iter().filter(|r| **r > 0));
        } else {
            let nibble = |register: u8| (register - base).min(NIBBLE_ELSEWHERE);
            out.extend_from_slice(&[FORM_NIBBLES, base]);
            out.extend(self.0.as_chunks::<2>().0.iter().map(|pair| nibble(pair[0]) | nibble(pair[1]) << 4));
            out.extend(self.0.iter().filter(|r| nibble(**r) == NIBBLE_ELSEWHERE));
        }
    }

    /// `None` when the bytes are not exactly one sketch's registers.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut registers = Self::default();
        let (&form, rest) = bytes.split_first()?;
        let mut values = match form {
            FORM_BITMAP => {
                let (bitmap, values) = rest.split_at_checked(REGISTERS / 8)?;
                let mut values = values.iter();
                for (i, register) in registers.0.iter_mut().enumerate() {
                    if bitmap[i / 8] >> (i % 8) & 1 == 1 {
                        *register = *values.next()?;
                    }
                }
                values
            }
            FORM_NIBBLES => {
                let (&base, rest) = rest.split_first()?;
                let (nibbles, values) = rest.split_at_checked(REGISTERS / 2)?;
                let mut values = values.iter();
                for (i, register) in registers.0.iter_mut().enumerate() {
                    *register = match nibbles[i / 2] >> (i % 2 * 4) & NIBBLE_ELSEWHERE {
                        NIBBLE_ELSEWHERE => *values.next()?,
                        nibble => base.saturating_add(nibble),
                    };
                }
                values
            }
            _ => return None,
        };
        (values.next().is_none() && registers.0.iter().all(|r| *r <= REGISTER_MAX)).then_some(registers)
    }

    /// How many distinct identities there are, about.
    pub fn estimate(&self) -> f64 {
        let (mut low, mut high) = (0.0, 0.0);
        // Four histograms in turn, for neighbours often have the same value, and one would wait for itself.
        let mut histograms = [[0u32; 64]; 4];
        for registers in self.0.as_chunks::<4>().0 {
            for (histogram, register) in histograms.iter_mut().zip(registers) {
                histogram[usize::from(register & 63)] += 1;
            }
        }
        let histogram: [u32; 64] = std::array::from_fn(|value| histograms.iter().map(|h| h[value]).sum());
        for (value, &registers) in histogram.iter().enumerate() {
            let sum = f64::from(registers) * (-(value as f64)).exp2();
            if value < 32 { low += sum } else { high += sum }
        }
        // An HLL8 image whose order of updates is unknown, which makes the library take its composite estimate.
        let mut image = Vec::with_capacity(PREAMBLE_BYTES + REGISTERS);
        image.extend_from_slice(&[10, 1, 7, HLL_LG_K, 0, 16, 0, 2 | 2 << 2]);
        image.extend_from_slice(&0f64.to_le_bytes());
        image.extend_from_slice(&low.to_le_bytes());
        image.extend_from_slice(&high.to_le_bytes());
        image.extend_from_slice(&histogram[0].to_le_bytes());
        image.extend_from_slice(&[0; 4]);
        image.extend_from_slice(&self.0[..]);
        let sketch = HllSketch::deserialize(&image).unwrap_or_else(|e| unreachable!("a well-formed image: {e}"));
        sketch.estimate()
    }
}

#[cfg(test)]
mod tests {
    use datasketches::hll::{HllType, HllUnion};

    use super::*;
    use crate::aggregate::sketch_of;
    use crate::hash::identity_hash;

    fn hashes(range: std::ops::Range<u32>) -> impl Iterator<Item = u64> {
        range.map(|i| identity_hash(&i.to_le_bytes()))
    }

    fn of(range: std::ops::Range<u32>) -> Registers {
        let mut registers = Registers::default();
        hashes(range).for_each(|h| registers.insert(h));
        registers
    }

    #[test]
    fn registers_are_those_of_the_library() {
        for n in [0, 3, 20, 700, 2_000, 200_000] {
            let mut sketch = HllSketch::new(HLL_LG_K, HllType::Hll8).expect("in range");
            hashes(0..n).for_each(|h| sketch.update(h));
            let mut read = Registers::default();
            read.merge_sketch(&sketch_of(hashes(0..n)).serialize());
            assert!(read == of(0..n), "{n}: stored sketches");
            if n >= 2_000 {
                assert!(sketch.serialize()[PREAMBLE_BYTES..] == of(0..n).0[..], "{n}: the library's own");
            }
        }
    }

    #[test]
    fn the_estimate_is_that_of_the_librarys_union() {
        for (left, right) in [(2_000, 3_000), (40_000, 100_000), (200_000, 300_000)] {
            let mut union = HllUnion::new(HLL_LG_K).expect("in range");
            union.update(&sketch_of(hashes(0..right)));
            union.update(&sketch_of(hashes(left..right + left)));
            let mut registers = of(0..right);
            registers.merge(&of(left..right + left));
            let (ours, theirs) = (registers.estimate(), union.estimate());
            assert!((ours - theirs).abs() < 1e-6 * theirs, "{ours} and {theirs}");
        }
        assert_eq!(Registers::default().estimate(), 0.0);
    }

    #[test]
    fn registers_read_back_and_take_little_more_than_they_must() {
        for (n, bytes_max) in [(0, 1_025), (20, 1_045), (1_100, 2_120), (20_000, 4_110), (3_000_000, 4_130)] {
            let (registers, mut bytes) = (of(0..n), vec![7]);
            registers.encode(&mut bytes);
            assert!(Registers::decode(&bytes[1..]).is_some_and(|r| r == registers), "{n}");
            assert!(bytes.len() - 1 <= bytes_max, "{n} identities take {} bytes", bytes.len() - 1);
            for (cut, longer) in [(bytes.len() - 1, &[][..]), (bytes.len(), &[1][..]), (1, &[][..]), (2, &[][..]), (900, &[][..])] {
                assert!(Registers::decode(&[&bytes[1..cut], longer].concat()).is_none(), "{n}: cut at {cut}");
            }
        }
        let mut far_apart = Registers::default();
        far_apart.0.iter_mut().enumerate().for_each(|(i, r)| *r = (i % 64) as u8);
        let mut bytes = Vec::new();
        far_apart.encode(&mut bytes);
        assert!(Registers::decode(&bytes).is_some_and(|r| r == far_apart));
        *bytes.last_mut().expect("has values") = REGISTER_MAX + 1;
        assert!(Registers::decode(&bytes).is_none(), "no register has such a value");
    }

    #[test]
    fn hostile_sketches_do_no_harm() {
        let good = sketch_of(hashes(0..5_000)).serialize();
        for cut in [0, 1, 7, 8, 39, 40, 1_000, good.len() - 1] {
            Registers::default().merge_sketch(&good[..cut]);
        }
        for at in 0..PREAMBLE_BYTES {
            for value in [0, 1, 2, 15, 63, 128, 240] {
                let mut bad = good.clone();
                bad[at] = value;
                let mut registers = Registers::default();
                registers.merge_sketch(&bad);
                assert!(registers.estimate().is_finite());
            }
        }
    }
}
