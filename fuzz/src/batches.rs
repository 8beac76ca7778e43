//! The bytes of a shard's log entries: whatever passes the check is counted as [`model`] counts it, alike on every replica and after a snapshot.

mod model;

use std::collections::BTreeMap;
use std::sync::Arc;

use rkyv::util::AlignedVec;
use tallymesh_protocol::cardinality::{KeyBudget, MetricBudget};
use tallymesh_protocol::event::batch::{self, ArchivedShardBatch, ShardBatch};
use tallymesh_protocol::event::command::{CommandBody, CommandView, ShardSettings, encode_batches, encode_configure, encode_tick};
use tallymesh_protocol::key::KeyView;
use tallymesh_protocol::time::DAY_MS;
use tallymesh_storage::disk::SimDisk;
use tallymesh_storage::files::ShardFiles;
use tallymesh_storage::shard::{PartApplied, PartError, ShardOptions, ShardState, initial_settings};

use crate::input::Input;
use crate::memory::peak_of;

const STAMP_MS: i64 = 1_767_268_800_000;
const OPTIONS: ShardOptions = ShardOptions { dedup_memory_bytes_max: 1 << 20 };
/// Ticks within which a shard of so few rows comes to rest.
const TICKS_MAX: usize = 2_000;
/// Memory of applying one entry, beside a share for each of its bytes: an event may open an hour of its own, which is sealed into a block of its own.
const MEMORY_BYTES_MAX: usize = 8 << 20;
const MEMORY_FACTOR_MAX: usize = 400;

/// When an entry is stamped: usual, before every event, and as far out as a number goes.
const STAMPS_MS: [i64; 4] = [STAMP_MS, 0, i64::MAX, i64::MIN];

/// First byte: bit 0 a whole command instead of a batch, bit 1 moved out of its alignment, bit 2 a snapshot on the way, bits 3-4 the settings, bits
/// 5-6 the stamp; the rest is the bytes.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let options = input.byte();
    let around = Around {
        is_moved: options & 2 == 2,
        is_saved: options & 4 == 4,
        settings: settings(options >> 3 & 3),
        stamp_ms: STAMPS_MS[usize::from(options >> 5 & 3)],
    };
    let bytes = aligned(input.rest());
    if options & 1 == 1 {
        command(&bytes, around.is_moved);
    } else {
        one_batch(&bytes, &around);
    }
}

fn one_of_each() -> KeyBudget {
    KeyBudget { keys: 1, reserved: 1, event_names: 1, per_metric: MetricBudget { event: 1, defined: 1 }, metrics: BTreeMap::new() }
}

/// What happens to a batch besides being applied.
struct Around {
    is_moved: bool,
    is_saved: bool,
    settings: ShardSettings,
    stamp_ms: i64,
}

fn settings(choice: u8) -> ShardSettings {
    let usual = initial_settings();
    match choice {
        0 => usual,
        1 => ShardSettings { lateness_ms: u64::MAX, dedup_horizon_ms: u64::MAX, ..usual },
        // A second key or name of anything goes to the other key.
        2 => ShardSettings { lateness_ms: 0, dedup_horizon_ms: 0, cardinality: Some(one_of_each()), ..usual },
        _ => ShardSettings {
            retention_minute_ms: Some(0),
            retention_hour_ms: Some(DAY_MS as u64),
            retention_day_ms: Some(u64::MAX),
            definitions_version: 3,
            ..usual
        },
    }
}

fn aligned(bytes: &[u8]) -> AlignedVec<16> {
    let mut out = AlignedVec::new();
    out.extend_from_slice(bytes);
    out
}

/// The same bytes, 8 bytes beside an alignment of 16.
fn moved(bytes: &[u8]) -> (AlignedVec<16>, usize) {
    let mut out = AlignedVec::new();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(bytes);
    (out, 8)
}

fn apply(state: &mut ShardState, index: u64, command: &[u8], is_moved: bool) -> Option<Vec<PartApplied>> {
    let (applied, peak) = peak_of(|| {
        if is_moved {
            let (copy, start) = moved(command);
            state.apply(index, &copy[start..])
        } else {
            state.apply(index, command)
        }
    });
    assert!(peak <= MEMORY_BYTES_MAX + MEMORY_FACTOR_MAX * command.len(), "{peak} bytes of memory for an entry of {}", command.len());
    applied.ok().map(|a| a.parts)
}

/// A command from bytes: refused, or the same on two replicas whatever its parts hold.
fn command(bytes: &AlignedVec<16>, is_moved: bool) {
    let (mut one, mut other) = (ShardState::new(OPTIONS), ShardState::new(OPTIONS));
    let Ok(view) = CommandView::parse(bytes) else {
        assert_eq!(apply(&mut one, 1, bytes, is_moved), None);
        assert_eq!(one.applied_index(), 0, "a refused entry changes nothing");
        return;
    };
    let (parts, again) = (apply(&mut one, 1, bytes, is_moved), apply(&mut other, 1, bytes, false));
    assert!(parts.is_some());
    assert_eq!(parts, again);
    if let CommandBody::Batches(batches) = &view.body {
        assert_eq!(parts.map(|p| p.len()), Some(batches.len()));
    }
    let tick = encode_tick(one.stamp_ms().saturating_add(400 * DAY_MS));
    assert_eq!(apply(&mut one, 2, &tick, false), apply(&mut other, 2, &tick, true));
    assert_eq!(one.checksum(), other.checksum());
}

fn one_batch(bytes: &AlignedVec<16>, around: &Around) {
    let Around { is_moved, is_saved, stamp_ms, .. } = *around;
    let checked = batch::check(bytes);
    let (mut state, mut replica) = (ShardState::new(OPTIONS), ShardState::new(OPTIONS));
    for shard in [&mut state, &mut replica] {
        assert!(apply(shard, 1, &encode_configure(stamp_ms.min(STAMP_MS), &around.settings), false).is_some());
    }
    let entry = encode_batches(stamp_ms, &[bytes.as_slice()]);
    let applied = apply(&mut state, 2, &entry, is_moved).and_then(|mut parts| parts.pop()).unwrap_or_default();
    let Ok(batch) = checked else {
        // Which of its faults is met first is of no matter.
        assert!(
            matches!(applied.error, Some(PartError::Malformed(_) | PartError::Time { .. } | PartError::StaleDefinitions { .. })),
            "{:?} was refused by the check",
            applied.error
        );
        assert_eq!((state.counters().events, state.counters().refused_parts), (0, 1));
        return;
    };
    walk(batch);
    let Ok(plain) = rkyv::deserialize::<ShardBatch, rkyv::rancor::Error>(batch) else { panic!("checked bytes deserialize") };
    // A replica that got the same columns in other bytes.
    let entry = encode_batches(stamp_ms, &[plain.encode()]);
    let of_replica = apply(&mut replica, 2, &entry, !is_moved).and_then(|mut parts| parts.pop()).unwrap_or_default();
    assert_eq!(applied, of_replica);
    assert_eq!(state.checksum(), replica.checksum());

    if plain.definitions_version < around.settings.definitions_version {
        assert!(matches!(applied.error, Some(PartError::StaleDefinitions { .. })), "{applied:?}");
        return;
    }
    let Some(expected) = model::count(&plain) else {
        assert!(matches!(applied.error, Some(PartError::Time { .. })), "a time that no event can have: {applied:?}");
        return;
    };
    assert_eq!(applied.error, None);
    let is_kept = around.settings.retention_minute_ms.is_none();
    model::check(&expected, &applied, &state);
    if is_kept {
        model::check_answers(&expected, &state, around.settings.cardinality.is_none());
    }
    if is_saved {
        let files = ShardFiles::open(Arc::new(SimDisk::new()), "/shard").unwrap_or_else(|e| panic!("{e}"));
        let saved = state.save_plan().write(&files, b"meta").unwrap_or_else(|e| panic!("{e}"));
        state.mark_saved(&saved);
        let reopened = ShardState::open(&files, OPTIONS).unwrap_or_else(|e| panic!("{e}"));
        state = reopened.map_or_else(|| panic!("a snapshot was written"), |(state, _)| state);
        assert_eq!(state.checksum(), replica.checksum(), "after a snapshot");
    }
    let again = apply(&mut state, 3, &entry, is_moved).and_then(|mut parts| parts.pop()).unwrap_or_default();
    assert_eq!((again.counted, again.duplicates as usize), (0, plain.len()), "the same events again");
    apply(&mut replica, 3, &entry, false);
    settle(&mut state, &mut replica);
    assert_eq!(state.checksum(), replica.checksum(), "at rest");
    if is_kept {
        model::check_answers(&expected, &state, around.settings.cardinality.is_none());
    }
}

/// Everything that an apply reads.
fn walk(batch: &ArchivedShardBatch) {
    for row in 0..batch.keys.len() {
        let key = KeyView::parse(batch.key(batch.keys[row].to_native() as usize));
        assert!(key.is_some_and(|key| key.dimensions().count() <= batch.key_bytes.len()));
        let _ = (batch.times[row], batch.ids[row], batch.users[row], batch.sessions[row]);
        assert!(!batch.values[row].to_native().is_infinite());
    }
    for row in 0..batch.derived_keys.len() {
        assert!((batch.derived_events[row].to_native() as usize) < batch.keys.len());
        let _ = (batch.key(batch.derived_keys[row].to_native() as usize), batch.derived_values[row]);
    }
    for index in 0..batch.key_hashes.len() {
        assert!(KeyView::parse(batch.key(index)).is_some());
    }
}

/// The same ticks for both until neither has anything left to seal, fold or compact. One that was opened from a snapshot looks once more.
fn settle(one: &mut ShardState, other: &mut ShardState) {
    for _ in 0..TICKS_MAX {
        let Some(due_ms) = [one.due_ms(), other.due_ms()].into_iter().flatten().min() else { return };
        let tick = encode_tick(due_ms.max(one.stamp_ms()));
        let index = one.applied_index() + 1;
        assert!(apply(one, index, &tick, false).is_some() && apply(other, index, &tick, true).is_some());
    }
    panic!("still something due after {TICKS_MAX} ticks: {:?}, {:?}", one.due_ms(), other.due_ms());
}
