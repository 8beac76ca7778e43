//! What is to go wrong, and the seeded choices.

use std::io;

#[derive(Clone, Default)]
pub(super) struct Faults {
    /// Count of changing operations at which the power goes.
    pub cut_at: Option<u64>,
    pub is_cut: bool,
    pub fail_next_sync: bool,
    pub capacity_bytes: Option<u64>,
}

impl Faults {
    pub fn check(&self) -> io::Result<()> {
        if self.is_cut { Err(power_cut()) } else { Ok(()) }
    }

    pub fn reach(&mut self, changes: u64) -> bool {
        self.is_cut |= self.cut_at.is_some_and(|at| changes >= at);
        self.is_cut
    }
}

pub(super) fn power_cut() -> io::Error {
    io::Error::other("the power is cut")
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine for ever.
pub(super) struct SplitMix(u64);

impl SplitMix {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// 0 to `max`, both included.
    pub fn up_to(&mut self, max: usize) -> usize {
        (self.next() % (max as u64 + 1)) as usize
    }
}
