//! When to stop taking writes because the disk is nearly full. Pure: what was measured goes in, what to do comes out.

use crate::disk::Space;

/// Recovery needs this much more than what stopped the writes, so that the node does not flap at the edge: 1.25 as a fraction.
const RECOVER_NUMERATOR: u64 = 5;
const RECOVER_DENOMINATOR: u64 = 4;

/// Below the smaller of `free_bytes_min` and `free_permille_min` of the whole disk a node is read-only: the first is what compaction, snapshots and
/// the log need to go on, the second keeps small disks usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceThresholds {
    /// Bytes free.
    pub free_bytes_min: u64,
    /// Thousandths of the disk free.
    pub free_permille_min: u64,
}

impl Default for SpaceThresholds {
    fn default() -> Self {
        Self { free_bytes_min: 512 << 20, free_permille_min: 20 }
    }
}

impl SpaceThresholds {
    /// Free bytes below which a disk of this size takes no writes.
    pub fn read_only_below(&self, total_bytes: u64) -> u64 {
        let share = u128::from(total_bytes) * u128::from(self.free_permille_min) / 1_000;
        self.free_bytes_min.min(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpaceMode {
    #[default]
    Normal,
    /// Writes are refused, reads go on.
    ReadOnly,
}

/// The state between measurements.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpaceWatch {
    mode: SpaceMode,
}

impl SpaceWatch {
    /// Takes one measurement and says what holds from now on.
    pub fn step(&mut self, space: Space, thresholds: &SpaceThresholds) -> SpaceMode {
        let low = thresholds.read_only_below(space.total_bytes);
        let recovered = low.saturating_mul(RECOVER_NUMERATOR) / RECOVER_DENOMINATOR;
        self.mode = match self.mode {
            SpaceMode::Normal if space.free_bytes < low => SpaceMode::ReadOnly,
            SpaceMode::ReadOnly if space.free_bytes >= recovered => SpaceMode::Normal,
            unchanged => unchanged,
        };
        self.mode
    }

    pub fn mode(&self) -> SpaceMode {
        self.mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn run(total_bytes: u64, free: &[u64]) -> Vec<SpaceMode> {
        let mut watch = SpaceWatch::default();
        free.iter().map(|&free_bytes| watch.step(Space { free_bytes, total_bytes }, &SpaceThresholds::default())).collect()
    }

    #[test]
    fn a_nearly_full_disk_is_read_only_until_there_is_a_quarter_more_room() {
        use SpaceMode::{Normal, ReadOnly};
        let low = 512 << 20;
        let free = [low + 1, low, low - 1, low, low * 5 / 4 - 1, low * 5 / 4, low, low - 1];
        assert_eq!(run(1_000 * GIB, &free), [Normal, Normal, ReadOnly, ReadOnly, ReadOnly, Normal, Normal, ReadOnly]);
    }

    #[test]
    fn a_small_disk_is_judged_by_its_share() {
        let low = GIB * 20 / 1_000;
        assert_eq!(SpaceThresholds::default().read_only_below(GIB), low);
        assert_eq!(run(GIB, &[low, low - 1]), [SpaceMode::Normal, SpaceMode::ReadOnly]);
        assert_eq!(SpaceThresholds::default().read_only_below(u64::MAX), 512 << 20);
    }
}
