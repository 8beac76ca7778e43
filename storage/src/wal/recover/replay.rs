//! Builds the groups from the records, and finds which of them damage has touched. Pure: records and bad places go in, in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::super::format::{Kind, NO_GROUP, NO_INDEX, Place, Record, RecordHead, SEGMENT_HEADER_BYTES, record_bytes};
use super::super::segment::checkpoint::{self, GroupCheckpoint};
use super::super::shared::index::{GroupIndex, Slot};
use super::super::writer::on_disk::GroupOnDisk;
use super::Damage;

#[derive(Default)]
pub(super) struct Replay {
    groups: BTreeMap<u16, Group>,
    damage: Vec<Damage>,
    first_segment: Option<u64>,
}

#[derive(Default)]
struct Group {
    on_disk: GroupOnDisk,
    index: GroupIndex,
    /// First and last of the entries that the log's first checkpoint speaks of and no segment has: they come before those in `index`.
    missing: Option<(u64, u64)>,
    /// There is damage since its last record, and nothing yet that shows whether it lost one.
    unproven: Option<usize>,
    damaged: Option<usize>,
}

pub(super) struct Replayed {
    pub on_disk: BTreeMap<u16, GroupOnDisk>,
    pub index: BTreeMap<u16, GroupIndex>,
    pub damage: Vec<Damage>,
}

impl Replay {
    pub fn new(first_segment: Option<u64>) -> Self {
        Self { first_segment, groups: BTreeMap::from([(NO_GROUP, Group::default())]), ..Self::default() }
    }

    pub fn damage_count(&self) -> u64 {
        self.damage.len() as u64
    }

    fn starts_log(&self, segment: u64, offset: u64) -> bool {
        self.first_segment == Some(segment) && offset == SEGMENT_HEADER_BYTES as u64
    }

    /// A stretch that is no record. `head` is what it was, if its header could be trusted.
    pub fn bad(&mut self, segment: u64, path: PathBuf, offset: u64, detail: &str, head: Option<RecordHead>) {
        let damage = self.add_damage(segment, path, offset, detail.to_owned());
        match head {
            // It takes no record with it, but the first has what else is known of idle groups.
            Some(head) if head.kind == Kind::Checkpoint => {
                if self.starts_log(segment, offset) {
                    self.group(NO_GROUP).unproven = Some(damage);
                }
            }
            Some(head) => {
                let group = self.groups.entry(head.group).or_default();
                group.damaged.get_or_insert(damage);
            }
            None => {
                for group in self.groups.values_mut() {
                    group.unproven.get_or_insert(damage);
                }
            }
        }
    }

    pub fn record(&mut self, record: &Record<'_>, place: Place, path: &Path) {
        if record.head.kind == Kind::Checkpoint {
            return match checkpoint::parse(record.body) {
                Some(groups) => self.checkpoint(groups, place, path),
                None => {
                    self.bad(place.segment, path.to_owned(), u64::from(place.offset), "the checkpoint makes no sense", Some(record.head))
                }
            };
        }
        let last_damage = self.damage.len().checked_sub(1);
        let group = self.groups.entry(record.head.group).or_default();
        let expected = group.on_disk.sequence.wrapping_add(1);
        group.on_disk.sequence = record.head.sequence;
        if group.damaged.is_some() {
            return;
        }
        let outcome = if record.head.sequence == expected { group.apply(record, place) } else { Err(LOST) };
        match outcome {
            Ok(()) => group.unproven = None,
            Err(detail) => {
                let known = if detail == LOST { group.unproven.or(last_damage) } else { None };
                let damage =
                    known.unwrap_or_else(|| self.add_damage(place.segment, path.to_owned(), u64::from(place.offset), detail.to_owned()));
                self.group(record.head.group).damaged = Some(damage);
            }
        }
    }

    fn checkpoint(&mut self, groups: Vec<GroupCheckpoint>, place: Place, path: &Path) {
        let starts_log = self.starts_log(place.segment, u64::from(place.offset));
        // A checkpoint lists every group there is, unless it says otherwise.
        if groups.iter().all(|checkpoint| checkpoint.group != NO_GROUP) {
            self.group(NO_GROUP).unproven = None;
        }
        for checkpoint in groups {
            let number = checkpoint.group;
            let last_damage = self.damage.len().checked_sub(1);
            let known = self.groups.get(&number);
            let agrees = known.is_some_and(|g| g.damaged.is_none() && g.on_disk.sequence == checkpoint.sequence);
            let can_adopt = checkpoint.live.is_none() || (starts_log && known.is_none());
            if checkpoint.damaged {
                let why = known.and_then(|g| g.damaged.or(g.unproven)).or(last_damage);
                let detail = "the group had been stopped for damage when this was written";
                let damage =
                    why.unwrap_or_else(|| self.add_damage(place.segment, path.to_owned(), u64::from(place.offset), detail.to_owned()));
                self.group(number).damaged = Some(damage);
            } else if agrees {
                self.group(number).unproven = None;
            } else if can_adopt {
                // No entry from before is live, so nothing of what was lost matters any more.
                *self.group(number) = Group::adopt(checkpoint);
                continue;
            } else {
                let why = known.and_then(|g| g.damaged.or(g.unproven)).or(last_damage);
                let damage =
                    why.unwrap_or_else(|| self.add_damage(place.segment, path.to_owned(), u64::from(place.offset), LOST.to_owned()));
                self.group(number).damaged = Some(damage);
            }
            self.group(number).on_disk.sequence = checkpoint.sequence;
        }
    }

    fn group(&mut self, number: u16) -> &mut Group {
        self.groups.entry(number).or_default()
    }

    fn add_damage(&mut self, segment: u64, path: PathBuf, offset: u64, detail: String) -> usize {
        self.damage.push(Damage { segment, path, offset, detail, groups: Vec::new(), stops_unknown_groups: false });
        self.damage.len() - 1
    }

    /// Judges every group by all that was read. `missing` names the segment before the first, for entries that should have been there.
    fn judge(&mut self, missing: &Path) {
        let first_segment = self.first_segment.unwrap_or_default();
        let numbers: Vec<u16> = self.groups.keys().copied().collect();
        for number in numbers {
            let group = self.group(number);
            group.damaged = group.damaged.or(group.unproven);
            if let Some((first, last)) = group.missing.filter(|_| group.damaged.is_none()) {
                let detail = format!("entries {first} to {last} of group {number} are in no segment");
                let damage = self.add_damage(first_segment, missing.to_owned(), 0, detail);
                self.group(number).damaged = Some(damage);
            }
        }
    }

    /// `behind` has read the same log from its first sound checkpoint on, when there is none where it begins: a group that is whole there has nothing
    /// live before.
    pub fn finish(mut self, missing: PathBuf, behind: Option<Self>) -> Replayed {
        self.judge(&missing);
        if let Some(mut behind) = behind {
            behind.judge(&missing);
            for (number, whole) in behind.groups.into_iter().filter(|(number, group)| *number != NO_GROUP && group.damaged.is_none()) {
                let group = self.group(number);
                if group.damaged.is_some() {
                    *group = whole;
                }
            }
        }
        for (&number, group) in &self.groups {
            match (group.damaged, number) {
                (None, _) => {}
                (Some(damage), NO_GROUP) => self.damage[damage].stops_unknown_groups = true,
                (Some(damage), number) => self.damage[damage].groups.push(number),
            }
        }
        let shared: Vec<Arc<Damage>> = self.damage.iter().cloned().map(Arc::new).collect();
        let (mut on_disk, mut index) = (BTreeMap::new(), BTreeMap::new());
        self.groups.retain(|&number, group| number != NO_GROUP || group.damaged.is_some());
        for (number, mut group) in self.groups {
            if let Some(damage) = group.damaged {
                group.on_disk.pinned_segment = Some(shared[damage].segment);
                group.index.damage = Some(shared[damage].clone());
            }
            group.index.sequence = group.on_disk.sequence;
            on_disk.insert(number, group.on_disk);
            index.insert(number, group.index);
        }
        Replayed { on_disk, index, damage: self.damage }
    }
}

const LOST: &str = "records of the group are missing before this one";

impl Group {
    fn adopt(checkpoint: GroupCheckpoint) -> Self {
        // Until they are purged or truncated by a later record these entries are nowhere. Only the range is kept: it may be of any length.
        let mut group = Self { missing: checkpoint.live, ..Self::default() };
        if let Some((first, last)) = checkpoint.live {
            // Segment 0 is none.
            group.on_disk.append(first, 0);
            group.on_disk.append(last, 0);
        }
        group.on_disk.sequence = checkpoint.sequence;
        group.on_disk.purged = checkpoint.purged.clone();
        group.on_disk.vote = checkpoint.vote.clone();
        group.on_disk.meta = checkpoint.meta.clone();
        (group.index.purged, group.index.vote, group.index.meta) = (checkpoint.purged, checkpoint.vote, checkpoint.meta);
        group
    }

    /// The index that the next entry must have; `None` if any will do.
    fn next_index(&self) -> Option<u64> {
        match self.missing {
            Some((_, last)) if self.index.entries().is_none() => Some(last.wrapping_add(1)),
            _ => self.index.next_index(),
        }
    }

    fn apply(&mut self, record: &Record<'_>, place: Place) -> Result<(), &'static str> {
        let index = record.head.index;
        let small = || Bytes::copy_from_slice(record.meta);
        match record.head.kind {
            Kind::Append => {
                if self.next_index().is_some_and(|next| next != index) {
                    return Err("the entry's index does not continue its group's log");
                }
                let len = record_bytes(record.meta.len(), record.body.len()) as u32;
                self.index.append(index, Slot { sequence: record.head.sequence, len, place: Some(place), kept: None });
                self.on_disk.append(index, place.segment);
            }
            Kind::Truncate => {
                self.missing = self.missing.filter(|&(first, _)| first < index).map(|(first, last)| (first, last.min(index - 1)));
                self.index.truncate(index);
                self.on_disk.truncate(index);
            }
            Kind::Purge if index == NO_INDEX => {
                self.missing = None;
                self.index.forget();
                self.on_disk.forget();
            }
            Kind::Purge => {
                self.missing = self.missing.filter(|&(_, last)| last > index).map(|(first, last)| (first.max(index + 1), last));
                self.index.purge(index, small());
                self.on_disk.purge(index, small());
            }
            Kind::Vote => (self.index.vote, self.on_disk.vote) = (Some(small()), Some(small())),
            Kind::Meta => (self.index.meta, self.on_disk.meta) = (Some(small()), Some(small())),
            Kind::Checkpoint => {}
        }
        Ok(())
    }
}
