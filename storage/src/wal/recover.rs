//! Opening a log: reads the segments, tells torn tails from damage, rebuilds the groups, and starts a new segment.

mod replay;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{
    self, ALIGN, BadSegmentHeader, Kind, NO_GROUP, Place, RECORD_HEADER_BYTES, Record, RecordHead, SEGMENT_HEADER_BYTES, VERSION,
};
use super::segment::checkpoint;
use super::shared::Shared;
use super::writer::{ClosedSegment, WalWriter, WriterParts};
use super::{Opened, Wal, WalOptions, segment};
use crate::StorageError;
use crate::clock::Clock;
use crate::disk::{Disk, replace_file, temporary_name};
use replay::Replay;

/// What opening a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub segments: u64,
    /// Records in them, but for checkpoints.
    pub records: u64,
    pub bytes: u64,
    /// Groups with any record, ascending.
    pub groups: Vec<u16>,
    /// Writes that a power cut or kill left unfinished; none of them was acked.
    pub torn: Option<TornTail>,
    /// Also such that concerns no group any more.
    pub damage: Vec<Damage>,
}

/// The end of the last segment that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    pub path: PathBuf,
    pub offset: u64,
    /// Bytes removed.
    pub bytes: u64,
}

/// Bytes that had been synced and are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub path: PathBuf,
    pub offset: u64,
    pub detail: String,
    /// Groups that are stopped for it.
    pub groups: Vec<u16>,
    /// So is every group of which nothing was found: all its records may have been here.
    pub stops_unknown_groups: bool,
    pub(super) segment: u64,
}

impl Damage {
    pub fn error(&self) -> StorageError {
        StorageError::damaged(&self.path, self.offset, self.detail.clone())
    }
}

enum Item<'a> {
    Record(Place, Record<'a>),
    Bad { offset: usize, detail: &'static str, head: Option<RecordHead> },
}

pub(super) fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path, options: WalOptions) -> Result<Opened, StorageError> {
    disk.create_dir_all(dir).map_err(|e| StorageError::io("make", dir, e))?;
    let names = disk.list(dir).map_err(|e| StorageError::io("list", dir, e))?;
    for name in names.iter().filter(|name| segment::is_temporary(name)) {
        let path = dir.join(name);
        disk.remove(&path).map_err(|e| StorageError::io("remove", &path, e))?;
    }
    let numbers = segment::numbers(&names);
    let mut recovered = Recovered::default();
    let mut replay = Reading { whole: Replay::new(numbers.first().copied()), behind: None };
    let mut closed = VecDeque::new();
    let mut previous = None;
    let mut has_records = false;
    for &number in &numbers {
        if let Some(missing) = previous.map(|p: u64| p + 1).filter(|&next| next != number) {
            replay.bad(missing, segment::path(dir, missing), 0, "this segment is missing", None);
        }
        let is_last = Some(&number) == numbers.last();
        let before = recovered.records + replay.whole.damage_count();
        let starts_bare = closed.front().is_some_and(|first: &ClosedSegment| first.is_bare);
        closed.push_back(read_segment(disk.as_ref(), dir, Which { number, is_last, starts_bare }, &mut replay, &mut recovered)?);
        has_records = recovered.records + replay.whole.damage_count() > before;
        previous = Some(number);
    }
    let before_first = segment::path(dir, numbers.first().map_or(0, |first| first.saturating_sub(1)));
    let replayed = replay.whole.finish(before_first, replay.behind);
    recovered.segments = numbers.len() as u64;
    recovered.bytes = closed.iter().map(|segment| segment.bytes).sum();
    recovered.groups = replayed.on_disk.keys().copied().filter(|&group| group != NO_GROUP).collect();
    recovered.damage = replayed.damage;
    report(&recovered);

    let shared = Arc::new(Shared::new(disk.clone(), dir.to_owned(), options.clone(), replayed.index));
    let number = match closed.back() {
        // It says nothing but what the new checkpoint says again: it is replaced, so that restarts do not pile up files.
        Some(last) if !has_records => {
            let last = last.number;
            closed.pop_back();
            last
        }
        last => last.map_or(1, |last| last.number + 1),
    };
    let parts = WriterParts { shared: shared.clone(), disk, clock, dir: dir.to_owned(), options, groups: replayed.on_disk, closed, number };
    Ok(Opened { wal: Wal { shared }, writer: WalWriter::new(parts)?, recovered })
}

/// Two readings of one log: of all of it, and, where its beginning says nothing of the groups, of what comes with the first segment that does.
struct Reading {
    whole: Replay,
    behind: Option<Replay>,
}

impl Reading {
    fn bad(&mut self, segment: u64, path: PathBuf, offset: u64, detail: &str, head: Option<RecordHead>) {
        if let Some(behind) = &mut self.behind {
            behind.bad(segment, path.clone(), offset, detail, head);
        }
        self.whole.bad(segment, path, offset, detail, head);
    }

    fn record(&mut self, record: &Record<'_>, place: Place, path: &Path) {
        if let Some(behind) = &mut self.behind {
            behind.record(record, place, path);
        }
        self.whole.record(record, place, path);
    }
}

/// A segment among those of its log.
struct Which {
    number: u64,
    is_last: bool,
    /// The log's first segment has no sound checkpoint.
    starts_bare: bool,
}

/// Its length is without a torn tail.
fn read_segment(
    disk: &dyn Disk,
    dir: &Path,
    Which { number, is_last, starts_bare }: Which,
    replay: &mut Reading,
    recovered: &mut Recovered,
) -> Result<ClosedSegment, StorageError> {
    let path = segment::path(dir, number);
    let bytes = disk.read(&path).map_err(|e| StorageError::io("read", &path, e))?;
    let mut items = match format::check_segment_header(&bytes, number) {
        Ok(()) => Vec::new(),
        Err(BadSegmentHeader::Damaged(detail)) => vec![Item::Bad { offset: 0, detail, head: None }],
        Err(BadSegmentHeader::Version(found)) => return Err(StorageError::Version { path, found, known: VERSION }),
    };
    scan(&bytes, number, &mut items);
    let mut end = bytes.len();
    if is_last {
        end = without_ahead(&bytes, &mut items);
        let is_longer = end < bytes.len();
        if let Some((nth, offset)) = torn_at(&items) {
            items.truncate(nth);
            recovered.torn = Some(TornTail { path: path.clone(), offset: offset as u64, bytes: (end - offset) as u64 });
            end = offset;
        }
        if recovered.torn.is_some() || is_longer || !is_marked(&items) {
            // That it can be read does not mean that it is on the disk: the last sync may not have happened, or failed.
            replace_file(disk, &path, &bytes[..end]).map_err(|e| StorageError::io("rewrite", temporary_name(&path), e))?;
        }
    }
    let is_bare = !items.iter().any(is_first_checkpoint);
    if starts_bare && !is_bare && replay.behind.is_none() {
        replay.behind = Some(Replay::new(Some(number)));
    }
    for item in items {
        match item {
            Item::Record(place, record) => {
                recovered.records += u64::from(record.head.kind != Kind::Checkpoint);
                replay.record(&record, place, &path);
            }
            Item::Bad { offset, detail, head } => replay.bad(number, path.clone(), offset as u64, detail, head),
        }
    }
    Ok(ClosedSegment { number, bytes: end as u64, is_bare })
}

/// Where the content of the last segment ends. Zeroes behind the last record were written ahead of records that never came.
fn without_ahead(bytes: &[u8], items: &mut Vec<Item<'_>>) -> usize {
    match items.last() {
        Some(&Item::Bad { offset, head: None, .. }) if offset > SEGMENT_HEADER_BYTES && bytes[offset..].iter().all(|byte| *byte == 0) => {
            items.pop();
            offset
        }
        _ => bytes.len(),
    }
}

/// Whether it is the checkpoint that a segment begins with, and can be read.
fn is_first_checkpoint(item: &Item<'_>) -> bool {
    matches!(item, Item::Record(place, record)
        if place.offset as usize == SEGMENT_HEADER_BYTES && record.head.kind == Kind::Checkpoint && checkpoint::parse(record.body).is_some())
}

fn scan<'a>(bytes: &'a [u8], segment: u64, items: &mut Vec<Item<'a>>) {
    let mut offset = SEGMENT_HEADER_BYTES;
    while offset < bytes.len() {
        let place = Place { segment, offset: offset as u32 };
        match format::parse(&bytes[offset..], place) {
            Ok(record) => {
                offset += record.len;
                items.push(Item::Record(place, record));
            }
            Err(bad) => {
                let (head, claimed) = bad.known.unzip();
                items.push(Item::Bad { offset, detail: bad.detail, head });
                offset = claimed
                    .map(|len| offset + len)
                    .filter(|&next| next <= bytes.len())
                    .unwrap_or_else(|| next_record(bytes, segment, offset));
            }
        }
    }
    if bytes.len() <= SEGMENT_HEADER_BYTES && items.is_empty() {
        items.push(Item::Bad { offset, detail: "the segment has no checkpoint", head: None });
    }
}

/// Where the next record whose header can be trusted starts, or the end.
fn next_record(bytes: &[u8], segment: u64, bad: usize) -> usize {
    let starts = |&offset: &usize| {
        let parsed = format::parse(&bytes[offset..], Place { segment, offset: offset as u32 });
        parsed.is_ok() || parsed.is_err_and(|bad| bad.known.is_some())
    };
    let last = bytes.len().saturating_sub(RECORD_HEADER_BYTES);
    (bad + ALIGN..=last).step_by(ALIGN).find(starts).unwrap_or(bytes.len())
}

/// The first bad place that no later record knows to have been synced: everything from there on was never acked.
fn torn_at(items: &[Item<'_>]) -> Option<(usize, usize)> {
    let mut torn = None;
    let mut synced = SEGMENT_HEADER_BYTES + 1;
    for (nth, item) in items.iter().enumerate().rev() {
        match item {
            Item::Record(_, record) => synced = synced.max(record.head.synced as usize),
            Item::Bad { offset, .. } if *offset >= synced => torn = Some((nth, *offset)),
            Item::Bad { .. } => break,
        }
    }
    torn
}

/// Whether the last record says that all before it is synced.
fn is_marked(items: &[Item<'_>]) -> bool {
    matches!(items.last(), Some(Item::Record(place, record)) if record.head.kind == Kind::Checkpoint && record.head.synced == place.offset)
}

fn report(recovered: &Recovered) {
    if let Some(torn) = &recovered.torn {
        tracing::warn!(path = %torn.path.display(), offset = torn.offset, bytes = torn.bytes, "cut an unfinished write off the log");
    }
    for damage in &recovered.damage {
        let (path, offset, detail, groups) = (damage.path.display(), damage.offset, &damage.detail, &damage.groups);
        tracing::error!(%path, offset, detail, ?groups, unknown_groups = damage.stops_unknown_groups, "the log is damaged; these groups are stopped");
    }
}
