//! The hashes kept in memory: one open-addressing table in 64 parts that grow one at a time, so that no insert waits for all of it.
//!
//! A slot's place is the hash scaled to the part's size, so slots lie nearly in the order of the hashes: rebuilding a part and loading
//! a sorted run both walk memory forward.

/// One remembered event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Entry {
    pub hash: u128,
    /// Arrival, seconds since 1970; 0 is an empty slot.
    pub second: u32,
}

impl Entry {
    /// Order of a run: by hash, the older of two arrivals first.
    pub fn key(&self) -> (u128, u32) {
        (self.hash, self.second)
    }
}

const PART_BITS: u32 = 6;
const PARTS: usize = 1 << PART_BITS;
/// Slots of an empty part.
const PART_SLOTS_MIN: usize = 16;
/// Slots of a cache line, rounded up.
const SLOTS_A_LINE: usize = 4;
/// A part is rebuilt when this share of its slots is used, in sixteenths, and then has this share used.
const LOAD_SIXTEENTHS_MAX: usize = 12;
const LOAD_SIXTEENTHS_REBUILT: usize = 7;
/// The same of a part that has all the slots that it should have: it grows as little as is bearable.
const LOAD_SIXTEENTHS_REBUILT_FULL: usize = 10;

#[derive(Clone, Debug)]
struct Part {
    slots: Vec<Entry>,
    used: usize,
}

/// Where a hash is, or would be.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Found { part: usize, slot: usize, second: u32 },
    Vacant { part: usize, slot: usize },
}

#[derive(Clone, Debug)]
pub struct Recent {
    parts: Vec<Part>,
    /// A part has more only as long as its entries do not fit otherwise.
    part_slots_max: usize,
}

fn part_of(hash: u128) -> usize {
    (hash >> (128 - PART_BITS)) as usize
}

fn home_slot(hash: u128, slots: usize) -> usize {
    let within = (hash >> (64 - PART_BITS)) as u64;
    ((u128::from(within) * slots as u128) >> 64) as usize
}

impl Part {
    fn with_slots(slots: usize) -> Self {
        Self { slots: vec![Entry::default(); slots], used: 0 }
    }

    /// The slot of `hash`, or the empty one where it belongs. There is always an empty one: a part is never full.
    #[inline]
    fn find(&self, hash: u128) -> (usize, u32) {
        let mut slot = home_slot(hash, self.slots.len());
        loop {
            let entry = self.slots[slot];
            if entry.second == 0 || entry.hash == hash {
                return (slot, entry.second);
            }
            slot += 1;
            if slot == self.slots.len() {
                slot = 0;
            }
        }
    }

    fn has_room(&self) -> bool {
        (self.used + 1) * 16 <= self.slots.len() * LOAD_SIXTEENTHS_MAX
    }

    /// Keeps the entries that arrived at or after `floor`, with room to grow.
    fn rebuild(&mut self, floor: u32, slots_max: usize) {
        let keep = |e: &&Entry| e.second >= floor.max(1);
        let kept = self.slots.iter().filter(keep).count();
        let roomy = (kept * 16 / LOAD_SIXTEENTHS_REBUILT).min(slots_max);
        let mut next = Self::with_slots(roomy.max(kept * 16 / LOAD_SIXTEENTHS_REBUILT_FULL).max(PART_SLOTS_MIN));
        for entry in self.slots.iter().filter(keep) {
            let (slot, _) = next.find(entry.hash);
            next.slots[slot] = *entry;
        }
        next.used = kept;
        *self = next;
    }
}

impl Recent {
    /// A table with room for `entries`, which grows up to `slots_max` as it likes and beyond that only if it must.
    pub fn with_capacity(entries: usize, slots_max: usize) -> Self {
        let slots = (entries / PARTS * 16 / 10).max(PART_SLOTS_MIN);
        Self { parts: (0..PARTS).map(|_| Part::with_slots(slots)).collect(), part_slots_max: slots_max / PARTS }
    }

    /// Takes effect as parts grow or are rebuilt.
    pub fn set_slots_max(&mut self, slots_max: usize) {
        self.part_slots_max = slots_max / PARTS;
    }

    /// Reads where a lookup of `hash` will begin, and the cache line after it, where most lookups of new hashes end. Calls for several hashes
    /// wait for memory together; their lookups then find it in cache.
    #[inline]
    pub fn touch(&self, hash: u128) -> u32 {
        let slots = &self.parts[part_of(hash)].slots;
        let home = home_slot(hash, slots.len());
        slots[home].second ^ slots[(home + SLOTS_A_LINE).min(slots.len() - 1)].second
    }

    #[inline]
    pub fn find(&self, hash: u128) -> Place {
        let part = part_of(hash);
        match self.parts[part].find(hash) {
            (slot, 0) => Place::Vacant { part, slot },
            (slot, second) => Place::Found { part, slot, second },
        }
    }

    /// Puts an entry where [`Self::find`] just found none, or an expired one of the same hash. What arrived before `floor` is dropped if its part has to grow.
    #[inline]
    pub fn put(&mut self, place: Place, entry: Entry, floor: u32) {
        match place {
            Place::Found { part, slot, .. } => self.parts[part].slots[slot] = entry,
            Place::Vacant { part, mut slot } => {
                let part = &mut self.parts[part];
                if !part.has_room() {
                    part.rebuild(floor, self.part_slots_max);
                    slot = part.find(entry.hash).0;
                }
                part.slots[slot] = entry;
                part.used += 1;
            }
        }
    }

    /// Forgets what arrived before `floor`. What the next entries will need anyway stays: memory that goes up and down is memory that is needed.
    pub fn evict(&mut self, floor: u32) {
        self.parts.iter_mut().for_each(|p| p.rebuild(floor, self.part_slots_max));
    }

    pub fn len(&self) -> usize {
        self.parts.iter().map(|p| p.used).sum()
    }

    pub fn memory_bytes(&self) -> usize {
        self.parts.iter().map(|p| p.slots.capacity() * size_of::<Entry>()).sum()
    }
}
