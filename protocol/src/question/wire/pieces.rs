//! What only some cells have, and of different lengths: sets and quantiles.

use rkyv::{Archive, Serialize};

use super::WireError;
use crate::aggregate::{Accumulator, Distinct, Quantiles, Registers, bin_of};
use crate::limits::ANSWER_EXACT_ENTRIES_MAX;
use crate::question::answer::Cell;

/// Which cells have a piece, ascending, and where each ends in a column.
#[derive(Archive, Serialize, Default)]
struct WirePieces {
    cells: Vec<u32>,
    ends: Vec<u32>,
}

impl WirePieces {
    /// Notes the piece that was put between `start` and `end`, if there is one.
    fn put(&mut self, cell: usize, start: usize, end: usize) {
        if end > start {
            self.cells.push(cell as u32);
            self.ends.push(end as u32);
        }
    }

    fn bytes(&self) -> usize {
        8 * self.cells.len()
    }
}

impl ArchivedWirePieces {
    /// Hands each piece of `column` to `take` with its cell's accumulator.
    fn each<T>(
        &self,
        column: &[T],
        cells: &mut [Cell],
        mut take: impl FnMut(&mut Accumulator, &[T]) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        if self.cells.len() != self.ends.len() {
            return Err(WireError::Damaged("columns of pieces differ in length"));
        }
        let (mut start, mut cell_min) = (0, 0);
        for (cell, end) in self.cells.iter().zip(self.ends.iter()) {
            let (cell, end) = (cell.to_native() as usize, end.to_native() as usize);
            let piece = column.get(start..end).filter(|p| !p.is_empty()).ok_or(WireError::Damaged("a piece is out of bounds"))?;
            let held = cells.get_mut(cell).filter(|_| cell >= cell_min).ok_or(WireError::Damaged("a piece names no cell"))?;
            take(&mut held.values, piece)?;
            (start, cell_min) = (end, cell + 1);
        }
        if start == column.len() { Ok(()) } else { Err(WireError::Damaged("something behind the last piece")) }
    }
}

/// Sets of identities; a cell's is in one of the two lists or in neither.
#[derive(Archive, Serialize, Default)]
pub(super) struct WireSets {
    exact: WirePieces,
    hashes: Vec<u64>,
    sketches: WirePieces,
    registers: Vec<u8>,
}

impl WireSets {
    pub(super) fn put(&mut self, cell: usize, set: &Distinct) {
        let (hashes, registers) = (self.hashes.len(), self.registers.len());
        set.put(&mut self.hashes, &mut self.registers);
        self.exact.put(cell, hashes, self.hashes.len());
        self.sketches.put(cell, registers, self.registers.len());
    }

    pub(super) fn bytes(&self) -> usize {
        self.exact.bytes() + 8 * self.hashes.len() + self.sketches.bytes() + self.registers.len()
    }
}

impl ArchivedWireSets {
    /// `set_of` says which of a cell's sets it is.
    pub(super) fn read(&self, cells: &mut [Cell], set_of: fn(&mut Accumulator) -> &mut Distinct) -> Result<(), WireError> {
        self.exact.each(&self.hashes, cells, |values, hashes| {
            if hashes.len() > ANSWER_EXACT_ENTRIES_MAX {
                return Err(WireError::Damaged("a set is too large to be exact"));
            }
            *set_of(values) = Distinct::of_hashes(hashes.iter().map(|h| h.to_native()));
            Ok(())
        })?;
        self.sketches.each(&self.registers, cells, |values, registers| {
            let set = set_of(values);
            if !matches!(set, Distinct::Empty) {
                return Err(WireError::Damaged("a set is there twice"));
            }
            *set = Distinct::Sketch(Registers::decode(registers).ok_or(WireError::Damaged("a sketch does not read"))?);
            Ok(())
        })
    }
}

/// Bins that are not empty: the first as it is (zigzag), others by their distance, each followed by its count; all LEB128.
#[derive(Archive, Serialize, Default)]
pub(super) struct WireQuantiles {
    cells: WirePieces,
    bins: Vec<u8>,
}

impl WireQuantiles {
    pub(super) fn put(&mut self, cell: usize, quantiles: &Quantiles) {
        let start = self.bins.len();
        let mut last = None;
        for (bin, count) in quantiles.bins().filter(|(_, count)| *count > 0) {
            let bin = i64::from(bin);
            let step = last.map_or((bin << 1 ^ bin >> 63) as u64, |last: i64| (bin - last) as u64);
            put_number(&mut self.bins, step);
            put_number(&mut self.bins, count);
            last = Some(bin);
        }
        self.cells.put(cell, start, self.bins.len());
    }

    pub(super) fn bytes(&self) -> usize {
        self.cells.bytes() + self.bins.len()
    }
}

impl ArchivedWireQuantiles {
    /// Gives the sum of all counts, saturated.
    pub(super) fn read(&self, cells: &mut [Cell]) -> Result<u64, WireError> {
        let damaged = WireError::Damaged("quantiles do not read");
        let bin_max = i64::from(bin_of(f64::MAX));
        let mut total = 0u64;
        let mut list = Vec::new();
        self.cells.each(&self.bins, cells, |values, mut piece| {
            list.clear();
            let mut last = None;
            while !piece.is_empty() {
                let (step, count) = take_number(&mut piece).zip(take_number(&mut piece)).ok_or(damaged.clone())?;
                let bin = match last {
                    None => (step >> 1) as i64 ^ -((step & 1) as i64),
                    Some(last) => i64::try_from(step).ok().filter(|s| *s > 0).and_then(|s| s.checked_add(last)).ok_or(damaged.clone())?,
                };
                if !(-bin_max..=bin_max).contains(&bin) || count == 0 {
                    return Err(damaged.clone());
                }
                total = total.saturating_add(count);
                list.push((bin as i32, count));
                last = Some(bin);
            }
            if total == u64::MAX {
                return Err(damaged.clone());
            }
            values.quantiles = Quantiles::of_ascending(list.clone());
            Ok(())
        })?;
        Ok(total)
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut WireSets)) -> Option<WireError> {
        let mut sets = WireSets::default();
        let mut set = Distinct::default();
        (1..4).for_each(|hash| set.insert(hash));
        sets.put(0, &set);
        set.merge_sketch(&[]);
        sets.put(1, &set);
        change(&mut sets);
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&sets).expect("columns");
        let sets = rkyv::access::<ArchivedWireSets, rkyv::rancor::Error>(&bytes).expect("columns");
        let mut cells = vec![Cell { group: 0, bucket: 0, values: Accumulator::default() }; 3];
        sets.read(&mut cells, |values| &mut values.users).err()
    }

    #[test]
    fn sets_that_cannot_be_are_refused() {
        let damaged = |why| Some(WireError::Damaged(why));
        assert_eq!(refused(|_| ()), None);
        assert_eq!(refused(|s| s.exact.ends[0] = 4), damaged("a piece is out of bounds"));
        assert_eq!(refused(|s| s.exact.ends[0] = 0), damaged("a piece is out of bounds"));
        assert_eq!(refused(|s| s.hashes.push(9)), damaged("something behind the last piece"));
        assert_eq!(refused(|s| s.exact.cells[0] = 3), damaged("a piece names no cell"));
        assert_eq!(refused(|s| s.exact.cells.push(2)), damaged("columns of pieces differ in length"));
        assert_eq!(refused(|s| s.sketches.cells[0] = 0), damaged("a set is there twice"));
        assert_eq!(refused(|s| s.registers[0] = 9), damaged("a sketch does not read"));
        let again = |s: &mut WireSets| {
            s.exact.put(0, 3, 4);
            s.hashes.push(9);
        };
        assert_eq!(refused(again), damaged("a piece names no cell"));
        let too_many = |s: &mut WireSets| {
            s.hashes.resize(ANSWER_EXACT_ENTRIES_MAX + 1, 7);
            s.exact.ends[0] = s.hashes.len() as u32;
        };
        assert_eq!(refused(too_many), damaged("a set is too large to be exact"));
    }
}
