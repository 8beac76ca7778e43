//! Random mutations of corpus entries, for the short run of `cargo test`. No coverage guides them: that is what the corpus was made with.

use crate::INPUT_BYTES_MAX;

/// xorshift64* (Vigna 2016): the same seed, the same mutations.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In `0..bound`, or 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

/// Changes one to eight places of `bytes`; `other` is what is spliced in.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..1 << random.below(4) {
        let at = random.below(bytes.len() + 1);
        let length = (1 << random.below(6)).min(bytes.len() - at);
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\\', b'{', b'}', b'[', b']', b','][random.below(12)],
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let copy = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len() + 1);
                drop(bytes.splice(to..to, copy));
            }
            5 => {
                let from = random.below(other.len() + 1);
                let piece = &other[from..(from + (1 << random.below(7))).min(other.len())];
                let end = (at + piece.len() * random.below(2)).min(bytes.len());
                drop(bytes.splice(at..end, piece.iter().copied()));
            }
            6 => bytes.insert(at, random.next() as u8),
            _ if at > 0 => bytes[at - 1] = bytes[at - 1].wrapping_add([1, 0xff][random.below(2)]),
            _ => {}
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
}
